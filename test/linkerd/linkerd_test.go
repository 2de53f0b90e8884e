//go:build linux

// Package linkerd tries Linkerd's driver, its control plane and the network
// namespaces together: with a fake proxy everywhere, and with the real one
// behind the build tag "linkerd", for machines where linkerd2-proxy is on
// PATH. It needs root.
package linkerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/workload"
)

// program is the built binary.
var program string

// TestMain makes the test binary stand in for a proxy and for an application:
// started with their environment, it is one.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv("LINKERD2_PROXY_LOG") != "":
		err = runFakeProxy()
	case os.Getenv("TEST_APPLICATION") != "":
		err = runApplication(os.Getenv("TEST_APPLICATION"), os.Getenv("LISTEN"))
	default:
		os.Exit(tests(m))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func tests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "meshbench-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "meshbench")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/meshbench").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building meshbench: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// runApplication is a service that says its name and who called it.
func runApplication(name, address string) error {
	var requests atomic.Uint64
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		switch {
		case r.URL.Path == "/slow":
			time.Sleep(5 * time.Second)
		case r.URL.Path == "/flaky" && n%2 == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s, called by %s, header %q", name, r.Header.Get("l5d-client-id"), r.Header.Get("x-test"))
	}))
}

// here is a local infrastructure that ends with the test, with a program for
// the runtime of Linkerd's proxy.
func here(t *testing.T, proxy string) *local.Infrastructure {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	i, err := local.New(t.Context(), local.Options{
		Executable: program, Dir: t.TempDir(), StateDir: t.TempDir(),
		Runtime: func(_ context.Context, nameAtVersion string) (string, error) {
			if strings.HasPrefix(nameAtVersion, linkerd.Runtime+"@") {
				return proxy, nil
			}
			return self, nil // the application
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func deploy(t *testing.T, i *local.Infrastructure, spec meshbench.Spec, prepare infra.Prepare) infra.Deployment {
	t.Helper()
	up, err := i.Deploy(t.Context(), "subject", spec, prepare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range spec.Processes {
				t.Logf("log of %s:\n%s", p.Name, up.Log(p.Name, 20))
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := up.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return up
}

// conforms runs the suite that every driver passes.
func conforms(t *testing.T, proxy string) {
	i := here(t, proxy)
	w := meshbench.Workload{Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}, Response: meshbench.Response{BodyBytes: 1024}}
	graph := graph()
	meshtest.Run(t, meshtest.Suite{
		Driver: linkerd.New(), Applications: workload.Services{}.Processes(w, 1, nil), Service: workload.Services{}.Services(w)[0],
		Graph: graph, GraphApplications: echoes(graph), Examples: linkerd.Examples(),
		Deploy: func(t *testing.T, spec meshbench.Spec, prepare meshtest.Prepare) meshtest.Deployment {
			return deploy(t, i, spec, func(ctx context.Context, access infra.Access, process string) error {
				return prepare(ctx, access, process)
			})
		},
	})
}

// graph is three services: front calls back, which has two instances, and
// nobody calls next.
func graph() []meshbench.Service {
	at := func(process string) meshbench.PortRef {
		return meshbench.PortRef{Process: process, Port: workload.HTTPPort}
	}
	return []meshbench.Service{
		{Name: "front", Instances: []meshbench.PortRef{at("front")}, Calls: []string{"back"}},
		{Name: "back", Instances: []meshbench.PortRef{at("back"), at("back-2")}},
		{Name: "next", Instances: []meshbench.PortRef{at("next")}},
	}
}

// echoes are an echo service per instance.
func echoes(services []meshbench.Service) []meshbench.Process {
	var out []meshbench.Process
	for _, s := range services {
		for i, at := range s.Instances {
			address := func(port string) string { return "{{address `" + at.Process + "` `" + port + "`}}" }
			out = append(out, meshbench.Process{
				Name: at.Process, Role: meshbench.Application, Service: s.Name, Instance: i, Runtime: meshbench.Self,
				Args: []string{
					"workload", "echo", "--listen", address(workload.HTTPPort), "--control", address(workload.ControlPort), "--body-bytes", "100",
				},
				Ports:    []string{workload.HTTPPort, workload.ControlPort},
				ReadyURL: "http://" + address(workload.ControlPort) + workload.ReadyPath,
			})
		}
	}
	return out
}

// site is a graph of services that is up: front, and beside it canary, which
// nobody calls.
type site struct {
	t       *testing.T
	up      infra.Deployment
	request mesh.Request
}

func newSite(t *testing.T, proxy string) *site {
	t.Helper()
	s := &site{t: t, request: mesh.Request{
		Subject: meshbench.Subject{Mesh: "linkerd"}, Profile: meshbench.Parity, Threads: 1,
		Services: []meshbench.Service{
			{Name: "front", Instances: []meshbench.PortRef{{Process: "front", Port: "http"}}},
			{Name: "canary", Instances: []meshbench.PortRef{{Process: "canary", Port: "http"}}},
		},
	}}
	spec, err := linkerd.New().Render(s.request)
	if err != nil {
		t.Fatal(err)
	}
	var applications []meshbench.Process
	for _, name := range []string{"front", "canary"} {
		at := "{{address `" + name + "` `http`}}"
		applications = append(applications, meshbench.Process{
			Name: name, Role: meshbench.Application, Service: name, Runtime: "application@1", Ports: []string{"http"},
			Env: []string{"TEST_APPLICATION=" + name, "LISTEN=" + at},
		})
	}
	spec.Processes = append(applications, spec.Processes...)
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	s.up = deploy(t, here(t, proxy), spec, func(ctx context.Context, access infra.Access, process string) error {
		return linkerd.New().Prepare(ctx, access, s.request, process)
	})
	s.apply()
	return s
}

func (s *site) apply(policies ...meshbench.Policy) {
	s.t.Helper()
	s.request.Policies = policies
	if err := linkerd.New().Configure(s.t.Context(), s.up, s.request); err != nil {
		s.t.Fatal(err)
	}
}

// get sends a request the way that load goes.
func (s *site) get(path string) (int, string) {
	s.t.Helper()
	return s.ask(s.up.Target().URL+path, s.up.Target().Host)
}

func (s *site) ask(url, host string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("x-test", "sent")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// becomes waits until a request is answered as wanted: the proxies take a
// change some milliseconds after it was sent to them.
func (s *site) becomes(path string, status int, contains string) {
	s.t.Helper()
	begun := time.Now()
	for {
		got, body := s.get(path)
		if got == status && strings.Contains(body, contains) {
			s.t.Logf("%s: %d after %v", path, got, time.Since(begun).Round(time.Millisecond))
			return
		}
		if time.Since(begun) > time.Minute {
			s.t.Fatalf("%s: %d %q, want %d with %q", path, got, body, status, contains)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// policies are applied to a deployment that runs, and taken back.
func policies(t *testing.T, proxy string) {
	s := newSite(t, proxy)
	const client = "client.default.serviceaccount.identity.linkerd.meshbench.local"
	s.becomes("/", 200, "front, called by "+client+`, header "sent"`)

	t.Run("timeout", func(t *testing.T) {
		s.apply(meshbench.Policy{Timeout: &meshbench.TimeoutPolicy{Request: meshbench.Duration(300 * time.Millisecond)}})
		s.becomes("/slow", 504, "")
	})
	t.Run("retry", func(t *testing.T) {
		s.apply(meshbench.Policy{Retry: &meshbench.RetryPolicy{Attempts: 3, On: []meshbench.RetryOn{meshbench.RetryOn5xx}}})
		s.becomes("/flaky", 200, "")
		for range 10 {
			if status, body := s.get("/flaky"); status != 200 {
				t.Errorf("%d %s", status, body)
			}
		}
	})
	t.Run("authorization", func(t *testing.T) {
		s.apply(meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{mesh.Client}, Paths: []string{"/secret"}}})
		s.becomes("/secret", 403, "")
		if status, _ := s.get("/open"); status != 200 {
			t.Errorf("another path: %d", status)
		}
		s.apply()
		s.becomes("/secret", 200, "front")
	})
	t.Run("plain text is refused", func(t *testing.T) {
		front, err := s.up.Address("front", "http")
		if err != nil {
			t.Fatal(err)
		}
		if status, body := s.ask("http://"+front+"/", front); status != 403 {
			t.Errorf("past the client's proxy: %d %s", status, body)
		}
		s.apply(meshbench.Policy{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}})
		begun := time.Now()
		for {
			status, body := s.ask("http://"+front+"/", front)
			if status == 200 && strings.Contains(body, "called by ,") {
				break
			}
			if time.Since(begun) > time.Minute {
				t.Fatalf("permissive: %d %s", status, body)
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.apply()
	})
	t.Run("headers", func(t *testing.T) {
		s.apply(meshbench.Policy{Headers: &meshbench.HeadersPolicy{Request: &meshbench.HeaderChange{Set: map[string]string{"x-test": "changed"}}}})
		s.becomes("/", 200, `header "changed"`)
	})
	t.Run("split", func(t *testing.T) {
		s.apply(meshbench.Policy{To: "front", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "front", Weight: 3}, {Service: "canary", Weight: 1}}}})
		s.becomes("/", 200, "canary")
		const n, share = 400, 0.25
		canary := 0.0
		for range n {
			if _, body := s.get("/"); strings.HasPrefix(body, "canary") {
				canary++
			}
		}
		// Five standard deviations of the binomial distribution.
		if off := math.Abs(canary - n*share); off > 5*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%v of %d requests went to the quarter", canary, n)
		}
	})
	t.Run("match", func(t *testing.T) {
		s.apply(meshbench.Policy{
			To: "front", Match: &meshbench.Match{Headers: map[string]string{"x-test": "sent"}, PathPrefix: "/new"},
			Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "canary", Weight: 1}}},
		})
		s.becomes("/new", 200, "canary")
		s.becomes("/old", 200, "front")
	})
	t.Run("counters", func(t *testing.T) {
		s.apply()
		before := s.hop(t)
		for range 20 {
			s.get("/")
		}
		after := s.hop(t)
		for name, n := range map[string]uint64{
			"received by the client's proxy": after.ClientReceived - before.ClientReceived, "attempts": after.ClientAttempts - before.ClientAttempts,
			"received by the service's proxy": after.ServerReceived - before.ServerReceived,
		} {
			if n != 20 {
				t.Errorf("%s: %d of 20", name, n)
			}
		}
		if after.Handshakes == 0 || after.Plaintext != before.Plaintext {
			t.Errorf("%d handshakes, %d requests in plain text", after.Handshakes, after.Plaintext-before.Plaintext)
		}
	})
	t.Run("control plane gone", func(t *testing.T) {
		if err := s.up.Signal(t.Context(), meshbench.ControlPlane, 0, infra.Kill); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if status, body := s.get("/"); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
		}
	})
}

func (s *site) hop(t *testing.T) mesh.Hop {
	t.Helper()
	hops, err := linkerd.New().Counters(t.Context(), s.up, s.request)
	if err != nil {
		t.Fatal(err)
	}
	return hops[0]
}

func TestDriverConformsWithAFakeProxy(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, self)
}

func TestPoliciesWithAFakeProxy(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	policies(t, self)
}

// TestAddressesAreThoseOfBenchmarks: what is in the namespaces has addresses
// of this machine alone.
func TestAddressesAreThoseOfBenchmarks(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, self)
	_, network, _ := net.ParseCIDR("198.18.0.0/15")
	for _, process := range []string{"front", "front-proxy", linkerd.ClientProxy, linkerd.ControlPlane} {
		port := map[string]string{"front": "http"}[process]
		if port == "" {
			port = "admin"
		}
		address, err := s.up.Address(process, port)
		if err != nil {
			t.Fatal(err)
		}
		host, _, _ := net.SplitHostPort(address)
		if ip := net.ParseIP(host); ip == nil || !network.Contains(ip) {
			t.Errorf("%s is at %s", process, address)
		}
	}
}

// runProgram runs a command with a PATH and a home of its own.
func runProgram(t *testing.T, path, home string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return finish(t, path, home, exec.Command(program, args...))
}

func finish(t *testing.T, path, home string, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	// What it measures counts for nothing: it need not wait for other runs on
	// this machine, whose lock is among the temporary files.
	cmd.Env = []string{"PATH=" + path, "HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CACHE_HOME=" + home, "TMPDIR=" + home}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), said.String()
}

// quick is a run that is short, not precise.
func quick(subjects string) []string {
	return []string{"run", "-o", "json", "--sittings", "1", "--trial", "600ms", "--warmup", "200ms", "--rate", "200", "--force", "--subjects", subjects}
}

// trials are those among the lines of a result.
func trials(t *testing.T, lines string) []meshbench.Trial {
	t.Helper()
	var out []meshbench.Trial
	for line := range strings.Lines(lines) {
		var trial meshbench.Trial
		if err := json.Unmarshal([]byte(line), &trial); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if trial.Proof.Status != "" { // else another kind of line
			out = append(out, trial)
		}
	}
	return out
}

func TestRunWithoutTheProxySaysHowToGetIt(t *testing.T) {
	code, out, said := runProgram(t, t.TempDir(), t.TempDir(), quick("none,linkerd")...)
	var document struct {
		Error meshbench.Error `json:"error"`
	}
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, said)
	}
	if code == 0 || document.Error.Code != meshbench.NotFound || !strings.Contains(document.Error.Hint, "linkerd2-proxy on PATH") {
		t.Errorf("exit code %d: %+v", code, document.Error)
	}
}

// TestRunWithAFakeProxy lets the whole program measure through fake proxies:
// what it then says of Linkerd's latency is worth nothing, but path, proof and
// baseline must be right.
func TestRunWithAFakeProxy(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	if err := os.Symlink(self, filepath.Join(path, linkerd.Runtime)); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	code, out, said := runProgram(t, path, home, quick("none,linkerd")...)
	var document struct {
		State string `json:"state"`
		Cells []struct {
			ID   string                `json:"id"`
			Path meshbench.NetworkPath `json:"path"`
		} `json:"cells"`
	}
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, said)
	}
	var got []string
	for _, c := range document.Cells {
		got = append(got, c.ID+" on "+string(c.Path))
	}
	want := []string{"none on loopback", "none:path=namespaces on namespaces", "linkerd on namespaces"}
	// The verdict (exit code 12) is on the machine, which may be busy.
	if code != 0 && code != 12 || document.State != "finished" || !slices.Equal(got, want) {
		t.Errorf("exit code %d, state %s, cells %q, want %q\n%s", code, document.State, got, want, said)
	}
	// Trials that do not count for the machine's sake are proven all the same.
	_, out, _ = runProgram(t, path, home, "results", "show", "latest", "-o", "ndjson")
	proven := map[string]int{}
	for _, trial := range trials(t, out) {
		proven[trial.Cell]++
		if p := trial.Proof; p.Status != meshbench.Proven || p.Sent == 0 || p.Application != p.Sent {
			t.Errorf("%s: %+v", trial.Cell, p)
		}
		if p := trial.Proof; trial.Cell == "linkerd" && (p.ClientProxy != p.Sent || p.ServerProxy != p.Sent || p.Handshakes == 0 || p.Plaintext > 0) {
			t.Errorf("%s: %+v", trial.Cell, p)
		}
	}
	if len(proven) != len(want) {
		t.Errorf("trials of %v", proven)
	}
}

// TestRunWithoutRoot: who may make no namespaces is told so, and what needs
// none is measured.
func TestRunWithoutRoot(t *testing.T) {
	const nobody = 65534
	dir, err := os.MkdirTemp("", "meshbench-unprivileged-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, path := filepath.Join(dir, "home"), filepath.Join(dir, "bin")
	for _, d := range []string{home, path} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{program: filepath.Join(path, "meshbench"), self: filepath.Join(path, linkerd.Runtime)} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(home, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	asNobody := func(args ...string) (int, string, string) {
		cmd := exec.Command(filepath.Join(path, "meshbench"), args...)
		cmd.Dir = home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return finish(t, path, home, cmd)
	}
	code, out, said := asNobody(quick("none,linkerd")...)
	var document struct {
		State    string              `json:"state"`
		Failures []meshbench.Failure `json:"failures"`
	}
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, said)
	}
	told := slices.ContainsFunc(document.Failures, func(f meshbench.Failure) bool {
		return f.Cell == "linkerd" && strings.Contains(f.Message, "network namespaces cannot be had")
	})
	if !told {
		t.Errorf("exit code %d, state %s, failures %+v\n%s", code, document.State, document.Failures, said)
	}
	_, out, _ = asNobody("results", "show", "latest", "-o", "ndjson")
	measured := trials(t, out)
	if len(measured) == 0 || slices.ContainsFunc(measured, func(m meshbench.Trial) bool { return m.Cell != "none" || m.Load.Completed == 0 }) {
		t.Errorf("measured was %+v", measured)
	}
	_, out, _ = asNobody("doctor")
	if !strings.Contains(out, "network namespaces cannot be had") || !strings.Contains(out, "run as root") {
		t.Errorf("the doctor says:\n%s", out)
	}
}
