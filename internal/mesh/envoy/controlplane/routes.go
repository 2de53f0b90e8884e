package controlplane

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacfilter "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previous "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshbench/meshbench"
)

// The HTTP filters, by the names that routes refer to them. All but the
// router are switched off in the listener, and a route that needs one switches
// it on: so a policy is a change of routes alone, which open connections
// follow at once, where a change of listeners would have to drain them.
const (
	denyFilter      = "deny"
	allowFilter     = "allow"
	rateLimitFilter = "rate_limit"
	faultFilter     = "fault"
	routerFilter    = "envoy.filters.http.router"
)

// filtersOf returns the HTTP filters of a listener in their order: who is not
// allowed uses up no rate.
func filtersOf(l Listener) ([]*hcm.HttpFilter, error) {
	type named struct {
		name   string
		config proto.Message
	}
	list := []named{{faultFilter, &fault.HTTPFault{}}}
	if l.Inbound {
		list = []named{
			{denyFilter, &rbacfilter.RBAC{}}, {allowFilter, &rbacfilter.RBAC{}},
			{rateLimitFilter, &ratelimit.LocalRateLimit{StatPrefix: rateLimitFilter}},
		}
	}
	list = append(list, named{routerFilter, &router.Router{}})
	var out []*hcm.HttpFilter
	for _, f := range list {
		config, err := packed(f.config)
		if err != nil {
			return nil, err
		}
		out = append(out, &hcm.HttpFilter{
			Name: f.name, Disabled: f.name != routerFilter,
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: config},
		})
	}
	return out, nil
}

func routeOf(r Route) (*route.Route, error) {
	out := &route.Route{Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}}}
	if whole := strings.TrimRight(r.Prefix, "/"); whole != "" {
		out.Match.PathSpecifier = &route.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: whole}
	}
	if r.Method != "" {
		out.Match.Headers = append(out.Match.Headers, exactly(":method", r.Method))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		out.Match.Headers = append(out.Match.Headers, exactly(name, r.Headers[name]))
	}
	out.RequestHeadersToAdd, out.RequestHeadersToRemove = changes(r.Request)
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = changes(r.Response)
	if r.Direct != nil {
		answer := &route.DirectResponseAction{Status: uint32(r.Direct.Status)}
		if r.Direct.Body != "" {
			answer.Body = &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: r.Direct.Body}}
		}
		out.Action = &route.Route_DirectResponse{DirectResponse: answer}
	} else {
		action, err := actionOf(r)
		if err != nil {
			return nil, err
		}
		out.Action = &route.Route_Route{Route: action}
	}
	var err error
	out.TypedPerFilterConfig, err = filterConfigs(r)
	return out, err
}

func actionOf(r Route) (*route.RouteAction, error) {
	action := &route.RouteAction{ClusterSpecifier: &route.RouteAction_Cluster{Cluster: r.Cluster}}
	if len(r.Backends) > 0 {
		weighted := &route.WeightedCluster{}
		for _, b := range r.Backends {
			if b.Weight > 0 {
				weighted.Clusters = append(weighted.Clusters, &route.WeightedCluster_ClusterWeight{
					Name: b.Cluster, Weight: wrapperspb.UInt32(uint32(b.Weight)),
				})
			}
		}
		action.ClusterSpecifier = &route.RouteAction_WeightedClusters{WeightedClusters: weighted}
	}
	if r.Timeout > 0 {
		action.Timeout = durationpb.New(r.Timeout.Std())
	}
	if r.Retry != nil {
		// Where there are other instances, one that has failed is not asked again.
		others, err := packed(&previous.PreviousHostsPredicate{})
		if err != nil {
			return nil, err
		}
		action.RetryPolicy = &route.RetryPolicy{
			NumRetries: wrapperspb.UInt32(uint32(min(max(r.Retry.Attempts, 0), math.MaxInt32))),
			RetryHostPredicate: []*route.RetryPolicy_RetryHostPredicate{{
				Name:       "envoy.retry_host_predicates.previous_hosts",
				ConfigType: &route.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: others},
			}},
			HostSelectionRetryMaxAttempts: 5,
		}
		var on []string
		for _, reason := range r.Retry.On {
			on = append(on, strings.ReplaceAll(string(reason), "_", "-")) // Envoy has the same words
			if status := proxyStatus[reason]; status != "" {
				action.RetryPolicy.RetriableHeaders = append(action.RetryPolicy.RetriableHeaders, exactly(proxyStatusHeader, status))
			}
		}
		if len(action.RetryPolicy.RetriableHeaders) > 0 {
			on = append(on, "retriable-headers")
		}
		action.RetryPolicy.RetryOn = strings.Join(on, ",")
		if r.Retry.PerTryTimeout > 0 {
			action.RetryPolicy.PerTryTimeout = durationpb.New(r.Retry.PerTryTimeout.Std())
		}
	}
	if m := r.Mirror; m != nil {
		action.RequestMirrorPolicies = []*route.RouteAction_RequestMirrorPolicy{{
			Cluster:         m.Cluster,
			RuntimeFraction: &core.RuntimeFractionalPercent{DefaultValue: fraction(m.Percent)},
			// A copy is a copy: Envoy by itself adds -shadow to its Host.
			DisableShadowHostSuffixAppend: true,
		}}
	}
	return action, nil
}

// A server's proxy that cannot reach its application answers 503, and a
// client's proxy takes that for an answer, not for a connection that failed.
// So the server's proxy says why, in the header that RFC 9209 has for it, and
// the client's proxy retries where a policy names that reason.
const proxyStatusHeader = "proxy-status"

var proxyStatus = map[meshbench.RetryOn]string{
	meshbench.RetryOnConnectFailure: "envoy; error=destination_unavailable",
	meshbench.RetryOnReset:          "envoy; error=connection_terminated",
}

// localReplies is how the proxy before an application says why it answers
// itself. The flags are Envoy's: no connection could be made; the connection
// ended, or was reset.
func localReplies() *hcm.LocalReplyConfig {
	out := &hcm.LocalReplyConfig{}
	for _, m := range []struct {
		reason meshbench.RetryOn
		flags  []string
	}{{meshbench.RetryOnConnectFailure, []string{"UF"}}, {meshbench.RetryOnReset, []string{"UC", "UR"}}} {
		out.Mappers = append(out.Mappers, &hcm.ResponseMapper{
			Filter: &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_ResponseFlagFilter{
				ResponseFlagFilter: &accesslog.ResponseFlagFilter{Flags: m.flags},
			}},
			HeadersToAdd: []*core.HeaderValueOption{{
				Header:       &core.HeaderValue{Key: proxyStatusHeader, Value: proxyStatus[m.reason]},
				AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
		})
	}
	return out
}

// exactly matches a header by its whole value.
func exactly(name, value string) *route.HeaderMatcher {
	return &route.HeaderMatcher{Name: name, HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{
		StringMatch: &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: value}},
	}}
}

// changes puts a change of headers into Envoy's words. Envoy removes first
// and then sets and adds in their order; so what shall be removed in the end
// is not set at all.
func changes(c *meshbench.HeaderChange) (add []*core.HeaderValueOption, remove []string) {
	if c == nil {
		return nil, nil
	}
	kept := func(name string) bool {
		return !slices.ContainsFunc(c.Remove, func(r string) bool { return strings.EqualFold(r, name) })
	}
	for _, step := range []struct {
		fields map[string]string
		action core.HeaderValueOption_HeaderAppendAction
	}{
		{c.Set, core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}, {c.Add, core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD},
	} {
		for _, name := range slices.Sorted(maps.Keys(step.fields)) {
			if kept(name) {
				add = append(add, &core.HeaderValueOption{
					// A percent sign begins a command of Envoy's; two are one.
					Header:       &core.HeaderValue{Key: name, Value: strings.ReplaceAll(step.fields[name], "%", "%%")},
					AppendAction: step.action, KeepEmptyValue: true,
				})
			}
		}
	}
	return add, c.Remove
}

// fraction is a share in percent, to a ten-thousandth.
func fraction(percent float64) *typev3.FractionalPercent {
	n := math.Round(percent * 1e4)
	if !(n >= 1) { // also where it is no number
		n = 1
	}
	return &typev3.FractionalPercent{Numerator: uint32(min(n, 1e6)), Denominator: typev3.FractionalPercent_MILLION}
}

// always is all requests.
func always() *core.RuntimeFractionalPercent {
	return &core.RuntimeFractionalPercent{DefaultValue: fraction(100)}
}

// filterConfigs switches on the filters that a route needs.
func filterConfigs(r Route) (map[string]*anypb.Any, error) {
	configs := map[string]proto.Message{}
	if r.Fault != nil {
		configs[faultFilter] = faultOf(*r.Fault)
	}
	if rules := rulesOf(r.Authorizations, meshbench.Deny); rules != nil {
		configs[denyFilter] = &rbacfilter.RBACPerRoute{Rbac: &rbacfilter.RBAC{Rules: rules}}
	}
	if rules := rulesOf(r.Authorizations, meshbench.Allow); rules != nil {
		configs[allowFilter] = &rbacfilter.RBACPerRoute{Rbac: &rbacfilter.RBAC{Rules: rules}}
	}
	if limit := r.RateLimit; limit != nil {
		tokens := uint32(min(max(limit.Requests, 0), math.MaxInt32))
		configs[rateLimitFilter] = &ratelimit.LocalRateLimit{
			StatPrefix: rateLimitFilter,
			TokenBucket: &typev3.TokenBucket{
				MaxTokens: tokens, TokensPerFill: wrapperspb.UInt32(tokens), FillInterval: durationpb.New(limit.Per.Std()),
			},
			FilterEnabled: always(), FilterEnforced: always(),
		}
	}
	var out map[string]*anypb.Any
	for name, message := range configs {
		if checked, ok := message.(interface{ ValidateAll() error }); ok {
			if err := checked.ValidateAll(); err != nil {
				return nil, meshbench.Errorf(meshbench.Invalid, "route %s: %w", r.Prefix, err)
			}
		}
		config, err := packed(message)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]*anypb.Any{}
		}
		out[name] = config
	}
	return out, nil
}

func faultOf(f meshbench.FaultPolicy) *fault.HTTPFault {
	out := &fault.HTTPFault{}
	if a := f.Abort; a != nil {
		out.Abort = &fault.FaultAbort{
			ErrorType:  &fault.FaultAbort_HttpStatus{HttpStatus: uint32(min(max(a.Status, 0), math.MaxInt32))},
			Percentage: fraction(a.Percent),
		}
	}
	if d := f.Delay; d != nil {
		out.Delay = &faultcommon.FaultDelay{
			FaultDelaySecifier: &faultcommon.FaultDelay_FixedDelay{FixedDelay: durationpb.New(max(d.Duration.Std(), time.Nanosecond))},
			Percentage:         fraction(d.Percent),
		}
	}
	return out
}

// rulesOf puts the authorizations of one action into rules; nil: there are
// none.
func rulesOf(list []meshbench.Authorization, action meshbench.Action) *rbac.RBAC {
	out := &rbac.RBAC{Action: rbac.RBAC_ALLOW, Policies: map[string]*rbac.Policy{}}
	if action == meshbench.Deny {
		out.Action = rbac.RBAC_DENY
	}
	for i, a := range list {
		if a.Action != action {
			continue
		}
		var methods []*rbac.Permission
		for _, m := range a.Methods {
			methods = append(methods, &rbac.Permission{Rule: &rbac.Permission_Header{Header: exactly(":method", m)}})
		}
		var from []*rbac.Principal
		for _, name := range a.From {
			from = append(from, &rbac.Principal{Identifier: &rbac.Principal_Authenticated_{Authenticated: &rbac.Principal_Authenticated{
				PrincipalName: &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: name}},
			}}})
		}
		if len(from) == 0 {
			from = []*rbac.Principal{{Identifier: &rbac.Principal_Any{Any: true}}}
		}
		out.Policies[fmt.Sprintf("%s-%03d", action, i+1)] = &rbac.Policy{
			Permissions: []*rbac.Permission{{Rule: &rbac.Permission_AndRules{AndRules: &rbac.Permission_Set{
				Rules: []*rbac.Permission{pathsOf(a), anyOf(methods)},
			}}}},
			Principals: from,
		}
	}
	if len(out.Policies) == 0 {
		return nil
	}
	return out
}

// unusual is a path that means another to who takes it literally than to who
// puts it into its normal form (RFC 3986, 6.2.2): it has empty or dot
// segments, backslashes, or letters, digits, - . _ ~ / \ in percent-encoding.
const unusual = `.*(//|/\.\.?(/|$)|\\|%(2[d-fD-F]|3[0-9]|[46][1-9a-fA-F]|5[0-9aAcCfF]|7[0-9aAeE])).*`

// pathsOf fits the paths of an authorization. An unusual one fits every
// denial and no permission, since the application may take it for another.
func pathsOf(a meshbench.Authorization) *rbac.Permission {
	if len(a.Paths) == 0 || slices.Contains(a.Paths, "/") {
		return anyOf(nil)
	}
	fits := func(m *matcher.StringMatcher) *rbac.Permission {
		return &rbac.Permission{Rule: &rbac.Permission_UrlPath{UrlPath: &matcher.PathMatcher{Rule: &matcher.PathMatcher_Path{Path: m}}}}
	}
	var paths []*rbac.Permission
	for _, p := range a.Paths {
		paths = append(paths, fits(&matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Prefix{Prefix: p}}))
	}
	odd := fits(&matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: unusual}}})
	if a.Action == meshbench.Deny {
		return anyOf(append(paths, odd))
	}
	return &rbac.Permission{Rule: &rbac.Permission_AndRules{AndRules: &rbac.Permission_Set{
		Rules: []*rbac.Permission{anyOf(paths), {Rule: &rbac.Permission_NotRule{NotRule: odd}}},
	}}}
}

// anyOf fits what one of the list fits, and everything where there is none.
func anyOf(list []*rbac.Permission) *rbac.Permission {
	if len(list) == 0 {
		return &rbac.Permission{Rule: &rbac.Permission_Any{Any: true}}
	}
	return &rbac.Permission{Rule: &rbac.Permission_OrRules{OrRules: &rbac.Permission_Set{Rules: list}}}
}
