package sqlstore_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/store/sqlstore"
	"github.com/meshbench/meshbench/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "meshbench.db"), patient)
	})
}

// patient waits for other writers as long as a busy machine needs.
var patient = sqlstore.WithBusyTimeout(3 * time.Minute)

// open opens a store and closes it at the end of the test.
func open(t testing.TB, path string, options ...sqlstore.Option) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), path, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError fails unless err has the code, a hint and the words.
func wantError(t testing.TB, err error, code meshbench.Code, words ...string) {
	t.Helper()
	e := meshbench.AsError(err)
	if e == nil || e.Code != code || e.Hint == "" {
		t.Fatalf("got %#v, want an error of code %s with a hint", e, code)
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Errorf("message %q lacks %q", e.Message, w)
		}
	}
}

func hour() store.Lease {
	return store.Lease{Holder: storetest.Holder, Expires: time.Now().Add(time.Hour)}
}

// raw opens the database without the store.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestOpenMakesPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "meshbench.db")
	s := open(t, path)
	must(t, s.Create(t.Context(), storetest.RunAt(0), hour()))
	for name, want := range map[string]os.FileMode{
		filepath.Dir(dir): 0o700 | os.ModeDir, dir: 0o700 | os.ModeDir,
		path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600,
	} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %s, want %s", name, info.Mode(), want)
		}
	}
}

func TestOpenAnyPath(t *testing.T) {
	for _, name := range []string{"with space.db", "q?mode=memory&x=1#frag.db", "100%41.db", "file:x.db", "-\"quote'.db", "\u05E9\U0001F4CA.db"} {
		path := filepath.Join(t.TempDir(), name)
		s := open(t, path)
		must(t, s.Create(t.Context(), storetest.RunAt(0), hour()))
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s was not made: %v", name, err)
		}
	}
	t.Chdir(t.TempDir())
	open(t, "relative.db")
	if _, err := os.Stat("relative.db"); err != nil {
		t.Error(err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshbench.db")
	run, trial := storetest.RunAt(0), storetest.TrialOf("none", 1, 1)
	for i := range 3 {
		s, err := sqlstore.Open(t.Context(), path)
		must(t, err)
		if i == 0 {
			must(t, s.Create(t.Context(), run, hour()))
		}
		must(t, s.AddTrial(t.Context(), run.ID, trial))
		trials, err := s.Trials(t.Context(), run.ID)
		must(t, err)
		if len(trials) != i+1 {
			t.Errorf("%d trials after opening it %d times", len(trials), i+1)
		}
		must(t, s.Close())
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Run("not a database", func(t *testing.T) {
		path := filepath.Join(dir, "notes.txt")
		content := bytes.Repeat([]byte("these are notes, not runs\n"), 400)
		must(t, os.WriteFile(path, content, 0o644))
		_, err := sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Invalid, path, "not a SQLite database")
		unchanged(t, path, content)
	})
	t.Run("short text", func(t *testing.T) {
		path := filepath.Join(dir, "short.txt")
		must(t, os.WriteFile(path, []byte("x"), 0o644))
		_, err := sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Invalid, path, "not a SQLite database")
		unchanged(t, path, []byte("x"))
	})
	t.Run("another program's database", func(t *testing.T) {
		path := filepath.Join(dir, "other.db")
		db := raw(t, path)
		execute(t, db, `CREATE TABLE songs (title TEXT)`, `INSERT INTO songs VALUES ('a')`)
		content, err := os.ReadFile(path)
		must(t, err)
		_, err = sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Invalid, path, "another program")
		unchanged(t, path, content)
	})
	t.Run("another program's goose", func(t *testing.T) {
		path := filepath.Join(dir, "goose.db")
		execute(t, raw(t, path), `CREATE TABLE songs (title TEXT)`,
			`CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER, is_applied INTEGER, tstamp TIMESTAMP)`,
			`INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, 1)`)
		_, err := sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Invalid, path, "another program")
	})
	t.Run("a directory", func(t *testing.T) {
		_, err := sqlstore.Open(t.Context(), dir)
		wantError(t, err, meshbench.Invalid, dir, "not a file")
	})
	t.Run("a file in the way", func(t *testing.T) {
		path := filepath.Join(dir, "notes.txt", "meshbench.db")
		_, err := sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Unavailable, path)
	})
	t.Run("half a database", func(t *testing.T) {
		path := filepath.Join(dir, "half.db")
		s, err := sqlstore.Open(t.Context(), path)
		must(t, err)
		must(t, s.Close())
		must(t, os.Truncate(path, 8192))
		_, err = sqlstore.Open(t.Context(), path)
		wantError(t, err, meshbench.Unavailable, path, "damaged")
	})
}

func unchanged(t *testing.T, path string, content []byte) {
	t.Helper()
	now, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(now, content) {
		t.Errorf("%s was changed", path)
	}
	left, err := filepath.Glob(path + "?*")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%v were left beside it", left)
	}
}

func TestNewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshbench.db")
	s, err := sqlstore.Open(t.Context(), path)
	must(t, err)
	must(t, s.Create(t.Context(), storetest.RunAt(0), hour()))
	must(t, s.Close())
	db := raw(t, path)
	execute(t, db, `ALTER TABLE runs ADD COLUMN flavour TEXT`, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (7, 1)`)
	must(t, db.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	_, err = sqlstore.Open(t.Context(), path)
	wantError(t, err, meshbench.Invalid, path, "newer", "format 7", "up to 1")
	unchanged(t, path, content)
}

// TestDamagedTrial changes one byte of what was stored.
func TestDamagedTrial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshbench.db")
	s := open(t, path)
	run := storetest.RunAt(0)
	must(t, s.Create(t.Context(), run, hour()))
	for i := range 3 {
		must(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", i+1, uint64(i))))
	}
	execute(t, raw(t, path), `UPDATE trials SET digest = 'x' || substr(digest, 2) WHERE position = 2`)
	_, err := s.Trials(t.Context(), run.ID)
	wantError(t, err, meshbench.Unavailable, "trial 2", run.ID, "damaged")
	if _, err := s.Run(t.Context(), run.ID); err != nil {
		t.Errorf("the run itself is whole: %v", err)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshbench.db")
	s := open(t, path, sqlstore.WithBusyTimeout(50*time.Millisecond))
	run := storetest.RunAt(0)
	must(t, s.Create(t.Context(), run, hour()))
	db := raw(t, path)
	db.SetMaxOpenConns(1)
	execute(t, db, `BEGIN IMMEDIATE`)
	// Reading goes on beside a writer; writing waits, and says for what.
	if _, err := s.Run(t.Context(), run.ID); err != nil {
		t.Errorf("reading beside a writer: %v", err)
	}
	wantError(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", 1, 1)), meshbench.Unavailable, path, "locked")
	execute(t, db, `ROLLBACK`)
	must(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", 1, 1)))
}

// TestRemoveGivesSpaceBack also holds that removed runs leave nothing behind.
func TestRemoveGivesSpaceBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshbench.db")
	s := open(t, path)
	size := func() (sum int64) {
		for _, name := range []string{path, path + "-wal"} {
			if info, err := os.Stat(name); err == nil {
				sum += info.Size()
			}
		}
		return sum
	}
	add := func(n int) string {
		run := storetest.RunAt(n)
		must(t, s.Create(t.Context(), run, hour()))
		for i := range 40 {
			must(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", i+1, uint64(n*100+i))))
		}
		must(t, s.Finish(t.Context(), storetest.Ended(run, meshbench.Finished)))
		return run.ID
	}
	kept := add(0)
	gone := add(1)
	full := size()
	must(t, s.Remove(t.Context(), gone, time.Now()))
	t.Logf("two runs of 40 trials take %d bytes, one left %d", full, size())
	if now := size(); now > full*7/10 {
		t.Errorf("%d of %d bytes are left after one of two runs was removed", now, full)
	}
	trials, err := s.Trials(t.Context(), kept)
	must(t, err)
	if len(trials) != 40 {
		t.Errorf("%d trials are left of the other run", len(trials))
	}
	var left int
	must(t, raw(t, path).QueryRow(`SELECT COUNT(*) FROM trials WHERE run_id = $1`, gone).Scan(&left))
	if left != 0 {
		t.Errorf("%d trials of the removed run are left", left)
	}
}

func TestWithClock(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	s, err := sqlstore.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), sqlstore.WithClock(func() time.Time { return at }))
	must(t, err)
	defer s.Close()
	run := storetest.RunAt(0)
	must(t, s.Create(t.Context(), run, store.Lease{Holder: "h", Expires: at.Add(time.Minute)}))
	at = at.Add(30 * time.Second)
	must(t, s.AddTrial(t.Context(), run.ID, storetest.TrialOf("none", 1, 1)))
	heard := at
	at = at.Add(time.Hour)
	_, err = s.InterruptExpired(t.Context(), at, nil)
	must(t, err)
	run, err = s.Run(t.Context(), run.ID)
	must(t, err)
	if run.FinishedAt == nil || !run.FinishedAt.Equal(heard) {
		t.Errorf("interrupted as of %v, it was last heard of at %s", run.FinishedAt, heard)
	}
	events, err := s.Events(t.Context(), 1, 10)
	must(t, err)
	if len(events) != 1 || !events[0].At.Equal(at) {
		t.Errorf("events %+v, want one at %s", events, at)
	}
}

func BenchmarkAddTrial(b *testing.B) {
	path := filepath.Join(b.TempDir(), "meshbench.db")
	s := open(b, path)
	run := storetest.RunAt(0)
	must(b, s.Create(b.Context(), run, hour()))
	trial := storetest.TrialOf("envoy", 1, 1)
	n := 0
	for b.Loop() {
		must(b, s.AddTrial(b.Context(), run.ID, trial))
		n++
	}
	var bytes int64
	must(b, raw(b, path).QueryRow(`SELECT SUM(LENGTH(document)) FROM trials`).Scan(&bytes))
	b.ReportMetric(float64(bytes)/float64(n), "bytes/trial")
}

func BenchmarkTrials(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "meshbench.db"))
	run := storetest.RunAt(0)
	must(b, s.Create(b.Context(), run, hour()))
	for i := range 20 {
		must(b, s.AddTrial(b.Context(), run.ID, storetest.TrialOf("envoy", i+1, uint64(i))))
	}
	for b.Loop() {
		trials, err := s.Trials(b.Context(), run.ID)
		if err != nil || len(trials) != 20 {
			b.Fatal(len(trials), err)
		}
	}
}

// BenchmarkList lists pages out of 10,000 runs.
func BenchmarkList(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "meshbench.db"))
	var middle string
	for i := range 10_000 {
		run := storetest.RunAt(i)
		must(b, s.Create(b.Context(), run, hour()))
		if i == 5000 {
			middle = run.ID
		}
	}
	for _, page := range []store.Page{{Limit: 100}, {Limit: 100, Before: middle}, {Limit: 1000}} {
		where := "newest"
		if page.Before != "" {
			where = "middle"
		}
		b.Run(fmt.Sprintf("%s%d", where, page.Limit), func(b *testing.B) {
			for b.Loop() {
				list, err := s.List(b.Context(), page)
				if err != nil || len(list) != page.Limit {
					b.Fatal(len(list), err)
				}
			}
		})
	}
	b.Run("latest", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Run(b.Context(), "latest"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "meshbench.db")
	open(b, path)
	for b.Loop() {
		s, err := sqlstore.Open(b.Context(), path)
		must(b, err)
		must(b, s.Close())
	}
}
