package consul

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/telemetry/statsd"
)

var echo = meshbench.Service{Name: "echo", Instances: []meshbench.PortRef{{Process: "echo", Port: "http"}}}

// TestConformance tries what needs no process; package test has the rest.
func TestConformance(t *testing.T) {
	meshtest.Run(t, meshtest.Suite{
		Driver:       New(),
		Applications: []meshbench.Process{{Name: "echo", Role: meshbench.Application, Service: "echo", Runtime: meshbench.Self, Ports: []string{"http"}}},
		Service:      echo,
		Examples:     []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSStrict}}}, // there is no other mode
	})
}

// shop is a request with services that call each other.
func shop(profile meshbench.Profile, policies ...meshbench.Policy) mesh.Request {
	at := func(process string) meshbench.PortRef { return meshbench.PortRef{Process: process, Port: "http"} }
	return mesh.Request{
		Subject: meshbench.Subject{Mesh: "consul"}, Profile: profile, Threads: 1,
		Workload: meshbench.Workload{Protocol: meshbench.HTTP1},
		Services: []meshbench.Service{
			{Name: "front", Instances: []meshbench.PortRef{at("front")}, Calls: []string{"back"}},
			{Name: "back", Instances: []meshbench.PortRef{at("back"), at("back-2")}},
		},
		Policies: policies,
	}
}

func builtin(r mesh.Request) mesh.Request {
	r.Subject.Options = map[string]string{"proxy": "builtin"}
	return r
}

func TestRenderSeveralServices(t *testing.T) {
	for _, r := range []mesh.Request{shop(meshbench.Parity), builtin(shop(meshbench.Parity))} {
		spec, err := New().Render(r)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range spec.Processes {
			names = append(names, p.Name)
		}
		want := []string{"control-plane", "front-proxy", "back-proxy", "back-2-proxy", "client-proxy"}
		if dataPlane(r.Subject) == builtinProxy {
			want = slices.Insert(want, 1, "metrics")
		}
		if difference := cmp.Diff(want, names); difference != "" {
			t.Error(difference)
		}
		if difference := cmp.Diff([]meshbench.Route{{From: "front", To: "back", At: meshbench.PortRef{Process: "front-proxy", Port: "to-back"}}}, spec.Routes); difference != "" {
			t.Error(difference)
		}
	}
}

// body returns an entry as JSON text, or "" where there is none.
func body(t *testing.T, r mesh.Request, kind, name string) string {
	t.Helper()
	all, err := entries(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.kind == kind && e.name == name {
			data, err := json.Marshal(e.body())
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
	return ""
}

func TestEntriesOfTheProfiles(t *testing.T) {
	if got := body(t, shop(meshbench.Shipped), kindRouter, "back"); got != "" {
		t.Errorf("shipped has a router: %s", got)
	}
	if got := body(t, shop(meshbench.Shipped), kindService, "front"); got != `{"Kind":"service-defaults","Name":"front","Protocol":"http"}` {
		t.Error(got)
	}
	if got := body(t, shop(meshbench.Parity), kindRouter, "back"); got != `{"Kind":"service-router","Name":"back","Routes":[{"Destination":{"RequestTimeout":"1m0s","Service":"back"}}]}` {
		t.Error(got)
	}
	if got := body(t, shop(meshbench.Parity), kindMesh, "mesh"); !strings.Contains(got, `"Outgoing":{"TLSMaxVersion":"TLSv1_3","TLSMinVersion":"TLSv1_3"}`) || strings.Contains(got, "Name") {
		t.Error(got)
	}
	if got := body(t, shop(meshbench.Parity), kindService, "client"); !strings.Contains(got, `"EnforcingConsecutive5xx":0`) {
		t.Error(got)
	}
	all, err := entries(builtin(shop(meshbench.Parity)))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.kind != kindIntentions {
			t.Errorf("the built-in proxy gets a %s", e.kind)
		}
	}
}

func seconds(n float64) meshbench.Duration {
	return meshbench.Duration(n * float64(time.Second))
}

func TestEntriesOfPolicies(t *testing.T) {
	dev := &meshbench.Match{PathPrefix: "/a", Method: "GET", Headers: map[string]string{"x-user": "dev", "x-none": ""}}
	split := &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "front", Weight: 1}, {Service: "back", Weight: 2}}}
	for _, tt := range []struct {
		name     string
		policies []meshbench.Policy
		kind, of string
		want     string
	}{
		{"timeout and retry", []meshbench.Policy{
			{To: "back", Timeout: &meshbench.TimeoutPolicy{Request: seconds(0.2)}},
			{To: "back", Retry: &meshbench.RetryPolicy{Attempts: 3, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnReset}}},
		}, kindRouter, "back", `"Routes":[{"Destination":{"NumRetries":3,"RequestTimeout":"200ms","RetryOn":["5xx","reset"],"Service":"back"}}]`},
		{"the server waits as long as the client", []meshbench.Policy{
			{To: "back", Timeout: &meshbench.TimeoutPolicy{Request: seconds(90)}},
		}, kindService, "back", `"LocalRequestTimeoutMs":90000`},
		{"match", []meshbench.Policy{
			{To: "back", Match: dev, Timeout: &meshbench.TimeoutPolicy{Request: seconds(1)}},
		}, kindRouter, "back", `"Match":{"HTTP":{"Header":[{"Name":"x-none","Regex":"^$"},{"Exact":"dev","Name":"x-user"}],"Methods":["GET"],"PathPrefix":"/a"}}`},
		{"headers", []meshbench.Policy{
			{To: "back", Headers: &meshbench.HeadersPolicy{
				Request:  &meshbench.HeaderChange{Set: map[string]string{"a": "1"}, Remove: []string{"b"}},
				Response: &meshbench.HeaderChange{Add: map[string]string{"c": "2"}},
			}},
		}, kindRouter, "back", `"RequestHeaders":{"Remove":["b"],"Set":{"a":"1"}},"ResponseHeaders":{"Add":{"c":"2"}}`},
		{"circuit breaker", []meshbench.Policy{
			{To: "back", CircuitBreaker: &meshbench.CircuitBreaker{MaxRequests: 5}},
		}, kindService, "front", `"Overrides":[{"Limits":{"MaxConcurrentRequests":5},"Name":"back"}]`},
		{"outlier detection", []meshbench.Policy{
			{To: "back", OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 3, Interval: seconds(1), BaseEjection: seconds(2), MaxEjectionPercent: 100}},
		}, kindService, "front", `"PassiveHealthCheck":{"BaseEjectionTime":"2s","EnforcingConsecutive5xx":100,"Interval":"1s","MaxEjectionPercent":100,"MaxFailures":3}`},
	} {
		got := body(t, shop(meshbench.Shipped, tt.policies...), tt.kind, tt.of)
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s\nlacks %s", tt.name, got, tt.want)
		}
	}

	// The router leads to a service that is not there, whose splitter is.
	all, err := entries(shop(meshbench.Shipped, meshbench.Policy{To: "back", Split: split}))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(e entry) bool { return e.kind == kindSplitter })
	j := slices.IndexFunc(all, func(e entry) bool { return e.kind == kindRouter })
	if i < 0 || j < i || !strings.HasPrefix(all[i].name, "back-split-") {
		t.Fatalf("splitter %d, router %d of %+v", i, j, all)
	}
	router, _ := json.Marshal(all[j].body())
	if !strings.Contains(string(router), `"Service":"`+all[i].name+`"`) {
		t.Errorf("the router does not lead to %s: %s", all[i].name, router)
	}
}

func TestShares(t *testing.T) {
	for _, tt := range []struct {
		weights []int
		want    []float64
	}{
		{[]int{1}, []float64{100}},
		{[]int{75, 25}, []float64{75, 25}},
		{[]int{1, 1, 1}, []float64{33.34, 33.33, 33.33}},
		{[]int{1, 2}, []float64{33.33, 66.67}},
		{[]int{0, 3, 0}, []float64{100}},
		{[]int{1, 999999}, []float64{100}}, // less than the smallest share
	} {
		var backends []meshbench.WeightedBackend
		for _, w := range tt.weights {
			backends = append(backends, meshbench.WeightedBackend{Service: "s", Weight: w})
		}
		var got []float64
		for _, s := range shares(backends) {
			got = append(got, s["Weight"].(float64))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.weights, got, tt.want)
		}
	}
}

func TestPermissions(t *testing.T) {
	allow := func(a meshbench.Authorization) meshbench.Authorization { a.Action = meshbench.Allow; return a }
	deny := func(a meshbench.Authorization) meshbench.Authorization { a.Action = meshbench.Deny; return a }
	from := meshbench.Authorization{From: []string{"front"}}
	admin := meshbench.Authorization{Paths: []string{"/admin"}}
	post := meshbench.Authorization{Methods: []string{"POST"}}
	for _, tt := range []struct {
		name           string
		authorizations []meshbench.Authorization
		want           string // for the sender "client"
	}{
		{"none", nil, `[{"Action":"allow"}]`},
		{"deny all", []meshbench.Authorization{deny(meshbench.Authorization{})}, `[{"Action":"deny"}]`},
		{"deny another", []meshbench.Authorization{deny(from)}, `[{"Action":"allow"}]`},
		{"allow another", []meshbench.Authorization{allow(from)}, `[{"Action":"deny"}]`},
		{"deny a path", []meshbench.Authorization{deny(admin)}, `[{"Action":"deny","HTTP":{"PathPrefix":"/admin"}},{"Action":"allow","HTTP":{"PathPrefix":"/"}}]`},
		{"allow a method", []meshbench.Authorization{allow(post)}, `[{"Action":"allow","HTTP":{"Methods":["POST"],"PathPrefix":"/"}},{"Action":"deny","HTTP":{"PathPrefix":"/"}}]`},
		{"a denial wins", []meshbench.Authorization{allow(meshbench.Authorization{}), deny(admin)}, `[{"Action":"deny","HTTP":{"PathPrefix":"/admin"}},{"Action":"allow","HTTP":{"PathPrefix":"/"}}]`},
	} {
		got, err := json.Marshal(permissions(tt.authorizations, mesh.Client))
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %s, want %s (%v)", tt.name, got, tt.want, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		r      mesh.Request
		reason string // empty: it can be done
	}{
		{"strict", shop(meshbench.Parity, meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSStrict}}), ""},
		{"permissive", shop(meshbench.Parity, meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}}), "transparent proxies"},
		{"off", shop(meshbench.Parity, meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSOff}}), "always speak mutual TLS"},
		{"per try", shop(meshbench.Parity, meshbench.Policy{Retry: &meshbench.RetryPolicy{Attempts: 1, PerTryTimeout: 1}}), "timeout per try"},
		{"fault", shop(meshbench.Parity, meshbench.Policy{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 1}}}), "cannot do fault"},
		{"rate limit", shop(meshbench.Parity, meshbench.Policy{RateLimit: &meshbench.RateLimitPolicy{Requests: 1, Per: seconds(1)}}), "cannot do rate_limit"},
		{"builtin timeout", builtin(shop(meshbench.Parity, meshbench.Policy{Timeout: &meshbench.TimeoutPolicy{Request: 1}})), "cannot do timeout"},
		{"builtin deny", builtin(shop(meshbench.Parity, meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny}})), "cannot do authorization"},
	} {
		documents, err := New().Show(tt.r)
		if tt.reason == "" {
			if err != nil || len(documents) == 0 {
				t.Errorf("%s: %v, %d documents", tt.name, err, len(documents))
			}
			continue
		}
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Invalid || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(e.Hint, "https://") {
			t.Errorf("%s: %+v", tt.name, e)
		}
	}
}

func TestParseDump(t *testing.T) {
	got, err := parseDump([]byte(`{"configs": [
	  {"@type": "x", "name": "public_listener:127.0.0.1:1", "active_state": {"version_info": "1", "listener": {"name": "l"}, "last_updated": "now"}},
	  {"@type": "x", "name": "echo:127.0.0.1:2", "warming_state": {"listener": {"name": "not yet"}}},
	  {"@type": "x", "version_info": "2", "route_config": {"name": "echo", "virtual_hosts": []}},
	  {"@type": "x", "cluster": {"name": "local_app"}}
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for name, content := range got {
		names[name] = string(content)
	}
	want := map[string]string{
		"public_listener:127.0.0.1:1": `{"name": "l"}`,
		"echo":                        `{"name": "echo", "virtual_hosts": []}`,
		"local_app":                   `{"name": "local_app"}`,
	}
	if difference := cmp.Diff(want, names); difference != "" {
		t.Error(difference)
	}
	for _, bad := range []string{"", "[]", `{"configs": {}}`, `{"configs": [{"cluster": 1}]}`} {
		if got, err := parseDump([]byte(bad)); err == nil {
			t.Errorf("%q read as %v", bad, got)
		}
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add(`{"configs": [{"name": "a", "active_state": {"listener": {}}}, {"route_config": {"name": "b"}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseDump([]byte(text))
		for name, content := range got {
			if err == nil && !json.Valid(content) {
				t.Errorf("%s: %s", name, content)
			}
		}
	})
}

func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		config             string
		traces, authorizes bool
	}{
		{`{"tracing": {"random_sampling": {}}, "http_filters": [{"rules": {"policies": {}}}]}`, false, false},
		{`{"tracing": {"provider": {"name": "zipkin"}}}`, true, false},
		{`[{"rules": {"policies": {"one": {"principals": []}}}}]`, false, true},
		{`[{"rules": {"action": "DENY", "policies": {"one": {}}}}]`, false, false},
	} {
		traces, authorizes, err := filters([]byte(tt.config))
		if err != nil || traces != tt.traces || authorizes != tt.authorizes {
			t.Errorf("%s: %v, %v, %v", tt.config, traces, authorizes, err)
		}
	}
}

func TestBuiltinCounts(t *testing.T) {
	m := statsd.Metrics{Gauges: map[string]statsd.Gauge{
		"front-proxy.upstream.conns.front.service.back":     {Value: 1, Rises: 4},
		"front-proxy.upstream.conns.front.service.feedback": {Rises: 8},
		"back-proxy.inbound.conns.back":                     {Rises: 5},
		"back-2-proxy.inbound.conns.back":                   {Rises: 7},
	}}
	if n := dialled(m, "front-proxy", "back"); n != 4 {
		t.Errorf("dialled %d", n)
	}
	if n := accepted(m, "back-proxy", "back"); n != 5 {
		t.Errorf("accepted %d", n)
	}
	if n := accepted(m, "front-proxy", "front"); n != 0 {
		t.Errorf("accepted %d where nothing was told", n)
	}
}

func TestInbound(t *testing.T) {
	if got := Inbound("echo"); got != (meshbench.PortRef{Process: "echo-proxy", Port: "inbound"}) {
		t.Errorf("%+v", got)
	}
}
