package runtimes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestGoModuleInterrupted ends a build in its middle: what Go has started ends
// too, and nothing is kept.
func TestGoModuleInterrupted(t *testing.T) {
	t.Parallel()
	m := newMill(t, millProgram)
	real, err := findGo(context.Background(), Host{Environ: m.environ}, "go1.26.0")
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(m.dir, "pid")
	m.putGo(t, "#!/bin/sh\ncase $1 in build) sleep 600 & echo $! >'"+pidFile+".new'; mv '"+pidFile+".new' '"+pidFile+"'; wait ;; esac\nexec '"+real+"' \"$@\"\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := m.cache("PATH="+m.dir+string(os.PathListSeparator)+os.Getenv("PATH")).Get(ctx, "proxy", "", nil)
		done <- err
	}()
	pid := waitForPid(t, pidFile)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the build's process is not there: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, "what Go has started to end", func() bool { return ended(pid) })
	m.checkNothingKept(t)
}
