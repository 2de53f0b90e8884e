package sqlstore_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/store/sqlstore"
	"github.com/meshbench/meshbench/internal/store/storetest"
)

// writerVariable makes this test binary a writer: PATH|FIRST RUN|TRIALS. It
// prints a line for each run created ("run ID") and each trial that AddTrial
// has returned from ("trial"), and "done".
const writerVariable = "MESHBENCH_TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if job := os.Getenv(writerVariable); job != "" {
		if err := write(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func write(job string) error {
	parts := strings.Split(job, "|")
	first, err := strconv.Atoi(parts[1])
	if err != nil {
		return err
	}
	trials, err := strconv.Atoi(parts[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := sqlstore.Open(ctx, parts[0], patient)
	if err != nil {
		return err
	}
	run := storetest.RunAt(first)
	if err := s.Create(ctx, run, store.Lease{Holder: "writer", Expires: time.Now().Add(-time.Second)}); err != nil {
		return err
	}
	fmt.Println("run", run.ID)
	trial := storetest.TrialOf("envoy", 1, uint64(first))
	for i := range trials {
		trial.Sitting = i + 1
		if err := s.AddTrial(ctx, run.ID, trial); err != nil {
			return err
		}
		fmt.Println("trial")
	}
	if err := s.Finish(ctx, storetest.Ended(run, meshbench.Finished)); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

// writer is a process that writes to a store.
type writer struct {
	cmd    *exec.Cmd
	out    io.Reader
	stderr *strings.Builder
}

func startWriter(t *testing.T, path string, first, trials int) writer {
	t.Helper()
	w := writer{stderr: &strings.Builder{}}
	// The context of a test ends before its clean-up: no writer outlives it.
	w.cmd = exec.CommandContext(t.Context(), os.Args[0])
	w.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d|%d", writerVariable, path, first, trials))
	w.cmd.Stderr = w.stderr
	out, err := w.cmd.StdoutPipe()
	must(t, err)
	w.out = out
	must(t, w.cmd.Start())
	return w
}

// said is what a writer had done when it ended.
type said struct {
	run    string
	trials int
	done   bool
	err    error
}

// wait reads what a writer prints until it ends. After each line it calls on.
func (w writer) wait(on func(said)) said {
	var s said
	for lines := bufio.NewScanner(w.out); lines.Scan(); {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "run":
			s.run = rest
		case "trial":
			s.trials++
		case "done":
			s.done = true
		}
		if on != nil {
			on(s)
		}
	}
	s.err = w.cmd.Wait()
	return s
}

// TestTwoProcesses lets four processes make and fill one store at once.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "meshbench.db")
	const writers, trials = 3, 15
	results := make(chan said, writers)
	for i := range writers {
		w := startWriter(t, path, i, trials)
		go func() {
			s := w.wait(nil)
			if s.err != nil {
				s.err = fmt.Errorf("%w: %s", s.err, w.stderr)
			}
			results <- s
		}()
	}
	// This process is the fourth.
	s := open(t, path, patient)
	mine := storetest.RunAt(writers)
	must(t, s.Create(t.Context(), mine, hour()))
	for i := range trials {
		must(t, s.AddTrial(t.Context(), mine.ID, storetest.TrialOf("none", i+1, uint64(i))))
		_, err := s.List(t.Context(), store.Page{})
		must(t, err)
	}
	must(t, s.Finish(t.Context(), storetest.Ended(mine, meshbench.Finished)))
	for range writers {
		if r := <-results; r.err != nil || !r.done || r.trials != trials {
			t.Errorf("a writer: %+v", r)
		}
	}
	list, err := s.List(t.Context(), store.Page{})
	must(t, err)
	var numbers []int64
	for _, x := range list {
		numbers = append(numbers, x.Number)
		if x.State != meshbench.Finished || x.Trials != trials {
			t.Errorf("%+v", x)
		}
		verify(t, s, x)
	}
	slices.Sort(numbers)
	if !slices.Equal(numbers, []int64{1, 2, 3, 4}) {
		t.Errorf("numbers %v", numbers)
	}
}

// verify reads a run and its trials, and compares them with what the list and
// the content hash say.
func verify(t *testing.T, s *sqlstore.Store, x store.Summary) {
	t.Helper()
	run, err := s.Run(t.Context(), x.ID)
	must(t, err)
	trials, err := s.Trials(t.Context(), x.ID)
	must(t, err)
	if run.State != x.State || len(trials) != x.Trials {
		t.Errorf("run %s: listed as %s with %d trials, read as %s with %d", x.ID, x.State, x.Trials, run.State, len(trials))
	}
	for i, trial := range trials {
		if trial.Sitting != i+1 || len(trial.Load.Response.Histogram) == 0 || len(trial.Load.Batches) != 40 {
			t.Errorf("run %s: trial %d is not whole", x.ID, i+1)
		}
	}
	hash, err := store.ContentHash(run.Experiment, trials)
	must(t, err)
	if x.State != meshbench.Running && hash != x.ContentHash {
		t.Errorf("run %s: its hash is %s, its content has %s", x.ID, x.ContentHash, hash)
	}
}

// integrity asks SQLite itself.
func integrity(t *testing.T, path string) {
	t.Helper()
	db := raw(t, path)
	var answer string
	must(t, db.QueryRow(`PRAGMA integrity_check`).Scan(&answer))
	if answer != "ok" {
		t.Errorf("integrity_check: %s", answer)
	}
	var orphans int
	must(t, db.QueryRow(`SELECT COUNT(*) FROM pragma_foreign_key_check`).Scan(&orphans))
	if orphans != 0 {
		t.Errorf("%d trials have no run", orphans)
	}
	must(t, db.Close())
}

// TestKilledWhileWriting kills writers of one store at random points: in
// every round the store opens, has whole trials only, at least those that
// AddTrial had returned from, and the run is marked.
func TestKilledWhileWriting(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "meshbench.db")
	const rounds = 8
	interrupted := 0
	for round := range rounds {
		w := startWriter(t, path, round, 100000)
		after, pause := 1+r.IntN(12), time.Duration(r.IntN(4000))*time.Microsecond
		got := w.wait(func(s said) {
			if s.trials == after {
				time.Sleep(pause)
				must(t, w.cmd.Process.Kill())
			}
		})
		if got.done || got.trials < after {
			t.Fatalf("round %d: a writer ended by itself: %+v %s", round, got, w.stderr)
		}
		s, err := sqlstore.Open(t.Context(), path)
		must(t, err)
		ids, err := s.InterruptExpired(t.Context(), time.Now(), nil)
		must(t, err)
		if !slices.Equal(ids, []string{got.run}) {
			t.Fatalf("round %d: interrupted %v, want %s", round, ids, got.run)
		}
		interrupted++
		list, err := s.List(t.Context(), store.Page{})
		must(t, err)
		if len(list) != interrupted {
			t.Errorf("round %d: %d runs", round, len(list))
		}
		// The one trial more is the one whose line was not read.
		if x := list[0]; x.ID != got.run || x.State != meshbench.Interrupted || x.Trials < got.trials || x.Trials > got.trials+1 {
			t.Errorf("round %d: %d trials were stored: %+v", round, got.trials, x)
		}
		verify(t, s, list[0])
		must(t, s.Close())
		integrity(t, path)
	}
	// The next run works.
	if got := startWriter(t, path, rounds, 3).wait(nil); !got.done || got.err != nil {
		t.Errorf("a writer after all that: %+v", got)
	}
	s := open(t, path)
	list, err := s.List(t.Context(), store.Page{})
	must(t, err)
	for _, x := range list {
		verify(t, s, x)
	}
}

// TestKilledWhileMaking kills processes that make a store.
func TestKilledWhileMaking(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 6 {
		path := filepath.Join(t.TempDir(), "meshbench.db")
		w := startWriter(t, path, round, 1)
		// The file appears, then it is filled.
		for deadline := time.Now().Add(30 * time.Second); ; {
			if _, err := os.Stat(path); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no store was made: %s", w.stderr)
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Duration(r.IntN(8000)) * time.Microsecond)
		must(t, w.cmd.Process.Kill())
		got := w.wait(nil)
		s, err := sqlstore.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d, after %+v: %v", round, got, err)
		}
		run := storetest.RunAt(1000)
		must(t, s.Create(t.Context(), run, hour()))
		must(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", 1, 1)))
		if _, err := s.Run(t.Context(), got.run); got.run != "" && err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		must(t, s.Close())
		integrity(t, path)
	}
}
