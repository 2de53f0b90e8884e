package mesh_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

func request(policies ...meshbench.Policy) mesh.Request {
	return mesh.Request{
		Services: []meshbench.Service{{Name: "front", Calls: []string{"back"}}, {Name: "back"}},
		Policies: policies,
	}
}

func timeout(to string, d time.Duration, m *meshbench.Match) meshbench.Policy {
	return meshbench.Policy{To: to, Match: m, Timeout: &meshbench.TimeoutPolicy{Request: meshbench.Duration(d)}}
}

func TestCombine(t *testing.T) {
	dev := &meshbench.Match{Headers: map[string]string{"x-user": "dev"}}
	fault := &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 10}}
	got, err := mesh.Combine(request(
		timeout("", time.Second, nil),
		timeout("back", 2*time.Second, nil),
		meshbench.Policy{To: "back", Match: dev, Fault: fault},
		meshbench.Policy{To: "front", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "back", Weight: 3}}}},
		meshbench.Policy{To: "back", Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"client"}}},
		meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Allow}},
		meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}},
	))
	if err != nil {
		t.Fatal(err)
	}
	back := []meshbench.WeightedBackend{{Service: "back", Weight: 1}}
	want := []mesh.ServicePolicy{
		{
			Service: "front", MTLS: meshbench.MTLSPermissive,
			Authorizations: []meshbench.Authorization{{Action: meshbench.Allow}},
			Rules:          []mesh.Rule{{Timeout: meshbench.Duration(time.Second), Backends: []meshbench.WeightedBackend{{Service: "back", Weight: 3}}}},
		},
		{
			Service: "back", MTLS: meshbench.MTLSPermissive,
			Authorizations: []meshbench.Authorization{{Action: meshbench.Deny, From: []string{"client"}}, {Action: meshbench.Allow}},
			Rules: []mesh.Rule{
				{Match: dev, Timeout: meshbench.Duration(2 * time.Second), Fault: fault, Backends: back},
				{Timeout: meshbench.Duration(2 * time.Second), Backends: back},
			},
		},
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
}

func TestCombineRefusesWhatNoMeshCanDo(t *testing.T) {
	for name, c := range map[string]struct {
		policy meshbench.Policy
		want   string
	}{
		"nothing":          {meshbench.Policy{Name: "empty"}, `"empty" says nothing`},
		"two kinds":        {meshbench.Policy{Timeout: &meshbench.TimeoutPolicy{Request: 1}, MTLS: &meshbench.MTLSPolicy{Mode: "strict"}}, "several kinds"},
		"unknown service":  {timeout("bakc", time.Second, nil), `no service "bakc"`},
		"no time":          {timeout("back", 0, nil), "above 0"},
		"a mode":           {meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: "strikt"}}, `"strikt"`},
		"match of mtls":    {meshbench.Policy{Match: &meshbench.Match{Method: "GET"}, MTLS: &meshbench.MTLSPolicy{Mode: "strict"}}, "cannot have a match"},
		"an action":        {meshbench.Policy{Authorization: &meshbench.Authorization{Action: "maybe"}}, `"maybe"`},
		"a stranger":       {meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"nobody"}}}, `"nobody"`},
		"percent":          {meshbench.Policy{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 101}}}, "101 percent"},
		"status":           {meshbench.Policy{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 99, Percent: 1}}}, "99"},
		"no fault":         {meshbench.Policy{Fault: &meshbench.FaultPolicy{}}, "abort or a delay"},
		"no weight":        {meshbench.Policy{Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "back"}}}}, "all be 0"},
		"a reason":         {meshbench.Policy{Retry: &meshbench.RetryPolicy{Attempts: 1, On: []meshbench.RetryOn{"4xx"}}}, `"4xx"`},
		"mirror to nobody": {meshbench.Policy{Mirror: &meshbench.MirrorPolicy{Service: "x", Percent: 1}}, `"x"`},
		"no limit":         {meshbench.Policy{RateLimit: &meshbench.RateLimitPolicy{}}, "at least 1"},
		"no change":        {meshbench.Policy{Headers: &meshbench.HeadersPolicy{}}, "no header"},
		"no error":         {meshbench.Policy{OutlierDetection: &meshbench.OutlierDetection{}}, "at least 1"},
		"below 0":          {meshbench.Policy{CircuitBreaker: &meshbench.CircuitBreaker{MaxRequests: -1}}, "below 0"},
	} {
		_, err := mesh.Combine(request(c.policy))
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestCheckPoliciesNamesWhatIsMissing(t *testing.T) {
	d := mesh.Description{Title: "A mesh", Capabilities: []mesh.Capability{
		{Policy: meshbench.PolicyTimeout, Supported: true},
		{Policy: meshbench.PolicyMirror, Note: "it has no mirrors", Source: "its manual"},
	}}
	if err := mesh.CheckPolicies(d, request(timeout("back", time.Second, nil))); err != nil {
		t.Error(err)
	}
	err := mesh.CheckPolicies(d, request(meshbench.Policy{Mirror: &meshbench.MirrorPolicy{Service: "back", Percent: 100}}))
	e := meshbench.AsError(err)
	if e == nil || !strings.Contains(e.Message, "cannot do mirror") || !strings.Contains(e.Hint, "it has no mirrors (its manual)") {
		t.Errorf("%+v", e)
	}
}

func TestEveryKindOfPolicyIsKnown(t *testing.T) {
	if n := len(slices.Compact(slices.Sorted(slices.Values(meshbench.PolicyKinds())))); n != 11 {
		t.Errorf("%d kinds", n)
	}
}
