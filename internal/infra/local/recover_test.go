//go:build linux

package local

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// stranger is a process that is not to be ended; its own group and session
// are those of the test.
func stranger(t *testing.T) (*exec.Cmd, telemetry.Identity) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s, err := telemetry.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, s.Identity
}

// ended returns the identity of a process that is gone.
func ended(t *testing.T) telemetry.Identity {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return telemetry.Identity{PID: cmd.Process.Pid, StartTicks: 1}
}

func TestRecover(t *testing.T) {
	boot, namespace, err := here()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(j *journal, owner, own telemetry.Identity)
		ends   bool // the process in the journal
		keeps  bool // the journal, and the directory
		fails  bool
	}{
		{name: "left behind", change: func(*journal, telemetry.Identity, telemetry.Identity) {}, ends: true},
		{name: "another process has the number", change: func(j *journal, _, _ telemetry.Identity) { j.Processes[0].StartTicks-- }},
		{name: "another boot", change: func(j *journal, _, _ telemetry.Identity) { j.BootID = "00000000-0000-0000-0000-000000000000" }},
		{name: "another namespace", change: func(j *journal, _, _ telemetry.Identity) { j.PIDNamespace = "pid:[1]" }, keeps: true},
		{name: "owner and supervisor live", change: func(j *journal, owner, _ telemetry.Identity) { j.Owner, j.Supervisor = owner, owner }, keeps: true},
		{name: "the owner lives, its supervisor does not", change: func(j *journal, owner, _ telemetry.Identity) { j.Owner = owner }, ends: true},
		{name: "nothing is named", change: func(j *journal, _, _ telemetry.Identity) { j.Processes = nil }},
		{name: "process 1 is named", change: func(j *journal, _, _ telemetry.Identity) { j.Processes[0].PID = 1 }, keeps: true, fails: true},
		{name: "the root is to be removed", change: func(j *journal, _, _ telemetry.Identity) { j.Paths = append(j.Paths, "/") }, keeps: true, fails: true},
		{name: "a relative path", change: func(j *journal, _, _ telemetry.Identity) { j.Paths[0] = "x" }, keeps: true, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, id := stranger(t)
			_, owner := stranger(t)
			state, made := t.TempDir(), filepath.Join(t.TempDir(), "made")
			if err := os.Mkdir(made, 0o700); err != nil {
				t.Fatal(err)
			}
			j := journal{
				BootID: boot, PIDNamespace: namespace, Owner: ended(t), Supervisor: ended(t),
				Processes: []entry{{Identity: id, Name: "x/sleep", Exe: "/bin/sleep"}},
				Paths:     []string{made},
			}
			c.change(&j, owner, id)
			if err := j.write(state); err != nil {
				t.Fatal(err)
			}
			got, err := Recover(context.Background(), state)
			if (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			if c.fails {
				if e := meshbench.AsError(err); e.Code != meshbench.Unavailable || e.Hint == "" || !strings.Contains(e.Message, j.path(state)) {
					t.Errorf("error %+v", e)
				}
			}
			if c.ends {
				if len(got) != 1 || got[0] != (Ended{PID: id.PID, Name: "x/sleep", Exe: "/bin/sleep"}) {
					t.Errorf("ended %+v", got)
				}
				_ = cmd.Wait()
			} else if len(got) != 0 || !id.Alive() {
				t.Errorf("ended %+v", got)
			}
			_, errJournal := os.Stat(j.path(state))
			_, errMade := os.Stat(made)
			if os.IsNotExist(errJournal) == c.keeps || os.IsNotExist(errMade) == c.keeps {
				t.Errorf("journal: %v, directory: %v", errJournal, errMade)
			}
		})
	}
}

func TestRecoverNothing(t *testing.T) {
	if got, err := Recover(context.Background(), filepath.Join(t.TempDir(), "never", "made")); got != nil || err != nil {
		t.Errorf("ended %v, error %v", got, err)
	}
}

// The session and the pipes find what no entry names.
func TestLeftovers(t *testing.T) {
	j := journal{Supervisor: telemetry.Identity{PID: 100, StartTicks: 50}, Processes: []entry{{Identity: telemetry.Identity{PID: 101, StartTicks: 60}}}}
	process := func(pid, parent, session int, start uint64) telemetry.Stat {
		return telemetry.Stat{Identity: telemetry.Identity{PID: pid, StartTicks: start}, State: 'S', Parent: parent, Session: session}
	}
	for _, c := range []struct {
		name string
		all  []telemetry.Stat
		want []int
	}{
		{"named, and below it", []telemetry.Stat{process(101, 1, 7, 60), process(102, 101, 8, 61), process(103, 102, 9, 62)}, []int{101, 102, 103}},
		{"of the session", []telemetry.Stat{process(105, 1, 100, 70)}, []int{105}},
		{"of a session of that number before", []telemetry.Stat{process(105, 1, 100, 49)}, nil},
		{"of another's session of that number", []telemetry.Stat{process(100, 1, 100, 90), process(105, 100, 100, 91)}, nil},
		{"of the supervisor's own", []telemetry.Stat{process(100, 1, 100, 50), process(105, 1, 100, 91)}, []int{100, 105}},
		{"another process of a named number", []telemetry.Stat{process(101, 1, 7, 61), process(102, 101, 7, 62)}, nil},
	} {
		var got []int
		for _, p := range leftovers(j, c.all) {
			got = append(got, p.PID)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
}

func FuzzJournal(f *testing.F) {
	good, err := json.Marshal(journal{BootID: "b", Supervisor: telemetry.Identity{PID: 2}, Processes: []entry{{Name: "x", Identity: telemetry.Identity{PID: 3}}}, Paths: []string{"/a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"boot_id":"b","supervisor":{"pid":-1}}`))
	f.Add([]byte(`{"boot_id":"b","supervisor":{"pid":9},"paths":["/.."]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		j, err := parseJournal(text)
		if err != nil {
			return
		}
		for _, p := range append(j.Processes, entry{Identity: j.Supervisor}) {
			if p.PID <= 1 {
				t.Errorf("process %d is accepted", p.PID)
			}
		}
		for _, p := range j.Paths {
			if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
				t.Errorf("path %q is accepted", p)
			}
		}
	})
}

func TestLockExcludes(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx := context.Background()
	unlock, err := Lock(ctx, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(ctx, false, nil)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Conflict || e.Hint == "" || !strings.Contains(e.Message, "process") {
		t.Errorf("a second lock: %+v", e)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	told := 0
	_, err = Lock(short, true, func(string) { told++ })
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || told != 1 {
		t.Errorf("waiting in vain: %v, told %d times", err, told)
	}
	unlock()
	unlock, err = Lock(ctx, false, nil)
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	unlock()
}

// The holder is killed: the lock is free, and it was told who held it.
func TestLockOfAnotherProcess(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "lock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "locked\n" {
		t.Fatalf("it said %q, error %v", buf[:n], err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var who string
	unlock, err := Lock(ctx, true, func(holder string) {
		who = holder
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	_ = cmd.Wait()
	if !strings.HasPrefix(who, "process "+strconv.Itoa(cmd.Process.Pid)+", since ") {
		t.Errorf("the holder is %q, want process %d", who, cmd.Process.Pid)
	}
}

func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	old := unix.Umask(0o077)
	unlock, err := Lock(context.Background(), false, nil)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	info, err := os.Stat(lockPath())
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, error %v: every user takes the same lock", info.Mode(), err)
	}
	// A trap laid by another is not followed.
	if err := os.Remove(lockPath()); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(dir, "precious")
	if err := os.WriteFile(victim, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, lockPath()); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(context.Background(), false, nil); meshbench.AsError(err) == nil || meshbench.AsError(err).Hint == "" {
		t.Errorf("a link is followed: %v", err)
	}
	if text, _ := os.ReadFile(victim); string(text) != "text" {
		t.Errorf("the file behind the link is %q", text)
	}
}

func FuzzHolder(f *testing.F) {
	f.Add([]byte(`{"pid":12,"since":"2026-11-22T10:00:00Z"}`))
	f.Add([]byte(""))
	f.Add([]byte(`{"pid":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h := parseHolder(text)
		if h.PID < 0 || (h.PID == 0) != h.Since.IsZero() || h.String() == "" {
			t.Errorf("holder %+v", h)
		}
	})
}
