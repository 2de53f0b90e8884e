//go:build linux

package local

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench/internal/telemetry"
)

const patience = 30 * time.Second

// victim is a process that measures, to be killed.
type victim struct {
	t               *testing.T
	cmd             *exec.Cmd
	out             *bufio.Reader
	dir, state, nap string
	supervised      int // the supervisor's process, once deployed
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, dir: t.TempDir(), state: t.TempDir(), nap: fmt.Sprintf("9%d.%d", os.Getpid(), rand.IntN(1e9))}
	v.cmd = exec.Command(exe, "measure", v.dir, v.state, v.nap)
	v.cmd.Stderr = os.Stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.out = bufio.NewReader(out)
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	})
	return v
}

func (v *victim) awaitDeployed() {
	v.t.Helper()
	if line, err := v.out.ReadString('\n'); err != nil || line != "deployed\n" {
		v.t.Fatalf("it said %q, error %v", line, err)
	}
	v.supervised = v.supervisor()
	if v.supervised != 0 && len(links(v.t, v.supervised)) != 1 {
		v.t.Errorf("links %v, want one", links(v.t, v.supervised))
	}
}

func (v *victim) pid() int { return v.cmd.Process.Pid }

// supervisor finds the supervisor, 0 if there is none (yet).
func (v *victim) supervisor() int {
	for _, pid := range telemetry.Descendants(v.pid()) {
		if words := commandLine(pid); len(words) == 2 && words[1] == "supervisor" {
			return pid
		}
	}
	return 0
}

func commandLine(pid int) []string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	var out []string
	for _, w := range bytes.Split(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		out = append(out, string(w))
	}
	return out
}

// napping are the living processes of the families: every sleep, and every
// shell that would start one.
func (v *victim) napping() []string { return napping(v.t, v.nap) }

func napping(t *testing.T, mark string) []string {
	t.Helper()
	all, err := telemetry.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range all {
		words := commandLine(p.PID)
		measures := len(words) > 1 && words[1] == "measure"
		if !p.Dead() && !measures && slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, mark) }) {
			out = append(out, fmt.Sprint(p.PID, " ", words))
		}
	}
	return out
}

func (v *victim) journals() []string {
	found, err := filepath.Glob(filepath.Join(v.state, "journal", "*"))
	if err != nil {
		v.t.Fatal(err)
	}
	return found
}

// awaitClean waits until nothing is left.
func (v *victim) awaitClean() {
	v.t.Helper()
	deadline := time.Now().Add(patience)
	// The kernel removes a namespace a moment after its last process.
	for len(v.napping()) > 0 || len(v.journals()) > 0 || v.supervised != 0 && len(links(v.t, v.supervised)) > 0 {
		if time.Now().After(deadline) {
			v.t.Fatalf("still there: %v, journals %v", v.napping(), v.journals())
		}
		time.Sleep(10 * time.Millisecond)
	}
	v.assertClean()
}

func (v *victim) assertClean() {
	v.t.Helper()
	if left := v.napping(); len(left) > 0 {
		v.t.Errorf("still alive: %v", left)
	}
	if left := v.journals(); len(left) > 0 {
		v.t.Errorf("journals are left: %v", left)
	}
	if left := links(v.t, v.supervised); v.supervised != 0 && len(left) > 0 {
		v.t.Errorf("links are left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(v.dir, "deployments")); !os.IsNotExist(err) {
		v.t.Errorf("the deployments' directory is left: %v", err)
	}
}

func (v *victim) kill(pid int) {
	v.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
		v.t.Fatal(err)
	}
}

func (v *victim) recover() []Ended {
	v.t.Helper()
	ended, err := Recover(context.Background(), v.state)
	if err != nil {
		v.t.Errorf("Recover: %v", err)
	}
	return ended
}

// Without this the other tests could pass with nothing to clean up.
func TestFamiliesLive(t *testing.T) {
	v := newVictim(t)
	v.awaitDeployed()
	// 3 + 5 + 2 + 6 processes at least, twice.
	deadline := time.Now().Add(patience)
	for len(v.napping()) < 28 {
		if time.Now().After(deadline) {
			t.Fatalf("only these live: %v", v.napping())
		}
		time.Sleep(10 * time.Millisecond)
	}
	// Recovering beside a run that goes on ends nothing of it.
	before := v.napping()
	if ended := v.recover(); len(ended) != 0 || len(v.napping()) < len(before) {
		t.Errorf("Recover beside a run: ended %v, %d of %d are left", ended, len(v.napping()), len(before))
	}
	if err := v.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	v.assertClean()
}

func TestKillMeshbench(t *testing.T) {
	v := newVictim(t)
	v.awaitDeployed()
	v.kill(v.pid())
	v.awaitClean() // by the supervisor alone
}

func TestKillSupervisor(t *testing.T) {
	v := newVictim(t)
	v.awaitDeployed()
	v.kill(v.supervisor())
	v.awaitClean() // by the one that measures
}

func TestKillBoth(t *testing.T) {
	v := newVictim(t)
	v.awaitDeployed()
	supervisor := v.supervisor()
	// The one that measures first stops, so that it cannot clean up in between.
	if err := unix.Kill(v.pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	all, err := telemetry.Processes()
	if err != nil {
		t.Fatal(err)
	}
	v.kill(supervisor)
	// What the supervisor started itself goes with it, with nobody's help.
	for _, p := range all {
		if p.Parent == supervisor && p.Group == p.PID && p.Session == supervisor {
			await(t, "a child of the supervisor goes with it", func() bool { return !p.Alive() })
		}
	}
	v.kill(v.pid())
	_ = v.cmd.Wait()
	if len(v.napping()) == 0 {
		t.Error("nothing is left to recover from: the test shows nothing")
	}
	if ended := v.recover(); len(ended) == 0 {
		t.Error("Recover ended nothing")
	}
	v.assertClean()
	if ended := v.recover(); len(ended) != 0 {
		t.Errorf("a second Recover ended %v", ended)
	}
}

func TestKillAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 16 {
		delay := time.Duration(r.IntN(150)) * time.Millisecond
		which := []string{"meshbench", "supervisor", "both", "supervisor first"}[r.IntN(4)]
		t.Run(fmt.Sprint(round, " ", which, " after ", delay), func(t *testing.T) {
			v := newVictim(t)
			time.Sleep(delay)
			supervisor := v.supervisor()
			if supervisor != 0 && which != "meshbench" {
				if which == "both" {
					v.kill(v.pid())
				}
				v.kill(supervisor)
			}
			if which != "supervisor" || supervisor == 0 {
				v.kill(v.pid())
			} else {
				// It goes on by itself: with a new supervisor, or with an error.
				if err := v.cmd.Process.Signal(unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			_ = v.cmd.Wait()
			// Whoever still cleans up does so while this waits.
			v.recover()
			if which == "meshbench" || supervisor == 0 {
				v.awaitClean()
			}
			v.assertClean()
		})
	}
}
