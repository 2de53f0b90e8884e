package envoy

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Counters reads what the proof of path needs, and nothing else:
//
//   - requests at the client proxy: http.entry.downstream_rq_total (the admin
//     endpoint counts under a prefix of its own);
//   - its attempts: cluster.service.upstream_rq_total, which Envoy counts when
//     a request is given to a connection that is ready; what failed before
//     (no connection, circuit breaker) is not in it;
//   - requests at the server proxy: http.inbound.downstream_rq_total;
//   - handshakes: listener.inbound.ssl.handshake, those that the server's side
//     completed. (In TLS 1.3 the client's side is done before the server has
//     verified the client's certificate, so its count could hold refused ones.)
//   - plaintext: http.inbound.downstream_cx_total less its
//     downstream_cx_ssl_total. Envoy counts both at the same moment, when the
//     HTTP layer gets a connection, so that no probe and no half-done
//     handshake falls between them.
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	c, err := d.counters(ctx, access)
	if err != nil {
		return nil, err
	}
	return []mesh.Hop{{From: mesh.Client, To: r.Services[0].Name, Secure: true, Counters: c}}, nil
}

func (d Driver) counters(ctx context.Context, access mesh.Access) (mesh.Counters, error) {
	var c mesh.Counters
	client, err := d.read(ctx, access, ClientProxy, `^(http\.entry\.downstream_rq_total|cluster\.service\.upstream_rq_total)$`)
	if err != nil {
		return c, err
	}
	server, err := d.read(ctx, access, ServerProxy,
		`^(http\.inbound\.downstream_(rq_total|cx_total|cx_ssl_total)|listener\.inbound\.ssl\.handshake)$`)
	if err != nil {
		return c, err
	}
	var connections, secured uint64
	for _, n := range []struct {
		proxy string
		stats stats
		name  string
		into  *uint64
		// Without TLS there is no counter of handshakes: that is an answer.
		optional bool
	}{
		{ClientProxy, client, "http.entry.downstream_rq_total", &c.ClientReceived, false},
		{ClientProxy, client, "cluster.service.upstream_rq_total", &c.ClientAttempts, false},
		{ServerProxy, server, "http.inbound.downstream_rq_total", &c.ServerReceived, false},
		{ServerProxy, server, "http.inbound.downstream_cx_total", &connections, false},
		{ServerProxy, server, "http.inbound.downstream_cx_ssl_total", &secured, false},
		{ServerProxy, server, "listener.inbound.ssl.handshake", &c.Handshakes, true},
	} {
		v, err := n.stats.need(n.proxy, n.name)
		if err != nil && !n.optional {
			return mesh.Counters{}, err
		}
		*n.into = v
	}
	if connections > secured {
		c.Plaintext = connections - secured
	}
	return c, nil
}

func (d Driver) read(ctx context.Context, access mesh.Access, proxy, filter string) (stats, error) {
	a, err := d.admin(access, proxy)
	if err != nil {
		return nil, err
	}
	return a.stats(ctx, filter)
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads versions, statistics and the configuration in force of both
// proxies. Where the two differ, a value names both sides.
//
//	version           as the program says
//	threads           workers that run
//	mtls              strict: there were handshakes, no connection without one,
//	                  and both ends verify the other's SPIFFE name
//	tls_version, tls_group, tls_cipher   of the handshakes that there were
//	tls_group_choice  profile: the configuration names the groups; product: it does not
//	upstream_http     what the client proxy speaks with the server proxy
//	access_log, tracing  on or off
func (d Driver) Settings(ctx context.Context, access mesh.Access, _ mesh.Request) ([]meshbench.Setting, error) {
	client, err := d.observe(ctx, access, ClientProxy, "cluster.service.", "dynamic_active_clusters")
	if err != nil {
		return nil, err
	}
	server, err := d.observe(ctx, access, ServerProxy, "listener.inbound.", "")
	if err != nil {
		return nil, err
	}
	counters, err := d.counters(ctx, access)
	if err != nil {
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
		if len(o.config.groups) > 0 {
			return "profile"
		}
		return "product"
	})
	both("tls_cipher", func(o observation) string { return o.seen("ssl.ciphers.") })
	out = append(out, meshbench.Setting{Name: "upstream_http", Value: client.spoken()})
	both("access_log", func(o observation) string { return onOff(o.config.accessLog) })
	both("tracing", func(o observation) string { return onOff(o.config.tracing) })
	return out, nil
}

// mutual says whether the connections between the proxies were mutual TLS.
func mutual(client, server observation, c mesh.Counters) string {
	switch {
	case c.Handshakes == 0 && c.Plaintext == 0:
		return notSeen
	case c.Plaintext > 0 && c.Handshakes == 0:
		return "off"
	case c.Plaintext > 0 || server.stats[server.prefix+"ssl.no_certificate"] > 0,
		!server.config.requiresCertificate, !server.config.verifiesNames, !client.config.verifiesNames,
		server.config.tlsSocket < server.config.listeners:
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
	stats   stats
	config  configFacts
}

func (d Driver) observe(ctx context.Context, access mesh.Access, proxy, prefix, clusters string) (observation, error) {
	o := observation{prefix: prefix}
	a, err := d.admin(access, proxy)
	if err != nil {
		return o, err
	}
	info, err := a.ok(ctx, "/server_info")
	if err != nil {
		return o, err
	}
	if o.version, err = parseVersion(info); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: %w", proxy, err)
	}
	quoted := strings.ReplaceAll(prefix, ".", `\.`)
	if o.stats, err = a.stats(ctx, `^(server\.concurrency|`+quoted+`(ssl\.(versions|curves|ciphers|no_certificate)|upstream_cx_http).*)$`); err != nil {
		return o, err
	}
	dump := "/config_dump?resource=dynamic_listeners"
	body, err := a.ok(ctx, dump)
	if err != nil {
		return o, err
	}
	if o.config, err = parseConfigDump(body); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: the configuration cannot be read: %w", proxy, err)
	}
	if clusters == "" {
		return o, nil
	}
	if body, err = a.ok(ctx, "/config_dump?resource="+clusters); err != nil {
		return o, err
	}
	more, err := parseConfigDump(body)
	if err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: the configuration cannot be read: %w", proxy, err)
	}
	o.config.groups = append(o.config.groups, more.groups...)
	o.config.verifiesNames = o.config.verifiesNames || more.verifiesNames
	return o, nil
}

// seen lists the ends of the names below a prefix that have counted.
func (o observation) seen(prefix string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(o.stats)) {
		if word, ok := strings.CutPrefix(name, o.prefix+prefix); ok && o.stats[name] > 0 {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return notSeen
	}
	return strings.Join(words, ", ")
}

// spoken is the version of HTTP on the connections to the cluster.
func (o observation) spoken() string {
	var words []string
	for _, v := range []struct{ counter, word string }{
		{"upstream_cx_http1_total", "HTTP/1.1"}, {"upstream_cx_http2_total", "HTTP/2"}, {"upstream_cx_http3_total", "HTTP/3"},
	} {
		if o.stats[o.prefix+v.counter] > 0 {
			words = append(words, v.word)
		}
	}
	if len(words) == 0 {
		return notSeen
	}
	return strings.Join(words, ", ")
}
