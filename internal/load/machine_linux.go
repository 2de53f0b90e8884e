package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what the kernel says about the loop's thread and core at one
// moment; two of them make a difference.
type machine struct {
	cpu      int    // on which the thread runs
	steal    uint64 // of that CPU's time, by the hypervisor, in clock ticks
	all      uint64 // of that CPU's time
	delay    int64  // nanoseconds that the thread could have run and did not; -1: not known
	switches uint64
	throttle int64 // nanoseconds that a CPU quota stopped this process's group
	thread   int64 // CPU time of the thread, nanoseconds
	process  int64
}

// look reads the machine, for the calling thread.
func look(cpu int) machine {
	m := machine{cpu: cpu, delay: -1, switches: involuntarySwitches(), thread: threadCPU(), process: processCPU()}
	m.steal, m.all = coreTimes(readSmall("/proc/stat"), cpu)
	m.delay = runDelay(readSmall("/proc/thread-self/schedstat"))
	m.throttle = throttled(readSmall("/proc/self/cgroup"), readSmall)
	return m
}

// coreTimes returns the stolen and the whole time of a CPU from /proc/stat; of
// all CPUs together where cpu is negative.
func coreTimes(stat string, cpu int) (steal, all uint64) {
	name := "cpu"
	if cpu >= 0 {
		name += strconv.Itoa(cpu)
	}
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != name {
			continue
		}
		for i, word := range f[1:9] { // guest times are part of user times
			n, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				return 0, 0
			}
			all += n
			if i == 7 {
				steal = n
			}
		}
		return steal, all
	}
	return 0, 0
}

// runDelay returns the second field of a schedstat file: nanoseconds spent
// waiting on a run queue; -1 where it is not there.
func runDelay(schedstat string) int64 {
	f := strings.Fields(schedstat)
	if len(f) < 2 {
		return -1
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// throttled returns for how many nanoseconds a CPU quota has stopped the
// process's group (or one above it), from cgroup v2 and v1.
func throttled(cgroup string, read func(string) string) int64 {
	var longest int64
	for line := range strings.Lines(cgroup) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		root := "/sys/fs/cgroup"
		if f[1] != "" {
			named := false
			for _, c := range strings.Split(f[1], ",") {
				named = named || c == "cpu"
			}
			if !named {
				continue
			}
			root = "/sys/fs/cgroup/" + f[1]
		}
		for dir := f[2]; ; dir = filepath.Dir(dir) {
			for stat := range strings.Lines(read(filepath.Join(root, dir, "cpu.stat"))) {
				name, value, _ := strings.Cut(strings.TrimSpace(stat), " ")
				n, err := strconv.ParseInt(value, 10, 64)
				switch {
				case err != nil:
				case name == "throttled_usec":
					longest = max(longest, n*1000)
				case name == "throttled_time":
					longest = max(longest, n)
				}
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return longest
}

// peakMemory returns the largest resident size of this process so far.
func peakMemory() uint64 {
	for line := range strings.Lines(readSmall("/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n * 1024
		}
	}
	return 0
}

// cpuCount returns how many CPUs the machine has online.
func cpuCount() int {
	n := 0
	for line := range strings.Lines(readSmall("/proc/stat")) {
		if len(line) > 3 && strings.HasPrefix(line, "cpu") && line[3] != ' ' {
			n++
		}
	}
	return n
}

// bind puts the calling thread on one CPU, and returns what puts it back.
func bind(cpu int) (restore func(), err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("read the CPUs of the loop: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return nil, fmt.Errorf("put the loop on CPU %d of %d: %w", cpu, cpuCount(), err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// descriptors returns how many more files this process may open.
func descriptors() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return maxConnections
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return maxConnections
	}
	return int(min(limit.Cur, 1<<30)) - len(open)
}
