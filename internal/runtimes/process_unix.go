//go:build unix && !linux

package runtimes

import (
	"os/exec"
	"syscall"
)

// bindLife makes a command a process group that ends as a whole when the
// context of the command does.
func bindLife(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
