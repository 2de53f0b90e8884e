package controlplane

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkerd/linkerd2-proxy-api/go/destination"
	"github.com/linkerd/linkerd2-proxy-api/go/http_route"
	"github.com/linkerd/linkerd2-proxy-api/go/http_types"
	"github.com/linkerd/linkerd2-proxy-api/go/inbound"
	"github.com/linkerd/linkerd2-proxy-api/go/meta"
	l5dnet "github.com/linkerd/linkerd2-proxy-api/go/net"
	"github.com/linkerd/linkerd2-proxy-api/go/outbound"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshbench/meshbench"
)

// What Linkerd's own control plane says too, unless it is told otherwise.
const (
	detectTimeout   = 10 * time.Second
	queueCapacity   = 100
	failfastTimeout = 3 * time.Second
	defaultRTT      = 30 * time.Millisecond
	rttDecay        = 10 * time.Second
	breakerJitter   = 0.5
	retryBodyBytes  = 64 << 10 // what a request may have and still be sent again
	endpointWeight  = 10000
	namespace       = "default"
)

// outboundPolicy is what a proxy shall do with connections to a service. A
// proxy refuses a message that lacks a part; all that it needs is here.
func (c *Config) outboundPolicy(s Service) *outbound.OutboundPolicy {
	route := &outbound.HttpRoute{Metadata: resource("policy.linkerd.io", "HTTPRoute", s.short(), 0)}
	for _, r := range s.Routes {
		route.Rules = append(route.Rules, c.rule(r))
	}
	opaque := &outbound.OpaqueRoute{Metadata: named("opaque")}
	if n := len(s.Routes); n > 0 {
		opaque.Rules = []*outbound.OpaqueRoute_Rule{{Backends: c.opaqueBackends(s.Routes[n-1])}}
	}
	return &outbound.OutboundPolicy{
		Metadata: resource("core", "Service", s.short(), s.port()),
		Protocol: &outbound.ProxyProtocol{Kind: &outbound.ProxyProtocol_Detect_{Detect: &outbound.ProxyProtocol_Detect{
			Timeout: durationpb.New(detectTimeout),
			Opaque:  &outbound.ProxyProtocol_Opaque{Routes: []*outbound.OpaqueRoute{opaque}},
			Http1:   &outbound.ProxyProtocol_Http1{Routes: []*outbound.HttpRoute{route}, FailureAccrual: s.Breaker.accrual()},
			Http2:   &outbound.ProxyProtocol_Http2{Routes: []*outbound.HttpRoute{route}, FailureAccrual: s.Breaker.accrual()},
		}}},
	}
}

func (c *Config) rule(r Route) *outbound.HttpRoute_Rule {
	rule := &outbound.HttpRoute_Rule{
		Matches:  []*http_route.HttpRouteMatch{match(r.Match)},
		Backends: &outbound.HttpRoute_Distribution{},
	}
	for _, change := range r.Request {
		rule.Filters = append(rule.Filters, &outbound.HttpRoute_Filter{Kind: &outbound.HttpRoute_Filter_RequestHeaderModifier{
			RequestHeaderModifier: &http_route.RequestHeaderModifier{Add: headers(change.Add), Set: headers(change.Set), Remove: change.Remove},
		}})
	}
	for _, change := range r.Response {
		rule.Filters = append(rule.Filters, &outbound.HttpRoute_Filter{Kind: &outbound.HttpRoute_Filter_ResponseHeaderModifier{
			ResponseHeaderModifier: &http_route.ResponseHeaderModifier{Add: headers(change.Add), Set: headers(change.Set), Remove: change.Remove},
		}})
	}
	if r.Timeout > 0 {
		rule.Timeouts = &http_route.Timeouts{Request: durationpb.New(time.Duration(r.Timeout))}
	}
	if t := r.Retry; t != nil {
		rule.Retry = &outbound.HttpRoute_Retry{MaxRetries: t.Max, MaxRequestBytes: retryBodyBytes, Conditions: &outbound.HttpRoute_Retry_Conditions{}}
		for _, s := range t.Statuses {
			rule.Retry.Conditions.StatusRanges = append(rule.Retry.Conditions.StatusRanges,
				&outbound.HttpRoute_Retry_Conditions_StatusRange{Start: s.First, End: s.Last})
		}
		if t.PerTryTimeout > 0 {
			rule.Retry.Timeout = durationpb.New(time.Duration(t.PerTryTimeout))
		}
	}
	backend := func(b Backend) *outbound.HttpRoute_RouteBackend {
		return &outbound.HttpRoute_RouteBackend{Backend: backend(b.Service)}
	}
	if len(r.Backends) == 1 {
		rule.Backends.Kind = &outbound.HttpRoute_Distribution_FirstAvailable_{FirstAvailable: &outbound.HttpRoute_Distribution_FirstAvailable{
			Backends: []*outbound.HttpRoute_RouteBackend{backend(r.Backends[0])},
		}}
		return rule
	}
	random := &outbound.HttpRoute_Distribution_RandomAvailable{}
	for _, b := range r.Backends {
		if b.Weight > 0 {
			random.Backends = append(random.Backends, &outbound.HttpRoute_WeightedRouteBackend{Backend: backend(b), Weight: b.Weight})
		}
	}
	rule.Backends.Kind = &outbound.HttpRoute_Distribution_RandomAvailable_{RandomAvailable: random}
	return rule
}

func (c *Config) opaqueBackends(r Route) *outbound.OpaqueRoute_Distribution {
	random := &outbound.OpaqueRoute_Distribution_RandomAvailable{}
	for _, b := range r.Backends {
		if b.Weight > 0 {
			random.Backends = append(random.Backends, &outbound.OpaqueRoute_WeightedRouteBackend{
				Backend: &outbound.OpaqueRoute_RouteBackend{Backend: backend(b.Service)}, Weight: b.Weight,
			})
		}
	}
	return &outbound.OpaqueRoute_Distribution{Kind: &outbound.OpaqueRoute_Distribution_RandomAvailable_{RandomAvailable: random}}
}

// backend is a service whose endpoints the proxy shall ask for.
func backend(authority string) *outbound.Backend {
	s := Service{Name: authority}
	return &outbound.Backend{
		Metadata: resource("core", "Service", s.short(), s.port()),
		Queue:    &outbound.Queue{Capacity: queueCapacity, FailfastTimeout: durationpb.New(failfastTimeout)},
		Kind: &outbound.Backend_Balancer{Balancer: &outbound.Backend_BalanceP2C{
			Discovery: &outbound.Backend_EndpointDiscovery{Kind: &outbound.Backend_EndpointDiscovery_Dst{
				Dst: &outbound.Backend_EndpointDiscovery_DestinationGet{Path: authority},
			}},
			Load: &outbound.Backend_BalanceP2C_PeakEwma_{PeakEwma: &outbound.Backend_BalanceP2C_PeakEwma{
				DefaultRtt: durationpb.New(defaultRTT), Decay: durationpb.New(rttDecay),
			}},
		}},
	}
}

func (b *Breaker) accrual() *outbound.FailureAccrual {
	if b == nil {
		return nil
	}
	return &outbound.FailureAccrual{Kind: &outbound.FailureAccrual_ConsecutiveFailures_{
		ConsecutiveFailures: &outbound.FailureAccrual_ConsecutiveFailures{
			MaxFailures: b.Failures,
			Backoff: &outbound.ExponentialBackoff{
				MinBackoff: durationpb.New(time.Duration(b.First)), MaxBackoff: durationpb.New(time.Duration(b.Longest)),
				JitterRatio: breakerJitter,
			},
		},
	}}
}

// match is of all requests where m is nil.
func match(m *meshbench.Match) *http_route.HttpRouteMatch {
	if m == nil {
		m = &meshbench.Match{}
	}
	prefix := m.PathPrefix
	if prefix == "" {
		prefix = "/"
	}
	out := &http_route.HttpRouteMatch{Path: &http_route.PathMatch{Kind: &http_route.PathMatch_Prefix{Prefix: prefix}}, Method: method(m.Method)}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		out.Headers = append(out.Headers, &http_route.HeaderMatch{
			Name: name, Value: &http_route.HeaderMatch_Exact{Exact: []byte(m.Headers[name])},
		})
	}
	return out
}

func method(name string) *http_types.HttpMethod {
	if name == "" {
		return nil
	}
	if n, ok := http_types.HttpMethod_Registered_value[name]; ok {
		return &http_types.HttpMethod{Type: &http_types.HttpMethod_Registered_{Registered: http_types.HttpMethod_Registered(n)}}
	}
	return &http_types.HttpMethod{Type: &http_types.HttpMethod_Unregistered{Unregistered: name}}
}

func headers(values map[string]string) *http_types.Headers {
	if len(values) == 0 {
		return nil
	}
	out := &http_types.Headers{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out.Headers = append(out.Headers, &http_types.Headers_Header{Name: name, Value: []byte(values[name])})
	}
	return out
}

// inboundServer is what a proxy shall do with connections to one of its
// ports.
func inboundServer(s Server) *inbound.Server {
	out := &inbound.Server{
		Labels: map[string]string{"group": "policy.linkerd.io", "kind": "server", "name": s.Name},
	}
	detect := &inbound.ProxyProtocol_Detect{Timeout: durationpb.New(detectTimeout)}
	out.Protocol = &inbound.ProxyProtocol{Kind: &inbound.ProxyProtocol_Detect_{Detect: detect}}
	if s.RateLimit > 0 {
		detect.HttpLocalRateLimit = &inbound.HttpLocalRateLimit{
			Metadata: resource("policy.linkerd.io", "HTTPLocalRateLimitPolicy", s.Name, 0),
			Total:    &inbound.HttpLocalRateLimit_Limit{RequestsPerSecond: s.RateLimit},
		}
	}
	if len(s.Access) == 0 {
		out.Authorizations = authorizations(s.Name, s.Clients)
		return out
	}
	// A route's authorizations are taken beside the server's: so the server
	// has none, and one more route fits all other requests.
	rest := Access{PathPrefix: "/", Clients: s.Clients}
	all := s.Access
	if !slices.ContainsFunc(all, func(a Access) bool { return a.PathPrefix == "/" && a.Method == "" }) {
		all = append(slices.Clone(all), rest)
	}
	for i, a := range all {
		name := s.Name + "-" + strconv.Itoa(i+1)
		detect.HttpRoutes = append(detect.HttpRoutes, &inbound.HttpRoute{
			Metadata: resource("policy.linkerd.io", "HTTPRoute", name, 0),
			Rules: []*inbound.HttpRoute_Rule{{Matches: []*http_route.HttpRouteMatch{
				match(&meshbench.Match{PathPrefix: a.PathPrefix, Method: a.Method}),
			}}},
			Authorizations: authorizations(name, a.Clients),
		})
	}
	return out
}

// authorizations are none where nobody is let in.
func authorizations(name string, c Clients) []*inbound.Authz {
	authz := func(kind string, a *inbound.Authn) *inbound.Authz {
		return &inbound.Authz{
			Networks: []*inbound.Network{{Net: everywhere()}}, Authentication: a,
			Labels:   map[string]string{"group": "policy.linkerd.io", "kind": "authorizationpolicy", "name": name + "-" + kind},
			Metadata: resource("policy.linkerd.io", "AuthorizationPolicy", name+"-"+kind, 0),
		}
	}
	meshed := func(p *inbound.Authn_PermitMeshTLS_PermitClientIdentities) *inbound.Authn {
		return &inbound.Authn{Permit: &inbound.Authn_MeshTLS{MeshTLS: &inbound.Authn_PermitMeshTLS{
			Clients: &inbound.Authn_PermitMeshTLS_Identities{Identities: p},
		}}}
	}
	switch {
	case c.Unmeshed:
		return []*inbound.Authz{authz("anybody", &inbound.Authn{Permit: &inbound.Authn_Unauthenticated{Unauthenticated: &inbound.Authn_PermitUnauthenticated{}}})}
	case c.Meshed:
		return []*inbound.Authz{authz("meshed", meshed(&inbound.Authn_PermitMeshTLS_PermitClientIdentities{Suffixes: []*inbound.IdentitySuffix{{}}}))}
	case len(c.Names) > 0:
		p := &inbound.Authn_PermitMeshTLS_PermitClientIdentities{}
		for _, n := range c.Names {
			p.Identities = append(p.Identities, &inbound.Identity{Name: n})
		}
		return []*inbound.Authz{authz("named", meshed(p))}
	}
	return nil
}

func everywhere() *l5dnet.IPNetwork {
	return &l5dnet.IPNetwork{Ip: &l5dnet.IPAddress{Ip: &l5dnet.IPAddress_Ipv4{Ipv4: 0}}}
}

// profile is what a proxy learns of an address, whatever it is.
func (c *Config) profile(address netip.AddrPort) *destination.DestinationProfile {
	out := &destination.DestinationProfile{}
	if s := c.at(address); s != nil {
		host, _, err := net.SplitHostPort(s.Name)
		if err != nil {
			host = s.Name
		}
		out.FullyQualifiedName = host
		return out
	}
	for _, s := range c.Services {
		for _, e := range s.Endpoints {
			if at, err := parseAddress(e.Address); err == nil && at == address {
				out.Endpoint = weighted(s, e)
			}
		}
	}
	return out
}

// at is the service behind an address, or nil.
func (c *Config) at(address netip.AddrPort) *Service {
	text := address.String()
	for i := range c.Services {
		if slices.Contains(c.Services[i].Addresses, text) {
			return &c.Services[i]
		}
	}
	return nil
}

// named is the service of an authority, or nil.
func (c *Config) named(authority string) *Service {
	for i := range c.Services {
		if c.Services[i].Name == authority {
			return &c.Services[i]
		}
	}
	return nil
}

func weighted(s Service, e Endpoint) *destination.WeightedAddr {
	out := &destination.WeightedAddr{
		Addr: tcpAddress(e.Address), Weight: endpointWeight,
		MetricLabels: map[string]string{"instance": e.Address, "service": s.short(), "namespace": namespace},
	}
	if e.Identity != "" {
		name := &destination.TlsIdentity_DnsLikeIdentity{Name: e.Identity}
		out.TlsIdentity = &destination.TlsIdentity{
			Strategy: &destination.TlsIdentity_DnsLikeIdentity_{DnsLikeIdentity: name}, ServerName: name,
		}
	}
	if e.HTTP2 {
		out.ProtocolHint = &destination.ProtocolHint{Protocol: &destination.ProtocolHint_H2_{H2: &destination.ProtocolHint_H2{}}}
	}
	return out
}

// tcpAddress expects what Validate has let through.
func tcpAddress(text string) *l5dnet.TcpAddress {
	a, err := parseAddress(text)
	if err != nil {
		return &l5dnet.TcpAddress{}
	}
	four := a.Addr().As4()
	return &l5dnet.TcpAddress{
		Ip:   &l5dnet.IPAddress{Ip: &l5dnet.IPAddress_Ipv4{Ipv4: binary.BigEndian.Uint32(four[:])}},
		Port: uint32(a.Port()),
	}
}

// addrPort reads the address of a question; false where it has none, or one
// of IPv6.
func addrPort(a *l5dnet.TcpAddress) (netip.AddrPort, bool) {
	four, ok := a.GetIp().GetIp().(*l5dnet.IPAddress_Ipv4)
	if !ok || a.GetPort() == 0 || a.GetPort() > 1<<16-1 {
		return netip.AddrPort{}, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], four.Ipv4)
	return netip.AddrPortFrom(netip.AddrFrom4(b), uint16(a.GetPort())), true
}

func resource(group, kind, name string, port uint32) *meta.Metadata {
	return &meta.Metadata{Kind: &meta.Metadata_Resource{Resource: &meta.Resource{Group: group, Kind: kind, Name: name, Namespace: namespace, Port: port}}}
}

func named(name string) *meta.Metadata {
	return &meta.Metadata{Kind: &meta.Metadata_Default{Default: name}}
}

// short is the first label of the service's name.
func (s Service) short() string {
	name, _, _ := strings.Cut(s.Name, ".")
	name, _, _ = strings.Cut(name, ":")
	return name
}

func (s Service) port() uint32 {
	_, word, err := net.SplitHostPort(s.Name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil {
		return 0
	}
	return uint32(n)
}
