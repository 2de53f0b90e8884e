package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy"
)

// stage is the graph on Envoys, each application replaced by a handler of the
// test: what a policy does is seen from both ends.
type stage struct {
	pair
	actors map[string]*actor // by process: "front", "back", "back-2", "next"
}

// actor is an application that does what a test says.
type actor struct {
	address  string // host:port
	mu       sync.Mutex
	requests []*http.Request // with their bodies read into Header "test-body"
	handle   http.HandlerFunc
}

func (a *actor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Header.Set("test-body", string(body))
	if err != nil {
		r.Header.Set("test-body", err.Error())
	}
	a.mu.Lock()
	a.requests = append(a.requests, r)
	handle := a.handle
	a.mu.Unlock()
	if handle != nil {
		handle(w, r)
	}
}

// play makes an actor do something, and forgets what it has seen.
func (a *actor) play(handle http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handle, a.requests = handle, nil
}

func (a *actor) seen() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// newStage deploys and configures the graph.
func newStage(t *testing.T, subject string) *stage {
	t.Helper()
	parsed, err := meshbench.ParseSubject(subject)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{pair: pair{driver: envoy.New(), request: mesh.Request{
		Subject: parsed, Profile: meshbench.Parity, Workload: echoWorkload, Services: graph(), Threads: 1,
	}}, actors: map[string]*actor{}}
	spec, err := s.driver.Render(s.request)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(echoes(graph()), spec.Processes...)
	s.Deployment = deploy(t, here(t), spec, nil)
	s.apply(t)
	return s
}

// apply is Configure with the actors in the place of the applications.
func (s *stage) apply(t *testing.T, policies ...meshbench.Policy) {
	t.Helper()
	r := s.request
	r.Policies = policies
	c, err := s.driver.Config(s, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range s.request.Services {
		for i, at := range service.Instances {
			if s.actors[at.Process] == nil {
				a := &actor{}
				a.address = strings.TrimSuffix(strings.TrimPrefix(server(t, a), "http://"), "/")
				s.actors[at.Process] = a
			}
			c.Node(envoy.ServerProxy(service.Name, i)).Clusters[0].Endpoints = []string{s.actors[at.Process].address}
		}
	}
	begun := time.Now()
	if err := s.driver.Apply(t.Context(), s, c); err != nil {
		t.Fatal(err)
	}
	t.Logf("applied in %v", time.Since(begun).Round(time.Millisecond))
}

// send sends a request to the first service, on a connection of its own.
func (s *stage) send(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	response, text, err := s.try(t.Context(), s.Target().URL, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return response, text
}

func (s *stage) try(ctx context.Context, base, method, path, body string, headers ...string) (*http.Response, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, string(text), err
}

// want sends a GET and wants a status.
func (s *stage) want(t *testing.T, status int, path string, headers ...string) {
	t.Helper()
	if response, body := s.send(t, http.MethodGet, path, "", headers...); response.StatusCode != status {
		t.Fatalf("%s %v answers %s, want %d: %.200s", path, headers, response.Status, status, body)
	}
}

// failing answers with a status, n times, and then with 200.
func failing(n, status int) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if n > 0 {
			n--
			w.WriteHeader(status)
		}
	}
}

const second = meshbench.Duration(time.Second)

// TestEnvoyPolicies sees the effect of every kind of policy on a running
// deployment, and that it goes when the policy does.
func TestEnvoyPolicies(t *testing.T) {
	s := newStage(t, "envoy")
	front, next := s.actors["front"], s.actors["next"]
	scene := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			for _, a := range s.actors {
				a.play(nil)
			}
			f(t)
			for _, a := range s.actors {
				a.play(nil)
			}
			s.apply(t)
			for range 3 {
				s.want(t, http.StatusOK, "/admin/x", "x-user: dev")
			}
			if n := len(front.seen()); n != 3 || len(next.seen()) != 0 {
				t.Errorf("taken back, front received %d of 3 requests, next %d", n, len(next.seen()))
			}
		})
	}

	scene("timeout", func(t *testing.T) {
		front.play(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Second):
			}
		})
		s.apply(t, meshbench.Policy{To: "front", Timeout: &meshbench.TimeoutPolicy{Request: second / 5}})
		response, body := s.send(t, http.MethodGet, "/", "")
		if response.StatusCode != http.StatusGatewayTimeout || body != "upstream request timeout" {
			t.Errorf("answered %s: %s", response.Status, body)
		}
	})

	scene("retry", func(t *testing.T) {
		retry := func(attempts int, perTry meshbench.Duration, on ...meshbench.RetryOn) {
			s.apply(t, meshbench.Policy{To: "front", Retry: &meshbench.RetryPolicy{Attempts: attempts, On: on, PerTryTimeout: perTry}})
		}
		for _, c := range []struct {
			attempts, failures, answer int
			on                         meshbench.RetryOn
			want, tries                int
		}{
			{2, 2, 503, meshbench.RetryOn5xx, 200, 3},
			{1, 2, 503, meshbench.RetryOn5xx, 503, 2},
			{2, 1, 500, meshbench.RetryOnGatewayError, 500, 1},
			{2, 1, 502, meshbench.RetryOnGatewayError, 200, 2},
			{2, 1, 503, meshbench.RetryOnReset, 503, 1},
			{0, 1, 503, meshbench.RetryOn5xx, 503, 1},
		} {
			retry(c.attempts, 0, c.on)
			front.play(failing(c.failures, c.answer))
			response, _ := s.send(t, http.MethodPost, "/", "the whole body")
			seen := front.seen()
			if response.StatusCode != c.want || len(seen) != c.tries {
				t.Errorf("%+v: %s after %d tries", c, response.Status, len(seen))
			}
			for _, r := range seen {
				if r.Header.Get("test-body") != "the whole body" {
					t.Errorf("a try had the body %q", r.Header.Get("test-body"))
				}
			}
		}
		// A connection that the application ends is no answer.
		retry(1, 0, meshbench.RetryOnReset)
		var first sync.Once
		front.play(func(w http.ResponseWriter, _ *http.Request) {
			first.Do(func() {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				c.Close()
			})
		})
		if response, _ := s.send(t, http.MethodGet, "/", ""); response.StatusCode != http.StatusOK || len(front.seen()) != 2 {
			t.Errorf("after a reset: %s after %d tries", response.Status, len(front.seen()))
		}
		// Of a try that takes too long, the answer is not waited for.
		retry(1, second/5, meshbench.RetryOn5xx)
		var once sync.Once
		front.play(func(_ http.ResponseWriter, r *http.Request) {
			once.Do(func() { <-r.Context().Done() })
		})
		s.want(t, http.StatusOK, "/")
	})

	scene("fault", func(t *testing.T) {
		s.apply(t,
			meshbench.Policy{To: "front", Match: &meshbench.Match{Headers: map[string]string{"x-user": "dev"}}, Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}},
			meshbench.Policy{To: "front", Match: &meshbench.Match{PathPrefix: "/slow", Method: "GET"}, Fault: &meshbench.FaultPolicy{Delay: &meshbench.Delay{Duration: second / 2, Percent: 100}}},
		)
		s.want(t, http.StatusTeapot, "/", "x-user: dev")
		s.want(t, http.StatusOK, "/", "x-user: ops")
		if n := len(front.seen()); n != 1 {
			t.Errorf("%d requests arrived, want 1: an abort is not forwarded", n)
		}
		begun := time.Now()
		s.want(t, http.StatusOK, "/slow/x")
		s.want(t, http.StatusOK, "/slower", "x-user: ops")          // another element
		if took := time.Since(begun); took < 400*time.Millisecond { // Envoy's clock has whole milliseconds
			t.Errorf("a delay of 500ms took %v", took)
		}
		s.apply(t, meshbench.Policy{To: "front", Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 25}}})
		aborted := 0
		for range 400 {
			if response, _ := s.send(t, http.MethodGet, "/", ""); response.StatusCode == http.StatusServiceUnavailable {
				aborted++
			}
		}
		if aborted < 60 || aborted > 140 { // 4.6 standard deviations around 100
			t.Errorf("%d of 400 requests were aborted, want about 100", aborted)
		}
	})

	scene("split", func(t *testing.T) {
		split := func(a, b int, m *meshbench.Match) meshbench.Policy {
			return meshbench.Policy{To: "front", Match: m, Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "front", Weight: a}, {Service: "next", Weight: b}}}}
		}
		s.apply(t, split(75, 25, nil), split(0, 1, &meshbench.Match{Headers: map[string]string{"x-user": "dev"}}))
		for range 400 {
			s.want(t, http.StatusOK, "/")
		}
		if a, b := len(front.seen()), len(next.seen()); a+b != 400 || b < 60 || b > 140 {
			t.Errorf("front received %d, next %d of 400, want about 300 and 100", a, b)
		}
		next.play(nil)
		for range 5 {
			s.want(t, http.StatusOK, "/", "x-user: dev")
		}
		if n := len(next.seen()); n != 5 {
			t.Errorf("next received %d of the 5 requests that the match is for", n)
		}
	})

	scene("mirror", func(t *testing.T) {
		s.apply(t, meshbench.Policy{To: "front", Mirror: &meshbench.MirrorPolicy{Service: "next", Percent: 100}})
		next.play(failing(100, 500)) // nobody cares
		for i := range 5 {
			if response, _ := s.send(t, http.MethodPost, fmt.Sprintf("/%d", i), "copied"); response.StatusCode != http.StatusOK {
				t.Errorf("answered %s", response.Status)
			}
		}
		for begun := time.Now(); len(next.seen()) < 5 && time.Since(begun) < 30*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
		originals, copies := front.seen(), next.seen()
		if len(originals) != 5 || len(copies) != 5 {
			t.Fatalf("%d originals, %d copies of 5", len(originals), len(copies))
		}
		if o, c := originals[0], copies[0]; c.Header.Get("test-body") != "copied" || c.Host != o.Host || c.Method != o.Method {
			t.Errorf("the copy is %s %s %q, the original %s %s", c.Method, c.Host, c.Header.Get("test-body"), o.Method, o.Host)
		}
	})

	scene("headers", func(t *testing.T) {
		s.apply(t, meshbench.Policy{To: "front", Headers: &meshbench.HeadersPolicy{
			Request: &meshbench.HeaderChange{
				Set: map[string]string{"x-set": "100%", "x-both": "set"}, Add: map[string]string{"x-add": "2"}, Remove: []string{"X-Gone", "x-both"},
			},
			Response: &meshbench.HeaderChange{Set: map[string]string{"x-answer": "set"}, Remove: []string{"x-secret"}},
		}})
		front.play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-secret", "1")
			w.Header().Set("x-answer", "application")
		})
		response, _ := s.send(t, http.MethodGet, "/", "", "x-set: old", "x-add: 1", "x-gone: 1", "x-both: old")
		h := front.seen()[0].Header
		if h.Get("x-set") != "100%" || len(h["X-Set"]) != 1 || strings.Join(h["X-Add"], ",") != "1,2" || h.Get("x-gone") != "" || h.Get("x-both") != "" {
			t.Errorf("the application received %v", h)
		}
		if strings.Join(response.Header["X-Answer"], ",") != "set" || response.Header.Get("x-secret") != "" {
			t.Errorf("the answer has %v", response.Header)
		}
	})

	scene("rate limit", func(t *testing.T) {
		s.apply(t, meshbench.Policy{To: "front", RateLimit: &meshbench.RateLimitPolicy{Requests: 3, Per: 60 * second}})
		codes := map[int]int{}
		for range 10 {
			response, _ := s.send(t, http.MethodGet, "/", "")
			codes[response.StatusCode]++
		}
		if codes[200] != 3 || codes[429] != 7 || len(front.seen()) != 3 {
			t.Errorf("answers %v, %d arrived", codes, len(front.seen()))
		}
	})

	scene("circuit breaker", func(t *testing.T) {
		s.apply(t, meshbench.Policy{To: "front", CircuitBreaker: &meshbench.CircuitBreaker{MaxConnections: 1, MaxPendingRequests: 1}})
		s.want(t, http.StatusOK, "/") // the connection is there: until then, its request counts as pending
		release := make(chan struct{})
		front.play(func(http.ResponseWriter, *http.Request) { <-release })
		const sent = 6
		codes := make(chan int, sent)
		for range sent {
			go func() {
				response, _, err := s.try(context.Background(), s.Target().URL, http.MethodGet, "/", "")
				if err != nil {
					codes <- 0
					return
				}
				codes <- response.StatusCode
			}()
		}
		// One is under way and one waits; the others are answered at once.
		for range sent - 2 {
			if code := <-codes; code != http.StatusServiceUnavailable {
				t.Errorf("above the limits: %d", code)
			}
		}
		close(release)
		for range 2 {
			if code := <-codes; code != http.StatusOK {
				t.Errorf("within the limits: %d", code)
			}
		}
	})

	scene("outlier detection", func(t *testing.T) {
		address, err := s.Address(envoy.ServerProxy("front", 0), envoy.Outbound("back"))
		if err != nil {
			t.Fatal(err)
		}
		good, bad := s.actors["back"], s.actors["back-2"]
		bad.play(failing(1_000_000, 500))
		s.apply(t, meshbench.Policy{To: "back", OutlierDetection: &meshbench.OutlierDetection{
			ConsecutiveErrors: 3, Interval: second / 5, BaseEjection: 2 * second, MaxEjectionPercent: 50,
		}})
		send := func() int {
			response, _, err := s.try(t.Context(), "http://"+address, http.MethodGet, "/", "")
			if err != nil {
				t.Fatal(err)
			}
			return response.StatusCode
		}
		failures := 0
		for range 20 {
			if send() != http.StatusOK {
				failures++
			}
		}
		if failures != 3 || len(good.seen()) != 17 {
			t.Errorf("%d failures, want 3 before the instance is left out; the other received %d", failures, len(good.seen()))
		}
		bad.play(nil) // healed: it comes back
		for begun := time.Now(); len(bad.seen()) == 0; {
			if send() != http.StatusOK || time.Since(begun) > 30*time.Second {
				t.Fatal("the instance does not come back")
			}
			time.Sleep(20 * time.Millisecond)
		}
	})

	scene("authorization", func(t *testing.T) {
		authorize := func(list ...meshbench.Authorization) {
			var policies []meshbench.Policy
			for _, a := range list {
				policies = append(policies, meshbench.Policy{To: "front", Authorization: &a})
			}
			s.apply(t, policies...)
		}
		authorize(meshbench.Authorization{Action: meshbench.Deny, From: []string{"client"}, Paths: []string{"/admin"}})
		s.want(t, http.StatusForbidden, "/admin/x")
		s.want(t, http.StatusOK, "/else")
		for _, path := range []string{"//admin/x", "/else/../admin/x", "/%61dmin/x"} {
			s.want(t, http.StatusForbidden, path)
		}
		s.want(t, http.StatusOK, "/else/a%20b")
		authorize(meshbench.Authorization{Action: meshbench.Allow, Paths: []string{"/public"}})
		s.want(t, http.StatusOK, "/public/x")
		s.want(t, http.StatusForbidden, "/public/../admin/x")
		authorize(meshbench.Authorization{Action: meshbench.Allow, From: []string{"back"}})
		s.want(t, http.StatusForbidden, "/else")
		authorize(meshbench.Authorization{Action: meshbench.Allow, From: []string{"back"}}, meshbench.Authorization{Action: meshbench.Allow, From: []string{"client"}, Methods: []string{"GET"}})
		s.want(t, http.StatusOK, "/else")
		if response, body := s.send(t, http.MethodPost, "/else", ""); response.StatusCode != http.StatusForbidden || body != "RBAC: access denied" {
			t.Errorf("answered %s: %s", response.Status, body)
		}
		authorize(meshbench.Authorization{Action: meshbench.Allow}, meshbench.Authorization{Action: meshbench.Deny, From: []string{"client"}})
		s.want(t, http.StatusForbidden, "/else") // a denial wins
	})

	scene("mtls", func(t *testing.T) {
		at, err := s.Address(envoy.Inbound("front").Process, envoy.Inbound("front").Port)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			mode  meshbench.MTLSMode
			plain bool // text is answered
			peer  bool // is named to the application
		}{{meshbench.MTLSPermissive, true, true}, {meshbench.MTLSOff, true, false}, {meshbench.MTLSStrict, false, true}} {
			policy := meshbench.Policy{To: "front", MTLS: &meshbench.MTLSPolicy{Mode: c.mode}}
			s.apply(t, policy)
			front.play(nil)
			s.want(t, http.StatusOK, "/")
			if named := front.seen()[0].Header.Get("x-forwarded-client-cert") != ""; named != c.peer {
				t.Errorf("%s: peer named %v, want %v", c.mode, named, c.peer)
			}
			_, _, err := s.try(t.Context(), "http://"+at, http.MethodGet, "/", "", "x-forwarded-client-cert: URI=spiffe://meshbench.local/ns/default/sa/forged")
			if (err == nil) != c.plain {
				t.Errorf("%s: plain text answered %v (%v), want %v", c.mode, err == nil, err, c.plain)
			}
			if seen := front.seen(); c.plain && strings.Contains(seen[len(seen)-1].Header.Get("x-forwarded-client-cert"), "forged") {
				t.Errorf("%s: the application was told a forged name", c.mode)
			}
			r := s.request
			r.Policies = []meshbench.Policy{policy}
			hops, err := s.driver.Counters(t.Context(), s, r)
			if err != nil || hops[0].Secure != (c.mode != meshbench.MTLSOff) {
				t.Errorf("%s: hops %+v, %v", c.mode, hops, err)
			}
		}
	})
}

// TestRefusedPolicyTellsEnvoysWords asks for a rate limit that Envoy does not
// take: the error has its words, and the policy before stays in force.
func TestRefusedPolicyTellsEnvoysWords(t *testing.T) {
	p := runningPair(t, "")
	r := p.request
	r.Policies = []meshbench.Policy{{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}}}
	if err := p.driver.Configure(t.Context(), p, r); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusTeapot)
	// The client's proxy alone could take its part of this: it must not keep it.
	r.Policies = append(slices.Clone(r.Policies), meshbench.Policy{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 100}}}, meshbench.Policy{RateLimit: &meshbench.RateLimitPolicy{Requests: 1, Per: meshbench.Duration(time.Millisecond)}})
	err := p.driver.Configure(t.Context(), p, r)
	e := meshbench.AsError(err)
	if e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, "fill timer must be >= 50ms") {
		t.Fatalf("got %v", err)
	}
	t.Log(e)
	p.expect(t, "/", http.StatusTeapot)
	if err := p.driver.Configure(t.Context(), p, p.request); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusOK)
}

// TestEnvoyOptions looks at what each option makes the proxies really do.
func TestEnvoyOptions(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"envoy:mtls=off":       {"mtls": "off", "tls_version": "not seen", "upstream_http": "HTTP/1.1"},
		"envoy:upstream=http2": {"mtls": "strict", "tls_version": "TLSv1.3", "upstream_http": "HTTP/2"},
		"envoy:access_log=on":  {"access_log": "on", "rbac": "off"},
		"envoy:rbac=on":        {"rbac": "on", "mtls": "strict", "access_log": "off"},
	} {
		t.Run(text, func(t *testing.T) {
			subject, err := meshbench.ParseSubject(text)
			if err != nil {
				t.Fatal(err)
			}
			p := rendered(t, subject)
			if err := p.driver.Configure(t.Context(), p, p.request); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p.expect(t, "/", http.StatusOK)
			}
			got := p.settings(t)
			for name, value := range want {
				if got[name] != value {
					t.Errorf("%s is %q as observed, want %q", name, got[name], value)
				}
			}
			hops, err := p.driver.Counters(t.Context(), p, p.request)
			if err != nil {
				t.Fatal(err)
			}
			h := hops[0]
			if secure := want["mtls"] != "off"; h.Secure != secure || (h.Handshakes > 0) != secure || (h.Plaintext == 0) != secure || h.ServerReceived != 3 || h.ClientAttempts != 3 {
				t.Errorf("%+v", h)
			}
			logged := strings.Contains(p.Log(echoProxy, 5), "GET / HTTP")
			if logged != (want["access_log"] == "on") {
				t.Errorf("an access log was written: %v\n%s", logged, p.Log(echoProxy, 5))
			}
		})
	}
}
