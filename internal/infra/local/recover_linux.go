package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra/process"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// Recover finishes what supervisors have left undone that were killed
// themselves: it ends the processes in their journals under stateDir and
// removes the directories made for them. It touches no process whose start
// time differs from the journal's, none of another boot of the machine, and
// nothing of a run that is still going on. Call it before New, at each start.
//
// The error, of code Unavailable, tells of journals that could not be worked
// off; the others have been.
func Recover(ctx context.Context, stateDir string) ([]Ended, error) {
	paths, err := filepath.Glob(filepath.Join(journalDir(stateDir), "*.json"))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "journals under %s: %w", stateDir, err)
	}
	var all []Ended
	var failed error
	for _, p := range paths {
		ended, err := recoverJournal(ctx, p)
		all = append(all, ended...)
		if err != nil && failed == nil {
			failed = meshbench.Errorf(meshbench.Unavailable, "what an earlier run left behind cannot be cleaned up (journal %s): %w", p, err).
				WithHint("end what it names by hand, then remove the file")
		}
	}
	return all, failed
}

func recoverJournal(ctx context.Context, path string) ([]Ended, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // its supervisor has just finished
	}
	if err != nil {
		return nil, err
	}
	j, err := parseJournal(text)
	if err != nil {
		return nil, err
	}
	boot, namespace, err := here()
	if err != nil {
		return nil, err
	}
	var ended []Ended
	if boot == j.BootID {
		if namespace != j.PIDNamespace {
			return nil, nil // another's, in a container or outside of ours
		}
		// A supervisor whose owner lives is at work. One whose owner is dead is
		// cleaning up: let it.
		if j.Owner.Alive() && j.Supervisor.Alive() {
			return nil, nil
		}
		if err := awaitEnd(ctx, j.Supervisor); err != nil {
			return nil, err
		}
		if ended, err = endAll(ctx, j); err != nil {
			return ended, err
		}
		for _, l := range j.Links {
			if err := removeLink(l, j.mark()); err != nil {
				return ended, err
			}
		}
	}
	for _, p := range j.Paths {
		if err := os.RemoveAll(p); err != nil {
			return ended, err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, err
	}
	_ = os.Remove(path + ".new") // left where it was killed while writing
	return ended, nil
}

// here names the boot of the machine and the namespace of process ids.
func here() (boot, namespace string, err error) {
	if boot, err = telemetry.BootID(); err == nil {
		namespace, err = os.Readlink("/proc/self/ns/pid")
	}
	return boot, namespace, err
}

// awaitEnd waits for a supervisor to end by itself, and ends it if it takes
// longer than it should.
func awaitEnd(ctx context.Context, supervisor telemetry.Identity) error {
	deadline := time.Now().Add(endGrace + 5*time.Second)
	for supervisor.Alive() {
		if time.Now().After(deadline) {
			_ = process.Signal(supervisor, unix.SIGKILL) // it may have ended meanwhile
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// endAll kills what a journal names and what belongs to it, until none of it
// is left.
func endAll(ctx context.Context, j journal) ([]Ended, error) {
	var ended []Ended
	told := map[telemetry.Identity]bool{}
	exe := map[telemetry.Identity]entry{}
	for _, e := range j.Processes {
		exe[e.Identity] = e
	}
	deadline := time.Now().Add(killPatience)
	for {
		all, err := telemetry.Processes()
		if err != nil {
			return ended, err
		}
		left := leftovers(j, all)
		if len(left) == 0 {
			return ended, nil
		}
		if time.Now().After(deadline) {
			return ended, meshbench.Errorf(meshbench.Unavailable, "%d processes do not end, the first is %d (%s)", len(left), left[0].PID, left[0].Name)
		}
		for _, p := range left {
			err := process.Signal(p.Identity, unix.SIGKILL)
			if errors.Is(err, unix.EPERM) {
				return ended, meshbench.Errorf(meshbench.Forbidden, "process %d (%s) belongs to somebody else", p.PID, p.Name)
			}
			if err == nil && !told[p.Identity] {
				told[p.Identity] = true
				e := Ended{PID: p.PID, Name: p.Name}
				if known, ok := exe[p.Identity]; ok {
					e.Name, e.Exe = known.Name, known.Exe
				}
				ended = append(ended, e)
			}
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return ended, err
		}
	}
}

// leftovers are the living processes that a journal names, those below them,
// those that hold one of its pipes, and those of its supervisor's session. The kernel gives no new process the
// number of a session that still has members, so where the supervisor's
// number is in use by another process, started later, that one's session is
// not ours.
func leftovers(j journal, all []telemetry.Stat) []telemetry.Stat {
	ours := map[telemetry.Identity]bool{j.Supervisor: true}
	for _, e := range j.Processes {
		ours[e.Identity] = true
	}
	session := j.Supervisor.PID
	for _, p := range all {
		if p.PID == j.Supervisor.PID && p.Identity != j.Supervisor {
			session = -1
		}
	}
	var out []telemetry.Stat
	taken := map[int]bool{}
	take := func(p telemetry.Stat) {
		if !taken[p.PID] && !p.Dead() && p.PID > 1 {
			taken[p.PID] = true
			out = append(out, p)
		}
	}
	for _, p := range all {
		switch {
		case ours[p.Identity]:
			take(p)
			for _, d := range telemetry.Tree(all, p.PID) {
				take(d)
			}
		case p.Session == session && p.StartTicks >= j.Supervisor.StartTicks:
			take(p)
		case p.StartTicks >= j.Supervisor.StartTicks && telemetry.HoldsPipe(p.PID, j.Pipes):
			take(p)
		}
	}
	return out
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
