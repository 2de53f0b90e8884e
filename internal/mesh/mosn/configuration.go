package mosn

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// What profile parity sets and profile shipped leaves to MOSN.
const (
	parityCurve   = "X25519"
	parityTimeout = 60 * time.Second // MOSN's own is 60 s, too
)

// The names inside a proxy, which its statistics have too. Routers and
// listeners to a service are called as the port, clusters as the service.
const (
	applicationCluster = "application"
	inboundName        = "inbound"
)

// configuration is all that a proxy does, in the words of MOSN's own
// configuration (package mosn.io/mosn/pkg/config/v2).
type configuration struct {
	Clusters  []cluster  `json:"clusters"`
	Routers   []router   `json:"routers"`
	Listeners []listener `json:"listeners"`
}

type cluster struct {
	Name            string      `json:"name"`
	Type            string      `json:"type"`
	LoadBalancing   string      `json:"lb_type"`
	CircuitBreakers []threshold `json:"circuit_breakers,omitempty"`
	TLS             *tlsContext `json:"tls_context,omitempty"`
	Hosts           []host      `json:"hosts"`
}

type threshold struct {
	MaxConnections     int `json:"max_connections,omitempty"`
	MaxPendingRequests int `json:"max_pending_requests,omitempty"`
	MaxRequests        int `json:"max_requests,omitempty"`
}

type host struct {
	Address string `json:"address"`
}

type tlsContext struct {
	Status            bool              `json:"status"`
	Type              string            `json:"type,omitempty"`
	CACert            string            `json:"ca_cert"`
	CertChain         string            `json:"cert_chain"`
	PrivateKey        string            `json:"private_key"`
	VerifyClient      bool              `json:"verify_client,omitempty"`
	RequireClientCert bool              `json:"require_client_cert,omitempty"`
	Curves            string            `json:"ecdh_curves,omitempty"`
	ExtendVerify      map[string]string `json:"extend_verify,omitempty"`
}

type router struct {
	Name         string        `json:"router_config_name"`
	VirtualHosts []virtualHost `json:"virtual_hosts"`
}

type virtualHost struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains"`
	Routers []route  `json:"routers"`
}

type route struct {
	Match     match          `json:"match"`
	Route     action         `json:"route"`
	PerFilter map[string]any `json:"per_filter_config,omitempty"`
	Mirror    *mirror        `json:"request_mirror_policies,omitempty"`
}

type match struct {
	Prefix  string        `json:"prefix"`
	Headers []headerMatch `json:"headers,omitempty"`
}

type headerMatch struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type action struct {
	Cluster               string            `json:"cluster_name,omitempty"`
	WeightedClusters      []weightedCluster `json:"weighted_clusters,omitempty"`
	Timeout               string            `json:"timeout,omitempty"`
	Retry                 *retry            `json:"retry_policy,omitempty"`
	RequestHeaders        []headerChange    `json:"request_headers_to_add,omitempty"`
	RemoveRequestHeaders  []string          `json:"request_headers_to_remove,omitempty"`
	ResponseHeaders       []headerChange    `json:"response_headers_to_add,omitempty"`
	RemoveResponseHeaders []string          `json:"response_headers_to_remove,omitempty"`
}

type weightedCluster struct {
	Cluster clusterWeight `json:"cluster"`
}

type clusterWeight struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
}

type retry struct {
	On      bool   `json:"retry_on"`
	Timeout string `json:"retry_timeout,omitempty"` // of each attempt
	Number  int    `json:"num_retries"`
	Codes   []int  `json:"status_codes,omitempty"`
}

type headerChange struct {
	Header headerValue `json:"header"`
	Append bool        `json:"append"`
}

type headerValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type mirror struct {
	Cluster string `json:"cluster"`
	Percent int    `json:"percent"`
}

type listener struct {
	Name          string        `json:"name"`
	Address       string        `json:"address"`
	BindPort      bool          `json:"bind_port"`
	Inspector     bool          `json:"inspector,omitempty"` // looks whether a connection is TLS, and lets plain text in
	FilterChains  []filterChain `json:"filter_chains"`
	StreamFilters []filter      `json:"stream_filters,omitempty"`
}

type filterChain struct {
	TLS     *tlsContext `json:"tls_context,omitempty"`
	Filters []filter    `json:"filters"`
}

type filter struct {
	Type   string         `json:"type"`
	Config map[string]any `json:"config,omitempty"`
}

// place resolves what only a deployment knows.
type place interface {
	Address(process, port string) (string, error)
	Dir(process string) (string, error)
}

// asked is a request with what it needs to become configurations.
type asked struct {
	mesh.Request
	policies   []mesh.ServicePolicy
	at         place
	generation int // of the certificates
}

// configurations says what each proxy of the request does, in the order of
// proxies. Policies that MOSN cannot carry out to the letter are errors of
// code Invalid.
func configurations(r mesh.Request, at place, generation int) ([]configuration, error) {
	policies, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	a := asked{Request: r, policies: policies, at: at, generation: generation}
	var out []configuration
	for _, p := range proxies(r) {
		c, err := a.configure(p)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (r asked) configure(p proxy) (configuration, error) {
	dir, err := r.at.Dir(p.name)
	if err != nil {
		return configuration{}, err
	}
	own := credentialsIn(r.Profile, filesIn(dir, r.generation))
	var out configuration
	if p.service != "" {
		if err := out.addInbound(r, p, own, dir); err != nil {
			return configuration{}, err
		}
	}
	if len(p.outbound) == 0 {
		return out, nil
	}
	// Every service can be the backend of a split or a mirror.
	for _, s := range r.Services {
		if err := out.addService(r, s, own); err != nil {
			return configuration{}, err
		}
	}
	for _, o := range p.outbound {
		if err := out.addOutbound(r, p, o); err != nil {
			return configuration{}, err
		}
	}
	return out, nil
}

func policyOf(policies []mesh.ServicePolicy, service string) mesh.ServicePolicy {
	i := slices.IndexFunc(policies, func(p mesh.ServicePolicy) bool { return p.Service == service })
	return policies[i]
}

// mode is how a service may be reached: as its policy says, else the subject.
func mode(s meshbench.Subject, p mesh.ServicePolicy) meshbench.MTLSMode {
	if p.MTLS != "" {
		return p.MTLS
	}
	if option(s, "mtls") == off {
		return meshbench.MTLSOff
	}
	return meshbench.MTLSStrict
}

// credentialsIn is the part of a TLS context that both ends have.
func credentialsIn(profile meshbench.Profile, f files) tlsContext {
	c := tlsContext{Status: true, CACert: f.bundle, CertChain: f.certificate, PrivateKey: f.key}
	if profile == meshbench.Parity {
		c.Curves = parityCurve
	}
	return c
}

// addInbound is the way from the mesh to the application.
func (c *configuration) addInbound(r asked, p proxy, own tlsContext, dir string) error {
	policy := policyOf(r.policies, p.service)
	address, err := r.at.Address(p.name, inboundPort)
	if err != nil {
		return err
	}
	application, err := r.at.Address(p.at.Process, p.at.Port)
	if err != nil {
		return err
	}
	c.Clusters = append(c.Clusters, cluster{
		Name: applicationCluster, Type: "SIMPLE", LoadBalancing: "LB_ROUNDROBIN",
		Hosts: []host{{application}},
	})
	c.Routers = append(c.Routers, router{Name: inboundName, VirtualHosts: []virtualHost{{
		Name: p.service, Domains: []string{"*"},
		Routers: []route{{Match: match{Prefix: "/"}, Route: action{Cluster: applicationCluster, Timeout: defaultTimeout(r.Profile)}}},
	}}})
	l := newListener(inboundName, address, inboundName)
	if m := mode(r.Subject, policy); m != meshbench.MTLSOff {
		own.VerifyClient, own.RequireClientCert = true, true
		l.FilterChains[0].TLS = &own
		l.Inspector = m == meshbench.MTLSPermissive
	}
	rules, err := authorization(policy, mode(r.Subject, policy))
	if err != nil {
		return err
	}
	l.StreamFilters = append(l.StreamFilters, rules...)
	if option(r.Subject, "upstream") == http2 {
		l.speak("Http2", "http2Tohttp")
	}
	if limit := policy.RateLimit; limit != nil {
		l.StreamFilters = append(l.StreamFilters, rateLimit(p.service, dir, *limit))
	}
	c.Listeners = append(c.Listeners, l)
	return nil
}

// addService is a service as a caller sees it: all its proxies.
func (c *configuration) addService(r asked, s meshbench.Service, own tlsContext) error {
	policy := policyOf(r.policies, s.Name)
	out := cluster{
		Name: s.Name, Type: "SIMPLE", LoadBalancing: "LB_ROUNDROBIN", CircuitBreakers: limits(policy.CircuitBreaker),
	}
	for i := range s.Instances {
		address, err := r.at.Address(proxyName(s.Name, i), inboundPort)
		if err != nil {
			return err
		}
		out.Hosts = append(out.Hosts, host{address})
	}
	if mode(r.Subject, policy) != meshbench.MTLSOff {
		// By itself MOSN compares a DNS name; this extension of its own
		// compares the URI, which is where a SPIFFE name is.
		own.Type = "sni_verify"
		own.ExtendVerify = map[string]string{"match_subject_alt_names": pki.ServiceAccount(s.Name)}
		out.TLS = &own
	}
	c.Clusters = append(c.Clusters, out)
	return nil
}

// addOutbound is a caller's way into the mesh.
func (c *configuration) addOutbound(r asked, p proxy, o outbound) error {
	policy := policyOf(r.policies, o.service)
	address, err := r.at.Address(p.name, o.port)
	if err != nil {
		return err
	}
	rules := virtualHost{Name: o.service, Domains: []string{"*"}}
	l := newListener(o.port, address, o.port)
	faults, mirrors := false, false
	for _, rule := range policy.Rules {
		out, err := newRoute(r.Profile, rule)
		if err != nil {
			return err
		}
		rules.Routers = append(rules.Routers, out)
		faults = faults || rule.Fault != nil
		mirrors = mirrors || rule.Mirror != nil
	}
	// These filters cost every request something: they are there only while
	// a policy needs them.
	if faults {
		l.StreamFilters = append(l.StreamFilters, filter{Type: "fault", Config: map[string]any{}})
	}
	if mirrors {
		l.StreamFilters = append(l.StreamFilters, filter{Type: "mirror", Config: map[string]any{}})
	}
	if option(r.Subject, "upstream") == http2 {
		if mirrors {
			return meshbench.Errorf(meshbench.Invalid, "MOSN does not translate a mirrored request to HTTP/2").
				WithHint("mirror with upstream=http1")
		}
		l.speak("Http1", "httpTohttp2")
	}
	c.Routers = append(c.Routers, router{Name: o.port, VirtualHosts: []virtualHost{rules}})
	c.Listeners = append(c.Listeners, l)
	return nil
}

func newListener(name, address, router string) listener {
	return listener{
		Name: name, Address: address, BindPort: true,
		FilterChains: []filterChain{{Filters: []filter{
			{Type: "meshbench_connections", Config: map[string]any{"listener": name}},
			{Type: "proxy", Config: map[string]any{
				"downstream_protocol": "Http1", "upstream_protocol": "Http1", "router_config_name": router,
			}},
		}}},
	}
}

// speak sets what a listener takes, and what becomes of it on the way on.
// MOSN does not look at upstream_protocol: it sends on what it received, unless
// a transcoder is in the way.
func (l *listener) speak(protocol, transcoder string) {
	config := l.FilterChains[0].Filters[1].Config
	config["downstream_protocol"], config["upstream_protocol"] = protocol, protocol
	l.StreamFilters = append(l.StreamFilters, filter{Type: "transcoder", Config: map[string]any{"type": transcoder}})
}

func defaultTimeout(profile meshbench.Profile) string {
	if profile == meshbench.Parity {
		return parityTimeout.String()
	}
	return ""
}

// limits are those of a cluster. 0 is no limit for MOSN, too, and that is what
// it has by itself.
func limits(p *meshbench.CircuitBreaker) []threshold {
	if p == nil {
		return nil
	}
	return []threshold{{MaxConnections: p.MaxConnections, MaxPendingRequests: p.MaxPendingRequests, MaxRequests: p.MaxRequests}}
}

func newRoute(profile meshbench.Profile, rule mesh.Rule) (route, error) {
	out := route{Match: match{Prefix: "/"}, Route: action{Timeout: defaultTimeout(profile)}}
	if m := rule.Match; m != nil {
		if m.PathPrefix != "" {
			out.Match.Prefix = m.PathPrefix
		}
		if m.Method != "" {
			out.Match.Headers = append(out.Match.Headers, headerMatch{"method", m.Method})
		}
		for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
			out.Match.Headers = append(out.Match.Headers, headerMatch{name, m.Headers[name]})
		}
	}
	if rule.Timeout > 0 {
		out.Route.Timeout = time.Duration(rule.Timeout).String()
	}
	out.Route.Retry = newRetry(rule.Retry)
	for _, b := range rule.Backends {
		// MOSN can choose a cluster of weight 0.
		if b.Weight > 0 {
			out.Route.WeightedClusters = append(out.Route.WeightedClusters, weightedCluster{clusterWeight{b.Service, b.Weight}})
		}
	}
	if w := out.Route.WeightedClusters; len(w) == 1 {
		out.Route.Cluster, out.Route.WeightedClusters = w[0].Cluster.Name, nil
	}
	if rule.Fault != nil {
		fault, err := newFault(*rule.Fault)
		if err != nil {
			return route{}, err
		}
		out.PerFilter = map[string]any{"fault": fault}
	}
	if m := rule.Mirror; m != nil {
		percent, err := whole("mirror", m.Percent)
		if err != nil {
			return route{}, err
		}
		out.Mirror = &mirror{Cluster: m.Service, Percent: percent}
	}
	if c := rule.Request; c != nil {
		out.Route.RequestHeaders = headerChanges(*c)
		out.Route.RemoveRequestHeaders = c.Remove
	}
	if c := rule.Response; c != nil {
		out.Route.ResponseHeaders = headerChanges(*c)
		out.Route.RemoveResponseHeaders = c.Remove
	}
	return out, nil
}

func newRetry(p *meshbench.RetryPolicy) *retry {
	if p == nil {
		return nil
	}
	out := &retry{Number: p.Attempts}
	if p.PerTryTimeout > 0 {
		out.Timeout = time.Duration(p.PerTryTimeout).String()
	}
	for _, on := range p.On {
		switch on {
		case meshbench.RetryOn5xx:
			out.On = true
			out.Codes = nil
		case meshbench.RetryOnGatewayError:
			if !slices.Contains(p.On, meshbench.RetryOn5xx) {
				out.On = true
				out.Codes = []int{502, 503, 504}
			}
		case meshbench.RetryOnReset, meshbench.RetryOnConnectFailure:
			out.On = true
		}
	}
	return out
}

// newFault is the filter's configuration for one route.
func newFault(p meshbench.FaultPolicy) (map[string]any, error) {
	out := map[string]any{}
	if a := p.Abort; a != nil {
		percent, err := whole("fault", a.Percent)
		if err != nil {
			return nil, err
		}
		out["abort"] = map[string]any{"status": a.Status, "percentage": percent}
	}
	if d := p.Delay; d != nil {
		percent, err := whole("fault", d.Percent)
		if err != nil {
			return nil, err
		}
		out["delay"] = map[string]any{"fixed_delay": time.Duration(d.Duration).String(), "percentage": percent}
	}
	return out, nil
}

// whole returns percent as the whole number that MOSN takes.
func whole(kind string, percent float64) (int, error) {
	if percent != math.Trunc(percent) {
		return 0, meshbench.Errorf(meshbench.Invalid, "policy %s: MOSN takes whole percents, not %s", kind, strconv.FormatFloat(percent, 'g', -1, 64)).
			WithHint("write %d", max(1, int(math.Round(percent))))
	}
	return int(percent), nil
}

func headerChanges(c meshbench.HeaderChange) []headerChange {
	var out []headerChange
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		out = append(out, headerChange{Header: headerValue{name, c.Set[name]}})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Add)) {
		out = append(out, headerChange{Header: headerValue{name, c.Add[name]}, Append: true})
	}
	return out
}

// authorization is a filter for what is denied and one for what is allowed.
func authorization(p mesh.ServicePolicy, m meshbench.MTLSMode) ([]filter, error) {
	rules := map[meshbench.Action]map[string]any{}
	for i, a := range p.Authorizations {
		switch {
		case len(a.Paths) > 0 || len(a.Methods) > 0:
			return nil, meshbench.Errorf(meshbench.Invalid, "policy authorization: MOSN's filter looks for path and method where MOSN no longer keeps them").
				WithHint("name identities alone; see %sistio/istio1106/filter/stream/rbac/common/utils.go", source)
		case len(a.From) > 0 && m == meshbench.MTLSOff:
			return nil, meshbench.Errorf(meshbench.Invalid, "policy authorization: MOSN knows who calls by mutual TLS alone, which is off").
				WithHint("set mtls to strict; see %sistio/istio1106/filter/stream/rbac/common/principal.go", source)
		}
		if rules[a.Action] == nil {
			rules[a.Action] = map[string]any{}
		}
		rules[a.Action][strconv.Itoa(i)] = map[string]any{"permissions": []any{map[string]any{"any": true}}, "principals": principals(a.From)}
	}
	var out []filter
	for _, action := range []meshbench.Action{meshbench.Deny, meshbench.Allow} {
		if rules[action] != nil {
			out = append(out, filter{Type: "rbac", Config: map[string]any{
				"version": "1", "rules": map[string]any{"action": strings.ToUpper(string(action)), "policies": rules[action]},
			}})
		}
	}
	return out, nil
}

// principals are who sends a request, as Istio writes a SPIFFE name: without
// its scheme.
func principals(from []string) []any {
	if len(from) == 0 {
		return []any{map[string]any{"any": true}}
	}
	var out []any
	for _, service := range from {
		out = append(out, map[string]any{"metadata": map[string]any{
			"filter": "istio_authn", "path": []any{map[string]any{"key": "source.principal"}},
			"value": map[string]any{"string_match": map[string]any{"exact": strings.TrimPrefix(pki.ServiceAccount(service), "spiffe://")}},
		}})
	}
	return out
}

// rateLimit is MOSN's flow control by Sentinel. Its resource is the service,
// which a callback of our build of MOSN says: by itself it takes the path.
func rateLimit(service, dir string, p meshbench.RateLimitPolicy) filter {
	return filter{Type: "flowControlFilter", Config: map[string]any{
		"app_name":      service,
		"log_path":      dir + "/sentinel",
		"global_switch": true,
		"callback_name": "meshbench_service",
		"action":        map[string]any{"status": 429, "body": "too many requests"},
		"rules": []map[string]any{{
			"resource": "service", "threshold": p.Requests, "statIntervalInMs": time.Duration(p.Per).Milliseconds(),
		}},
	}}
}
