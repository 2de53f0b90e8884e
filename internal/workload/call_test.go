package workload

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
)

// deployed starts all services of a topology in this process, straight at one
// another, and returns the addresses of each one's workload and control port.
func deployed(t *testing.T, topology meshbench.Topology) (entry string, control map[string]string) {
	t.Helper()
	w := meshbench.Workload{Topology: topology, Response: meshbench.Response{BodyBytes: 5}}
	base, control := map[string]string{}, map[string]string{}
	processes := Services{}.Processes(w, 1, nil)
	// A service is started when those that it calls have an address.
	for range processes {
		for _, p := range processes {
			if base[p.Name] != "" {
				continue
			}
			var node Node
			if len(p.Files) > 0 {
				var text strings.Builder
				missing := false
				render := template.Must(template.New("node").Funcs(template.FuncMap{"address": func(process, port string) string {
					missing = missing || base[process] == "" || port != HTTPPort
					return base[process]
				}}).Parse(p.Files[0].Text))
				if err := render.Execute(&text, nil); err != nil {
					t.Fatal(err)
				}
				if missing {
					continue
				}
				var err error
				if node, err = ReadNode([]byte(text.String())); err != nil {
					t.Fatal(err)
				}
			}
			var bodyBytes int
			for i, arg := range p.Args {
				if arg == "--body-bytes" {
					_, _ = fmt.Sscan(p.Args[i+1], &bodyBytes)
				}
			}
			base[p.Name], control[p.Name] = startService(t, Options{BodyBytes: bodyBytes, Service: p.Service, Instance: p.Instance, Node: node})
		}
	}
	first := Services{}.Services(w)[0].At().Process
	if base[first] == "" {
		t.Fatalf("%s was not started", first)
	}
	return base[first], control
}

func get(t *testing.T, address string, headers ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+address+"/a%2Fb?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestRequestsWalkTheTopology(t *testing.T) {
	three := 3
	for name, topology := range map[string]meshbench.Topology{
		"one":     {Chain: 1},
		"chain":   {Chain: 5},
		"fan-out": {FanOut: 3},
		"diamond": {Services: []meshbench.ServiceNode{
			{Name: "a", Calls: []string{"b", "c"}, BodyBytes: &three},
			{Name: "b", Calls: []string{"d"}, Parallel: true},
			{Name: "c", Calls: []string{"d"}, Latency: &meshbench.ServiceTime{Law: meshbench.ConstantTime, Mean: meshbench.Duration(time.Millisecond)}},
			{Name: "d", Instances: 2},
			{Name: "alone"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			entry, control := deployed(t, topology)
			const requests = 6
			for range requests {
				want := "abcde"
				if name == "diamond" {
					want = "abc"
				}
				if status, body := get(t, entry); status != 200 || body != want {
					t.Fatalf("status %d, body %q", status, body)
				}
			}
			got := map[string]int{}
			for _, s := range (Services{}).Services(meshbench.Workload{Topology: topology}) {
				for _, i := range s.Instances {
					n := int(seen(t, control[i.Process]).Requests)
					if len(s.Instances) > 1 && n == 0 {
						t.Errorf("%s got nothing: instances are called in turn", i.Process)
					}
					if n > 0 {
						got[s.Name] += n
					}
				}
			}
			want := map[string]int{}
			for s, n := range topology.Walk().Requests {
				want[s] = n * requests
			}
			if difference := cmp.Diff(want, got); difference != "" {
				t.Error(difference)
			}
		})
	}
}

func TestEverybodyReflects(t *testing.T) {
	entry, _ := deployed(t, meshbench.Topology{Chain: 3})
	status, body := get(t, entry, meshbench.ReflectHeader, "all", "x-request-id", "r1", "Traceparent", "00-1", "B3", "0", "X-App", "mine",
		"X-Envoy-Attempt-Count", "1", "X-Forwarded-Proto", "http", "Accept", "a/b", "Cookie", "c")
	var seen meshbench.Reflection
	if err := json.Unmarshal([]byte(body), &seen); status != 200 || err != nil {
		t.Fatalf("status %d: %v", status, err)
	}
	for depth, want := range []string{"echo", "hop2", "hop3"} {
		if seen.Service != want || seen.Path != "/a/b" {
			t.Fatalf("%+v, want the service %s", seen, want)
		}
		for name, passed := range map[string]bool{
			"X-Request-Id": true, "Traceparent": true, "B3": true, "X-App": true,
			"X-Envoy-Attempt-Count": depth == 0, "X-Forwarded-Proto": depth == 0, "Accept": depth == 0, "Cookie": depth == 0,
		} {
			if (len(seen.Header(name)) == 1) != passed {
				t.Errorf("%s got %s: %v", want, name, seen.Header(name))
			}
		}
		if depth == 2 {
			if len(seen.Calls) != 0 {
				t.Errorf("the last calls %v", seen.Calls)
			}
			break
		}
		if len(seen.Calls) != 1 || seen.Calls[0].Answer == nil || seen.Calls[0].Status != 200 {
			t.Fatalf("%s: calls %+v", want, seen.Calls)
		}
		seen = *seen.Calls[0].Answer
	}
}

func TestAFailingServiceIsNamed(t *testing.T) {
	entry, control := deployed(t, meshbench.Topology{Chain: 3})
	status, body := get(t, entry, meshbench.AtHeader, "hop3", meshbench.StatusHeader, "503")
	if status != 502 || body != "echo: hop2: answered 502: hop2: hop3: answered 503: abcde\n" {
		t.Errorf("status %d, body %q", status, body)
	}
	// Without a name the first obeys; the others still get their request.
	before := seen(t, control["hop3"]).Requests
	if status, body = get(t, entry, meshbench.StatusHeader, "418"); status != 418 || body != "abcde" {
		t.Errorf("status %d, body %q", status, body)
	}
	if got := seen(t, control["hop3"]).Requests; got != before+1 {
		t.Errorf("hop3 got %d requests, want 1", got-before)
	}
	status, body = get(t, entry, meshbench.AtHeader, "hop2", meshbench.CutHeader, "reset")
	if status != 502 || !strings.HasPrefix(body, "echo: hop2: ") || !strings.Contains(body, "reset") {
		t.Errorf("status %d, body %q", status, body)
	}
	// A reflection tells what became of each call, also where one failed.
	status, body = get(t, entry, meshbench.ReflectHeader, "all", meshbench.AtHeader, "hop3", meshbench.StatusHeader, "500")
	var seen meshbench.Reflection
	if err := json.Unmarshal([]byte(body), &seen); err != nil || status != 502 || len(seen.Calls) != 1 || seen.Calls[0].Status != 502 ||
		seen.Calls[0].Answer == nil || seen.Calls[0].Answer.Calls[0].Status != 500 {
		t.Errorf("status %d, %+v (%v)", status, seen, err)
	}

	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	front, _ := startService(t, Options{Service: "front", Node: Node{Calls: []Call{{To: "gone", Addresses: []string{gone}}}}})
	if status, body := get(t, front); status != 502 || !strings.HasPrefix(body, "front: gone: ") || !strings.Contains(body, "refused") {
		t.Errorf("status %d, body %q", status, body)
	}
}

func TestErrorsByChance(t *testing.T) {
	draw := func() string {
		c, out := newChance("a", 0), ""
		for range 2000 {
			if c.percent(25) {
				out += "x"
			} else {
				out += "."
			}
		}
		return out
	}
	first := draw()
	// Four standard deviations of a binomial: the seed is fixed.
	if n := strings.Count(first, "x"); n < 500-78 || n > 500+78 || first != draw() {
		t.Errorf("%d of 2000 fail, want about 500, and the same each time", n)
	}
	always, _ := startService(t, Options{BodyBytes: 3, Node: Node{Errors: &meshbench.ServiceErrors{Status: 507, Percent: 100}}})
	if status, body := get(t, always); status != 507 || !strings.HasPrefix(body, "echo fails by chance") {
		t.Errorf("status %d, body %q", status, body)
	}
	never, _ := startService(t, Options{BodyBytes: 3, Node: Node{Errors: &meshbench.ServiceErrors{Status: 507, Percent: 0}}})
	if status, _ := get(t, never); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestTimesFollowTheirLaw(t *testing.T) {
	const n, mean = 40_000, 5 * time.Millisecond
	for law, spread := range map[meshbench.ServiceTimeLaw]float64{ // of one draw, in means
		meshbench.ConstantTime: 0, meshbench.ExponentialTime: 1, meshbench.LognormalTime: 0.533,
	} {
		c := newChance("a", 0)
		var sum, squares float64
		for range n {
			x := float64(c.time(meshbench.ServiceTime{Law: law, Mean: meshbench.Duration(mean)})) / float64(mean)
			sum += x
			squares += x * x
		}
		average := sum / n
		variance := squares/n - average*average
		if average < 0.97 || average > 1.03 || variance < spread*spread*0.85-1e-9 || variance > spread*spread*1.15+1e-9 {
			t.Errorf("%s: mean %.3f, variance %.3f of the mean's square; want 1 and %.3f", law, average, variance, spread*spread)
		}
	}
	c := newChance("a", 0)
	if got := c.time(meshbench.ServiceTime{Law: meshbench.ConstantTime, Mean: meshbench.Duration(time.Hour)}); got != longestTime {
		t.Errorf("an hour becomes %s", got)
	}
}

// TestWaitingIsNoShorter waits by the kernel's timers and by Go's.
func TestWaitingIsNoShorter(t *testing.T) {
	var a alarms
	for _, d := range []time.Duration{0, 50 * time.Microsecond, 3 * time.Millisecond, 210 * time.Millisecond} {
		for range 3 {
			begin := time.Now()
			a.wait(t.Context(), d)
			if took := time.Since(begin); took < d {
				t.Errorf("waited %s, want %s", took, d)
			}
		}
	}
	a.close()
	a.wait(t.Context(), time.Millisecond) // one that comes late harms nobody
}

func TestProcesses(t *testing.T) {
	p := Services{}.Processes(meshbench.Workload{Response: meshbench.Response{BodyBytes: 77}}, 3, nil)
	if len(p) != 1 || p[0].Role != meshbench.Application || p[0].Service != Service || p[0].Name != Service || len(p[0].Files) != 0 ||
		!strings.Contains(strings.Join(p[0].Args, " "), "--body-bytes 77 --service echo --instance 0") || strings.Join(p[0].Env, " ") != "GOMAXPROCS=3" {
		t.Errorf("processes %+v", p)
	}
	w := meshbench.Workload{Topology: meshbench.Topology{Services: []meshbench.ServiceNode{{Name: "a", Calls: []string{"b", "c"}}, {Name: "b", Instances: 2}, {Name: "c"}}}}
	routes := []meshbench.Route{{From: "a", To: "b", At: meshbench.PortRef{Process: "a-proxy", Port: "to-b"}, Host: "b.mesh"}}
	p = Services{}.Processes(w, 1, routes)
	if len(p) != 4 || p[2].Name != "b-2" || p[2].Instance != 1 || p[2].Service != "b" {
		t.Fatalf("processes %+v", p)
	}
	const want = "{\"calls\":[{\"to\":\"b\",\"addresses\":[\"{{address `a-proxy` `to-b`}}\"],\"host\":\"b.mesh\"},{\"to\":\"c\",\"addresses\":[\"{{address `c` `http`}}\"]}]}"
	if len(p[0].Files) != 1 || p[0].Files[0].Text != want {
		t.Errorf("files %+v\nwant %s", p[0].Files, want)
	}
	services := Services{}.Services(w)
	if len(services) != 3 || services[1].Instances[1] != (meshbench.PortRef{Process: "b-2", Port: HTTPPort}) || len(services[0].Calls) != 2 {
		t.Errorf("services %+v", services)
	}
}
