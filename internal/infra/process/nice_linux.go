package process

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// lowest is the nice value that gives way to everything else.
const lowest = 19

// StepBack lowers the priority of this process, so that what it does during a
// trial (reading ticks, memory, drawing progress) gives way at once to the
// generator and to the system under test on whichever CPU it wakes up.
// Processes started before keep their priority; those started later inherit
// the low one, so it is called when all have been started that must not.
func StepBack() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // it costs some microseconds of lateness, which is measured
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, id, lowest)
		}
	}
}
