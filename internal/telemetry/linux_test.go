//go:build linux

package telemetry

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 30 * time.Second

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// start runs a shell script for the length of a test.
func start(t *testing.T, script string) (*exec.Cmd, Identity) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the thread must outlive the child: see Pdeathsig
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
		runtime.UnlockOSThread()
	})
	s, err := ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, s.Identity
}

func TestReadStat(t *testing.T) {
	s, err := ReadStat(os.Getpid())
	if err != nil || s.PID != os.Getpid() || s.Parent != os.Getppid() || s.StartTicks == 0 || !s.Alive() {
		t.Errorf("our own: %+v, error %v", s, err)
	}
	if (Identity{PID: s.PID, StartTicks: s.StartTicks + 1}).Alive() {
		t.Error("a process that started at another time is called alive")
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStat(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
}

// The clock holds the work of threads that have ended, which the sum over
// living threads loses.
func TestClockKeepsEndedThreads(t *testing.T) {
	before, err := CPUClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const work = 100 * time.Millisecond
	for range 3 {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // never unlocked: the thread ends with us
			var from, now unix.Timespec
			_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &from)
			for now.Nano()-from.Nano() < work.Nanoseconds() {
				_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
			}
		}()
		<-ended
	}
	after, err := CPUClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(after - before); got < 3*work {
		t.Errorf("three threads of %s each left %s", work, got)
	}
	if _, err := CPUClock(1 << 30); err == nil {
		t.Error("a process that cannot exist has a clock")
	}
}

func TestMeter(t *testing.T) {
	_, id := start(t, `while :; do :; done & i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; (exit 0); wait`)
	m := NewMeter(id)
	var last Reading
	await(t, "work of the child is seen after its parent has come to rest", func() bool {
		r := m.Read()
		if !r.Alive || r.UserNanos < last.UserNanos || r.SystemNanos < last.SystemNanos {
			t.Fatalf("before %+v, after %+v", last, r)
		}
		last = r
		return r.UserNanos+r.SystemNanos > 500e6 && r.AnonBytes > 0 && r.FileBytes > 0
	})
	if own, err := CPUClock(id.PID); err != nil || own > last.UserNanos+last.SystemNanos {
		t.Errorf("the parent alone %d ns, with its child %d", own, last.UserNanos+last.SystemNanos)
	}
	if err := unix.Kill(-id.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "its end is seen", func() bool { return !m.Read().Alive })
	if gone := m.Read(); gone.UserNanos < last.UserNanos || gone.SystemNanos < last.SystemNanos || gone.AnonBytes != 0 {
		t.Errorf("after its end: %+v, before %+v", gone, last)
	}
}

// What a child used stays in the sum when its parent has waited for it.
func TestMeterKeepsCollectedChildren(t *testing.T) {
	_, id := start(t, `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; sleep 1000`)
	m := NewMeter(id)
	await(t, "the child has ended", func() bool {
		s, err := ReadStat(id.PID)
		return err == nil && s.ChildUser+s.ChildSystem > 0
	})
	own, err := CPUClock(id.PID)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadStat(id.PID)
	if err != nil {
		t.Fatal(err)
	}
	if r := m.Read(); r.UserNanos+r.SystemNanos < own+(s.ChildUser+s.ChildSystem)*nanosPerTick {
		t.Errorf("%+v, but the parent has %d ns and its child left %d ticks", r, own, s.ChildUser+s.ChildSystem)
	}
}

func TestDescendants(t *testing.T) {
	_, id := start(t, "sleep 1000 & sh -c 'sleep 1000 & sleep 1000 & wait' & wait")
	var fast []int
	await(t, "all four live", func() bool { fast = Descendants(id.PID); return len(fast) == 4 })
	all, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	var slow []int
	for _, s := range Tree(all, id.PID) {
		slow = append(slow, s.PID)
	}
	slices.Sort(fast)
	slices.Sort(slow)
	if !slices.Equal(fast, slow) {
		t.Errorf("by the lists of children %v, by all processes %v", fast, slow)
	}
	if got := Descendants(1 << 30); len(got) != 0 {
		t.Errorf("descendants of nobody: %v", got)
	}
}

func TestTreeOfARing(t *testing.T) {
	p := func(pid, parent int) Stat { return Stat{Identity: Identity{PID: pid}, Parent: parent} }
	if got := Tree([]Stat{p(1, 3), p(2, 1), p(3, 2)}, 1); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, other := start(t, "sleep 1000")
	for _, c := range []struct {
		pid        int
		some, ours bool
	}{{os.Getpid(), true, true}, {other.PID, true, false}} {
		some, ours, err := Listens(port, []int{c.pid})
		if err != nil || some != c.some || ours != c.ours {
			t.Errorf("process %d: %v, %v, error %v", c.pid, some, ours, err)
		}
	}
	l.Close()
	if some, _, err := Listens(port, []int{os.Getpid()}); some || err != nil {
		t.Errorf("closed: %v, error %v", some, err)
	}
}

func TestHoldsPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	w.Close()
	if !HoldsPipe(cmd.Process.Pid, []uint64{1, stat.Ino}) {
		t.Error("the one who holds it is not found")
	}
	if HoldsPipe(cmd.Process.Pid, []uint64{stat.Ino + 1}) || HoldsPipe(os.Getpid(), []uint64{stat.Ino}) || HoldsPipe(cmd.Process.Pid, nil) {
		t.Error("one who does not hold it is found")
	}
}

func TestReadMachine(t *testing.T) {
	before, err := ReadMachine()
	if err != nil || len(before) == 0 {
		t.Fatal(before, err)
	}
	var i Interval
	await(t, "time passes", func() bool {
		after, err := ReadMachine()
		if err != nil {
			t.Fatal(err)
		}
		i = after.Since(before)
		return i.Seconds > 0.1
	})
	if i.BusyCores < 0 || i.BusyCores > float64(len(before)) || i.StealShare < 0 || i.StealShare > 1 || len(i.CPUs) != len(before) {
		t.Errorf("%+v", i)
	}
}

func TestFingerprint(t *testing.T) {
	f := Fingerprint()
	if f.Cores < 1 || f.ThreadsPerCore < 1 || f.CPUModel == "" || f.MemoryBytes == 0 || f.OpenFiles == 0 ||
		!strings.HasPrefix(f.Kernel, "Linux ") || !strings.HasPrefix(f.OS, "linux/") || f.StealShare < 0 || f.StealShare > 1 {
		t.Errorf("%+v", f)
	}
	if boot, err := BootID(); err != nil || len(boot) != 36 {
		t.Errorf("boot %q, error %v", boot, err)
	}
	if _, err := ReadCgroup(); err != nil {
		t.Errorf("control group: %v", err)
	}
}

func BenchmarkMeter(b *testing.B) {
	s, err := ReadStat(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	m := NewMeter(s.Identity)
	for b.Loop() {
		m.Read()
	}
}
