package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

// Run returns a run by a reference.
func (s *Store) Run(ctx context.Context, ref string) (meshbench.Run, error) {
	r, err := store.ParseReference(ref)
	if err != nil {
		return meshbench.Run{}, err
	}
	row := struct {
		id  string
		doc []byte
	}{}
	found := func(query string, args ...any) (bool, error) {
		err := s.db.QueryRowContext(ctx, query, args...).Scan(&row.id, &row.doc)
		if errors.Is(err, sql.ErrNoRows) {
			return false, nil
		}
		return err == nil, s.failure(err, "reading a run")
	}
	var ok bool
	switch {
	case r.Latest:
		ok, err = found(`SELECT id, document FROM runs ORDER BY id DESC LIMIT 1`)
		if err == nil && !ok {
			return meshbench.Run{}, meshbench.Errorf(meshbench.NotFound, "no run is stored yet").
				WithHint("`meshbench run` makes one")
		}
	case r.Number != 0:
		ok, err = found(`SELECT id, document FROM runs WHERE number = $1`, r.Number)
	}
	if err == nil && !ok && r.First != "" {
		if err = s.unambiguous(ctx, ref, r); err == nil {
			ok, err = found(`SELECT id, document FROM runs WHERE id BETWEEN $1 AND $2`, r.First, r.Last)
		}
	}
	if err != nil {
		return meshbench.Run{}, err
	}
	if !ok {
		return meshbench.Run{}, notFound(strings.TrimSpace(ref))
	}
	var run meshbench.Run
	return run, unpack("run "+row.id, document{packed: row.doc}, &run)
}

// unambiguous returns an error that lists the candidates where several runs
// are meant.
func (s *Store) unambiguous(ctx context.Context, ref string, r store.Reference) error {
	const shown = 5
	if r.First == r.Last {
		return nil
	}
	candidates, err := s.summaries(ctx, `WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3`, r.First, r.Last, shown+1)
	if err != nil || len(candidates) < 2 {
		return err
	}
	var b strings.Builder
	for i, c := range candidates {
		if i == shown {
			b.WriteString(", and more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (#%d, %s)", c.ID, c.Number, c.StartedAt.Format(time.DateTime))
	}
	return meshbench.Errorf(meshbench.Invalid, "%q is the beginning of several runs: %s", strings.TrimSpace(ref), b.String()).
		WithHint("give more characters of the id, or the number")
}

// Trials returns a run's trials in the order in which they were added.
func (s *Store) Trials(ctx context.Context, id string) ([]meshbench.Trial, error) {
	doing := "reading the trials of run " + id
	rows, err := s.db.QueryContext(ctx, `SELECT digest, document FROM trials WHERE run_id = $1 ORDER BY position`, id)
	if err != nil {
		return nil, s.failure(err, doing)
	}
	documents, err := collect(rows, func(d *document) []any { return []any{&d.digest, &d.packed} })
	if err != nil {
		return nil, s.failure(err, doing)
	}
	if len(documents) == 0 {
		var exists int
		err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM runs WHERE id = $1`, id).Scan(&exists)
		if err != nil {
			return nil, s.failure(err, doing)
		}
		if exists == 0 {
			return nil, notFound(id)
		}
	}
	trials := make([]meshbench.Trial, len(documents))
	for i, d := range documents {
		if err := unpack(fmt.Sprintf("trial %d of run %s", i+1, id), d, &trials[i]); err != nil {
			return nil, err
		}
	}
	return trials, nil
}

// List returns runs, newest first.
func (s *Store) List(ctx context.Context, page store.Page) ([]store.Summary, error) {
	limit := page.Limit
	switch {
	case limit == 0:
		limit = store.DefaultPage
	case limit < 0 || limit > store.MaxPage:
		return nil, meshbench.Errorf(meshbench.Invalid, "a page of %d runs: between 1 and %d can be asked for", limit, store.MaxPage)
	}
	if page.Before == "" {
		return s.summaries(ctx, `ORDER BY id DESC LIMIT $1`, limit)
	}
	if err := store.CheckID(page.Before); err != nil {
		return nil, err
	}
	return s.summaries(ctx, `WHERE id < $1 ORDER BY id DESC LIMIT $2`, page.Before, limit)
}

// summaries reads the columns of a Summary of the runs that the rest of the
// statement selects.
func (s *Store) summaries(ctx context.Context, rest string, args ...any) ([]store.Summary, error) {
	const doing = "listing runs"
	rows, err := s.db.QueryContext(ctx, `SELECT id, number, name, state, headline, started_at, finished_at,
		trials, content_hash FROM runs `+rest, args...)
	if err != nil {
		return nil, s.failure(err, doing)
	}
	type row struct {
		store.Summary
		started  int64
		finished sql.NullInt64
	}
	list, err := collect(rows, func(r *row) []any {
		return []any{&r.ID, &r.Number, &r.Name, &r.State, &r.Headline, &r.started, &r.finished, &r.Trials, &r.ContentHash}
	})
	if err != nil {
		return nil, s.failure(err, doing)
	}
	out := make([]store.Summary, len(list))
	for i, r := range list {
		out[i] = r.Summary
		out[i].StartedAt = time.Unix(0, r.started).UTC()
		if r.finished.Valid {
			at := time.Unix(0, r.finished.Int64).UTC()
			out[i].FinishedAt = &at
		}
	}
	return out, nil
}

// Events returns events after a sequence number, in order.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]store.Event, error) {
	const doing = "reading events"
	if limit < 1 || limit > store.MaxPage {
		return nil, meshbench.Errorf(meshbench.Invalid, "%d events: between 1 and %d can be asked for", limit, store.MaxPage)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT sequence, at, kind, run_id FROM events
		WHERE sequence > $1 ORDER BY sequence LIMIT $2`, after, limit)
	if err != nil {
		return nil, s.failure(err, doing)
	}
	type row struct {
		store.Event
		at int64
	}
	list, err := collect(rows, func(r *row) []any { return []any{&r.Sequence, &r.at, &r.Kind, &r.Run} })
	if err != nil {
		return nil, s.failure(err, doing)
	}
	out := make([]store.Event, len(list))
	for i, r := range list {
		out[i] = r.Event
		out[i].At = time.Unix(0, r.at).UTC()
	}
	return out, nil
}
