package mosn

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

func request(t *testing.T, subject string, policies ...meshbench.Policy) mesh.Request {
	t.Helper()
	s, err := meshbench.ParseSubject(subject)
	if err != nil {
		t.Fatal(err)
	}
	at := func(process string) meshbench.PortRef { return meshbench.PortRef{Process: process, Port: "http"} }
	return mesh.Request{
		Subject: s, Profile: meshbench.Parity, Threads: 1, Policies: policies,
		Services: []meshbench.Service{
			{Name: "front", Instances: []meshbench.PortRef{at("front")}, Calls: []string{"back"}},
			{Name: "back", Instances: []meshbench.PortRef{at("back"), at("back-2")}},
		},
	}
}

// of returns what one proxy is given.
func of(t *testing.T, r mesh.Request, name string) configuration {
	t.Helper()
	all, err := configurations(r, unplaced{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range proxies(r) {
		if p.name == name {
			return all[i]
		}
	}
	t.Fatalf("there is no proxy %s", name)
	return configuration{}
}

func TestProxies(t *testing.T) {
	r := request(t, "mosn")
	spec := meshbench.Spec{}
	var names []string
	for _, p := range proxies(r) {
		names = append(names, p.name)
		spec.Processes = append(spec.Processes, meshbench.Process{Name: p.name})
	}
	if want := []string{"front-proxy", "back-proxy", "back-2-proxy", "client-proxy"}; !reflect.DeepEqual(names, want) {
		t.Errorf("proxies %v, want %v", names, want)
	}
	client := of(t, r, ClientProxy)
	if len(client.Listeners) != 1 || client.Listeners[0].Address != "client-proxy:http" || client.Listeners[0].FilterChains[0].TLS != nil {
		t.Errorf("the client's listeners are %+v", client.Listeners)
	}
	front := of(t, r, "front-proxy")
	var addresses []string
	for _, l := range front.Listeners {
		addresses = append(addresses, l.Address)
	}
	if want := []string{"front-proxy:inbound", "front-proxy:to-back"}; !reflect.DeepEqual(addresses, want) {
		t.Errorf("front listens at %v, want %v", addresses, want)
	}
	back := front.Clusters[2]
	if want := []host{{"back-proxy:inbound"}, {"back-2-proxy:inbound"}}; back.Name != "back" || !reflect.DeepEqual(back.Hosts, want) {
		t.Errorf("front knows back as %+v", back)
	}
}

func TestMutualTLS(t *testing.T) {
	mode := func(m meshbench.MTLSMode) meshbench.Policy {
		return meshbench.Policy{To: "back", MTLS: &meshbench.MTLSPolicy{Mode: m}}
	}
	for _, tt := range []struct {
		name               string
		request            mesh.Request
		inbound, inspected bool
	}{
		{"by itself", request(t, "mosn"), true, false},
		{"off", request(t, "mosn:mtls=off"), false, false},
		{"a policy over the option", request(t, "mosn:mtls=off", mode(meshbench.MTLSStrict)), true, false},
		{"permissive", request(t, "mosn", mode(meshbench.MTLSPermissive)), true, true},
		{"a policy of off", request(t, "mosn", mode(meshbench.MTLSOff)), false, false},
	} {
		l := of(t, tt.request, "back-proxy").Listeners[0]
		context := l.FilterChains[0].TLS
		if got := context != nil; got != tt.inbound || l.Inspector != tt.inspected {
			t.Errorf("%s: TLS %v, inspected %v", tt.name, got, l.Inspector)
		}
		if context != nil && (!context.RequireClientCert || !context.VerifyClient || context.PrivateKey != "back-proxy/key-1.pem") {
			t.Errorf("%s: the service's proxy has %+v", tt.name, context)
		}
		caller := of(t, tt.request, "front-proxy").Clusters[2].TLS
		if got := caller != nil; got != tt.inbound {
			t.Errorf("%s: the caller's side has TLS %v", tt.name, got)
		}
		if caller != nil && caller.ExtendVerify["match_subject_alt_names"] != "spiffe://meshbench.local/ns/default/sa/back" {
			t.Errorf("%s: the caller expects %v", tt.name, caller.ExtendVerify)
		}
	}
}

func TestTranslation(t *testing.T) {
	r := request(t, "mosn:upstream=http2")
	for proxy, want := range map[string]string{"front-proxy": "http2Tohttp", ClientProxy: "httpTohttp2"} {
		l := of(t, r, proxy).Listeners[0]
		if len(l.StreamFilters) != 1 || l.StreamFilters[0].Config["type"] != want {
			t.Errorf("%s translates by %+v, want %s", proxy, l.StreamFilters, want)
		}
	}
	for _, l := range of(t, request(t, "mosn"), "front-proxy").Listeners {
		if len(l.StreamFilters) > 0 {
			t.Errorf("without an option %s has filters: %+v", l.Name, l.StreamFilters)
		}
	}
}

func TestRules(t *testing.T) {
	r := request(t, "mosn",
		meshbench.Policy{To: "back", Match: &meshbench.Match{PathPrefix: "/slow", Method: "POST", Headers: map[string]string{"x-b": "2", "x-a": "1"}},
			Timeout: &meshbench.TimeoutPolicy{Request: meshbench.Duration(200 * time.Millisecond)}},
		meshbench.Policy{To: "back", Retry: &meshbench.RetryPolicy{
			Attempts: 5, On: []meshbench.RetryOn{meshbench.RetryOnGatewayError}, PerTryTimeout: meshbench.Duration(time.Second)}},
		meshbench.Policy{To: "back", Fault: &meshbench.FaultPolicy{
			Abort: &meshbench.Abort{Status: 418, Percent: 10}, Delay: &meshbench.Delay{Duration: meshbench.Duration(300 * time.Millisecond), Percent: 100}}},
		meshbench.Policy{To: "back", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{
			{Service: "back", Weight: 9}, {Service: "front", Weight: 1}}}},
		meshbench.Policy{To: "back", Mirror: &meshbench.MirrorPolicy{Service: "front", Percent: 50}},
		meshbench.Policy{To: "back", Headers: &meshbench.HeadersPolicy{
			Request:  &meshbench.HeaderChange{Set: map[string]string{"x-set": "1"}, Add: map[string]string{"x-add": "2"}, Remove: []string{"x-gone"}},
			Response: &meshbench.HeaderChange{Remove: []string{"server"}}}},
	)
	c := of(t, r, "front-proxy")
	got, err := json.Marshal(c.Routers[1].VirtualHosts[0].Routers)
	if err != nil {
		t.Fatal(err)
	}
	general := `
		"per_filter_config": {"fault": {
			"abort": {"percentage": 10, "status": 418}, "delay": {"fixed_delay": "300ms", "percentage": 100}}},
		"request_mirror_policies": {"cluster": "front", "percent": 50}`
	action := `
		"weighted_clusters": [{"cluster": {"name": "back", "weight": 9}}, {"cluster": {"name": "front", "weight": 1}}],
		"retry_policy": {"retry_on": true, "retry_timeout": "1s", "num_retries": 5, "status_codes": [502, 503, 504]},
		"request_headers_to_add": [
			{"header": {"key": "x-set", "value": "1"}, "append": false}, {"header": {"key": "x-add", "value": "2"}, "append": true}],
		"request_headers_to_remove": ["x-gone"], "response_headers_to_remove": ["server"]`
	want := `[
		{"match": {"prefix": "/slow", "headers": [
			{"name": "method", "value": "POST"}, {"name": "x-a", "value": "1"}, {"name": "x-b", "value": "2"}]},
		 "route": {"timeout": "200ms", ` + action + `}, ` + general + `},
		{"match": {"prefix": "/"}, "route": {"timeout": "1m0s", ` + action + `}, ` + general + `}]`
	if difference := cmp.Diff(parsed(t, want), parsed(t, string(got))); difference != "" {
		t.Error(difference)
	}
	var filters []string
	for _, f := range c.Listeners[1].StreamFilters {
		filters = append(filters, f.Type)
	}
	if want := []string{"fault", "mirror"}; !reflect.DeepEqual(filters, want) {
		t.Errorf("the listener has %v, want %v", filters, want)
	}
}

func parsed(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLimits(t *testing.T) {
	r := request(t, "mosn",
		meshbench.Policy{To: "back", RateLimit: &meshbench.RateLimitPolicy{Requests: 7, Per: meshbench.Duration(2 * time.Second)}},
		meshbench.Policy{To: "back", CircuitBreaker: &meshbench.CircuitBreaker{MaxConnections: 3}},
	)
	filters := of(t, r, "back-2-proxy").Listeners[0].StreamFilters
	if len(filters) != 1 || filters[0].Config["log_path"] != "back-2-proxy/sentinel" {
		t.Fatalf("the second instance has %+v", filters)
	}
	rule := filters[0].Config["rules"].([]map[string]any)[0]
	if rule["threshold"] != 7 || rule["statIntervalInMs"] != int64(2000) {
		t.Errorf("the rule is %v", rule)
	}
	if got := of(t, r, "front-proxy").Clusters[2].CircuitBreakers; !reflect.DeepEqual(got, []threshold{{MaxConnections: 3}}) {
		t.Errorf("the limits are %+v", got)
	}
	if got := of(t, r, "front-proxy").Listeners[0].StreamFilters; len(got) > 0 {
		t.Errorf("front is limited, too: %+v", got)
	}
}

func TestAuthorization(t *testing.T) {
	r := request(t, "mosn:upstream=http2",
		meshbench.Policy{To: "back", Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{"front"}}},
		meshbench.Policy{To: "back", Authorization: &meshbench.Authorization{Action: meshbench.Deny}},
	)
	got, err := json.Marshal(of(t, r, "back-proxy").Listeners[0].StreamFilters)
	if err != nil {
		t.Fatal(err)
	}
	want := `[
		{"type": "rbac", "config": {"version": "1", "rules": {"action": "DENY", "policies": {
			"1": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}}},
		{"type": "rbac", "config": {"version": "1", "rules": {"action": "ALLOW", "policies": {
			"0": {"permissions": [{"any": true}], "principals": [{"metadata": {
				"filter": "istio_authn", "path": [{"key": "source.principal"}],
				"value": {"string_match": {"exact": "meshbench.local/ns/default/sa/front"}}}}]}}}}},
		{"type": "transcoder", "config": {"type": "http2Tohttp"}}]`
	if difference := cmp.Diff(parsed(t, want), parsed(t, string(got))); difference != "" {
		t.Error(difference)
	}
	if got := of(t, r, "front-proxy").Listeners[0].StreamFilters; len(got) != 1 {
		t.Errorf("front has rules, too: %+v", got)
	}
}

func TestRefusals(t *testing.T) {
	fault := meshbench.Policy{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 0.5}}}
	mirror := meshbench.Policy{Mirror: &meshbench.MirrorPolicy{Service: "back", Percent: 100}}
	path := meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny, Paths: []string{"/admin"}}}
	deny := meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"front"}}}
	outlier := meshbench.Policy{OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 1, BaseEjection: 1}}
	for _, tt := range []struct {
		request mesh.Request
		want    string
	}{
		{request(t, "mosn", fault), "whole percents, not 0.5"},
		{request(t, "mosn:upstream=http2", mirror), "mirrored request"},
		{request(t, "mosn", path), "path and method"},
		{request(t, "mosn:mtls=off", deny), "mutual TLS alone"},
		{request(t, "mosn", outlier), "cannot do outlier_detection"},
	} {
		_, err := New().Show(tt.request)
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, tt.want) || e.Hint == "" {
			t.Errorf("%+v, want %q", e, tt.want)
		}
	}
}

func TestStatistics(t *testing.T) {
	var s statistics
	if err := json.Unmarshal([]byte(`{
		"downstream": {"listener.inbound": {"request_total": "12", "connection_total": "3"}, "proxy.global": {"request_total": "99"}},
		"upstream": {"cluster.back": {"request_total": "5"}, "cluster.back.host.127.0.0.1:80": {"request_total": "5"}, "cluster.new": {}}
	}`), &s); err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	if err := s.collect("downstream", "listener", got); err != nil || !reflect.DeepEqual(got, map[string]uint64{"inbound": 12}) {
		t.Errorf("%v, %v", got, err)
	}
	got = map[string]uint64{}
	if err := s.collect("upstream", "cluster", got); err != nil || got["back"] != 5 {
		t.Errorf("%v, %v", got, err)
	}
	s["upstream"]["cluster.back"]["request_total"] = "-1"
	if err := s.collect("upstream", "cluster", got); err == nil {
		t.Error("a count below 0 was read")
	}
}

func TestMutual(t *testing.T) {
	for want, c := range map[string]connections{
		notSeen: {}, off: {Plain: 1}, strict: {TLS: 2, Mutual: 2}, "partly": {TLS: 2, Mutual: 1},
	} {
		if got := c.mutual(); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
	if got := (connections{TLS: 1, Mutual: 1, Plain: 1}).mutual(); got != "partly" {
		t.Errorf("plain text beside TLS: %s", got)
	}
}

func TestFacts(t *testing.T) {
	if v := parseVersion("mosn version: 1.6.1"); v != "1.6.1" {
		t.Errorf("version %q", v)
	}
	var f facts
	f.look(parsed(t, `{"tracing": {}, "servers": [{"listeners": [{"access_logs": []}]}]}`))
	if f.accessLog || f.tracing {
		t.Errorf("%+v", f)
	}
	f.look(parsed(t, `{"tracing": {"enable": true}, "servers": [{"listeners": [{"access_logs": [{"log_path": "x"}]}]}]}`))
	if !f.accessLog || !f.tracing {
		t.Errorf("%+v", f)
	}
}
