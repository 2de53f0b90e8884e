package envoy

import (
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

func options() []mesh.Option {
	return []mesh.Option{
		{Name: "mtls", Values: []string{"strict", "off"}, Summary: "strict: both proxies prove who they are, and nothing else is let in; off: they speak plain text"},
		{Name: "upstream", Values: []string{"http1", "http2"}, Summary: "what the proxies speak with each other: HTTP/1.1 or HTTP/2"},
		{Name: "access_log", Values: []string{"off", "on"}, Summary: "each proxy writes a line per request to its standard output"},
		{Name: "rbac", Values: []string{"off", "on"}, Summary: "each server's proxy lets the workloads of the deployment in by a rule (needs mtls=strict)"},
	}
}

// option is what a subject says, or else the default.
func option(s meshbench.Subject, name string) string {
	if v, ok := s.Options[name]; ok {
		return v
	}
	list := options()
	return list[slices.IndexFunc(list, func(o mesh.Option) bool { return o.Name == name })].Values[0]
}

// check finds what cannot be rendered.
func check(d Driver, r mesh.Request) error {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return err
	}
	if option(r.Subject, "rbac") == "on" && option(r.Subject, "mtls") == "off" {
		return meshbench.Errorf(meshbench.Invalid, "subject %s: without mutual TLS nobody can be told from anybody", r.Subject).
			WithHint("leave rbac=on or mtls=off out")
	}
	return nil
}

// capabilities are all kinds of policies, and where Envoy's way of doing them
// shows.
func capabilities() []mesh.Capability {
	const manual = "https://www.envoyproxy.io/docs/envoy/v1.40.0/"
	note := map[meshbench.PolicyKind]struct{ note, source string }{
		meshbench.PolicyMTLS:             {"a change of mode takes a second, in which the service's proxies drain their connections; where clients begin with TLS, some requests can get 503", manual + "intro/arch_overview/security/ssl"},
		meshbench.PolicyAuthorization:    {"at the server's proxy, 403; a path that is not in its normal form (//, dot segments, encoded letters) fits every denial that names paths, and no permission", manual + "configuration/http/http_filters/rbac_filter"},
		meshbench.PolicyTimeout:          {"at the client's proxy, 504; a delay that a fault injects does not count", manual + "api-v3/config/route/v3/route_components.proto"},
		meshbench.PolicyRetry:            {"at the client's proxy, at another instance where there is one, after a pause of up to 25 ms that grows; an abort that a fault injects is not retried; a server's proxy tells by the header Proxy-Status that its application could not be reached or ended the connection", manual + "configuration/http/http_filters/router_filter"},
		meshbench.PolicyFault:            {"at the client's proxy, before the request is forwarded", manual + "configuration/http/http_filters/fault_filter"},
		meshbench.PolicySplit:            {"at random by weight, request by request", manual + "configuration/http/http_conn_man/traffic_splitting"},
		meshbench.PolicyMirror:           {"at the client's proxy; the copy is not waited for", manual + "api-v3/config/route/v3/route_components.proto"},
		meshbench.PolicyHeaders:          {"at the client's proxy; a header that is also removed is not set at all", manual + "configuration/http/http_conn_man/headers"},
		meshbench.PolicyRateLimit:        {"at the server's proxy, a bucket of that many tokens that is filled anew each period, which must be at least 50ms", manual + "configuration/http/http_filters/local_rate_limit_filter"},
		meshbench.PolicyCircuitBreaker:   {"at the client's proxy, 503; limits can be overshot for a moment, since its threads look at them one by one", manual + "intro/arch_overview/upstream/circuit_breaking"},
		meshbench.PolicyOutlierDetection: {"at the client's proxy, each by what it has seen itself", manual + "intro/arch_overview/upstream/outlier"},
	}
	var out []mesh.Capability
	for _, k := range meshbench.PolicyKinds() {
		out = append(out, mesh.Capability{Policy: k, Supported: true, Note: note[k].note, Source: note[k].source})
	}
	return out
}
