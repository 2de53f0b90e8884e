package load

import (
	"os"
	"runtime"
	"testing"
	"time"
)

func TestCoreTimes(t *testing.T) {
	const stat = "cpu  10 0 20 30 0 0 0 8 5 0\ncpu0 4 0 8 20 0 0 0 2 1 0\ncpu1 6 0 12 10 0 0 0 6 4 0\nintr 1\n"
	for _, c := range []struct {
		cpu        int
		steal, all uint64
	}{{-1, 8, 68}, {0, 2, 34}, {1, 6, 34}, {7, 0, 0}} {
		if steal, all := coreTimes(stat, c.cpu); steal != c.steal || all != c.all {
			t.Errorf("CPU %d: %d of %d", c.cpu, steal, all)
		}
	}
	if steal, all := coreTimes("cpu0 a b c d e f g h\n", 0); steal != 0 || all != 0 {
		t.Errorf("nonsense: %d of %d", steal, all)
	}
}

func TestRunDelay(t *testing.T) {
	for text, want := range map[string]int64{"100 250 3\n": 250, "": -1, "1": -1, "a b c": -1} {
		if got := runDelay(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestThrottled(t *testing.T) {
	files := map[string]string{
		"/sys/fs/cgroup/a/b/cpu.stat":   "usage_usec 5\nnr_throttled 0\nthrottled_usec 0\n",
		"/sys/fs/cgroup/a/cpu.stat":     "usage_usec 5\nnr_throttled 2\nthrottled_usec 70\n",
		"/sys/fs/cgroup/cpu/x/cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 90000\n",
	}
	read := func(name string) string { return files[name] }
	for text, want := range map[string]int64{
		"0::/a/b\n":                  70_000,
		"0::/a\n":                    70_000,
		"0::/\n":                     0,
		"3:cpu:/x\n0::/\n":           90_000,
		"3:cpuacct:/x\n":             0,
		"nonsense":                   0,
		"4:cpuset:/x\n3:cpu:/none\n": 0,
	} {
		if got := throttled(text, read); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestLookSeesThisMachine(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := look(-1)
	for start := time.Now(); threadCPU()-before.thread < int64(20*time.Millisecond) && time.Since(start) < 30*time.Second; {
	}
	after := look(-1)
	if after.thread <= before.thread || after.process <= before.process || after.all == 0 {
		t.Errorf("%+v, then %+v", before, after)
	}
	if n := peakMemory(); n < 1<<20 || n > 64<<30 {
		t.Errorf("peak memory %d", n)
	}
	if cpuCount() < 1 || descriptors() < 10 {
		t.Errorf("%d CPUs, %d descriptors", cpuCount(), descriptors())
	}
	if readSmall("/proc/does-not-exist") != "" || readSmall("/proc/self/stat") == "" {
		t.Errorf("as process %d", os.Getpid())
	}
}
