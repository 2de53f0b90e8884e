package app

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench/internal/telemetry"
)

// holder names this process in a lease: HOST/BOOT/PID/START.
func holder() string {
	host, _ := os.Hostname()
	boot, _ := telemetry.BootID()
	self, _ := telemetry.ReadStat(os.Getpid())
	return fmt.Sprintf("%s/%s/%d/%d", host, boot, os.Getpid(), self.StartTicks)
}

// gone tells that the holder of a lease was a process of this machine and
// does not live any more. Of what it cannot know it says no.
func gone(holder string) bool {
	words := strings.Split(holder, "/")
	host, err := os.Hostname()
	if len(words) != 4 || err != nil || words[0] != host || words[1] == "" {
		return false
	}
	boot, err := telemetry.BootID()
	if err != nil {
		return false
	}
	if boot != words[1] {
		return true
	}
	pid, errPID := strconv.Atoi(words[2])
	start, errStart := strconv.ParseUint(words[3], 10, 64)
	if errPID != nil || errStart != nil || start == 0 {
		return false
	}
	return !telemetry.Identity{PID: pid, StartTicks: start}.Alive()
}
