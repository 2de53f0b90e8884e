package controlplane

import (
	"math"
	"slices"
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	stdout "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	inspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshbench/meshbench"
)

// The names of a proxy's secrets.
const (
	identitySecret = "identity"
	trustSecret    = "trust"
)

// connectTimeout is for a connection to an endpoint, handshake included.
const connectTimeout = 5 * time.Second

var versions = map[string]tls.TlsParameters_TlsProtocol{
	"1.2": tls.TlsParameters_TLSv1_2,
	"1.3": tls.TlsParameters_TLSv1_3,
}

// Resource is one xDS resource of a proxy.
type Resource struct {
	Kind    resource.Type // its type URL
	Name    string
	Message proto.Message
}

// Resources translates a node's configuration into xDS resources: clusters
// with their endpoints, listeners with their routes, and no secrets.
func Resources(n Node) ([]Resource, error) {
	var out []Resource
	add := func(kind resource.Type, name string, message interface {
		proto.Message
		ValidateAll() error
	}) error {
		if err := message.ValidateAll(); err != nil {
			return meshbench.Errorf(meshbench.Invalid, "proxy %s: %w", n.ID, err)
		}
		out = append(out, Resource{kind, name, message})
		return nil
	}
	for _, c := range n.Clusters {
		made, err := clusterOf(c)
		if err != nil {
			return nil, err
		}
		if err := add(resource.ClusterType, c.Name, made); err != nil {
			return nil, err
		}
		assigned, err := endpointsOf(c)
		if err != nil {
			return nil, err
		}
		if err := add(resource.EndpointType, c.Name, assigned); err != nil {
			return nil, err
		}
	}
	for _, l := range n.Listeners {
		made, err := listenerOf(l)
		if err != nil {
			return nil, err
		}
		if err := add(resource.ListenerType, l.Name, made); err != nil {
			return nil, err
		}
		routes, err := routesOf(l)
		if err != nil {
			return nil, err
		}
		if err := add(resource.RouteType, l.Name, routes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// snapshot is all that a proxy gets. All types have the same version, so that
// every change is sent and accepted as a whole.
func snapshot(n Node, version string) (*cache.Snapshot, error) {
	list, err := Resources(n)
	if err != nil {
		return nil, err
	}
	resources := map[resource.Type][]types.Resource{}
	for _, r := range list {
		resources[r.Kind] = append(resources[r.Kind], r.Message)
	}
	if n.secured() {
		for _, s := range secretsOf(n) {
			if err := s.ValidateAll(); err != nil {
				return nil, meshbench.Errorf(meshbench.Invalid, "proxy %s: %w", n.ID, err)
			}
			resources[resource.SecretType] = append(resources[resource.SecretType], s)
		}
	}
	return cache.NewSnapshot(version, resources)
}

// secured tells whether anything of n has TLS. Only then are there secrets:
// a proxy does not ask for those that nothing refers to.
func (n Node) secured() bool {
	return slices.ContainsFunc(n.Clusters, func(c Cluster) bool { return c.TLS != nil }) ||
		slices.ContainsFunc(n.Listeners, func(l Listener) bool { return l.TLS != nil })
}

func clusterOf(c Cluster) (*cluster.Cluster, error) {
	out := &cluster.Cluster{
		Name:                 c.Name,
		ConnectTimeout:       durationpb.New(connectTimeout),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads()},
	}
	if t := thresholdsOf(c); t != nil {
		out.CircuitBreakers = &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{t}}
	}
	if c.Outlier != nil {
		outlier(out, *c.Outlier)
	}
	if c.HTTP2 {
		options, err := packed(&upstream.HttpProtocolOptions{UpstreamProtocolOptions: &upstream.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &core.Http2ProtocolOptions{}},
			},
		}})
		if err != nil {
			return nil, err
		}
		out.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
	}
	if c.TLS != nil {
		socket, err := transportSocket(&tls.UpstreamTlsContext{CommonTlsContext: tlsContext(c.TLS)})
		if err != nil {
			return nil, err
		}
		out.TransportSocket = socket
	}
	return out, nil
}

// unbounded is as good as no limit.
const unbounded = 1 << 20

// thresholdsOf returns nil where Envoy's own limits are meant.
func thresholdsOf(c Cluster) *cluster.CircuitBreakers_Thresholds {
	t := &cluster.CircuitBreakers_Thresholds{}
	if c.Limit > 0 {
		limit := wrapperspb.UInt32(c.Limit)
		t.MaxConnections, t.MaxPendingRequests, t.MaxRequests = limit, limit, limit
	}
	if b := c.Breaker; b != nil {
		bound := func(n int) *wrapperspb.UInt32Value {
			if n <= 0 {
				return wrapperspb.UInt32(max(unbounded, c.Limit))
			}
			return wrapperspb.UInt32(uint32(min(n, math.MaxInt32)))
		}
		t.MaxConnections, t.MaxPendingRequests, t.MaxRequests = bound(b.MaxConnections), bound(b.MaxPendingRequests), bound(b.MaxRequests)
	}
	if c.Retries {
		t.MaxRetries = wrapperspb.UInt32(unbounded)
	}
	if c.Limit == 0 && c.Breaker == nil && !c.Retries {
		return nil
	}
	return t
}

// outlier has Envoy look at answers in a row and at nothing else that it
// would judge endpoints by on its own.
func outlier(c *cluster.Cluster, o meshbench.OutlierDetection) {
	made := &cluster.OutlierDetection{
		Consecutive_5Xx:          wrapperspb.UInt32(uint32(min(max(o.ConsecutiveErrors, 0), math.MaxInt32))),
		EnforcingConsecutive_5Xx: wrapperspb.UInt32(100),
		EnforcingSuccessRate:     wrapperspb.UInt32(0),
		BaseEjectionTime:         durationpb.New(o.BaseEjection.Std()),
		// Envoy's own is 300 s; it must not be shorter than the first ejection.
		MaxEjectionTime: durationpb.New(max(o.BaseEjection.Std(), 300*time.Second)),
	}
	if o.Interval > 0 {
		made.Interval = durationpb.New(o.Interval.Std())
	}
	if o.MaxEjectionPercent > 0 {
		made.MaxEjectionPercent = wrapperspb.UInt32(uint32(o.MaxEjectionPercent))
	} else {
		made.AlwaysEjectOneHost = wrapperspb.Bool(true) // of its own 10 %, few instances would never see any
	}
	c.OutlierDetection = made
	// Below half of the endpoints, Envoy by itself uses the ejected ones again.
	c.CommonLbConfig = &cluster.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}}
}

func endpointsOf(c Cluster) (*endpoint.ClusterLoadAssignment, error) {
	var list []*endpoint.LbEndpoint
	for _, e := range c.Endpoints {
		address, err := addressOf(e)
		if err != nil {
			return nil, err
		}
		list = append(list, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
			Endpoint: &endpoint.Endpoint{Address: address},
		}})
	}
	return &endpoint.ClusterLoadAssignment{
		ClusterName: c.Name,
		Endpoints:   []*endpoint.LocalityLbEndpoints{{LbEndpoints: list}},
	}, nil
}

func listenerOf(l Listener) (*listener.Listener, error) {
	address, err := addressOf(l.Address)
	if err != nil {
		return nil, err
	}
	out := &listener.Listener{Name: l.Name, StatPrefix: l.Name, Address: address}
	if l.TLS != nil {
		manager, err := managerOf(l, true)
		if err != nil {
			return nil, err
		}
		socket, err := transportSocket(&tls.DownstreamTlsContext{
			CommonTlsContext:         tlsContext(l.TLS),
			RequireClientCertificate: wrapperspb.Bool(true),
		})
		if err != nil {
			return nil, err
		}
		out.FilterChains = append(out.FilterChains, &listener.FilterChain{Name: "tls", TransportSocket: socket, Filters: manager})
	}
	if l.TLS == nil || l.Permissive {
		manager, err := managerOf(l, false)
		if err != nil {
			return nil, err
		}
		out.FilterChains = append(out.FilterChains, &listener.FilterChain{Name: "plain", Filters: manager})
	}
	if l.Permissive {
		// What a connection begins with tells which of the two it is.
		inspecting, err := packed(&inspector.TlsInspector{})
		if err != nil {
			return nil, err
		}
		out.ListenerFilters = []*listener.ListenerFilter{{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listener.ListenerFilter_TypedConfig{TypedConfig: inspecting},
		}}
		out.FilterChains[0].FilterChainMatch = &listener.FilterChainMatch{TransportProtocol: "tls"}
		out.FilterChains[1].FilterChainMatch = &listener.FilterChainMatch{TransportProtocol: "raw_buffer"}
	}
	return out, nil
}

// managerOf is the HTTP layer of a filter chain.
func managerOf(l Listener, secure bool) ([]*listener.Filter, error) {
	filters, err := filtersOf(l)
	if err != nil {
		return nil, err
	}
	manager := &hcm.HttpConnectionManager{
		StatPrefix: l.Name,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			RouteConfigName: l.Name, ConfigSource: ads(),
		}},
		HttpFilters: filters,
	}
	if secure {
		// The application learns from X-Forwarded-Client-Cert who called; what
		// a caller wrote there itself is thrown away.
		manager.ForwardClientCertDetails = hcm.HttpConnectionManager_SANITIZE_SET
		manager.SetCurrentClientCertDetails = &hcm.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	}
	if l.Inbound {
		manager.LocalReplyConfig = localReplies()
	}
	if l.AccessLog {
		writing, err := packed(&stdout.StdoutAccessLog{})
		if err != nil {
			return nil, err
		}
		manager.AccessLog = []*accesslog.AccessLog{{
			Name:       "envoy.access_loggers.stdout",
			ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: writing},
		}}
	}
	managing, err := packed(manager)
	if err != nil {
		return nil, err
	}
	return []*listener.Filter{{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listener.Filter_TypedConfig{TypedConfig: managing},
	}}, nil
}

func routesOf(l Listener) (*route.RouteConfiguration, error) {
	host := &route.VirtualHost{Name: l.Name, Domains: []string{"*"}}
	for _, r := range l.Routes {
		made, err := routeOf(r)
		if err != nil {
			return nil, err
		}
		host.Routes = append(host.Routes, made)
	}
	return &route.RouteConfiguration{Name: l.Name, VirtualHosts: []*route.VirtualHost{host}}, nil
}

func secretsOf(n Node) []*tls.Secret {
	inline := func(text string) *core.DataSource {
		return &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: text}}
	}
	return []*tls.Secret{
		{Name: identitySecret, Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
			CertificateChain: inline(n.Identity.Certificate), PrivateKey: inline(string(n.Identity.Key)),
		}}},
		{Name: trustSecret, Type: &tls.Secret_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
			TrustedCa: inline(n.Trust),
		}}},
	}
}

// tlsContext takes certificate and bundle from SDS; whom to let in is part of
// the listener or cluster itself.
func tlsContext(t *TLS) *tls.CommonTlsContext {
	names := make([]*tls.SubjectAltNameMatcher, len(t.Peers))
	for i, p := range t.Peers {
		names[i] = &tls.SubjectAltNameMatcher{
			SanType: tls.SubjectAltNameMatcher_URI,
			Matcher: &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: p}},
		}
	}
	out := &tls.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tls.SdsSecretConfig{{Name: identitySecret, SdsConfig: ads()}},
		ValidationContextType: &tls.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tls.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         &tls.CertificateValidationContext{MatchTypedSubjectAltNames: names},
				ValidationContextSdsSecretConfig: &tls.SdsSecretConfig{Name: trustSecret, SdsConfig: ads()},
			},
		},
	}
	if t.Version != "" || len(t.Groups) > 0 {
		version := versions[t.Version]
		out.TlsParams = &tls.TlsParameters{
			TlsMinimumProtocolVersion: version, TlsMaximumProtocolVersion: version, EcdhCurves: t.Groups,
		}
	}
	out.AlpnProtocols = t.ALPN
	return out
}

func transportSocket(context proto.Message) (*core.TransportSocket, error) {
	config, err := packed(context)
	if err != nil {
		return nil, err
	}
	return &core.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
}

// packed is an Any of the same bytes for the same message: what has not
// changed must not look changed to a proxy.
func packed(m proto.Message) (*anypb.Any, error) {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "a configuration cannot be written down: %w", err)
	}
	return out, nil
}

// ads is where a proxy shall ask: the stream that it already has. It waits
// for the answer as long as it takes, rather than going on without.
func ads() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0),
	}
}

func addressOf(text string) (*core.Address, error) {
	host, port, err := splitAddress(text)
	if err != nil {
		return nil, err
	}
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port},
	}}}, nil
}
