package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

// InterruptExpired marks running runs whose lease has expired before now, and
// those whose holder is gone.
// Each is a transaction of its own: a run that cannot be marked keeps none of
// the others from it.
func (s *Store) InterruptExpired(ctx context.Context, now time.Time, gone func(holder string) bool) ([]string, error) {
	const doing = "looking for runs that were cut off"
	rows, err := s.db.QueryContext(ctx, `SELECT id, lease_holder, lease_expires FROM runs WHERE state = $1 ORDER BY id`,
		string(meshbench.Running))
	if err != nil {
		return nil, s.failure(err, doing)
	}
	type lease struct {
		run, holder string
		expires     int64
	}
	leases, err := collect(rows, func(l *lease) []any { return []any{&l.run, &l.holder, &l.expires} })
	if err != nil {
		return nil, s.failure(err, doing)
	}
	interrupted := []string{}
	var failed error
	for _, l := range leases {
		before := now // its lease ended before then
		if gone != nil && gone(l.holder) {
			before = time.Unix(0, l.expires+1)
		} else if l.expires >= now.UnixNano() {
			continue
		}
		done, err := s.interrupt(ctx, l.run, l.holder, before)
		if err != nil {
			failed = errors.Join(failed, err)
		}
		if done {
			interrupted = append(interrupted, l.run)
		}
	}
	if failed != nil {
		return interrupted, meshbench.AsError(failed)
	}
	return interrupted, nil
}

// interrupt ends one run, unless it was renewed beyond a time, has another
// holder or has ended meanwhile.
func (s *Store) interrupt(ctx context.Context, id, holder string, before time.Time) (done bool, err error) {
	err = s.transact(ctx, "interrupting run "+id, func(tx *sql.Tx) error {
		var (
			row struct {
				experiment, holder          string
				started, heartbeat, expires int64
				document                    []byte
			}
			run meshbench.Run
		)
		err := tx.QueryRowContext(ctx, `UPDATE runs SET trials = trials
			WHERE id = $1 AND state = $2 AND lease_expires < $3 AND lease_holder = $4
			RETURNING experiment_digest, lease_holder, started_at, lease_heartbeat, lease_expires, document`,
			id, string(meshbench.Running), before.UnixNano(), holder).
			Scan(&row.experiment, &row.holder, &row.started, &row.heartbeat, &row.expires, &row.document)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpack("run "+id, document{packed: row.document}, &run); err != nil {
			return err
		}
		at := time.Unix(0, max(row.started, row.heartbeat)).UTC()
		run.State, run.FinishedAt = meshbench.Interrupted, &at
		run.Failures = append(run.Failures, meshbench.Failure{Message: fmt.Sprintf(
			"%s ended without finishing this run: it was last heard of at %s, with a lease until %s",
			row.holder, at.Format(time.RFC3339), time.Unix(0, row.expires).UTC().Format(time.RFC3339))})
		_, whole, err := packRun(run)
		if err != nil {
			return err
		}
		if err := s.end(ctx, tx, run, row.experiment, whole); err != nil {
			return err
		}
		done = true
		return s.record(ctx, tx, store.RunInterrupted, id)
	})
	return done && err == nil, err
}

// Remove deletes a run with its trials.
func (s *Store) Remove(ctx context.Context, id string, now time.Time) error {
	err := s.transact(ctx, "removing run "+id, func(tx *sql.Tx) error {
		var (
			state, holder string
			expires       int64
		)
		err := tx.QueryRowContext(ctx, `UPDATE runs SET trials = trials WHERE id = $1
			RETURNING state, lease_holder, lease_expires`, id).Scan(&state, &holder, &expires)
		if errors.Is(err, sql.ErrNoRows) {
			return notFound(id)
		}
		if err != nil {
			return err
		}
		if meshbench.State(state) == meshbench.Running && expires >= now.UnixNano() {
			return meshbench.Errorf(meshbench.Conflict, "run %s is running: %s holds it until %s", id, holder,
				time.Unix(0, expires).UTC().Format(time.RFC3339)).
				WithHint("stop it first (Ctrl-C where it runs), or wait until its lease has expired")
		}
		for _, statement := range []string{`DELETE FROM trials WHERE run_id = $1`, `DELETE FROM runs WHERE id = $1`} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return err
			}
		}
		return s.record(ctx, tx, store.RunRemoved, id)
	})
	if err == nil {
		s.dialect.reclaim(ctx, s.db)
	}
	return err
}
