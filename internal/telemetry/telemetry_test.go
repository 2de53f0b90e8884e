package telemetry

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const statText = "4711 (a (strange) name) S 12 4711 4700 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 9 0 987654 1 2 18446744073709551615 0\n"

func TestParseStat(t *testing.T) {
	got, err := ParseStat([]byte(statText))
	want := Stat{
		Identity: Identity{PID: 4711, StartTicks: 987654}, Name: "a (strange) name", State: 'S',
		Parent: 12, Group: 4711, Session: 4700, User: 150, System: 50, ChildUser: 7, ChildSystem: 3,
	}
	if err != nil || got != want {
		t.Errorf("%+v, error %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1", "1 (x", "1 (x)", "1 (x) S 1 2", "x (y) S 1 2 3", "-4 (x) S 1 1 1 0 0 0 0 0 0 0 1 1 1 1 20 0 1 0 5", ") (", "()"} {
		if got, err := ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statText))
	f.Add([]byte("1 () Z 1 1 1 0 0 0 0 0 0 0 1 1 1 1 20 0 1 0 5"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := ParseStat(text); err == nil && (s.PID <= 0 || s.State == 0) {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

func TestParseMemory(t *testing.T) {
	for _, c := range []struct {
		text       string
		anon, file uint64
	}{
		{"Name:\tx\nVmRSS:\t  100 kB\nRssAnon:\t      60 kB\nRssFile:\t      40 kB\nRssShmem:\t 0 kB\n", 60 << 10, 40 << 10},
		{"Name:\tRssAnon: 5 kB\nState:\tZ (zombie)\n", 0, 0},
		{"x\nRssAnon:", 0, 0}, {"\nRssFile: y kB\n", 0, 0}, {"", 0, 0},
	} {
		if anon, file := parseMemory([]byte(c.text)); anon != c.anon || file != c.file {
			t.Errorf("%q: %d, %d; want %d, %d", c.text, anon, file, c.anon, c.file)
		}
	}
}

func FuzzParseMemory(f *testing.F) {
	f.Add([]byte("Name:\tx\nRssAnon:\t      60 kB\nRssFile:\t      40 kB\n"))
	f.Add([]byte("\nRssAnon: 99999999999999999999 kB"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if anon, file := parseMemory(text); anon%1024 != 0 || file%1024 != 0 {
			t.Errorf("%q: %d, %d bytes, no whole KiB", text, anon, file)
		}
	})
}

func TestParseCPUList(t *testing.T) {
	for _, c := range []struct {
		text string
		want []int
		ok   bool
	}{
		{"", nil, true}, {"0\n", []int{0}, true}, {"0-3,5", []int{0, 1, 2, 3, 5}, true}, {"7-7", []int{7}, true},
		{"3-1", nil, false}, {"a", nil, false}, {"1,", nil, false}, {"-2", nil, false}, {"0-99999999999", nil, false},
	} {
		got, err := ParseCPUList(c.text)
		if (err == nil) != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, error %v", c.text, got, err)
		}
	}
}

func FuzzParseCPUList(f *testing.F) {
	f.Add("0-3,5")
	f.Add("0-65536,1-2")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseCPUList(text)
		if err != nil && list != nil {
			t.Errorf("%q: a list and an error", text)
		}
		for _, c := range list {
			if c < 0 {
				t.Errorf("%q: CPU %d", text, c)
			}
		}
	})
}

const tcpText = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20 4 30 10 -1
   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
`

func TestParseListeners(t *testing.T) {
	for port, want := range map[int][]string{8080: {"111"}, 8081: {"333"}, 50000: nil, 0: nil} {
		if got := parseListeners([]byte(tcpText), port); !reflect.DeepEqual(got, want) {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add([]byte(tcpText), 8080)
	f.Add([]byte("0: :1F90 x 0A 0 0 0 0 0 1"), 8080)
	f.Fuzz(func(t *testing.T, text []byte, port int) {
		if got := parseListeners(text, port); len(got) > 0 && (port < 0 || port > 65535) {
			t.Errorf("port %d: %v", port, got)
		}
	})
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name                 string
		last                 Reading
		sum, user, system    uint64
		wantUser, wantSystem uint64
	}{
		{"in proportion", Reading{}, 1000, 3, 1, 750, 250},
		{"no ticks yet", Reading{}, 1000, 0, 0, 1000, 0},
		{"user never falls", Reading{UserNanos: 900, SystemNanos: 50}, 1000, 1, 1, 900, 100},
		{"system never falls", Reading{UserNanos: 100, SystemNanos: 800}, 1000, 1, 1, 200, 800},
		{"the sum never falls", Reading{UserNanos: 600, SystemNanos: 600}, 1000, 1, 1, 600, 600},
	} {
		got := split(c.last, c.sum, c.user, c.system)
		if got.UserNanos != c.wantUser || got.SystemNanos != c.wantSystem {
			t.Errorf("%s: %+v, want %d and %d", c.name, got, c.wantUser, c.wantSystem)
		}
	}
}

func TestInterval(t *testing.T) {
	before := Machine{{Number: 0, Busy: 1e9, Idle: 5e9}, {Number: 1, Busy: 2e9, Idle: 9e9, Steal: 1e9}, {Number: 2, Busy: 7}}
	after := Machine{{Number: 0, Busy: 3e9, Idle: 7e9}, {Number: 1, Busy: 3e9, Idle: 11e9, Steal: 2e9}, {Number: 3, Busy: 1e12}}
	got := after.Since(before)
	want := Interval{Seconds: 4, BusyCores: 0.75, StealShare: 0.125, CPUs: []CPUInterval{{Number: 0, Busy: 0.5}, {Number: 1, Busy: 0.25, Steal: 0.25}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := got.NeighbourCores(2e9); n != 0.25 {
		t.Errorf("neighbours used %v cores, want 0.25", n)
	}
	if n := got.NeighbourCores(9e9); n != 0 {
		t.Errorf("neighbours used %v cores, want 0", n)
	}
	// Counters that fall, and no time at all.
	if got := before.Since(after); got.BusyCores != 0 || got.StealShare != 0 || got.NeighbourCores(0) != 0 {
		t.Errorf("backwards: %+v", got)
	}
}

func TestCgroup(t *testing.T) {
	for _, c := range []struct {
		name, self string
		files      map[string]string
		want       Cgroup
	}{
		{"none", "", nil, Cgroup{}},
		{"version 2, limited above us", "0::/a/b\n", map[string]string{
			"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "400000 100000",
			"a/b/memory.max": "max", "a/memory.max": "1048576",
			"a/b/cpu.stat": "usage_usec 5\nnr_throttled 3\nthrottled_usec 7\n", "a/cpu.stat": "nr_throttled 100\n",
		}, Cgroup{CPULimitCores: 1.5, MemoryLimitBytes: 1 << 20, ThrottledPeriods: 3, ThrottledNanos: 7000}},
		{"version 2, the host's path in a container", "0::/system.slice/docker-1\n", map[string]string{
			"cpu.max": "50000 100000", "cpu.stat": "nr_throttled 2\n",
		}, Cgroup{CPULimitCores: 0.5, ThrottledPeriods: 2}},
		{"version 1", "4:memory:/m\n3:cpu,cpuacct:/c\n1:name=systemd:/\n0::/\n", map[string]string{
			"cpu/c/cpu.cfs_quota_us": "200000", "cpu/c/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
			"cpu/c/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 11\n", "memory/m/memory.limit_in_bytes": "9223372036854771712",
			"memory/memory.limit_in_bytes": "4096",
		}, Cgroup{CPULimitCores: 2, MemoryLimitBytes: 4096, ThrottledPeriods: 4, ThrottledNanos: 11}},
		{"garbage", "x\n::\n0:cpu\n0::/\n", map[string]string{"cpu.max": "a b c", "cpu.stat": "nr_throttled -1\n\n", "memory.max": "0"}, Cgroup{}},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		self := filepath.Join(t.TempDir(), "cgroup")
		if err := os.WriteFile(self, []byte(c.self), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readCgroup(root, self); err != nil || got != c.want {
			t.Errorf("%s: %+v, error %v; want %+v", c.name, got, err, c.want)
		}
	}
}
