package telemetry

import (
	"slices"

	"github.com/prometheus/procfs"

	"github.com/meshbench/meshbench"
)

// ReadMachine reads /proc/stat.
func ReadMachine() (Machine, error) {
	proc, err := procfs.NewFS("/proc")
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the machine's CPU times cannot be read: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the machine's CPU times cannot be read: %w", err)
	}
	nanos := func(seconds float64) uint64 { return uint64(seconds*Ticks+0.5) * nanosPerTick }
	var out Machine
	for n, c := range stat.CPU {
		out = append(out, CPU{
			Number: int(n),
			// Guest time is in user time already (proc(5)).
			Busy:  nanos(c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ),
			Idle:  nanos(c.Idle + c.Iowait),
			Steal: nanos(c.Steal),
		})
	}
	slices.SortFunc(out, func(a, b CPU) int { return a.Number - b.Number })
	return out, nil
}

// ReadCgroup reads the limits and the throttling of our own control group.
func ReadCgroup() (Cgroup, error) { return readCgroup("/sys/fs/cgroup", "/proc/self/cgroup") }
