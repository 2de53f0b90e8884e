package process

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench/internal/telemetry"
)

var errClosed = errors.New("the starter is closed")

// pin binds the calling thread to CPUs and returns what undoes it.
func pin(cpus []int) (restore func(), err error) {
	var before, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("CPU affinity: %w", err)
	}
	for _, c := range cpus {
		want.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return nil, fmt.Errorf("CPU affinity %v: %w", cpus, err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil // it was ours a moment ago
}

// usableCPUs are those that this process may run on, in order.
func usableCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var out []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			out = append(out, c)
		}
	}
	return out
}

// Signal sends a signal to the very process that id names, and to no other
// that has come into its number since: the number is fixed by a process file
// descriptor (pidfd_open(2)) before its start time is compared. The error is
// unix.ESRCH where the process does not exist any more.
func Signal(id telemetry.Identity, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	s, err := telemetry.ReadStat(id.PID)
	if err != nil || s.Identity != id {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}
