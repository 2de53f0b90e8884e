package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
)

// The test binary started again with this variable is a worker.
const workerVariable = "MESHBENCH_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process is a worker process and the two ends of its protocol.
type process struct {
	io.Reader
	io.Writer
	in, out io.Closer
	cmd     *exec.Cmd
	ended   chan struct{}
}

func (p *process) Close() error { return errors.Join(p.in.Close(), p.out.Close()) }

// start starts a worker process; the test ends it.
func start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p := &process{Reader: out, Writer: in, in: in, out: out, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *process) wait(t *testing.T, why string) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the worker lives on after %s", why)
	}
}

func connect(t *testing.T, p *process) *Client {
	t.Helper()
	c, err := Connect(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func target(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

func job(url string) load.Job {
	return load.Job{
		Target: meshbench.Target{URL: url}, Rate: 300, Connections: 4, KeepAlive: true,
		Timeout: meshbench.Duration(20 * time.Second), Duration: meshbench.Duration(400 * time.Millisecond), Seed: 3,
		Calibration: meshbench.Duration(20 * time.Millisecond),
	}
}

func exact(t *testing.T, r meshbench.LoadResult) {
	t.Helper()
	if sum := r.Completed + r.Errored + r.TimedOut + r.Skipped + r.Unfinished; sum != r.Planned {
		t.Errorf("planned %d, accounted for %d", r.Planned, sum)
	}
}

func TestAWorkerRunsJobAfterJob(t *testing.T) {
	p := start(t)
	c := connect(t, p)
	if h := c.Hello(); h.Protocol != load.ProtocolVersion || h.PID != p.cmd.Process.Pid || h.Engine != load.EngineName {
		t.Errorf("hello %+v", h)
	}
	url := target(t)
	for i, rate := range []meshbench.Rate{300, meshbench.RateMax, 1000} {
		j := job(url)
		j.Rate = rate
		ticks := 0
		r, err := c.Run(t.Context(), j, func(load.Tick) { ticks++ })
		if err != nil {
			t.Fatal(err)
		}
		exact(t, r)
		if r.Completed == 0 || r.Completed != r.Planned || ticks < 2 {
			t.Errorf("job %d: %d of %d completed, %d ticks, %v", i, r.Completed, r.Planned, ticks, r.Errors)
		}
		if r.Generator.PeakMemoryBytes > 64<<20 {
			t.Errorf("the worker used %d MB", r.Generator.PeakMemoryBytes>>20)
		}
		if r.Generator.GarbageCollections > 0 {
			t.Errorf("the worker collected garbage %d times", r.Generator.GarbageCollections)
		}
	}
	// A job that cannot be run is told, and the next one runs.
	bad := job(url)
	bad.CPUs = []int{1000}
	if _, err := c.Run(t.Context(), bad, nil); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid || meshbench.AsError(err).Hint == "" {
		t.Errorf("%v", err)
	}
	if r, err := c.Run(t.Context(), job(url), nil); err != nil || r.Completed == 0 {
		t.Errorf("after a bad job: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	p.wait(t, "its input ended")
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSeveralWorkersShareARate(t *testing.T) {
	url := target(t)
	clients := []*Client{connect(t, start(t)), connect(t, start(t))}
	for _, law := range []meshbench.Arrivals{meshbench.Constant, meshbench.Poisson} {
		j := job(url)
		j.Arrivals, j.Rate = law, 500
		r, err := RunAll(t.Context(), clients, j, nil)
		if err != nil {
			t.Fatal(err)
		}
		exact(t, r)
		if r.Generator.Workers != 2 || r.Completed != r.Planned {
			t.Errorf("%d workers, %d of %d completed", r.Generator.Workers, r.Completed, r.Planned)
		}
		if law == meshbench.Constant && r.Planned != 200 {
			t.Errorf("%d planned in 0.4 s at 500 per second", r.Planned)
		}
	}
}

// The end comes at random points of a job; the result has what there was, and
// the worker goes on.
func TestCancel(t *testing.T) {
	c := connect(t, start(t))
	url := target(t) + "/?wait=5ms"
	for _, after := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		j := job(url)
		j.Duration = meshbench.Duration(time.Hour)
		r, err := c.Run(ctx, j, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after %s: %v", after, err)
		}
		exact(t, r)
	}
	if r, err := c.Run(t.Context(), job(url), nil); err != nil || r.Completed != r.Planned {
		t.Errorf("afterwards: %v", err)
	}
}

// A worker that is killed under load is an error that says so.
func TestAKilledWorker(t *testing.T) {
	p := start(t)
	c := connect(t, p)
	j := job(target(t))
	j.Duration = meshbench.Duration(time.Hour)
	killed := false
	_, err := c.Run(t.Context(), j, func(load.Tick) {
		if !killed {
			killed = true
			_ = p.cmd.Process.Kill()
		}
	})
	var e *meshbench.Error
	if !errors.As(err, &e) || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "worker") {
		t.Errorf("%v", err)
	}
}

// drive speaks the protocol by hand: hello, job, ready, start.
func drive(t *testing.T, p *process, j load.Job) (*reader, *writer) {
	t.Helper()
	r, w := newReader(p), newWriter(p)
	expect := func(want load.Type) {
		t.Helper()
		if m, err := r.read(); err != nil || m.Type != want {
			t.Fatalf("not %s but %+v, %v", want, m, err)
		}
	}
	expect(load.TypeHello)
	j = j.WithDefaults()
	if err := w.write(load.Message{Type: load.TypeJob, Job: &j}); err != nil {
		t.Fatal(err)
	}
	expect(load.TypeReady)
	if err := w.write(load.Message{Type: load.TypeStart}); err != nil {
		t.Fatal(err)
	}
	expect(load.TypeTick)
	return r, w
}

// The lease: without heartbeats the load ends, though nobody has said so.
func TestTheLoadEndsWithItsLease(t *testing.T) {
	p := start(t)
	j := job(target(t))
	j.Duration = meshbench.Duration(time.Hour)
	r, _ := drive(t, p, j)
	for {
		m, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == load.TypeDone {
			if !m.Done.Stopped || m.Done.CountedNanos < int64(LeaseTime)/2 {
				t.Errorf("%+v", m.Done)
			}
			return
		}
	}
}

// The input ends: the load and the worker end, even if nobody reads.
func TestTheWorkerEndsWithItsInput(t *testing.T) {
	p := start(t)
	j := job(target(t))
	j.Duration = meshbench.Duration(time.Hour)
	drive(t, p, j)
	p.in.Close()
	p.wait(t, "its input ended under load")
}

func TestTheWorkerEndsWithItsReader(t *testing.T) {
	p := start(t)
	j := job(target(t))
	j.Duration = meshbench.Duration(time.Hour)
	drive(t, p, j)
	p.out.Close()
	p.wait(t, "its output was closed")
}

// A worker that is stopped for a moment says so in its verdict.
func TestAStalledWorkerIsInvalid(t *testing.T) {
	p := start(t)
	c := connect(t, p)
	j := job(target(t))
	j.Duration = meshbench.Duration(1500 * time.Millisecond)
	ticks := 0
	r, err := c.Run(t.Context(), j, func(load.Tick) {
		if ticks++; ticks == 4 {
			_ = p.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(400 * time.Millisecond)
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	exact(t, r)
	found := false
	for _, reason := range r.Verdict.Reasons {
		found = found || reason.Code == load.WorkerStalled
	}
	if !found || r.Verdict.Status != meshbench.InvalidTest {
		t.Errorf("%+v", r.Verdict)
	}
	if r.LoadState != meshbench.Kept {
		t.Errorf("the subject kept up, and is %s", r.LoadState)
	}
}

// A reader that is slow does not stall the load: ticks become longer, and
// nothing is lost.
func TestASlowReader(t *testing.T) {
	c := connect(t, start(t))
	j := job(target(t))
	j.Rate, j.Duration = 2000, meshbench.Duration(2*time.Second)
	slow := true
	r, err := c.Run(t.Context(), j, func(load.Tick) {
		if slow {
			slow = false
			time.Sleep(1200 * time.Millisecond)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	exact(t, r)
	var batched uint64
	for _, b := range r.Batches {
		batched += uint64(b.Count)
	}
	if batched != r.Completed || r.Response.Count != r.Completed {
		t.Errorf("%d completed, %d in batches, %d in the histogram", r.Completed, batched, r.Response.Count)
	}
}

// Memory stays below 64 MB however high the rate, and whatever waits: a
// backlog of a million requests behind a server that does not answer.
func TestMemory(t *testing.T) {
	c := connect(t, start(t))
	j := job(target(t) + "/?wait=1h")
	j.Rate, j.Duration, j.Drain = 1_000_000, meshbench.Duration(1500*time.Millisecond), meshbench.Duration(time.Millisecond)
	r, err := c.Run(t.Context(), j, nil)
	if err != nil {
		t.Fatal(err)
	}
	exact(t, r)
	if r.Planned < 1_000_000 || r.Skipped < r.Planned-10 {
		t.Errorf("%d planned, %d skipped", r.Planned, r.Skipped)
	}
	if m := r.Generator.PeakMemoryBytes; m == 0 || m > 64<<20 {
		t.Errorf("%d MB", m>>20)
	}
	if r.LoadState != meshbench.Saturated {
		t.Errorf("the load is %s", r.LoadState)
	}
}

func TestAnotherProtocol(t *testing.T) {
	for name, hello := range map[string]string{
		"a later version": `{"seq":1,"type":"hello","hello":{"protocol":99,"build":"v9","engine":"epoll","pid":1}}` + "\n",
		"another program": "Usage: ...\n",
		"not hello":       `{"seq":1,"type":"ready"}` + "\n",
		"nothing":         "",
	} {
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, hello)
			w.Close()
		}()
		_, err := Connect(t.Context(), struct {
			io.Reader
			io.WriteCloser
		}{r, discard{}})
		var e *meshbench.Error
		if !errors.As(err, &e) || e.Code != meshbench.Invalid && e.Code != meshbench.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		if name == "a later version" && (!strings.Contains(e.Message, "99") || e.Hint == "") {
			t.Errorf("%s: %s (%s)", name, e.Message, e.Hint)
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }

// Serve over streams that are no pipes, and what it does with nonsense.
func TestServeOverOtherStreams(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var out bytes.Buffer
	err := Serve(t.Context(), strings.NewReader("nonsense\n"), &out)
	if meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("%v", err)
	}
	if m, err := newReader(&out).read(); err != nil || m.Type != load.TypeHello {
		t.Errorf("%+v, %v", m, err)
	}
	err = Serve(t.Context(), strings.NewReader(`{"seq":1,"type":"ready"}`+"\n"), io.Discard)
	if meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("%v", err)
	}
}

// The worker holds no descriptor after a job: a hundred jobs do not run out.
func TestJobsLeaveNothingOpen(t *testing.T) {
	p := start(t)
	c := connect(t, p)
	j := job(target(t))
	j.Duration, j.Calibration = meshbench.Duration(10*time.Millisecond), 0
	open := func() int {
		entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	run := func() {
		if _, err := c.Run(t.Context(), j, nil); err != nil {
			t.Fatal(err)
		}
	}
	run()
	before := open()
	for range 30 {
		run()
	}
	if after := open(); after > before+2 {
		t.Errorf("%d descriptors after one job, %d after 31", before, after)
	}
}
