package istio

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

// Counters reads what the proof of path needs. A hop is from the proxies of
// all callers of a service, C, to the proxies of its instances, S. Where IP
// and PORT are those of a listener:
//
//   - requests at C: http.outbound_IP_PORT;.downstream_rq_total;
//   - attempts of C: cluster.outbound|PORT||HOST;.upstream_rq_total over all
//     ports, which Envoy counts when a request is given to a connection that is
//     ready;
//   - requests at S: http.inbound_IP_PORT;.downstream_rq_total;
//   - handshakes: listener.IP_PORT.ssl.handshake of S;
//   - plaintext: http.inbound_IP_PORT;.downstream_cx_total less its
//     downstream_cx_ssl_total, which Envoy counts at the same moment.
//
// (Istio ends the names that it gives with a semicolon.)
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	combined, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	modes := map[string]meshbench.MTLSMode{}
	for _, p := range combined {
		modes[p.Service] = modeOf(r, p)
	}
	read := map[string]envoyadmin.Stats{}
	for _, p := range proxies(r) {
		a, err := d.admin(access, p.process)
		if err != nil {
			return nil, err
		}
		if read[p.process], err = a.Stats(ctx, `^(http\.(in|out)bound_.*\.downstream_(rq|cx|cx_ssl)_total|cluster\.outbound\|.*\.upstream_rq_total|listener\..*\.ssl\.handshake)$`); err != nil {
			return nil, err
		}
	}
	var out []mesh.Hop
	for _, e := range mesh.Edges(r.Services) {
		h := mesh.Hop{From: e.Name(), To: e.To, Secure: modes[e.To] != meshbench.MTLSOff}
		for _, p := range proxies(r) {
			if slices.Contains(p.calls, e.To) {
				if err := sent(access, p, e.To, read[p.process], &h.Counters); err != nil {
					return nil, err
				}
			}
			if p.owner == e.To && p.app != nil {
				if err := received(access, p, read[p.process], &h.Counters); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// sent adds what a caller's proxy counted.
func sent(access mesh.Access, p proxy, to string, s envoyadmin.Stats, c *mesh.Counters) error {
	at, err := statName(access, p, outbound(to))
	if err != nil {
		return err
	}
	n, err := s.Need(p.process, "http.outbound_"+at+";.downstream_rq_total")
	if err != nil {
		return err
	}
	c.ClientReceived += n
	// A cluster that no request was given to has no counter yet.
	for name, n := range s {
		if rest, ok := cutCluster(name, to); ok && rest == "upstream_rq_total" {
			c.ClientAttempts += n
		}
	}
	return nil
}

// received adds what a server's proxy counted.
func received(access mesh.Access, p proxy, s envoyadmin.Stats, c *mesh.Counters) error {
	at, err := statName(access, p, "inbound")
	if err != nil {
		return err
	}
	var requests, connections, secured uint64
	for name, into := range map[string]*uint64{"rq_total": &requests, "cx_total": &connections, "cx_ssl_total": &secured} {
		if *into, err = s.Need(p.process, "http.inbound_"+at+";.downstream_"+name); err != nil {
			return err
		}
	}
	c.ServerReceived += requests
	// Without TLS there is no counter of handshakes: that is an answer.
	c.Handshakes += s["listener."+at+".ssl.handshake"]
	if connections > secured {
		c.Plaintext += connections - secured
	}
	return nil
}

// statName is how a listener is called in the names of statistics.
func statName(access mesh.Access, p proxy, port string) (string, error) {
	ip, number, err := listener(access, p, port)
	return ip + "_" + strconv.Itoa(number), err
}

// cutCluster returns what a statistic of a service's clusters is about:
// "upstream_rq_total" of "cluster.outbound|80||echo.mesh.local;.upstream_rq_total".
func cutCluster(name, service string) (rest string, ok bool) {
	if !strings.HasPrefix(name, "cluster.outbound|") {
		return "", false
	}
	_, rest, ok = strings.Cut(name, "||"+host(service)+";.")
	return rest, ok
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads versions, statistics and the configuration in force of the
// pair that load enters by: the generator's proxy and that of the first
// service's first instance. Where the two differ, a value names both sides.
//
//	version           of Istio, as both agents say; control_plane as istiod says
//	envoy             the version of the Envoys
//	threads           workers that run
//	mtls              strict: there were handshakes, no connection without one,
//	                  and both ends verify the other's SPIFFE name
//	tls_version, tls_group, tls_cipher   of the handshakes that there were
//	tls_group_choice  profile: the configuration names the groups; product: it does not
//	upstream_http     what the client proxy speaks with the server proxy
//	access_log, tracing  on or off
//	agent             that pilot-agent is counted with its Envoy
func (d Driver) Settings(ctx context.Context, access mesh.Access, r mesh.Request) ([]meshbench.Setting, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return nil, err
	}
	service := r.Services[0].Name
	all := proxies(r)
	client, err := d.observe(ctx, access, all[len(all)-1], outbound(service), service)
	if err != nil {
		return nil, err
	}
	server, err := d.observe(ctx, access, all[0], "inbound", "")
	if err != nil {
		return nil, err
	}
	var counters mesh.Counters
	if err := received(access, all[0], server.stats, &counters); err != nil {
		return nil, err
	}
	controlPlane, err := d.istiodVersion(ctx, access)
	if err != nil {
		return nil, err
	}
	var out []meshbench.Setting
	one := func(name, value string) { out = append(out, meshbench.Setting{Name: name, Value: value}) }
	both := func(name string, value func(observation) string) {
		c, s := value(client), value(server)
		if c != s {
			c = "client " + c + ", server " + s
		}
		one(name, c)
	}
	both("version", func(o observation) string { return o.istio })
	one("control_plane", controlPlane)
	both("envoy", func(o observation) string { return o.envoy })
	both("threads", func(o observation) string { return strconv.FormatUint(o.stats["server.concurrency"], 10) })
	one("mtls", mutual(client.facts, server.facts, counters, server.unnamed))
	both("tls_version", func(o observation) string { return o.seen("ssl.versions.") })
	both("tls_group", func(o observation) string { return o.seen("ssl.curves.") })
	both("tls_group_choice", func(o observation) string {
		if len(o.facts.Groups) > 0 {
			return "profile"
		}
		return "product"
	})
	both("tls_cipher", func(o observation) string { return o.seen("ssl.ciphers.") })
	one("upstream_http", client.spoken())
	both("access_log", func(o observation) string { return onOff(o.facts.AccessLog) })
	both("tracing", func(o observation) string { return onOff(o.facts.Tracing) })
	one("agent", "counted with its Envoy")
	return out, nil
}

// mutual says whether the connections between the proxies were mutual TLS.
// unnamed are those that came without a client's certificate.
func mutual(client, server envoyadmin.Facts, c mesh.Counters, unnamed uint64) string {
	switch {
	case c.Handshakes == 0 && c.Plaintext == 0:
		return notSeen
	case c.Handshakes == 0:
		return "off"
	case unnamed > 0, !server.RequiresCertificate, !server.VerifiesNames, !client.VerifiesNames:
		return "partly"
	case server.Permissive:
		return "permissive"
	case c.Plaintext > 0, server.TLSChains < server.Chains:
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
	istio, envoy string
	stats        envoyadmin.Stats
	about        envoyadmin.Stats // statistics of the connections between the proxies, by the end of their names
	facts        envoyadmin.Facts
	unnamed      uint64
}

// observe looks at a proxy's listener and, where a service is named, at its
// clusters of that service.
func (d Driver) observe(ctx context.Context, access mesh.Access, p proxy, port, service string) (observation, error) {
	o := observation{about: envoyadmin.Stats{}}
	a, err := d.admin(access, p.process)
	if err != nil {
		return o, err
	}
	info, err := a.OK(ctx, "/server_info")
	if err != nil {
		return o, err
	}
	if o.envoy, err = envoyadmin.ParseVersion(info); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: %w", p.process, err)
	}
	var node struct {
		Node struct {
			Metadata struct {
				Version string `json:"ISTIO_VERSION"`
			} `json:"metadata"`
		} `json:"node"`
	}
	if err := json.Unmarshal(info, &node); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: %w", p.process, err)
	}
	if o.istio = node.Node.Metadata.Version; o.istio == "" {
		o.istio = "unknown"
	}
	at, err := statName(access, p, port)
	if err != nil {
		return o, err
	}
	if o.stats, err = a.Stats(ctx, `^(server\.concurrency|http\.inbound_.*\.downstream_(rq|cx|cx_ssl)_total|`+
		`cluster\.outbound\|.*\.(ssl\.(versions|curves|ciphers)\..*|upstream_cx_http[123]_total)|listener\..*\.ssl\..*)$`); err != nil {
		return o, err
	}
	for name, n := range o.stats {
		rest, ok := strings.CutPrefix(name, "listener."+at+".")
		if service != "" {
			rest, ok = cutCluster(name, service)
		}
		if ok {
			o.about[rest] += n
		}
	}
	o.unnamed = o.about["ssl.no_certificate"]
	kinds := map[string]string{"dynamic_listeners": "^" + regexp.QuoteMeta(at) + "$"}
	if service != "" {
		kinds["dynamic_active_clusters"] = `^outbound\|.*\|` + regexp.QuoteMeta(host(service)) + "$"
	}
	for kind, name := range kinds {
		dump, err := a.Config(ctx, kind, name)
		if err != nil {
			return o, err
		}
		if err := o.facts.Read(dump); err != nil {
			return o, meshbench.Errorf(meshbench.Internal, "%s: the configuration cannot be read: %w", p.process, err)
		}
	}
	return o, nil
}

// seen lists what has counted below a prefix.
func (o observation) seen(prefix string) string {
	return cmp.Or(o.about.Counted(prefix), notSeen)
}

// spoken is the version of HTTP between the proxies.
func (o observation) spoken() string { return cmp.Or(o.about.Spoken(""), notSeen) }

// istiodVersion is what istiod says of itself: "1.31.0" of
// "1.31.0-COMMIT-Clean".
func (d Driver) istiodVersion(ctx context.Context, access mesh.Access) (string, error) {
	text, err := d.askIstiod(ctx, access, "monitoring", "/version")
	version, _, _ := strings.Cut(strings.TrimSpace(string(text)), "-")
	return version, err
}

// askIstiod reads from one of istiod's own HTTP ports.
func (d Driver) askIstiod(ctx context.Context, access mesh.Access, port, path string) ([]byte, error) {
	address, err := local(access, Istiod, port)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "istiod does not answer: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "istiod broke off: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, meshbench.Errorf(meshbench.Unavailable, "istiod answers %s to %s", response.Status, path)
	}
	return text, nil
}
