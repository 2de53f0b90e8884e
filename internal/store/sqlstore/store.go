// Package sqlstore keeps runs in a SQL database: SQLite in a file (Open). The
// statements and the tables are such that PostgreSQL takes them too; what
// differs between databases is in a dialect.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

// Store is a store.Store in a SQL database. Its methods may be called by
// several goroutines, and several processes may have one database open.
type Store struct {
	db      *sql.DB
	dialect dialect
	now     func() time.Time
	busy    time.Duration
}

var _ store.Store = (*Store)(nil)

// dialect is what differs between databases. Parameters are written $1, $2 in
// every statement, which SQLite understands as PostgreSQL does.
type dialect struct {
	// explain turns an error of the driver into one that says what happened to
	// the store and what to do.
	explain func(err error, doing string) *meshbench.Error
	// reclaim gives the space of what was removed back. What it cannot give
	// back now, it gives the next time.
	reclaim func(ctx context.Context, db *sql.DB)
}

// Option changes how a store is opened.
type Option func(*Store)

// WithClock sets the clock that dates heartbeats and events; it is time.Now
// without this option.
func WithClock(now func() time.Time) Option {
	return func(s *Store) { s.now = now }
}

// WithBusyTimeout sets how long a method waits for the transactions of other
// processes before it fails with code Unavailable; 15 s without this option.
func WithBusyTimeout(d time.Duration) Option {
	return func(s *Store) { s.busy = d }
}

// Close closes the database. Nothing is lost without it.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return s.dialect.explain(err, "closing it")
	}
	return nil
}

// transact runs do in a transaction and commits it where it returns nil.
func (s *Store) transact(ctx context.Context, doing string, do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err == nil {
		// After a commit this does nothing.
		defer func() { _ = tx.Rollback() }()
		if err = do(tx); err == nil {
			err = tx.Commit()
		}
	}
	return s.failure(err, doing)
}

// failure explains an error that is not one of ours already.
func (s *Store) failure(err error, doing string) error {
	var ours *meshbench.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return meshbench.Errorf(meshbench.Unavailable, "stopped while %s: %w", doing, err)
	}
	return s.dialect.explain(err, doing)
}

// next takes the next number of a counter. The counter's row stays locked
// until the transaction ends.
func next(ctx context.Context, tx *sql.Tx, counter string) (n int64, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value`, counter).Scan(&n)
	return n, err
}

// record appends an event.
func (s *Store) record(ctx context.Context, tx *sql.Tx, kind store.EventKind, id string) error {
	n, err := next(ctx, tx, "events")
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO events (sequence, at, kind, run_id) VALUES ($1, $2, $3, $4)`,
		n, s.now().UnixNano(), string(kind), id)
	return err
}

// Create writes a new run.
func (s *Store) Create(ctx context.Context, run meshbench.Run, lease store.Lease) error {
	if err := store.CheckID(run.ID); err != nil {
		return err
	}
	if run.State != "" && run.State != meshbench.Running {
		return meshbench.Errorf(meshbench.Invalid, "run %s cannot begin in state %q", run.ID, run.State)
	}
	run.State = meshbench.Running
	if err := checkRun(run); err != nil {
		return err
	}
	if err := checkLease(lease); err != nil {
		return err
	}
	experiment, whole, err := packRun(run)
	if err != nil {
		return err
	}
	return s.transact(ctx, "creating run "+run.ID, func(tx *sql.Tx) error {
		var exists int
		err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM runs WHERE id = $1`, run.ID).Scan(&exists)
		if err != nil {
			return err
		}
		if exists > 0 {
			return meshbench.Errorf(meshbench.Conflict, "run %s exists", run.ID)
		}
		number, err := next(ctx, tx, "runs")
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO runs (id, number, owner, workspace, visibility, name,
			state, headline, started_at, finished_at, trials, experiment_digest, content_hash,
			lease_holder, lease_heartbeat, lease_expires, experiment, document)
			VALUES ($1, $2, '', '', 'private', $3, $4, $5, $6, NULL, 0, $7, '', $8, $9, $10, $11, $12)`,
			run.ID, number, run.Experiment.Name, string(run.State), run.Headline, run.StartedAt.UnixNano(),
			experiment.digest, lease.Holder, s.now().UnixNano(), lease.Expires.UnixNano(),
			experiment.packed, whole.packed)
		if err != nil {
			return err
		}
		return s.record(ctx, tx, store.RunCreated, run.ID)
	})
}

// Renew moves the lease of a running run.
func (s *Store) Renew(ctx context.Context, id string, lease store.Lease) error {
	if err := checkLease(lease); err != nil {
		return err
	}
	return s.transact(ctx, "renewing the lease of run "+id, func(tx *sql.Tx) error {
		var renewed string
		err := tx.QueryRowContext(ctx, `UPDATE runs SET lease_heartbeat = $1, lease_expires = $2
			WHERE id = $3 AND state = $4 AND lease_holder = $5 RETURNING id`,
			s.now().UnixNano(), lease.Expires.UnixNano(), id, string(meshbench.Running), lease.Holder).Scan(&renewed)
		if errors.Is(err, sql.ErrNoRows) {
			return s.notRunning(ctx, tx, id)
		}
		return err
	})
}

// notRunning says why a run could not be changed.
func (s *Store) notRunning(ctx context.Context, tx *sql.Tx, id string) error {
	var state, holder string
	err := tx.QueryRowContext(ctx, `SELECT state, lease_holder FROM runs WHERE id = $1`, id).Scan(&state, &holder)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return notFound(id)
	case err != nil:
		return err
	case meshbench.State(state) == meshbench.Running:
		return meshbench.Errorf(meshbench.Conflict, "run %s is held by %s", id, holder)
	}
	return meshbench.Errorf(meshbench.Conflict, "run %s has ended: it is %s", id, state).
		WithHint("what has ended is never changed; start a new run")
}

func notFound(id string) *meshbench.Error {
	return meshbench.Errorf(meshbench.NotFound, "there is no run %s", id).
		WithHint("`meshbench results list` shows the runs that there are")
}

// AddTrial appends one trial to a running run.
func (s *Store) AddTrial(ctx context.Context, id string, trial meshbench.Trial) error {
	if err := checkText("the cell of a trial", trial.Cell); err != nil {
		return err
	}
	d, err := pack("a trial of "+trial.Cell, trial)
	if err != nil {
		return err
	}
	return s.transact(ctx, "storing a trial of run "+id, func(tx *sql.Tx) error {
		var position int64
		err := tx.QueryRowContext(ctx, `UPDATE runs SET trials = trials + 1, lease_heartbeat = $1
			WHERE id = $2 AND state = $3 RETURNING trials`,
			s.now().UnixNano(), id, string(meshbench.Running)).Scan(&position)
		if errors.Is(err, sql.ErrNoRows) {
			return s.notRunning(ctx, tx, id)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO trials (run_id, position, cell, sitting, block, digest, document)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			id, position, trial.Cell, trial.Sitting, trial.Block, d.digest, d.packed)
		return err
	})
}

// Finish writes the run in its final state.
func (s *Store) Finish(ctx context.Context, run meshbench.Run) error {
	switch run.State {
	case meshbench.Finished, meshbench.Interrupted, meshbench.Failed, meshbench.Partial:
	default:
		return meshbench.Errorf(meshbench.Invalid, "run %s cannot end in state %q", run.ID, run.State)
	}
	if err := checkRun(run); err != nil {
		return err
	}
	if run.FinishedAt == nil || !storable(*run.FinishedAt) {
		return meshbench.Errorf(meshbench.Invalid, "run %s ends, but not at a time", run.ID)
	}
	experiment, whole, err := packRun(run)
	if err != nil {
		return err
	}
	return s.transact(ctx, "finishing run "+run.ID, func(tx *sql.Tx) error {
		created, err := s.hold(ctx, tx, run.ID)
		if err != nil {
			return err
		}
		if created.experiment != experiment.digest || created.started != run.StartedAt.UnixNano() {
			return meshbench.Errorf(meshbench.Invalid, "run %s ends with another experiment or start than it was created with", run.ID)
		}
		if err := s.end(ctx, tx, run, created.experiment, whole); err != nil {
			return err
		}
		return s.record(ctx, tx, store.RunFinished, run.ID)
	})
}

// held is what a running run has had since it was created.
type held struct {
	experiment string // digest
	started    int64
}

// hold locks a running run for the rest of the transaction, so that no trial
// can be added while its trials are counted up.
func (s *Store) hold(ctx context.Context, tx *sql.Tx, id string) (held, error) {
	var h held
	err := tx.QueryRowContext(ctx, `UPDATE runs SET trials = trials WHERE id = $1 AND state = $2
		RETURNING experiment_digest, started_at`, id, string(meshbench.Running)).Scan(&h.experiment, &h.started)
	if errors.Is(err, sql.ErrNoRows) {
		return h, s.notRunning(ctx, tx, id)
	}
	return h, err
}

// end writes the final state of a run that is held, with its content hash.
func (s *Store) end(ctx context.Context, tx *sql.Tx, run meshbench.Run, experiment string, whole document) error {
	rows, err := tx.QueryContext(ctx, `SELECT digest FROM trials WHERE run_id = $1 ORDER BY position`, run.ID)
	if err != nil {
		return err
	}
	digests, err := collect(rows, func(d *string) []any { return []any{d} })
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE runs SET state = $1, headline = $2, finished_at = $3, content_hash = $4,
		lease_holder = '', document = $5 WHERE id = $6`,
		string(run.State), run.Headline, run.FinishedAt.UnixNano(), store.HashDigests(experiment, digests),
		whole.packed, run.ID)
	return err
}

// collect reads all rows, each into the fields of a new T, and closes them.
func collect[T any](rows *sql.Rows, fields func(*T) []any) ([]T, error) {
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		var one T
		if err := rows.Scan(fields(&one)...); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func checkRun(run meshbench.Run) error {
	if err := checkText("the name of a run", run.Experiment.Name); err != nil {
		return err
	}
	if err := checkText("a headline", run.Headline); err != nil {
		return err
	}
	if !storable(run.StartedAt) {
		return meshbench.Errorf(meshbench.Invalid, "run %s does not start at a time", run.ID)
	}
	return nil
}

func checkLease(lease store.Lease) error {
	if lease.Holder == "" {
		return meshbench.Errorf(meshbench.Invalid, "a lease has no holder")
	}
	if !storable(lease.Expires) {
		return meshbench.Errorf(meshbench.Invalid, "the lease of %q does not expire at a time", lease.Holder)
	}
	return checkText("the holder of a lease", lease.Holder)
}

// checkText refuses what a text column of some database cannot hold.
func checkText(what, text string) error {
	switch {
	case strings.ContainsRune(text, 0):
		return meshbench.Errorf(meshbench.Invalid, "%s holds a NUL character", what)
	case !utf8.ValidString(text):
		return meshbench.Errorf(meshbench.Invalid, "%s is not UTF-8", what)
	}
	return nil
}

// storable tells whether a time can be kept as nanoseconds since 1970 in 64
// bits; the zero time cannot.
func storable(t time.Time) bool {
	return t.Year() >= 1970 && t.Year() < 2262
}
