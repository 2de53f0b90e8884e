package runtimes

import (
	"os/exec"
	"syscall"
)

// bindLife makes a command a process group that ends as a whole when the
// context of the command does, and that is killed when this program dies. The
// latter is bound to the thread that starts the command (run keeps it).
func bindLife(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
