//go:build !linux

package telemetry

import (
	"runtime"

	"github.com/meshbench/meshbench"
)

func unavailable(what string) error {
	return meshbench.Errorf(meshbench.Unavailable, "%s cannot be read on %s", what, runtime.GOOS).
		WithHint("measure on Linux, or measure URLs with --infra endpoint")
}

// ReadMachine needs Linux.
func ReadMachine() (Machine, error) { return nil, unavailable("the machine's CPU times") }

// ReadCgroup needs Linux.
func ReadCgroup() (Cgroup, error) { return Cgroup{}, unavailable("control groups") }

// CPUClock needs Linux.
func CPUClock(int) (uint64, error) { return 0, unavailable("the CPU clock of a process") }

// Memory needs Linux.
func Memory(int) (anon, file uint64, err error) {
	return 0, 0, unavailable("the memory of a process")
}

// Siblings knows no topology here.
func Siblings(cpu int) []int { return []int{cpu} }

// Fingerprint has what the language knows.
func Fingerprint() meshbench.Fingerprint {
	return meshbench.Fingerprint{
		OS:            runtime.GOOS + "/" + runtime.GOARCH,
		Cores:         runtime.NumCPU(),
		GeneratorCPUs: []int{},
		SystemCPUs:    []int{},
		Runtimes:      []meshbench.RuntimeUsed{},
	}
}
