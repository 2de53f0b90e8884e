package linkerd

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Counters reads what the proof of path needs, hop by hop:
//
//   - attempts of the callers' proxies: request_total{direction="outbound"},
//     which Linkerd counts for each endpoint that it sends a request to;
//   - requests at the callers' proxies: the attempts, less those that were
//     retries (outbound_http_route_retry_requests_total). A request that found
//     no endpoint is in neither;
//   - requests at the service's proxies: those let in and those denied
//     (inbound_http_authz_allow_total, inbound_http_authz_deny_total);
//   - handshakes: connections that were taken in with mutual TLS
//     (tcp_open_total{direction="inbound", peer="src", tls="true"});
//   - plaintext: requests let in without. Linkerd judges plain text by the
//     request, so a connection that was refused is not in it.
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	policies, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	secure := map[string]bool{}
	for _, p := range policies {
		secure[p.Service] = mode(r, p) != meshbench.MTLSOff
	}
	all := proxies(r)
	read := map[string]samples{}
	for _, p := range all {
		if read[p.process], err = d.metrics(ctx, access, p.process); err != nil {
			return nil, err
		}
	}
	var out []mesh.Hop
	for _, e := range mesh.Edges(r.Services) {
		h := mesh.Hop{From: e.Name(), To: e.To, Secure: secure[e.To]}
		for _, p := range all {
			s := read[p.process]
			if slices.Contains(e.From, p.service) {
				sent := s.sum("request_total", map[string]string{"direction": "outbound", "dst_service": e.To})
				again := s.sum("outbound_http_route_retry_requests_total", map[string]string{"parent_name": e.To})
				h.ClientAttempts += sent
				h.ClientReceived += sent - min(again, sent)
			}
			if p.service == e.To {
				const allowed, denied = "inbound_http_authz_allow_total", "inbound_http_authz_deny_total"
				all := s.sum(allowed, map[string]string{"srv_name": e.To})
				h.ServerReceived += all + s.sum(denied, map[string]string{"srv_name": e.To})
				h.Plaintext += all - s.sum(allowed, map[string]string{"srv_name": e.To, "tls": "true"})
				h.Handshakes += s.sum("tcp_open_total", map[string]string{"direction": "inbound", "peer": "src", "srv_name": e.To, "tls": "true"})
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads what the proxies say of themselves. Where they differ, a
// value names them all.
//
//	version        of the program (proxy_build_info)
//	threads        LINKERD2_PROXY_CORES as the proxy has it; else its own
//	mtls           by what was counted: strict, partly, off
//	tls_group_choice  product: Linkerd has no setting for it
//	upstream_http  HTTP/2 where the endpoints are told to take HTTP/1 inside of it
//	access_log, tracing  on or off
func (d Driver) Settings(ctx context.Context, access mesh.Access, r mesh.Request) ([]meshbench.Setting, error) {
	type observation struct{ version, threads, accessLog, tracing, groups string }
	var seen []observation
	all := proxies(r)
	for _, p := range all {
		s, err := d.metrics(ctx, access, p.process)
		if err != nil {
			return nil, err
		}
		env, err := d.environ(ctx, access, p.process)
		if err != nil {
			return nil, err
		}
		o := observation{
			version:   cmp.Or(strings.TrimPrefix(strings.TrimPrefix(s.first("proxy_build_info")["version"], "v"), "release/v"), notSeen),
			threads:   cmp.Or(env["LINKERD2_PROXY_CORES"], "the proxy's own choice"),
			accessLog: onOff(env["LINKERD2_PROXY_ACCESS_LOG"] != ""),
			tracing:   onOff(env["LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR"] != ""),
			groups:    cmp.Or(s.first("rustls_info")["tls_kx_groups"], notSeen),
		}
		seen = append(seen, o)
	}
	hops, err := d.Counters(ctx, access, r)
	if err != nil {
		return nil, err
	}
	each := func(value func(observation) string) string {
		first := value(seen[0])
		if !slices.ContainsFunc(seen, func(o observation) bool { return value(o) != first }) {
			return first
		}
		var words []string
		for i, o := range seen {
			words = append(words, all[i].process+" "+value(o))
		}
		return strings.Join(words, ", ")
	}
	policies, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	spoken := "HTTP/2"
	if slices.ContainsFunc(policies, func(p mesh.ServicePolicy) bool { return mode(r, p) == meshbench.MTLSOff }) {
		spoken = "as the client's"
	}
	return []meshbench.Setting{
		{Name: "version", Value: each(func(o observation) string { return o.version })},
		{Name: "threads", Value: each(func(o observation) string { return o.threads })},
		{Name: "mtls", Value: mutual(hops)},
		{Name: "tls_groups", Value: each(func(o observation) string { return o.groups })},
		{Name: "tls_group_choice", Value: "product"},
		{Name: "upstream_http", Value: spoken},
		{Name: "access_log", Value: each(func(o observation) string { return o.accessLog })},
		{Name: "tracing", Value: each(func(o observation) string { return o.tracing })},
	}, nil
}

// mutual says whether what came in was mutual TLS.
func mutual(hops []mesh.Hop) string {
	var secured, plain uint64
	for _, h := range hops {
		secured += h.Handshakes
		plain += h.Plaintext
	}
	switch {
	case secured == 0 && plain == 0:
		return notSeen
	case secured == 0:
		return string(meshbench.MTLSOff)
	case plain > 0:
		return "partly"
	}
	return string(meshbench.MTLSStrict)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
