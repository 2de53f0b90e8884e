package consul

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

// cluster is the name that Consul gives to a service in the callers' Envoys.
func cluster(service string) string {
	return service + ".default.dc1.internal." + trustDomain
}

// upstream is what the statistics of a caller's listener for a service begin
// with.
func upstream(service string) string { return "http.upstream." + service + ".default.default.dc1." }

// public is what the statistics of requests at a server's proxy begin with.
const public = "http.public_listener."

// inboundStats is what the statistics of a listener at an address begin with.
func inboundStats(address string) string {
	return "listener." + strings.ReplaceAll(address, ":", "_") + "."
}

// Counters reads, for each service that others call, what the proof of path
// needs:
//
//   - requests at the callers' proxies: downstream_rq_total of their listeners
//     for the service;
//   - attempts: cluster.SERVICE.upstream_rq_total of all proxies, which Envoy
//     counts when a request is given to a connection that is ready;
//   - requests at the service's proxies: http.public_listener.downstream_rq_total;
//   - handshakes: listener.ADDRESS.ssl.handshake there, those that the server's
//     side completed;
//   - plaintext: http.public_listener.downstream_cx_total less its
//     downstream_cx_ssl_total, which Envoy counts at the same moment.
//
// Built-in proxies count connections only: see countersBuiltin.
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return nil, err
	}
	if dataPlane(r.Subject) == builtinProxy {
		return d.countersBuiltin(ctx, access, r)
	}
	all := proxies(r)
	read := map[string]counted{}
	for _, p := range all {
		c, err := d.read(ctx, access, p)
		if err != nil {
			return nil, err
		}
		read[p.name] = c
	}
	var out []mesh.Hop
	for _, edge := range mesh.Edges(r.Services) {
		hop := mesh.Hop{From: edge.Name(), To: edge.To, Secure: true}
		for _, p := range all {
			c := read[p.name]
			if slices.Contains(edge.From, p.service) {
				n, err := c.stats.Need(p.name, upstream(edge.To)+"downstream_rq_total")
				if err != nil {
					return nil, err
				}
				hop.ClientReceived += n
			}
			hop.ClientAttempts += c.stats["cluster."+cluster(edge.To)+".upstream_rq_total"]
			if p.service != edge.To {
				continue
			}
			n, err := c.stats.Need(p.name, public+"downstream_rq_total")
			if err != nil {
				return nil, err
			}
			hop.ServerReceived += n
			hop.Handshakes += c.stats[c.inbound+"ssl.handshake"]
			if connections, secured := c.stats[public+"downstream_cx_total"], c.stats[public+"downstream_cx_ssl_total"]; connections > secured {
				hop.Plaintext += connections - secured
			}
		}
		out = append(out, hop)
	}
	return out, nil
}

// counted is what one proxy has counted.
type counted struct {
	stats   envoyadmin.Stats
	inbound string // what the statistics of its inbound listener begin with
}

func (d Driver) read(ctx context.Context, access mesh.Access, p proxy) (counted, error) {
	admin, err := d.admin(access, p.name)
	if err != nil {
		return counted{}, err
	}
	address, err := access.Address(p.name, inboundPort)
	if err != nil {
		return counted{}, err
	}
	c := counted{inbound: inboundStats(address)}
	c.stats, err = admin.Stats(ctx, `^(http\.upstream\..*\.downstream_rq_total|cluster\..*\.internal\..*\.upstream_rq_total|`+
		regexp.QuoteMeta(public)+`downstream_(rq_total|cx_total|cx_ssl_total)|`+regexp.QuoteMeta(c.inbound)+`ssl\.handshake)$`)
	return c, err
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads what agent and proxies show of the way that load enters by:
// the generator's proxy and the first one of the first service. Where the two
// differ, a value names both sides.
//
//	version           of Consul, as the agent says
//	proxy             envoy or builtin, with its version where it has one of its own
//	threads           workers that run
//	mtls              strict: there were handshakes, no connection without one, the
//	                  server requires a certificate and an intention for its name,
//	                  and the client verifies the server's name
//	tls_version, tls_group, tls_cipher   of the handshakes that there were
//	tls_group_choice  product: Consul cannot name the groups
//	upstream_http     what the client's proxy speaks with the server's
//	access_log, tracing  on or off
func (d Driver) Settings(ctx context.Context, access mesh.Access, r mesh.Request) ([]meshbench.Setting, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return nil, err
	}
	a, err := d.agent(access)
	if err != nil {
		return nil, err
	}
	var self struct {
		Config struct{ Version string }
	}
	if err := a.call(ctx, "GET", "/v1/agent/self", nil, &self); err != nil {
		return nil, err
	}
	out := []meshbench.Setting{{Name: "version", Value: self.Config.Version}}
	if dataPlane(r.Subject) == builtinProxy {
		more, err := d.settingsBuiltin(ctx, access, a, r)
		return append(out, more...), err
	}
	all := proxies(r)
	service := r.Services[0].Name
	client, err := d.observe(ctx, access, of(all, mesh.Client)[0], "cluster."+cluster(service)+".",
		resource{"dynamic_listeners", service + ":.*"}, resource{"dynamic_active_clusters", regexp.QuoteMeta(cluster(service))})
	if err != nil {
		return nil, err
	}
	first := of(all, service)[0]
	address, err := access.Address(first.name, inboundPort)
	if err != nil {
		return nil, err
	}
	server, err := d.observe(ctx, access, first, inboundStats(address), resource{"dynamic_listeners", "public_listener:.*"})
	if err != nil {
		return nil, err
	}
	hops, err := d.Counters(ctx, access, r)
	if err != nil {
		return nil, err
	}
	both := func(name string, value func(observation) string) {
		c, s := value(client), value(server)
		if c != s {
			c = "client " + c + ", server " + s
		}
		out = append(out, meshbench.Setting{Name: name, Value: c})
	}
	both("proxy", func(o observation) string { return "Envoy " + o.version })
	both("threads", func(o observation) string { return strconv.FormatUint(o.stats["server.concurrency"], 10) })
	out = append(out, meshbench.Setting{Name: "mtls", Value: mutual(client, server, hops[0].Counters)})
	both("tls_version", func(o observation) string { return o.seen("ssl.versions.") })
	both("tls_group", func(o observation) string { return o.seen("ssl.curves.") })
	out = append(out, meshbench.Setting{Name: "tls_group_choice", Value: "product"})
	both("tls_cipher", func(o observation) string { return o.seen("ssl.ciphers.") })
	out = append(out, meshbench.Setting{Name: "upstream_http", Value: client.spoken()})
	both("access_log", func(o observation) string { return onOff(o.facts.AccessLog) })
	both("tracing", func(o observation) string { return onOff(o.traces) })
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
		!server.facts.RequiresCertificate, !server.authorizes, !client.facts.VerifiesNames,
		server.facts.TLSChains < server.facts.Chains:
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
	prefix     string // of the statistics about TLS between the proxies
	version    string
	stats      envoyadmin.Stats
	facts      envoyadmin.Facts
	traces     bool // spans are sent to somebody
	authorizes bool // by the name in the client's certificate
}

func (d Driver) observe(ctx context.Context, access mesh.Access, p proxy, prefix string, resources ...resource) (observation, error) {
	o := observation{prefix: prefix}
	admin, err := d.admin(access, p.name)
	if err != nil {
		return o, err
	}
	info, err := admin.OK(ctx, "/server_info")
	if err != nil {
		return o, err
	}
	if o.version, err = envoyadmin.ParseVersion(info); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: %w", p.name, err)
	}
	if o.stats, err = admin.Stats(ctx, `^(server\.concurrency|`+regexp.QuoteMeta(prefix)+`(ssl\.(versions|curves|ciphers|no_certificate)|upstream_cx_http).*)$`); err != nil {
		return o, err
	}
	var all []json.RawMessage
	for _, r := range resources {
		elements, err := dump(ctx, admin, r)
		if err != nil {
			return o, err
		}
		for _, name := range slices.Sorted(maps.Keys(elements)) {
			all = append(all, elements[name])
		}
	}
	config, err := json.Marshal(all)
	if err != nil {
		return o, err
	}
	if err = o.facts.Read(config); err != nil {
		return o, meshbench.Errorf(meshbench.Internal, "%s: the configuration cannot be read: %w", p.name, err)
	}
	o.traces, o.authorizes, err = filters(config)
	return o, err
}

// filters finds, wherever they stand in a configuration, a provider of
// tracing (without one Consul's empty "tracing" sends nothing), and an
// authorization filter that names principals and allows nobody else.
func filters(config []byte) (traces, authorizes bool, err error) {
	var document any
	if err := json.Unmarshal(config, &document); err != nil {
		return false, false, err
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case object:
			if tracing, ok := v["tracing"].(object); ok && tracing["provider"] != nil {
				traces = true
			}
			if rules, ok := v["rules"].(object); ok {
				// ALLOW, the default, is left out of the JSON.
				action, _ := rules["action"].(string)
				policies, _ := rules["policies"].(object)
				authorizes = authorizes || (action == "" || action == "ALLOW") && len(policies) > 0
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(document)
	return traces, authorizes, nil
}

// seen lists what has counted below a prefix.
func (o observation) seen(prefix string) string {
	return cmp.Or(o.stats.Counted(o.prefix+prefix), notSeen)
}

// spoken is the version of HTTP between the proxies.
func (o observation) spoken() string { return cmp.Or(o.stats.Spoken(o.prefix), notSeen) }
