// Package infratest is the suite of tests that every infrastructure passes.
package infratest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/workload"
)

// Subject is an infrastructure under test, and what it can do, as data.
type Subject struct {
	// New makes an infrastructure that the suite closes. Its workers must be
	// programs that answer each line with the same line and end with their
	// input.
	New func(t *testing.T) infra.Infrastructure
	// Name is what the suite deploys under.
	Name string
	// Path is the network path that it must have.
	Path meshbench.NetworkPath
	// Deploys: it starts the Spec's processes, so usage, Seen, parking,
	// signals, logs and ports are tested, too.
	Deploys bool
}

// patience is the longest that anything here may take.
const patience = 60 * time.Second

// Spec is what the suite deploys: the echo workload.
func Spec() meshbench.Spec {
	return meshbench.Spec{
		Processes: workload.Services{}.Processes(meshbench.Workload{Response: meshbench.Response{BodyBytes: 512}}, 1, nil),
		Entry:     meshbench.PortRef{Process: workload.Service, Port: workload.HTTPPort},
		Host:      "suite.test",
	}
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	t.Run("Describes", func(t *testing.T) { describes(t, s) })
	t.Run("Deploy", func(t *testing.T) { deploys(t, s) })
	t.Run("Cancelled", func(t *testing.T) { cancelled(t, s) })
	t.Run("Worker", func(t *testing.T) { workers(t, s) })
	t.Run("Close", func(t *testing.T) { closes(t, s) })
	if !s.Deploys {
		return
	}
	t.Run("Usage", func(t *testing.T) { usage(t, s) })
	t.Run("Seen", func(t *testing.T) { seen(t, s) })
	t.Run("Park", func(t *testing.T) { parks(t, s) })
	t.Run("Kill", func(t *testing.T) { kills(t, s) })
	t.Run("Failure", func(t *testing.T) { fails(t, s) })
}

func open(t *testing.T, s Subject) (context.Context, infra.Infrastructure) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	i := s.New(t)
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return ctx, i
}

func deploy(ctx context.Context, t *testing.T, s Subject, i infra.Infrastructure) infra.Deployment {
	t.Helper()
	d, err := i.Deploy(ctx, s.Name, Spec(), nil)
	if err != nil {
		t.Fatalf("Deploy: %v", err)
	}
	return d
}

func describes(t *testing.T, s Subject) {
	_, i := open(t, s)
	if i.Path() != s.Path || i.Deploys() != s.Deploys {
		t.Errorf("path %s, deploys %v; want %s, %v", i.Path(), i.Deploys(), s.Path, s.Deploys)
	}
	p := i.Placement()
	for _, g := range p.GeneratorCPUs {
		for _, c := range p.SystemCPUs {
			if g == c {
				t.Errorf("generator and system share CPU %d: %+v", g, p)
			}
		}
	}
}

// get sends one request to a target and returns the answer's length.
func get(ctx context.Context, t *testing.T, target meshbench.Target) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = target.Host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return len(body), err
}

func deploys(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	if h := d.Target().Host; h != "suite.test" {
		t.Errorf("the target's host is %q, want the Spec's", h)
	}
	if _, err := get(ctx, t, d.Target()); err != nil {
		t.Errorf("the target does not answer: %v", err)
	}
	if err := d.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := d.Park(ctx); err != nil {
		t.Errorf("Park: %v", err)
	}
	if err := d.Resume(ctx); err != nil {
		t.Errorf("Resume: %v", err)
	}
	if _, err := get(ctx, t, d.Target()); err != nil {
		t.Errorf("the target does not answer after parking: %v", err)
	}
	if _, err := d.Usage(ctx); err != nil {
		t.Errorf("Usage: %v", err)
	}
	_, errAddress := d.Address("nobody", "nothing")
	_, errDir := d.Dir("nobody")
	errSignal := d.Signal(ctx, meshbench.Gateway, 7, infra.Kill)
	for what, err := range map[string]error{"Address": errAddress, "Dir": errDir, "Signal": errSignal} {
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.NotFound {
			t.Errorf("%s of nobody: error %v, want one of code not_found", what, err)
		}
	}
	if log := d.Log("nobody", 10); log != "" {
		t.Errorf("the log of nobody is %q", log)
	}
	for range 2 {
		if err := d.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if s.Deploys {
		if _, err := get(ctx, t, d.Target()); err == nil {
			t.Error("the target answers after Close")
		}
	}
	// The same name again.
	again := deploy(ctx, t, s, i)
	if _, err := get(ctx, t, again.Target()); err != nil {
		t.Errorf("the target of the second deployment does not answer: %v", err)
	}
	if err := again.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func cancelled(t *testing.T, s Subject) {
	_, i := open(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if d, err := i.Deploy(ctx, s.Name, Spec(), nil); err == nil {
		d.Close(context.Background())
		t.Error("Deploy after the end of its context succeeds")
	}
	if w, err := i.Worker(ctx); err == nil {
		w.Close()
		t.Error("Worker after the end of its context succeeds")
	}
}

func workers(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	for range 2 {
		w, err := i.Worker(ctx)
		if err != nil {
			t.Fatalf("Worker: %v", err)
		}
		if _, err := io.WriteString(w, "are you there\n"); err != nil {
			t.Fatalf("Write: %v", err)
		}
		lines := bufio.NewReader(w)
		if line, err := lines.ReadString('\n'); err != nil || line != "are you there\n" {
			t.Fatalf("the worker answers %q, error %v", line, err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if rest, err := io.ReadAll(lines); len(rest) > 0 {
			t.Errorf("after Close %q was read, error %v", rest, err)
		}
	}
	// One that nobody closes ends with its context.
	short, cancel := context.WithCancel(ctx)
	w, err := i.Worker(short)
	if err != nil {
		t.Fatalf("Worker: %v", err)
	}
	cancel()
	if _, err := io.ReadAll(w); err != nil {
		t.Errorf("the end of a worker whose context ended: %v", err)
	}
}

func closes(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	w, err := i.Worker(ctx)
	if err != nil {
		t.Fatalf("Worker: %v", err)
	}
	for range 2 {
		if err := i.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := io.ReadAll(w); err != nil {
		t.Errorf("the end of a worker whose infrastructure was closed: %v", err)
	}
	if s.Deploys {
		if _, err := get(ctx, t, d.Target()); err == nil {
			t.Error("the target answers after Close of the infrastructure")
		}
	}
	if err := d.Close(ctx); err != nil {
		t.Errorf("Close of a deployment whose infrastructure was closed: %v", err)
	}
}

func usage(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	read := func() meshbench.UsageReading {
		all, err := d.Usage(ctx)
		if err != nil || len(all) != 1 {
			t.Fatalf("Usage: %+v, error %v", all, err)
		}
		return all[0]
	}
	before := read()
	if before.Role != meshbench.Application || before.Service != workload.Service || before.Process != workload.Service || !before.Alive {
		t.Errorf("usage of somebody else: %+v", before)
	}
	if before.AnonBytes == 0 || before.UserNanos+before.SystemNanos == 0 {
		t.Errorf("a process that runs has used nothing: %+v", before)
	}
	for range 200 {
		if n, err := get(ctx, t, d.Target()); err != nil || n != 512 {
			t.Fatalf("%d bytes, error %v", n, err)
		}
	}
	after := read()
	if after.UserNanos < before.UserNanos || after.SystemNanos < before.SystemNanos ||
		after.UserNanos+after.SystemNanos <= before.UserNanos+before.SystemNanos {
		t.Errorf("200 requests cost nothing: before %+v, after %+v", before, after)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if gone := read(); gone.Alive || gone.UserNanos < after.UserNanos || gone.AnonBytes != 0 {
		t.Errorf("usage after Close: %+v", gone)
	}
}

func seen(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	for range 3 {
		if _, err := get(ctx, t, d.Target()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // asking does not count
		if got, err := d.Seen(ctx, workload.Service); err != nil || got.Requests != 3 || got.PeerName != "" {
			t.Errorf("Seen: %+v, error %v; want 3 requests", got, err)
		}
	}
	if _, err := d.Seen(ctx, "nobody"); err == nil || meshbench.AsError(err).Code != meshbench.NotFound {
		t.Errorf("Seen of nobody: error %v", err)
	}
}

func parks(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	if err := d.Park(ctx); err != nil {
		t.Fatalf("Park: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := get(short, t, d.Target()); err == nil {
		t.Error("a parked deployment answers")
	}
	if err := d.Check(); err != nil {
		t.Errorf("a parked deployment is called dead: %v", err)
	}
	if err := d.Resume(ctx); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	if _, err := get(ctx, t, d.Target()); err != nil {
		t.Errorf("it does not answer after Resume: %v", err)
	}
	// What is parked can be closed.
	if err := d.Park(ctx); err != nil {
		t.Fatalf("Park: %v", err)
	}
	if err := d.Close(ctx); err != nil {
		t.Errorf("Close of a parked deployment: %v", err)
	}
}

func kills(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	d := deploy(ctx, t, s, i)
	if err := d.Signal(ctx, meshbench.Application, 0, infra.Kill); err != nil {
		t.Fatalf("Signal: %v", err)
	}
	var err error
	for err = d.Check(); err == nil && ctx.Err() == nil; err = d.Check() {
		time.Sleep(5 * time.Millisecond)
	}
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, `"echo"`) || !strings.Contains(e.Message, "killed") {
		t.Errorf("Check after a kill: %v", err)
	}
	if err := d.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func fails(t *testing.T, s Subject) {
	ctx, i := open(t, s)
	good := Spec()
	bad := good.Processes[0]
	bad.Name, bad.Service = "broken", "broken"
	bad.Args = []string{"workload", "echo", "--listen", "no-address", "--control", "no-address", "--body-bytes", "1"}
	bad.ReadyURL = strings.ReplaceAll(bad.ReadyURL, `"echo"`, `"broken"`)
	spec := good
	spec.Processes = append([]meshbench.Process{}, good.Processes[0], bad)
	d, err := i.Deploy(ctx, s.Name, spec, nil)
	if err == nil {
		d.Close(ctx)
		t.Fatal("a process that ends at once is deployed")
	}
	e := meshbench.AsError(err)
	if e.Code != meshbench.Unavailable || !strings.Contains(e.Message, `"broken"`) || !strings.Contains(e.Message, "no-address") || e.Hint == "" {
		t.Errorf("the error tells neither who failed nor its last words: %+v", e)
	}
	// It has left nothing that keeps the next from working.
	if err := deploy(ctx, t, s, i).Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}
