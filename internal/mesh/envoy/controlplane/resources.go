package controlplane

import (
	"maps"
	"slices"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
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

// snapshot translates a node's configuration into xDS resources. All types
// get the same version, so that every change is sent and accepted as a whole.
func snapshot(n Node, version string) (*cache.Snapshot, error) {
	resources := map[resource.Type][]types.Resource{}
	add := func(kind resource.Type, message interface {
		proto.Message
		ValidateAll() error
	}) error {
		if err := message.ValidateAll(); err != nil {
			return meshbench.Errorf(meshbench.Invalid, "proxy %s: %w", n.ID, err)
		}
		resources[kind] = append(resources[kind], message)
		return nil
	}
	for _, c := range n.Clusters {
		made, err := clusterOf(c)
		if err != nil {
			return nil, err
		}
		if err := add(resource.ClusterType, made); err != nil {
			return nil, err
		}
		assigned, err := endpointsOf(c)
		if err != nil {
			return nil, err
		}
		if err := add(resource.EndpointType, assigned); err != nil {
			return nil, err
		}
	}
	for _, l := range n.Listeners {
		made, err := listenerOf(l)
		if err != nil {
			return nil, err
		}
		if err := add(resource.ListenerType, made); err != nil {
			return nil, err
		}
		if err := add(resource.RouteType, routesOf(l)); err != nil {
			return nil, err
		}
	}
	if n.secured() {
		for _, s := range secretsOf(n) {
			if err := add(resource.SecretType, s); err != nil {
				return nil, err
			}
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
	if c.Limit > 0 {
		limit := wrapperspb.UInt32(c.Limit)
		out.CircuitBreakers = &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{{
			MaxConnections: limit, MaxPendingRequests: limit, MaxRequests: limit,
		}}}
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
	routing, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, err
	}
	manager := &hcm.HttpConnectionManager{
		StatPrefix: l.Name,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			RouteConfigName: l.Name, ConfigSource: ads(),
		}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: routing},
		}},
	}
	chain := &listener.FilterChain{}
	if l.TLS != nil {
		// The application learns from X-Forwarded-Client-Cert who called; what
		// a caller wrote there itself is thrown away.
		manager.ForwardClientCertDetails = hcm.HttpConnectionManager_SANITIZE_SET
		manager.SetCurrentClientCertDetails = &hcm.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
		if chain.TransportSocket, err = transportSocket(&tls.DownstreamTlsContext{
			CommonTlsContext:         tlsContext(l.TLS),
			RequireClientCertificate: wrapperspb.Bool(true),
		}); err != nil {
			return nil, err
		}
	}
	managing, err := anypb.New(manager)
	if err != nil {
		return nil, err
	}
	chain.Filters = []*listener.Filter{{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listener.Filter_TypedConfig{TypedConfig: managing},
	}}
	return &listener.Listener{
		Name:         l.Name,
		StatPrefix:   l.Name,
		Address:      address,
		FilterChains: []*listener.FilterChain{chain},
	}, nil
}

func routesOf(l Listener) *route.RouteConfiguration {
	host := &route.VirtualHost{Name: l.Name, Domains: []string{"*"}}
	for _, r := range l.Routes {
		out := &route.Route{Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: r.Prefix}}}
		for _, name := range slices.Sorted(maps.Keys(r.ResponseHeaders)) {
			out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, &core.HeaderValueOption{
				Header: &core.HeaderValue{Key: name, Value: r.ResponseHeaders[name]},
			})
		}
		if r.Direct != nil {
			answer := &route.DirectResponseAction{Status: uint32(r.Direct.Status)}
			if r.Direct.Body != "" {
				answer.Body = &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: r.Direct.Body}}
			}
			out.Action = &route.Route_DirectResponse{DirectResponse: answer}
		} else {
			// There is no retry policy: Envoy does not retry without one.
			action := &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: r.Cluster}}
			if r.Timeout > 0 {
				action.Timeout = durationpb.New(r.Timeout.Std())
			}
			out.Action = &route.Route_Route{Route: action}
		}
		host.Routes = append(host.Routes, out)
	}
	return &route.RouteConfiguration{Name: l.Name, VirtualHosts: []*route.VirtualHost{host}}
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
	return out
}

func transportSocket(context proto.Message) (*core.TransportSocket, error) {
	config, err := anypb.New(context)
	if err != nil {
		return nil, err
	}
	return &core.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
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
