package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// The test binary started again with this variable is a server.
const serverVariable = "MESHBENCH_TEST_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) != "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(l.Addr())
		go func() { // until the test closes its end
			_, _ = os.Stdin.Read(make([]byte, 1))
			os.Exit(0)
		}()
		for {
			c, err := l.Accept()
			if err != nil {
				panic(err)
			}
			go answer(write(good))(c.(*net.TCPConn))
		}
	}
	os.Exit(m.Run())
}

// serveApart runs a good server in a process of its own.
func serveApart(t *testing.T) string {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), serverVariable+"=1")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// The loop allocates nothing per request, connection or tick: three times the
// load costs no more allocations.
func TestTheLoopAllocatesNothing(t *testing.T) {
	address := serveApart(t)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	allocations := func(j Job) uint64 {
		e, err := NewEngine(t.Context(), j.WithDefaults(), null, 1)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := e.Run(func() (time.Time, bool) { return time.Time{}, true }); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if e.loop.window.outOfRange != 0 {
			t.Errorf("%d values are out of range", e.loop.window.outOfRange)
		}
		return after.Mallocs - before.Mallocs
	}
	for _, rate := range []meshbench.Rate{3000, meshbench.RateMax} {
		for _, keep := range []bool{true, false} {
			j := job(address)
			j.Rate, j.KeepAlive = rate, keep
			j.Duration = meshbench.Duration(200 * time.Millisecond)
			short := allocations(j)
			j.Duration *= 3
			long := allocations(j)
			if long > short+50 {
				t.Errorf("rate %s, keep-alive %t: %d allocations in 200 ms, %d in 600 ms", rate, keep, short, long)
			}
		}
	}
}

// A server that freezes: measured from the intended start the requests that
// had to wait are slow; anchored at the moment of sending, as other tools do,
// the same requests look fine. That difference is coordinated omission.
func TestCoordinatedOmission(t *testing.T) {
	const frozen = 500 * time.Millisecond
	address := serveRaw(t, answer(func(c *net.TCPConn, n int) bool {
		if n == 40 {
			time.Sleep(frozen)
		}
		return write(good)(c, n)
	}))
	j := job(address)
	j.Rate, j.Arrivals, j.Connections = 200, meshbench.Constant, 1
	j.Duration = meshbench.Duration(time.Second)
	r := run(t, j)
	slow := func(l meshbench.Latency) (n uint64) {
		h, err := DecodeHistogram(l.Histogram)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range h.counts {
			if lowestOf(i) >= int64(frozen)/5 {
				n += k
			}
		}
		return n
	}
	// Those whose time came in the first four fifths of the freeze.
	if got, want := slow(r.Response), uint64(70); got < want {
		t.Errorf("%d requests had to wait for 100 ms, at least %d should", got, want)
	}
	if got := slow(r.Service); got == 0 || got > slow(r.Response)/4 {
		t.Errorf("anchored at sending, %d of %d slow requests are left", got, slow(r.Response))
	}
	if slow(r.ConnectionWait) < 70 {
		t.Errorf("%d requests waited for the connection: the wait is the subject's", slow(r.ConnectionWait))
	}
}

// The moments at which requests are taken up follow the planned law. A busy
// machine may disturb a run; it does not disturb all of them.
func TestScheduleFidelity(t *testing.T) {
	address := serveApart(t)
	for _, law := range []meshbench.Arrivals{meshbench.Poisson, meshbench.Constant} {
		best := 1.0
		for range 8 {
			j := job(address)
			j.Rate, j.Arrivals, j.Duration = 300, law, meshbench.Duration(1500*time.Millisecond)
			if best = min(best, distance(t, j)); best <= 0.05 {
				break
			}
		}
		if best > 0.05 {
			t.Errorf("%s: distance %.3f from the plan", law, best)
		}
	}
}

// distance runs a job's engine and returns how far its arrivals are from the
// planned law.
func distance(t *testing.T, j Job) float64 {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	e, err := NewEngine(t.Context(), j.WithDefaults(), null, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := e.Run(func() (time.Time, bool) { return time.Time{}, true })
	if err != nil {
		t.Fatal(err)
	}
	if want := planned(j); s.LawDistances != want-1 {
		t.Errorf("%d distances between %d arrivals", s.LawDistances, want)
	}
	return s.LawDistance
}

// Ticks tell what goes on, warm-up first, and add up to the result.
func TestTicks(t *testing.T) {
	address := serveApart(t)
	j := job(address)
	j.Warmup, j.Duration = meshbench.Duration(250*time.Millisecond), meshbench.Duration(450*time.Millisecond)
	var ticks []Tick
	r, err := Run(t.Context(), j, func(t Tick) { ticks = append(ticks, t) })
	if err != nil {
		t.Fatal(err)
	}
	exact(t, r)
	if len(ticks) < 3 {
		t.Fatalf("%d ticks", len(ticks))
	}
	if ticks[0].Phase != Warmup || ticks[0].Completed != 0 {
		t.Errorf("the first tick: %+v", ticks[0])
	}
	var sum Totals
	for i, k := range ticks {
		sum.Sent += k.Sent
		sum.Planned += k.Planned
		sum.Completed += k.Completed
		if i > 0 && k.Elapsed < ticks[i-1].Elapsed {
			t.Errorf("tick %d goes back in time", i)
		}
	}
	if sum != (Totals{Sent: r.Sent, Planned: r.Planned, Completed: r.Completed}) || ticks[len(ticks)-1].Total != sum {
		t.Errorf("the ticks have %+v, the result %d, %d, %d", sum, r.Sent, r.Planned, r.Completed)
	}
	if r.Sent <= r.Planned {
		t.Errorf("%d sent, of them %d counted: the warm-up is missing", r.Sent, r.Planned)
	}
	if r.Connect.Count != 4 {
		t.Errorf("%d connections were set up", r.Connect.Count)
	}
	if g := r.Generator; g.CPUSeconds <= 0 || g.PeakMemoryBytes == 0 || g.Engine != EngineName || g.Workers != 1 || g.SpinSeconds > g.CPUSeconds {
		t.Errorf("%+v", g)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// A garbage collection during the load is told.
func TestGarbageCollectionIsTold(t *testing.T) {
	address := serveApart(t)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	r := run(t, job(address))
	found := false
	for _, reason := range r.Verdict.Reasons {
		found = found || reason.Code == GarbageCollection
	}
	if !found || r.Generator.GarbageCollections == 0 || r.Verdict.Status == meshbench.Valid {
		t.Errorf("%d collections, verdict %+v", r.Generator.GarbageCollections, r.Verdict)
	}
}

// A loop on a CPU that it may not use is a mistake in the job.
func TestCPUThatDoesNotExist(t *testing.T) {
	j := job("127.0.0.1:1")
	j.CPUs = []int{1023}
	if _, err := Run(t.Context(), j, nil); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("%v", err)
	}
}

func TestNameThatDoesNotExist(t *testing.T) {
	j := job("does-not-exist.invalid:80")
	if _, err := Run(t.Context(), j, nil); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.NotFound {
		t.Errorf("%v", err)
	}
}

// A loop that never makes room does not keep a garbage collection waiting for
// its end.
func TestTheLoopLetsGarbageBeCollected(t *testing.T) {
	j := job(serveApart(t))
	j.Rate, j.Duration = meshbench.RateMax, meshbench.Duration(25*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ticks := 0
	_, err := Run(ctx, j, func(k Tick) {
		if ticks++; ticks == 3 {
			runtime.GC()
			runtime.GC()
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("two collections took as long as the load: %v", err)
	}
}
