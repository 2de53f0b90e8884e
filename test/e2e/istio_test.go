package e2e

import (
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/istio"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/pki"
	"github.com/meshbench/meshbench/internal/workload"
)

// TestIstioConforms runs etcd, kube-apiserver, istiod, pilot-agents and Envoys.
func TestIstioConforms(t *testing.T) {
	driver := istio.New()
	conformance(t, driver, &meshtest.Strict{
		Inbound: meshbench.PortRef{Process: workload.Service + "-proxy", Port: "inbound"},
		Client:  pki.ServiceAccount("client"), Server: pki.ServiceAccount(workload.Service),
		AnyName: true,
		Issue:   driver.Issue,
	})
}

// TestIstioPolicies applies policies to a running deployment, sees what each
// does from outside, and that it is over when it is not asked for any more.
func TestIstioPolicies(t *testing.T) {
	driver := istio.New()
	r := mesh.Request{
		Subject: meshbench.Subject{ID: "istio", Mesh: "istio", Options: map[string]string{"debounce": "5ms"}}, Profile: meshbench.Shipped,
		Workload: echoWorkload, Services: []meshbench.Service{echoService}, Threads: 1,
	}
	spec, err := driver.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(workload.Services{}.Processes(echoWorkload, 1, nil), spec.Processes...)
	begun := time.Now()
	up := deploy(t, here(t), spec, func(ctx context.Context, access infra.Access, process string) error {
		return driver.Prepare(ctx, access, r, process)
	})
	t.Logf("up after %v", time.Since(begun))
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	ask := func(path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, up.Target().URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = up.Target().Host
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		io.Copy(io.Discard, response.Body)
		return response.StatusCode
	}
	second := meshbench.Duration(time.Second)
	for _, step := range []struct {
		name     string
		policies []meshbench.Policy
		path     string
		requests int
		want     map[int]int // status -> how many
	}{
		{"nothing", nil, "/", 3, map[int]int{200: 3}},
		{"abort", []meshbench.Policy{{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}}}, "/", 3, map[int]int{418: 3}},
		{"deny a path", []meshbench.Policy{{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"client"}, Paths: []string{"/admin"}}}}, "/admin/x", 3, map[int]int{403: 3}},
		{"other paths are allowed", []meshbench.Policy{{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"client"}, Paths: []string{"/admin"}}}}, "/", 3, map[int]int{200: 3}},
		{"allow the client", []meshbench.Policy{{Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{"client"}}}}, "/", 3, map[int]int{200: 3}},
		{"allow another", []meshbench.Policy{{Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{"echo"}}}}, "/", 3, map[int]int{403: 3}},
		{"rate limit", []meshbench.Policy{{RateLimit: &meshbench.RateLimitPolicy{Requests: 2, Per: 600 * second}}}, "/", 5, map[int]int{200: 2, 429: 3}},
		{"a delay beyond the timeout is no timeout", []meshbench.Policy{
			{Fault: &meshbench.FaultPolicy{Delay: &meshbench.Delay{Duration: second / 2, Percent: 100}}}, {Timeout: &meshbench.TimeoutPolicy{Request: second / 5}},
		}, "/", 1, map[int]int{200: 1}},
		{"plain text", []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSOff}}}, "/", 3, map[int]int{200: 3}},
		{"nothing again", nil, "/admin/x", 3, map[int]int{200: 3}},
	} {
		r.Policies = step.policies
		begun := time.Now()
		if err := driver.Configure(t.Context(), up, r); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		t.Logf("%s: configured in %v", step.name, time.Since(begun))
		got := map[int]int{}
		for range step.requests {
			got[ask(step.path)]++
		}
		if !maps.Equal(got, step.want) {
			t.Errorf("%s: statuses %v, want %v", step.name, got, step.want)
		}
		hops, err := driver.Counters(t.Context(), up, r)
		if err != nil {
			t.Fatal(err)
		}
		if secure := step.name != "plain text"; hops[0].Secure != secure {
			t.Errorf("%s: secure %v", step.name, hops[0].Secure)
		}
	}
	// What a proxy refuses is told in its own words, and changes nothing.
	r.Policies = []meshbench.Policy{{Headers: &meshbench.HeadersPolicy{Request: &meshbench.HeaderChange{Set: map[string]string{"x-a": "a\nb"}}}}}
	refused := meshbench.AsError(driver.Configure(t.Context(), up, r))
	if refused == nil || refused.Code != meshbench.Invalid || !strings.Contains(refused.Message, "client-proxy refuses its configuration: Proto constraint validation failed") {
		t.Errorf("a header's value with a line break: %+v", refused)
	}
	if status := ask("/"); status != 200 {
		t.Errorf("after a refusal: %d", status)
	}
	r.Policies = nil
	if err := driver.Configure(t.Context(), up, r); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}
