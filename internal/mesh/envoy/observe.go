package envoy

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

// Counters reads what the proof of path needs, and nothing else. A hop is
// from the proxies of its callers, C, to the proxies of a service, S:
//
//   - requests at C: http.to-S.downstream_rq_total (the admin endpoint counts
//     under a prefix of its own);
//   - attempts of C: cluster.to-S.upstream_rq_total, which Envoy counts when
//     a request is given to a connection that is ready; what failed before
//     (no connection, circuit breaker) is not in it;
//   - requests at S: http.inbound.downstream_rq_total;
//   - handshakes: listener.inbound.ssl.handshake, those that the server's side
//     completed. (In TLS 1.3 the client's side is done before the server has
//     verified the client's certificate, so its count could hold refused ones.)
//   - plaintext: http.inbound.downstream_cx_total less its
//     downstream_cx_ssl_total. Envoy counts both at the same moment, when the
//     HTTP layer gets a connection, so that no probe and no half-done
//     handshake falls between them.
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	combined, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	modes := writer{Request: r, policies: map[string]mesh.ServicePolicy{}}
	for _, p := range combined {
		modes.policies[p.Service] = p
	}
	var out []mesh.Hop
	for _, e := range mesh.Edges(r.Services) {
		h := mesh.Hop{From: e.Name(), To: e.To, Secure: modes.mode(e.To) != meshbench.MTLSOff}
		for _, p := range proxies(r) {
			if p.service == e.To {
				if err := d.received(ctx, access, p.name, &h.Counters); err != nil {
					return nil, err
				}
			}
			if slices.Contains(p.calls, e.To) {
				if err := d.sent(ctx, access, p.name, e.To, &h.Counters); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// sent adds what a caller's proxy counted.
func (d Driver) sent(ctx context.Context, access mesh.Access, proxy, to string, c *mesh.Counters) error {
	received, attempts := "http."+Outbound(to)+".downstream_rq_total", "cluster."+Outbound(to)+".upstream_rq_total"
	s, err := d.read(ctx, access, proxy, "^("+regexp.QuoteMeta(received)+"|"+regexp.QuoteMeta(attempts)+")$")
	if err != nil {
		return err
	}
	for name, into := range map[string]*uint64{received: &c.ClientReceived, attempts: &c.ClientAttempts} {
		n, err := s.Need(proxy, name)
		if err != nil {
			return err
		}
		*into += n
	}
	return nil
}

// received adds what a server's proxy counted.
func (d Driver) received(ctx context.Context, access mesh.Access, proxy string, c *mesh.Counters) error {
	s, err := d.read(ctx, access, proxy, `^(http\.inbound\.downstream_(rq_total|cx_total|cx_ssl_total)|listener\.inbound\.ssl\.handshake)$`)
	if err != nil {
		return err
	}
	var requests, connections, secured uint64
	for name, into := range map[string]*uint64{
		"http.inbound.downstream_rq_total": &requests, "http.inbound.downstream_cx_total": &connections, "http.inbound.downstream_cx_ssl_total": &secured,
	} {
		if *into, err = s.Need(proxy, name); err != nil {
			return err
		}
	}
	c.ServerReceived += requests
	// Without TLS there is no counter of handshakes: that is an answer.
	c.Handshakes += s["listener.inbound.ssl.handshake"]
	if connections > secured {
		c.Plaintext += connections - secured
	}
	return nil
}

// admin is the administration endpoint of a proxy.
func (d Driver) admin(access mesh.Access, proxy string) (envoyadmin.Client, error) {
	address, err := access.Address(proxy, adminPort)
	return envoyadmin.Client{Proxy: proxy, Address: address, HTTP: d.http}, err
}

func (d Driver) read(ctx context.Context, access mesh.Access, proxy, filter string) (envoyadmin.Stats, error) {
	a, err := d.admin(access, proxy)
	if err != nil {
		return nil, err
	}
	return a.Stats(ctx, filter)
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads versions, statistics and the configuration in force of the
// pair that load enters by: the generator's proxy and that of the first
// service's first instance. Where the two differ, a value names both sides.
//
//	version           as the program says
//	threads           workers that run
//	mtls              strict: there were handshakes, no connection without one,
//	                  and both ends verify the other's SPIFFE name
//	tls_version, tls_group, tls_cipher   of the handshakes that there were
//	tls_group_choice  profile: the configuration names the groups; product: it does not
//	upstream_http     what the client proxy speaks with the server proxy
//	access_log, tracing  on or off
//	rbac              on: the server proxy has decided on requests by rules
func (d Driver) Settings(ctx context.Context, access mesh.Access, r mesh.Request) ([]meshbench.Setting, error) {
	if len(r.Services) == 0 {
		return nil, meshbench.Errorf(meshbench.Invalid, "there is no service to look at")
	}
	to := r.Services[0].Name
	serverProxy := ServerProxy(to, 0)
	client, err := d.observe(ctx, access, ClientProxy, Outbound(to), "cluster.")
	if err != nil {
		return nil, err
	}
	server, err := d.observe(ctx, access, serverProxy, inbound, "listener.")
	if err != nil {
		return nil, err
	}
	var counters mesh.Counters
	if err := d.received(ctx, access, serverProxy, &counters); err != nil {
		return nil, err
	}
	var out []meshbench.Setting
	both := func(name string, value func(observation) string) {
		c, s := value(client), value(server)
		if c != s {
			c = "client " + c + ", server " + s
		}
		out = append(out, meshbench.Setting{Name: name, Value: c})
	}
	both("version", func(o observation) string { return o.version })
	both("threads", func(o observation) string { return strconv.FormatUint(o.stats["server.concurrency"], 10) })
	out = append(out, meshbench.Setting{Name: "mtls", Value: mutual(client, server, counters)})
	both("tls_version", func(o observation) string { return o.seen("ssl.versions.") })
	both("tls_group", func(o observation) string { return o.seen("ssl.curves.") })
	both("tls_group_choice", func(o observation) string {
		if len(o.config.Groups) > 0 {
			return "profile"
		}
		return "product"
	})
	both("tls_cipher", func(o observation) string { return o.seen("ssl.ciphers.") })
	out = append(out, meshbench.Setting{Name: "upstream_http", Value: client.spoken()})
	both("access_log", func(o observation) string { return onOff(o.config.AccessLog) })
	both("tracing", func(o observation) string { return onOff(o.config.Tracing) })
	out = append(out, meshbench.Setting{Name: "rbac", Value: onOff(server.stats["http.inbound.rbac.allowed"]+server.stats["http.inbound.rbac.denied"] > 0)})
	return out, nil
}

// mutual says whether the connections between the proxies were mutual TLS.
func mutual(client, server observation, c mesh.Counters) string {
	switch {
	case c.Handshakes == 0 && c.Plaintext == 0:
		return notSeen
	case c.Plaintext > 0 && c.Handshakes == 0:
		return "off"
	case server.config.Permissive && server.config.RequiresCertificate && server.config.VerifiesNames && client.config.VerifiesNames:
		return "permissive"
	case c.Plaintext > 0 || server.stats[server.prefix+"ssl.no_certificate"] > 0,
		!server.config.RequiresCertificate, !server.config.VerifiesNames, !client.config.VerifiesNames,
		server.config.TLSChains < server.config.Chains:
		return "partly"
	}
	return "strict"
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// observation is what one proxy shows of itself.
type observation struct {
	prefix  string // of the statistics about TLS between the proxies
	version string
	stats   envoyadmin.Stats
	config  envoyadmin.Facts
}

// observe looks at a proxy's listener of a name, where kind is "cluster." at
// its cluster too, and at the statistics about TLS of that kind.
func (d Driver) observe(ctx context.Context, access mesh.Access, proxy, name, kind string) (observation, error) {
	o := observation{prefix: kind + name + "."}
	a, err := d.admin(access, proxy)
	if err != nil {
		return o, err
	}
	info, err := a.OK(ctx, "/server_info")
	if err != nil {
		return o, err
	}
	if o.version, err = envoyadmin.ParseVersion(info); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: %w", proxy, err)
	}
	if o.stats, err = a.Stats(ctx, `^(server\.concurrency|http\.inbound\.rbac\.(allowed|denied)|`+
		regexp.QuoteMeta(o.prefix)+`(ssl\.(versions|curves|ciphers|no_certificate)|upstream_cx_http).*)$`); err != nil {
		return o, err
	}
	dumps := []string{"dynamic_listeners"}
	if kind == "cluster." {
		dumps = append(dumps, "dynamic_active_clusters")
	}
	for _, what := range dumps {
		body, err := a.Config(ctx, what, "^"+regexp.QuoteMeta(name)+"$")
		if err != nil {
			return o, err
		}
		if err := o.config.Read(body); err != nil {
			return o, meshbench.Errorf(meshbench.Internal, "%s: the configuration cannot be read: %w", proxy, err)
		}
	}
	return o, nil
}

// seen lists what has counted below a prefix.
func (o observation) seen(prefix string) string {
	return cmp.Or(o.stats.Counted(o.prefix+prefix), notSeen)
}

// spoken is the version of HTTP between the proxies.
func (o observation) spoken() string { return cmp.Or(o.stats.Spoken(o.prefix), notSeen) }
