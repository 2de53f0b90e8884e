package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/consul"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/workload"
)

// TestConsulConforms tries Consul with Envoys, TestConsulBuiltinConforms with
// its own proxies.
func TestConsulConforms(t *testing.T) { consulConforms(t, nil) }

func TestConsulBuiltinConforms(t *testing.T) {
	consulConforms(t, map[string]string{"proxy": "builtin"})
}

func consulConforms(t *testing.T, options map[string]string) {
	driver := consul.New()
	conforms(t, meshtest.Suite{
		Driver: driver, Options: options,
		Strict: &meshtest.Strict{
			Inbound: consul.Inbound(workload.Service),
			Client:  consul.Identity("client"), Server: consul.Identity(workload.Service),
			Issue: driver.Issue,
		},
		Examples: []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSStrict}}}, // there is no other mode
	})
}

// TestConsulPolicies applies policies to a running graph, sees what each does
// from outside, and that it is over when it is not asked for any more. At the
// end all certificates are replaced.
func TestConsulPolicies(t *testing.T) {
	driver := consul.New()
	r := mesh.Request{
		Subject: meshbench.Subject{ID: "consul", Mesh: "consul"}, Profile: meshbench.Parity,
		Workload: echoWorkload, Services: graph(), Threads: 1,
	}
	spec, err := driver.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(echoes(graph()), spec.Processes...)
	up := deploy(t, here(t), spec, func(ctx context.Context, access infra.Access, process string) error {
		return driver.Prepare(ctx, access, r, process)
	})
	if err := driver.Configure(t.Context(), up, r); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	// ask sends a request over a connection that is kept, and tells status
	// and service of the answer.
	ask := func(method, path string, headers ...string) (string, http.Header) {
		request, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(up.Target().URL, "/")+path, nil)
		if err != nil {
			t.Error(err)
			return "", nil
		}
		request.Header.Set("X-Meshbench-Reflect", "1")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			request.Header.Set(name, value)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Error(err)
			return "", nil
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		response.Header.Set("test-body", string(body))
		return strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", response.Header.Get("X-Meshbench-Service"))), response.Header
	}
	get := func(headers ...string) func(int) string {
		return func(int) string { status, _ := ask(http.MethodGet, "/", headers...); return status }
	}
	same := func(n int, status string) map[string]int { return map[string]int{status: n} }
	dev := &meshbench.Match{PathPrefix: "/a", Headers: map[string]string{"x-user": "dev"}}
	toNext := &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "front", Weight: 0}, {Service: "next", Weight: 1}}}
	deny := func(a meshbench.Authorization) []meshbench.Policy {
		a.Action = meshbench.Deny
		return []meshbench.Policy{{To: "front", Authorization: &a}}
	}
	retry := func(attempts int) []meshbench.Policy {
		return []meshbench.Policy{{To: "front", Retry: &meshbench.RetryPolicy{Attempts: attempts, On: []meshbench.RetryOn{meshbench.RetryOn5xx}}}}
	}
	for _, step := range []struct {
		name     string
		policies []meshbench.Policy
		send     func(i int) string
		requests int
		want     map[string]int // status and service -> how many
	}{
		{"nothing", nil, get(), 3, same(3, "200 front")},
		{"timeout", []meshbench.Policy{{To: "front", Timeout: &meshbench.TimeoutPolicy{Request: seconds(0.2)}}}, get("X-Meshbench-Delay: 5s"), 1, same(1, "504")},
		{"retries are enough", retry(2), get("X-Meshbench-Fail: enough/2/503"), 1, same(1, "200 front")},
		{"retries are used up", retry(1), get("X-Meshbench-Fail: more/2/503"), 1, same(1, "503 front")},
		{"no retry unasked", nil, get("X-Meshbench-Fail: once/1/503"), 1, same(1, "503 front")},
		{"match", []meshbench.Policy{{To: "front", Match: dev, Split: toNext}}, func(i int) string {
			path, user := "/a", "dev"
			if i%3 == 1 {
				path = "/b"
			}
			if i%3 == 2 {
				user = "ops"
			}
			status, _ := ask(http.MethodGet, path, "x-user: "+user)
			return status
		}, 9, map[string]int{"200 next": 3, "200 front": 6}},
		{"deny a path", deny(meshbench.Authorization{From: []string{"client"}, Paths: []string{"/admin"}}), func(i int) string {
			status, _ := ask(http.MethodGet, []string{"/admin/x", "/"}[i%2])
			return status
		}, 4, map[string]int{"403": 2, "200 front": 2}},
		{"deny a method", deny(meshbench.Authorization{Methods: []string{"POST"}}), func(i int) string {
			status, _ := ask([]string{"POST", "GET"}[i%2], "/")
			return status
		}, 4, map[string]int{"403": 2, "200 front": 2}},
		{"allow another", []meshbench.Policy{{To: "front", Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{"back"}}}}, get(), 3, same(3, "403")},
		{"outlier", []meshbench.Policy{{To: "front", OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 3, BaseEjection: seconds(600), MaxEjectionPercent: 100}}},
			get("X-Meshbench-Status: 500"), 5, map[string]int{"500 front": 3, "503": 2}},
		{"nothing again", nil, get(), 3, same(3, "200 front")},
	} {
		r.Policies = step.policies
		begun := time.Now()
		if err := driver.Configure(t.Context(), up, r); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		t.Logf("%s: configured in %v", step.name, time.Since(begun).Round(time.Millisecond))
		got := map[string]int{}
		for i := range step.requests {
			got[step.send(i)]++
		}
		if !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}

	configure := func(policies ...meshbench.Policy) {
		t.Helper()
		r.Policies = policies
		if err := driver.Configure(t.Context(), up, r); err != nil {
			t.Fatal(err)
		}
	}
	configure(meshbench.Policy{To: "front", Headers: &meshbench.HeadersPolicy{
		Request:  &meshbench.HeaderChange{Set: map[string]string{"x-set": "changed"}, Remove: []string{"x-gone"}},
		Response: &meshbench.HeaderChange{Add: map[string]string{"x-added": "here"}},
	}})
	if _, h := ask(http.MethodGet, "/", "x-set: original", "x-gone: still"); h.Get("x-added") != "here" ||
		!strings.Contains(h.Get("test-body"), "changed") || strings.Contains(h.Get("test-body"), "original") || strings.Contains(h.Get("test-body"), "still") {
		t.Errorf("headers: %v", h)
	}

	// 400 requests at 30 %: 120, within five standard deviations of 9.2.
	configure(meshbench.Policy{To: "front", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "front", Weight: 7}, {Service: "next", Weight: 3}}}})
	shared := map[string]int{}
	for i := range 400 {
		shared[get()(i)]++
	}
	if n := shared["200 next"]; n < 74 || n > 166 || n+shared["200 front"] != 400 {
		t.Errorf("split: %v", shared)
	}

	configure(meshbench.Policy{To: "front", CircuitBreaker: &meshbench.CircuitBreaker{MaxConnections: 1, MaxPendingRequests: 1, MaxRequests: 1}})
	var group sync.WaitGroup
	var mu sync.Mutex
	full := map[string]int{}
	for i := range 10 {
		group.Go(func() {
			status := get("X-Meshbench-Delay: 1s")(i)
			mu.Lock()
			defer mu.Unlock()
			full[status]++
		})
	}
	group.Wait()
	if full["503"] == 0 || full["200 front"] == 0 || full["503"]+full["200 front"] != 10 {
		t.Errorf("circuit breaker: %v", full)
	}

	configure()
	begun := time.Now()
	if err := driver.Rotate(t.Context(), up, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("certificates replaced in %v", time.Since(begun).Round(time.Millisecond))
	if got := get()(0); got != "200 front" {
		t.Errorf("after the replacement of certificates: %s", got)
	}
}

func seconds(n float64) meshbench.Duration { return meshbench.Duration(n * float64(time.Second)) }
