package linkerd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
)

// linkerdPicks is the rule by which Linkerd chooses among routes: the longest
// path, then the one with a method, then the most headers (Gateway API,
// HTTPRouteRule.matches, of which Linkerd has these).
func linkerdPicks(routes []controlplane.Route, path, method string, headers map[string]string) *controlplane.Route {
	asked := meshbench.Match{PathPrefix: path, Method: method, Headers: headers}
	var best *controlplane.Route
	score := func(r *controlplane.Route) []int {
		m := meshbench.Match{}
		if r.Match != nil {
			m = *r.Match
		}
		named := 0
		if m.Method != "" {
			named = 1
		}
		return []int{len(strings.TrimSuffix(m.PathPrefix, "/")), len(m.Headers), named}
	}
	for i := range routes {
		r := &routes[i]
		if (r.Match == nil || contains(*r.Match, asked)) && (best == nil || slices.Compare(score(r), score(best)) > 0) {
			best = r
		}
	}
	return best
}

// TestRoutesKeepTheOrderOfRules tries all kinds of requests: what Linkerd
// picks must be what the first rule that fits says.
func TestRoutesKeepTheOrderOfRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	paths, methods := []string{"", "/a", "/a/b", "/ab"}, []string{"", "GET", "POST"}
	headers := []map[string]string{nil, {"x-a": "1"}, {"x-a": "2"}, {"x-b": "1"}, {"x-a": "1", "x-b": "1"}}
	tried := 0
	for range 300 {
		var rules []mesh.Rule
		for i := range 1 + random.IntN(4) {
			rules = append(rules, mesh.Rule{
				Match: &meshbench.Match{
					PathPrefix: paths[random.IntN(len(paths))], Method: methods[random.IntN(len(methods))], Headers: headers[random.IntN(len(headers))],
				},
				Timeout: meshbench.Duration(i + 1), Backends: []meshbench.WeightedBackend{{Service: "echo", Weight: 1}},
			})
		}
		rules = append(rules, mesh.Rule{Timeout: 99, Backends: []meshbench.WeightedBackend{{Service: "echo", Weight: 1}}})
		made, err := routes("echo", rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/", "/a", "/a/b/c", "/ab", "/abc"} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				for _, h := range headers {
					asked := meshbench.Match{PathPrefix: path, Method: method, Headers: h}
					i := slices.IndexFunc(rules, func(r mesh.Rule) bool { return r.Match == nil || contains(*r.Match, asked) })
					got := linkerdPicks(made, path, method, h)
					tried++
					if got == nil || got.Timeout != rules[i].Timeout {
						t.Fatalf("%s %s %v: Linkerd picks %+v, the first rule that fits is %+v", method, path, h, got, rules[i])
					}
				}
			}
		}
	}
	t.Logf("%d requests", tried)
}

func TestRouteOfEachPolicy(t *testing.T) {
	made, err := routes("echo", []mesh.Rule{{
		Timeout: meshbench.Duration(time.Second),
		Retry: &meshbench.RetryPolicy{
			Attempts: 2, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnGatewayError}, PerTryTimeout: meshbench.Duration(time.Millisecond),
		},
		Backends: []meshbench.WeightedBackend{{Service: "echo", Weight: 9}, {Service: "canary", Weight: 1}},
		Request:  &meshbench.HeaderChange{Set: map[string]string{"a": "1"}, Add: map[string]string{"a": "2"}, Remove: []string{"b"}},
		Response: &meshbench.HeaderChange{Remove: []string{"c"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []controlplane.Route{{
		Timeout: meshbench.Duration(time.Second),
		Retry: &controlplane.Retry{
			Max: 2, Statuses: []controlplane.StatusRange{{First: 500, Last: 599}, {First: 502, Last: 504}}, PerTryTimeout: meshbench.Duration(time.Millisecond),
		},
		Backends: []controlplane.Backend{{Service: authorityOf("echo"), Weight: 9}, {Service: authorityOf("canary"), Weight: 1}},
		// Set before added, as our policies promise: Linkerd would add first.
		Request:  []controlplane.HeaderChange{{Set: map[string]string{"a": "1"}}, {Add: map[string]string{"a": "2"}, Remove: []string{"b"}}},
		Response: []controlplane.HeaderChange{{Remove: []string{"c"}}},
	}}
	if difference := cmp.Diff(want, made); difference != "" {
		t.Error(difference)
	}
}

func TestWhatLinkerdCannotDoIsRefused(t *testing.T) {
	for name, policy := range map[string]meshbench.Policy{
		"a retry on reset":             {Retry: &meshbench.RetryPolicy{Attempts: 1, On: []meshbench.RetryOn{meshbench.RetryOnReset}}},
		"a retry on connect failure":   {Retry: &meshbench.RetryPolicy{Attempts: 1, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnConnectFailure}}},
		"a retry on nothing":           {Retry: &meshbench.RetryPolicy{Attempts: 1}},
		"a share that stays in":        {OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 1, BaseEjection: 1, MaxEjectionPercent: 50}},
		"no whole requests per second": {RateLimit: &meshbench.RateLimitPolicy{Requests: 1, Per: meshbench.Duration(time.Minute)}},
		"a path without a slash":       {Authorization: &meshbench.Authorization{Action: meshbench.Allow, Paths: []string{"a"}}},
		"a match without a slash":      {Match: &meshbench.Match{PathPrefix: "a"}, Timeout: &meshbench.TimeoutPolicy{Request: 1}},
		"a fault":                      {Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 500, Percent: 1}}},
		"a bound of requests":          {CircuitBreaker: &meshbench.CircuitBreaker{MaxRequests: 1}},
	} {
		_, err := New().Show(request([]meshbench.Service{echo}, policy))
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRateLimitAndBreaker(t *testing.T) {
	if n, err := rateLimit("echo", &meshbench.RateLimitPolicy{Requests: 300, Per: meshbench.Duration(time.Minute)}); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	b, err := breaker("echo", &meshbench.OutlierDetection{ConsecutiveErrors: 5, BaseEjection: meshbench.Duration(2 * time.Minute)})
	if err != nil || b.Failures != 5 || b.First != b.Longest || time.Duration(b.First) != 2*time.Minute {
		t.Errorf("%+v, %v", b, err)
	}
}

// allowedByOurs is what our authorizations say, from their definition.
func allowedByOurs(all []meshbench.Authorization, from, path, method string) bool {
	about := func(a meshbench.Authorization) bool {
		return (len(a.From) == 0 || slices.Contains(a.From, from)) &&
			(len(a.Methods) == 0 || slices.Contains(a.Methods, method)) &&
			(len(a.Paths) == 0 || slices.ContainsFunc(a.Paths, func(p string) bool { return under(path, p) }))
	}
	allows, allowed := false, false
	for _, a := range all {
		if a.Action == meshbench.Deny && about(a) {
			return false
		}
		if a.Action == meshbench.Allow {
			allows = true
			allowed = allowed || about(a)
		}
	}
	return !allows || allowed
}

// TestAuthorizationsMeanTheSame tries random authorizations with all
// requests.
func TestAuthorizationsMeanTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	services := []meshbench.Service{echo, {Name: "other", Instances: []meshbench.PortRef{{Process: "other", Port: "http"}}}}
	callers := []string{mesh.Client, "echo", "other"}
	some := func(words ...string) (out []string) {
		for _, w := range words {
			if random.IntN(3) == 0 {
				out = append(out, w)
			}
		}
		return out
	}
	tried := 0
	for range 500 {
		var all []meshbench.Authorization
		for range 1 + random.IntN(3) {
			all = append(all, meshbench.Authorization{
				Action: []meshbench.Action{meshbench.Allow, meshbench.Deny}[random.IntN(2)],
				From:   some(callers...), Paths: some("/a", "/a/b", "/"), Methods: some("GET", "POST"),
			})
		}
		p := mesh.ServicePolicy{Service: "echo", Authorizations: all}
		rest, access, err := authorize(request(services), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/", "/a", "/a/b", "/ab", "/c"} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				for _, from := range callers {
					who := rest
					best := []int{-1, -1}
					for _, a := range access {
						named := 0
						if a.Method != "" {
							named = 1
						}
						score := []int{len(strings.TrimSuffix(a.PathPrefix, "/")), named}
						if under(path, a.PathPrefix) && (a.Method == "" || a.Method == method) && slices.Compare(score, best) > 0 {
							who, best = a.Clients, score
						}
					}
					got := who.Meshed || slices.Contains(who.Names, identityOf(from))
					tried++
					if want := allowedByOurs(all, from, path, method); got != want {
						t.Fatalf("%s %s from %s: let in %v, want %v, by %s", method, path, from, got, want, fmt.Sprintf("%+v", all))
					}
				}
			}
		}
	}
	t.Logf("%d requests", tried)
}

func TestDenyNeedsIdentities(t *testing.T) {
	r := request([]meshbench.Service{echo},
		meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}},
		meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{mesh.Client}}})
	if _, err := New().Show(r); err == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("permissive: %v", err)
	}
	r.Policies[0].MTLS.Mode = meshbench.MTLSStrict
	if _, err := New().Show(r); err != nil {
		t.Errorf("strict: %v", err)
	}
	r.Policies[0].MTLS.Mode = meshbench.MTLSOff
	r.Policies[1].Authorization.Action = meshbench.Allow
	if _, err := New().Show(r); err == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("off: %v", err)
	}
}
