package runtimes

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTwoProcesses lets two real processes fetch the same at once: pip
// downloads once, the other one waits, and both get the same path.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	log, waiting := filepath.Join(b.wheels, "downloads.log"), filepath.Join(b.wheels, "waiting")
	// pip begins when the other process has said that it waits, so that they
	// meet however slow the machine is; and after a minute in any case.
	b.wrapPip(t, "echo one >>'"+log+"'; i=0; while [ ! -e '"+waiting+"' ] && [ $i -lt 1200 ]; do sleep 0.05; i=$((i+1)); done")
	var mu sync.Mutex
	said := map[string]int{} // lines of both
	var wg sync.WaitGroup
	for range 2 {
		cmd := b.start(t, helper{})
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				mu.Lock()
				said[lines.Text()]++
				mu.Unlock()
				if lines.Text() == "phase "+string(Waiting) {
					if err := os.WriteFile(waiting, nil, 0o644); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("a helper ended with %v", err)
			}
		})
	}
	wg.Wait()
	r, err := b.cache().Find(context.Background(), "proxy", "9.9.1")
	if err != nil {
		t.Fatal(err)
	}
	if said["path "+r.Path] != 2 || said["phase "+string(Waiting)] != 1 || said["phase "+string(Trying)] != 1 {
		t.Errorf("the helpers said %v", said)
	}
	checkDownloads(t, log, 1)
	b.checkNoPartial(t)
}

// TestKilled kills a process that fetches, in each of its phases: there is
// then no entry, the next fetch works, and nothing of the first is left.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, phase := range []Phase{Downloading, Verifying, Unpacking, Trying} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.kill(t, helper{Stay: phase}, "phase "+string(phase))
			if kept := b.cache().entries("proxy"); len(kept) > 0 {
				t.Errorf("the cache has %v", kept)
			}
			left, err := os.ReadDir(filepath.Join(b.dir, "partial"))
			if err != nil || len(left) != 1 {
				t.Errorf("the killed process left %v, %v; the test should have something to be cleaned up", left, err)
			}
			// It is the fetch of another version that cleans up, too.
			wish, want := "9.9", "9.9.1"
			if phase == Unpacking {
				wish, want = "9.8", "9.8.3"
			}
			b.mustGet(t, b.cache(), wish, want)
			b.checkNoPartial(t)
		})
	}
}

// kill starts a helper, waits until it has printed a line, and kills it with
// SIGKILL.
func (b *bed) kill(t *testing.T, h helper, line string) {
	t.Helper()
	cmd := b.start(t, h)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != line {
	}
	if lines.Text() != line {
		t.Fatalf("the helper did not print %q, but %q", line, lines.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the helper ended by itself")
	}
}

// TestKilledWithPip kills a process while its pip downloads: pip ends too.
func TestKilledWithPip(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pidFile := filepath.Join(b.wheels, "pid")
	b.wrapPip(t, "echo $$ >'"+pidFile+"'.new; mv '"+pidFile+"'.new '"+pidFile+"'; exec sleep 600")
	cmd := b.start(t, helper{})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := waitForPid(t, pidFile)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("pip is not there: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "pip to end", func() bool { return ended(pid) })
}

// waitForPid waits until a file holds a process's number.
func waitForPid(t *testing.T, file string) (pid int) {
	t.Helper()
	eventually(t, "a process to start", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

// TestRunStopsTheWholeGroup holds that what a program started ends with it
// when the context ends.
func TestRunStopsTheWholeGroup(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pidFile := filepath.Join(b.wheels, "pid")
	program := b.put(t, "family", "#!/bin/sh\nsleep 600 &\necho $! >'"+pidFile+".new'; mv '"+pidFile+".new' '"+pidFile+"'\nwait\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, b.environ, program)
		done <- err
	}()
	pid := waitForPid(t, pidFile)
	if ended(pid) {
		t.Fatal("the grandchild is not there")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the grandchild to end", func() bool { return ended(pid) })
}

// ended tells whether a process is gone, or dead and not yet collected by the
// process that inherited it.
func ended(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return os.IsNotExist(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(after, "Z")
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
