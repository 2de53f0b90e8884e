package process

import (
	"os/exec"
	"syscall"
)

// bind makes a program die with the thread that starts it. Its own process
// group keeps a terminal's Ctrl-C from it: whoever started it decides.
func bind(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
