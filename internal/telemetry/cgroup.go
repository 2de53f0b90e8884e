package telemetry

import (
	"bufio"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Cgroup is what the control group of this process is limited to, and how
// often the limit bit. Limits count over the whole hierarchy: the narrowest
// one holds.
type Cgroup struct {
	CPULimitCores    float64 // 0: none
	MemoryLimitBytes uint64  // 0: none
	ThrottledPeriods uint64  // in which the group was throttled, since it was made
	ThrottledNanos   uint64
}

// readCgroup reads control groups of version 2 (one hierarchy) and version 1
// (one per controller), as cgroups(7) describes them. root is where they are
// mounted, self the text that tells our own group.
func readCgroup(root, self string) (Cgroup, error) {
	text, err := os.ReadFile(self)
	if err != nil {
		return Cgroup{}, err
	}
	var out Cgroup
	for _, line := range strings.Split(string(text), "\n") {
		// hierarchy-ID:controller-list:cgroup-path
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "" {
			climb(root, parts[2], func(dir string, own bool) { out.addV2(dir, own) })
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if controller == "cpu" || controller == "memory" {
				climb(filepath.Join(root, controller), parts[2], func(dir string, own bool) { out.addV1(dir, own) })
			}
		}
	}
	return out, nil
}

// climb visits the group and every group above it. In a container the path
// may be that of the host, of which only the mounted root exists here.
func climb(root, group string, visit func(dir string, own bool)) {
	group = path.Clean("/" + group)
	if _, err := os.Stat(filepath.Join(root, group)); err != nil {
		group = "/"
	}
	own := true
	for {
		visit(filepath.Join(root, group), own)
		if group == "/" {
			return
		}
		group, own = path.Dir(group), false
	}
}

func (c *Cgroup) addV2(dir string, own bool) {
	if words := strings.Fields(readText(dir, "cpu.max")); len(words) == 2 {
		quota, errQ := strconv.ParseFloat(words[0], 64) // "max" is none
		period, errP := strconv.ParseFloat(words[1], 64)
		if errQ == nil && errP == nil {
			c.limitCPU(quota, period)
		}
	}
	c.limitMemory(readText(dir, "memory.max"))
	if own {
		stat := readKeys(dir, "cpu.stat")
		c.ThrottledPeriods += stat["nr_throttled"]
		c.ThrottledNanos += stat["throttled_usec"] * 1000
	}
}

func (c *Cgroup) addV1(dir string, own bool) {
	quota, errQ := strconv.ParseFloat(readText(dir, "cpu.cfs_quota_us"), 64) // -1 is none
	period, errP := strconv.ParseFloat(readText(dir, "cpu.cfs_period_us"), 64)
	if errQ == nil && errP == nil {
		c.limitCPU(quota, period)
	}
	c.limitMemory(readText(dir, "memory.limit_in_bytes"))
	if own {
		stat := readKeys(dir, "cpu.stat")
		c.ThrottledPeriods += stat["nr_throttled"]
		c.ThrottledNanos += stat["throttled_time"]
	}
}

func (c *Cgroup) limitCPU(quota, period float64) {
	if !(quota > 0) || !(period > 0) {
		return
	}
	if cores := quota / period; c.CPULimitCores == 0 || cores < c.CPULimitCores {
		c.CPULimitCores = cores
	}
}

func (c *Cgroup) limitMemory(text string) {
	// "max", and in version 1 a number near the largest, mean none.
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 || n > math.MaxInt64-1<<20 {
		return
	}
	if c.MemoryLimitBytes == 0 || n < c.MemoryLimitBytes {
		c.MemoryLimitBytes = n
	}
}

// readText returns a small file's text, empty where there is none.
func readText(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// readKeys reads a file of "key value" lines.
func readKeys(elem ...string) map[string]uint64 {
	out := map[string]uint64{}
	lines := bufio.NewScanner(strings.NewReader(readText(elem...)))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
			out[key] = n
		}
	}
	return out
}
