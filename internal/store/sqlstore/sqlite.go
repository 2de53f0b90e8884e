package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/meshbench/meshbench"
)

//go:embed migrations/*.sql
var migrations embed.FS

// busyTimeout is how long a process waits for another one's transactions,
// unless WithBusyTimeout says otherwise. They last milliseconds; what waits
// for seconds waits for a slow disk.
const busyTimeout = 15 * time.Second

// smallest is the size of the smallest SQLite database that is not empty: one
// page. SQLite itself would take a shorter file for an empty database, and
// write over it.
const smallest = 512

// connections is how many statements run at once in one process: SQLite has
// one writer and any number of readers.
const connections = 4

// Open opens the store in a SQLite file, or makes it, with its directories
// (mode 0700; the file has 0600: experiments may hold secrets in headers).
// A store of an older version is brought to this one.
//
// The error has code Unavailable where the file cannot be written or read, and
// Invalid where it is no store, or one that a newer version wrote; nothing in
// it has been changed then.
func Open(ctx context.Context, path string, options ...Option) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the place of the store is not known: %w", err)
	}
	if err := makeFile(path); err != nil {
		return nil, err
	}
	s := &Store{now: time.Now, busy: busyTimeout}
	for _, o := range options {
		o(s)
	}
	s.dialect = dialect{
		explain: func(err error, doing string) *meshbench.Error { return explainSQLite(path, s.busy, err, doing) },
		reclaim: reclaimSQLite,
	}
	err = s.connect(ctx, path, false)
	if noRoomToShare(err) {
		// What is stored can be read on a full disk: by this process alone.
		err = s.connect(ctx, path, true)
	}
	if err != nil {
		return nil, s.failure(err, "opening it")
	}
	return s, nil
}

// connect opens the database and brings it to this version. Where it is
// opened alone, no other process can use it until it is closed, and no memory
// is shared through a file beside it
// (https://www.sqlite.org/wal.html#use_of_wal_without_shared_memory).
func (s *Store) connect(ctx context.Context, path string, alone bool) error {
	db, err := sql.Open("sqlite", dataSource(path, s.busy, alone))
	if err != nil {
		return err
	}
	n := connections
	if alone {
		n = 1
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	s.db = db
	if err := s.prepare(ctx, path); err != nil {
		_ = db.Close() // the first error is the one that helps
		return err
	}
	return nil
}

// noRoomToShare tells whether the file of shared memory, 32 kB, could not be
// made.
func noRoomToShare(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE
}

// makeFile makes an empty file, which is an empty database, unless there is
// something.
func makeFile(path string) error {
	unwritable := func(err error) error {
		e := meshbench.Errorf(meshbench.Unavailable, "the store %s cannot be made: %w", path, err)
		if errors.Is(err, syscall.ENOSPC) {
			return e.WithHint("its disk is full: free some space, or choose another place with --data-dir")
		}
		return e.WithHint("make its directory writable, or choose another place with --data-dir")
	}
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return meshbench.Errorf(meshbench.Invalid, "%s is not a file, so it is no store", path).
			WithHint("choose another place with --data-dir")
	case err == nil && info.Size() > 0 && info.Size() < smallest:
		return meshbench.Errorf(meshbench.Invalid, "the store %s is not a SQLite database: it has %d bytes", path, info.Size()).
			WithHint("move that file away, or choose another place with --data-dir; nothing was changed")
	case err == nil:
		// It must not be opened here: to close it would end every lock that
		// this process has on it (POSIX locks belong to process and file).
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return unwritable(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return unwritable(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return unwritable(err)
	}
	return nil
}

// dataSource is the URI (https://www.sqlite.org/uri.html) of a file, with what
// every connection must have: a writer takes its lock when it begins, so that
// none fails half-way; a commit is on disk when it returns.
func dataSource(path string, busy time.Duration, alone bool) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"foreign_keys(1)",
		"synchronous(FULL)",
	}
	if alone {
		pragmas = append(pragmas, "locking_mode(EXCLUSIVE)")
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// prepare brings the file to this version. Another process may be doing the
// same: every step is a transaction, and who comes second starts over and
// finds it done.
func (s *Store) prepare(ctx context.Context, path string) error {
	const attempts = 20
	for i := 1; ; i++ {
		err := s.migrate(ctx, path)
		if err == nil || i == attempts || !contended(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(i) * 10 * time.Millisecond):
		}
	}
}

// contended tells whether an error comes from another process that was making
// the same store.
func contended(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return true
	case sqlite3.SQLITE_ERROR:
		return strings.Contains(e.Error(), "already exists")
	}
	return false
}

func (s *Store) migrate(ctx context.Context, path string) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	known := sources[len(sources)-1].Version
	found, err := s.version(ctx, path)
	if err != nil {
		return err
	}
	if found > known {
		return meshbench.Errorf(meshbench.Invalid, "the store %s was written by a newer Meshbench: it has format %d, this one knows formats up to %d", path, found, known).
			WithHint("use the newer Meshbench, or choose another place with --data-dir; nothing was changed")
	}
	if err := s.setUp(ctx); err != nil {
		return err
	}
	if found == known {
		return nil
	}
	_, err = provider.Up(ctx)
	return err
}

// setUp gives the file its two lasting properties: pages of what was removed
// can be given back (this takes effect in an empty file only), and readers do
// not wait for a writer.
func (s *Store) setUp(ctx context.Context) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var mode string
	if err := conn.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil || mode == "wal" {
		return err
	}
	if _, err := conn.ExecContext(ctx, `PRAGMA auto_vacuum = INCREMENTAL`); err != nil {
		return err
	}
	return conn.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
}

// version reads, without changing anything, the version of the format; zero
// for an empty file.
func (s *Store) version(ctx context.Context, path string) (int64, error) {
	const versions = "goose_db_version"
	rows, err := s.db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	if err != nil {
		return 0, err
	}
	names, err := collect(rows, func(name *string) []any { return []any{name} })
	if err != nil {
		return 0, err
	}
	var versioned, ours bool
	for _, n := range names {
		versioned = versioned || n == versions
		ours = ours || n == "counters"
	}
	var version int64
	if versioned {
		err := s.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+versions+` WHERE is_applied`).Scan(&version)
		if err != nil {
			return 0, err
		}
	}
	if len(names) > 0 && !ours && (version > 0 || !versioned || len(names) > 1) {
		return 0, meshbench.Errorf(meshbench.Invalid, "%s is a SQLite database of another program, not a store", path).
			WithHint("choose another place with --data-dir; nothing was changed")
	}
	return version, nil
}

// reclaimSQLite gives pages of removed rows back to the file system.
func reclaimSQLite(ctx context.Context, db *sql.DB) {
	for _, pragma := range []string{`PRAGMA incremental_vacuum`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
		// Each may be impossible at the moment (a reader, a full disk). The
		// pages are used again for the next trial then.
		if rows, err := db.QueryContext(ctx, pragma); err == nil {
			for rows.Next() {
			}
			_ = rows.Close()
		}
	}
}

// explainSQLite says what an error of SQLite (https://www.sqlite.org/rescode.html)
// means for who uses the store.
func explainSQLite(path string, busy time.Duration, err error, doing string) *meshbench.Error {
	fail := func(code meshbench.Code, what string) *meshbench.Error {
		return meshbench.Errorf(code, "the store %s, %s: %s: %w", path, doing, what, err)
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fail(meshbench.Internal, "the database failed")
	}
	code := e.Code() & 0xff
	if noRoomToShare(err) {
		code = sqlite3.SQLITE_FULL
	}
	switch code {
	case sqlite3.SQLITE_FULL:
		return fail(meshbench.Unavailable, "its disk is full").
			WithHint("free some space on the disk of %s, or choose another place with --data-dir; what was stored before is whole and can be read", path)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fail(meshbench.Unavailable, fmt.Sprintf("another process has kept it locked for %s", busy)).
			WithHint("see which process has it open (fuser %s), and try again when that has ended", path)
	case sqlite3.SQLITE_NOTADB:
		return fail(meshbench.Invalid, "it is not a SQLite database").
			WithHint("move that file away, or choose another place with --data-dir; nothing was changed")
	case sqlite3.SQLITE_CORRUPT:
		return fail(meshbench.Unavailable, "the file is damaged").
			WithHint("restore it from a copy, or move it away and start a new one; `sqlite3 %s .recover` shows what can be read", path)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH:
		return fail(meshbench.Unavailable, "it cannot be written").
			WithHint("make the file and its directory writable, or choose another place with --data-dir")
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL:
		return fail(meshbench.Unavailable, "its disk failed").
			WithHint("check the disk of %s (a network file system may lack locks), or choose another place with --data-dir", path)
	}
	return fail(meshbench.Internal, "the database failed")
}
