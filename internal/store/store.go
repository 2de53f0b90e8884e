// Package store is what runs leave behind: the Store interface and the suite
// of tests that every implementation passes (package storetest).
package store

import (
	"context"
	"io"
	"time"

	"github.com/meshbench/meshbench"
)

// Store keeps runs. A run is append-only while it is running; trials are
// written once each. Errors are *meshbench.Error: NotFound for a run that
// does not exist, Conflict for an id that exists or a lease somebody else
// holds, Unavailable where the medium fails (a full disk), Invalid where the
// store was written by a newer version.
type Store interface {
	// Create writes a new run in state running, held by holder until the
	// lease expires.
	Create(ctx context.Context, run meshbench.Run, lease Lease) error
	// Renew moves the lease of a running run.
	Renew(ctx context.Context, id string, lease Lease) error
	// AddTrial appends one trial to a running run.
	AddTrial(ctx context.Context, id string, trial meshbench.Trial) error
	// Finish writes the run in its final state and ends the lease. The
	// headline and the content hash are fixed with it.
	Finish(ctx context.Context, run meshbench.Run) error
	// InterruptExpired marks running runs whose lease has expired before now
	// as interrupted and returns their ids.
	InterruptExpired(ctx context.Context, now time.Time) ([]string, error)
	// Run returns a run by its id, a unique prefix of it (4 characters or
	// more), its number, or "latest".
	Run(ctx context.Context, ref string) (meshbench.Run, error)
	// Trials returns a run's trials in the order in which they were added.
	Trials(ctx context.Context, id string) ([]meshbench.Trial, error)
	// List returns runs, newest first.
	List(ctx context.Context, page Page) ([]Summary, error)
	// Remove deletes a run with its trials. A running one is refused with
	// Conflict while its lease lives.
	Remove(ctx context.Context, id string, now time.Time) error
	io.Closer
}

// Lease says who executes a run and until when that is believed.
type Lease struct {
	Holder  string // host, process id and boot id
	Expires time.Time
}

// Page is a part of a list.
type Page struct {
	Limit  int    // at most 1000; 0 means 100
	Before string // the id of the last run of the page before; empty: from the newest
}

// Summary is a run in a list.
type Summary struct {
	ID         string          `json:"id"`
	Number     int64           `json:"number"` // short, for display on this store only
	Name       string          `json:"name"`
	State      meshbench.State `json:"state"`
	Headline   string          `json:"headline"`
	StartedAt  time.Time       `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`
	Trials     int             `json:"trials"`
}
