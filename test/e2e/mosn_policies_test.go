package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/mosn"
)

// mosns is the graph on real MOSNs; the applications do what requests ask for.
type mosns struct {
	infra.Deployment
	driver  mosn.Driver
	request mesh.Request
	client  http.Client
}

func newMosns(t *testing.T, subject string) *mosns {
	t.Helper()
	parsed, err := meshbench.ParseSubject(subject)
	if err != nil {
		t.Fatal(err)
	}
	m := &mosns{
		driver: mosn.New(),
		request: mesh.Request{
			Subject: parsed, Profile: meshbench.Parity, Workload: echoWorkload, Services: graph(), Threads: 1,
		},
		client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
	}
	spec, err := m.driver.Render(m.request)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(echoes(graph()), spec.Processes...)
	m.Deployment = deploy(t, here(t), spec, nil)
	m.apply(t)
	return m
}

func (m *mosns) apply(t *testing.T, policies ...meshbench.Policy) {
	t.Helper()
	r := m.request
	r.Policies = policies
	begun := time.Now()
	if err := m.driver.Configure(t.Context(), m, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("applied in %v", time.Since(begun))
}

// send sends a request to the first service; headers are written "name: value".
func (m *mosns) send(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(m.Target().URL, "/")+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	response, err := m.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// want sends a GET and wants a status.
func (m *mosns) want(t *testing.T, status int, path string, headers ...string) {
	t.Helper()
	if response, body := m.send(t, http.MethodGet, path, "", headers...); response.StatusCode != status {
		t.Fatalf("%s %v answers %s, want %d: %.200s", path, headers, response.Status, status, body)
	}
}

// own is the status of an answer that may be MOSN's own. Its translator to
// HTTP/2 loses the status of those, and what arrives is 200 without a body,
// where an application's answer has 100 bytes: this is then 504.
func (m *mosns) own(status, bodyBytes int) int {
	if m.request.Subject.Options["upstream"] == "http2" && status == http.StatusOK && bodyBytes == 0 {
		return http.StatusGatewayTimeout
	}
	return status
}

// seen is how many requests a service's application has received.
func (m *mosns) seen(t *testing.T, service string) uint64 {
	t.Helper()
	s, err := m.Seen(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	return s.Requests
}

// arrived sends as f does, and returns how many requests a service received
// of it.
func (m *mosns) arrived(t *testing.T, service string, f func()) int {
	t.Helper()
	before := m.seen(t, service)
	f()
	return int(m.seen(t, service) - before)
}

// TestMosnPolicies sees from outside what MOSN makes of policies, on running
// proxies, and that it ends when the policy does.
func TestMosnPolicies(t *testing.T) {
	for _, subject := range []string{"mosn", "mosn:upstream=http2"} {
		t.Run(subject, func(t *testing.T) { mosnPolicies(t, newMosns(t, subject)) })
	}
}

func mosnPolicies(t *testing.T, m *mosns) {
	scene := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			f(t)
			m.apply(t)
			n := m.arrived(t, "front", func() {
				for range 3 {
					m.want(t, http.StatusOK, "/slow/x", "x-user: dev")
				}
			})
			if n != 3 {
				t.Errorf("taken back, front received %d of 3 requests", n)
			}
		})
	}
	const second = meshbench.Duration(time.Second)

	scene("timeout", func(t *testing.T) {
		m.apply(t, meshbench.Policy{To: "front", Timeout: &meshbench.TimeoutPolicy{Request: second / 5}})
		response, body := m.send(t, http.MethodGet, "/", "", "X-Meshbench-Delay: 20s")
		if got := m.own(response.StatusCode, len(body)); got != http.StatusGatewayTimeout {
			t.Errorf("answered %s: %s", response.Status, body)
		}
		m.want(t, http.StatusOK, "/")
	})

	scene("retry", func(t *testing.T) {
		retry := func(attempts int, perTry meshbench.Duration, on ...meshbench.RetryOn) {
			m.apply(t, meshbench.Policy{To: "front", Retry: &meshbench.RetryPolicy{Attempts: attempts, On: on, PerTryTimeout: perTry}})
		}
		for i, c := range []struct {
			attempts, failures, answer int
			on                         meshbench.RetryOn
			want, tries                int
		}{
			{5, 5, 503, meshbench.RetryOn5xx, 200, 6},
			{5, 9, 503, meshbench.RetryOn5xx, 503, 6},
			{1, 9, 503, meshbench.RetryOn5xx, 503, 4}, // three more at least: MOSN's way
			{5, 1, 500, meshbench.RetryOnGatewayError, 500, 1},
			{5, 1, 502, meshbench.RetryOnGatewayError, 200, 2},
		} {
			retry(c.attempts, 0, c.on)
			var response *http.Response
			tries := m.arrived(t, "front", func() {
				response, _ = m.send(t, http.MethodPost, "/", "the whole body", fmt.Sprintf("X-Meshbench-Fail: k%d/%d/%d", i, c.failures, c.answer))
			})
			if response.StatusCode != c.want || tries != c.tries {
				t.Errorf("%+v: %s after %d tries", c, response.Status, tries)
			}
		}
	})

	scene("fault", func(t *testing.T) {
		m.apply(t,
			meshbench.Policy{To: "front", Match: &meshbench.Match{Headers: map[string]string{"x-user": "dev"}}, Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}},
			meshbench.Policy{To: "front", Match: &meshbench.Match{PathPrefix: "/slow", Method: "GET"}, Fault: &meshbench.FaultPolicy{Delay: &meshbench.Delay{Duration: second / 2, Percent: 100}}},
		)
		n := m.arrived(t, "front", func() {
			response, _ := m.send(t, http.MethodGet, "/", "", "x-user: dev", "x-secret: 1")
			if response.StatusCode != http.StatusTeapot {
				t.Errorf("answered %s, want 418", response.Status)
			}
			// docs/meshes.md says so.
			if response.Header.Get("x-secret") != "1" {
				t.Errorf("MOSN's own answer does not carry the request's headers any more: %v", response.Header)
			}
			m.want(t, http.StatusOK, "/", "x-user: ops")
		})
		if n != 1 {
			t.Errorf("%d requests arrived, want 1: an abort is not forwarded", n)
		}
		begun := time.Now()
		m.want(t, http.StatusOK, "/slow/x")
		if took := time.Since(begun); took < time.Second/2 {
			t.Errorf("a delay of 500ms took %v", took)
		}
		m.apply(t, meshbench.Policy{To: "front", Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 25}}})
		aborted := 0
		for range 400 {
			if response, _ := m.send(t, http.MethodGet, "/", ""); response.StatusCode == http.StatusServiceUnavailable {
				aborted++
			}
		}
		if aborted < 60 || aborted > 140 { // 4.6 standard deviations around 100
			t.Errorf("%d of 400 requests were aborted, want about 100", aborted)
		}
	})

	scene("split", func(t *testing.T) {
		m.apply(t, meshbench.Policy{To: "front", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{
			{Service: "front", Weight: 75}, {Service: "next", Weight: 25}}}})
		front := 0
		next := m.arrived(t, "next", func() {
			front = m.arrived(t, "front", func() {
				for range 400 {
					m.want(t, http.StatusOK, "/")
				}
			})
		})
		if front+next != 400 || next < 60 || next > 140 {
			t.Errorf("front received %d, next %d of 400, want about 300 and 100", front, next)
		}
	})

	scene("headers", func(t *testing.T) {
		m.apply(t, meshbench.Policy{To: "front", Headers: &meshbench.HeadersPolicy{
			Request: &meshbench.HeaderChange{
				Set: map[string]string{"x-set": "100%"}, Add: map[string]string{"x-add": "2"}, Remove: []string{"X-Gone"},
			},
			Response: &meshbench.HeaderChange{Set: map[string]string{"x-answer": "set"}, Remove: []string{"x-secret"}},
		}})
		response, body := m.send(t, http.MethodGet, "/", "", "X-Meshbench-Reflect: 1", "x-set: old", "x-add: 1", "x-gone: 1",
			"X-Meshbench-Header: x-secret: 1", "X-Meshbench-Header: x-answer: application")
		var got meshbench.Reflection
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%v: %.200s", err, body)
		}
		headers := http.Header{}
		for _, h := range got.Headers {
			headers.Add(h[0], h[1])
		}
		if strings.Join(headers["X-Set"], ";") != "100%" || strings.Join(headers["X-Add"], ";") != "1,2" || headers.Get("x-gone") != "" {
			t.Errorf("the application received %v", headers)
		}
		if strings.Join(response.Header["X-Answer"], ";") != "set" || response.Header.Get("x-secret") != "" {
			t.Errorf("the answer has %v", response.Header)
		}
	})

	scene("authorization", func(t *testing.T) {
		rule := func(action meshbench.Action, from ...string) meshbench.Policy {
			return meshbench.Policy{To: "front", Authorization: &meshbench.Authorization{Action: action, From: from}}
		}
		for _, c := range []struct {
			name     string
			policies []meshbench.Policy
			want     int
		}{
			{"denied", []meshbench.Policy{rule(meshbench.Deny, "client")}, http.StatusForbidden},
			{"others denied", []meshbench.Policy{rule(meshbench.Deny, "back")}, http.StatusOK},
			{"allowed", []meshbench.Policy{rule(meshbench.Allow, "client")}, http.StatusOK},
			{"others allowed", []meshbench.Policy{rule(meshbench.Allow, "back")}, http.StatusForbidden},
			{"allowed and denied", []meshbench.Policy{rule(meshbench.Allow, "client"), rule(meshbench.Deny, "client")}, http.StatusForbidden},
			{"everybody denied", []meshbench.Policy{rule(meshbench.Deny)}, http.StatusForbidden},
		} {
			m.apply(t, c.policies...)
			n := m.arrived(t, "front", func() {
				if response, _ := m.send(t, http.MethodGet, "/", ""); response.StatusCode != c.want {
					t.Errorf("%s: answered %s, want %d", c.name, response.Status, c.want)
				}
			})
			if (n == 1) != (c.want == http.StatusOK) {
				t.Errorf("%s: %d requests arrived", c.name, n)
			}
		}
	})

	scene("rate limit", func(t *testing.T) {
		// The second time, nothing of the first is remembered.
		for range 2 {
			m.apply(t, meshbench.Policy{To: "front", RateLimit: &meshbench.RateLimitPolicy{Requests: 3, Per: 60 * second}})
			codes := map[int]int{}
			for i := range 10 {
				response, _ := m.send(t, http.MethodGet, fmt.Sprintf("/%d", i), "")
				codes[response.StatusCode]++
			}
			if codes[200] != 3 || codes[429] != 7 {
				t.Errorf("answers %v, want 3 of 200 and 7 of 429", codes)
			}
			m.apply(t)
		}
	})

	scene("circuit breaker", func(t *testing.T) {
		m.apply(t, meshbench.Policy{To: "front", CircuitBreaker: &meshbench.CircuitBreaker{MaxRequests: 2}})
		codes := map[int]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.Target().URL, nil)
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("X-Meshbench-Delay", "1s")
				response, err := m.client.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if code := m.own(response.StatusCode, len(body)); code == http.StatusOK {
					codes[code]++
				} else {
					codes[http.StatusServiceUnavailable]++
				}
			})
		}
		all.Wait()
		if codes[200] < 1 || codes[503] < 1 || codes[200]+codes[503] != 10 {
			t.Errorf("answers %v, want some of 200 and the others of 503", codes)
		}
	})

	if m.request.Subject.Options["upstream"] == "http2" {
		return // no mirror, and no stranger that speaks HTTP/2 without TLS
	}
	scene("mirror", func(t *testing.T) {
		m.apply(t, meshbench.Policy{To: "front", Mirror: &meshbench.MirrorPolicy{Service: "next", Percent: 100}})
		before := m.seen(t, "next")
		for i := range 5 {
			if response, _ := m.send(t, http.MethodPost, fmt.Sprintf("/%d", i), "copied"); response.StatusCode != http.StatusOK {
				t.Errorf("answered %s", response.Status)
			}
		}
		for begun := time.Now(); m.seen(t, "next") < before+5 && time.Since(begun) < 30*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
		if n := m.seen(t, "next") - before; n != 5 {
			t.Errorf("%d copies of 5", n)
		}
	})

	scene("mutual TLS", func(t *testing.T) {
		inbound, err := m.Address("front-proxy", "inbound")
		if err != nil {
			t.Fatal(err)
		}
		plain := func() error {
			response, err := m.client.Get("http://" + inbound + "/")
			if err != nil {
				return err
			}
			response.Body.Close()
			return nil
		}
		for _, c := range []struct {
			mode  meshbench.MTLSMode
			plain bool
		}{{meshbench.MTLSStrict, false}, {meshbench.MTLSPermissive, true}, {meshbench.MTLSOff, true}, {meshbench.MTLSStrict, false}} {
			m.apply(t, meshbench.Policy{To: "front", MTLS: &meshbench.MTLSPolicy{Mode: c.mode}})
			for range 3 {
				m.want(t, http.StatusOK, "/")
			}
			if err := plain(); (err == nil) != c.plain {
				t.Errorf("%s: plain text from a stranger: %v", c.mode, err)
			}
		}
	})
}
