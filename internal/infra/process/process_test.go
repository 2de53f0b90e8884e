//go:build linux

package process

import (
	"errors"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/telemetry"
)

func TestPlace(t *testing.T) {
	alone := func(c int) []int { return []int{c} }
	pairs := func(c int) []int { return []int{c &^ 1, c | 1} }
	halves := func(c int) []int { return []int{c % 4, c%4 + 4} }
	for _, c := range []struct {
		name     string
		cpus     []int
		siblings func(int) []int
		want     infra.Placement
	}{
		{"one CPU is not placed", []int{0}, alone, infra.Placement{}},
		{"none known", nil, alone, infra.Placement{}},
		{"two", []int{0, 1}, alone, infra.Placement{GeneratorCPUs: []int{0}, SystemCPUs: []int{1}}},
		{"two threads of one core", []int{0, 1}, pairs, infra.Placement{GeneratorCPUs: []int{0}, SystemCPUs: []int{1}}},
		{"three, too few to leave one idle", []int{0, 1, 2}, pairs, infra.Placement{GeneratorCPUs: []int{0}, SystemCPUs: []int{1, 2}}},
		{"the sibling stays idle", []int{0, 1, 2, 3}, pairs, infra.Placement{GeneratorCPUs: []int{0}, SystemCPUs: []int{2, 3}}},
		{"siblings far apart", []int{0, 1, 2, 3, 4, 5, 6, 7}, halves, infra.Placement{GeneratorCPUs: []int{0}, SystemCPUs: []int{1, 2, 3, 5, 6, 7}}},
		{"some of the machine's", []int{3, 6}, alone, infra.Placement{GeneratorCPUs: []int{3}, SystemCPUs: []int{6}}},
	} {
		if got := place(c.cpus, c.siblings); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A child has its CPUs from its first instruction, and the starter is as
// before afterwards.
func TestStarterPins(t *testing.T) {
	s := NewStarter()
	defer s.Close()
	usable := usableCPUs()
	last := usable[len(usable)-1]
	allowed := func(cpus []int) string {
		cmd := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status")
		var out strings.Builder
		cmd.Stdout = &out
		if err := s.Run(cpus, cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(strings.TrimPrefix(out.String(), "Cpus_allowed_list:"))
	}
	before := allowed(nil)
	if got := allowed([]int{last}); got != strconv.Itoa(last) {
		t.Errorf("pinned to %d it has %s", last, got)
	}
	if got := allowed(nil); got != before {
		t.Errorf("afterwards %s, before %s", got, before)
	}
	called := false
	if err := s.Run([]int{1023}, func() error { called = true; return nil }); !errors.Is(err, unix.EINVAL) || called {
		t.Errorf("CPUs that do not exist: error %v, called %v", err, called)
	}
}

// What is started with a parent-death signal, as Envoy is by itself, lives as
// long as the starter and no longer, whatever becomes of other threads.
func TestStarterOutlivesThreads(t *testing.T) {
	s := NewStarter()
	cmd := exec.Command("sleep", "1000")
	bind(cmd)
	if err := s.Run(nil, cmd.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	done := make(chan struct{})
	for range 50 {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends
			done <- struct{}{}
		}()
	}
	for range 50 {
		<-done
	}
	runtime.GC()
	select {
	case err := <-ended:
		t.Fatalf("it ended with another thread: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s.Close()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("it outlives the starter")
	}
	if err := s.Run(nil, func() error { return nil }); err == nil {
		t.Error("a closed starter starts")
	}
}

func TestSignalHitsNobodyElse(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stat, err := telemetry.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := stat.Identity
	other.StartTicks--
	if err := Signal(other, unix.SIGKILL); err != unix.ESRCH || !stat.Alive() {
		t.Errorf("another process of that number: %v", err)
	}
	if err := Signal(stat.Identity, unix.SIGKILL); err != nil {
		t.Errorf("the process itself: %v", err)
	}
	_ = cmd.Wait()
	if err := Signal(stat.Identity, unix.SIGKILL); err != unix.ESRCH {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestTail(t *testing.T) {
	l := &tail{limit: 10}
	for _, text := range []string{"abc\n", "a long line of more than ten bytes", "\nend\n"} {
		if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := l.String(); got != "bytes\nend" {
		t.Errorf("%q", got)
	}
}
