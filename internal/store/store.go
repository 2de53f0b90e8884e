// Package store is what runs leave behind: the Store interface, how a run is
// named and hashed, and the suite of tests that every implementation passes
// (package storetest).
package store

import (
	"context"
	"io"
	"time"

	"github.com/meshbench/meshbench"
)

// Store keeps runs. A run is append-only while it is running; trials are
// written once each. Everything that a method has returned from without an
// error is on disk: it survives the end of the process and of the machine.
//
// Errors are *meshbench.Error: NotFound for a run that does not exist,
// Conflict for an id that exists, a lease that somebody else holds or a run
// that has ended, Unavailable where the medium fails (a full disk), Invalid
// for what no store accepts (a malformed id or reference, a text that holds
// a NUL, a document that could not be read back) and where the store was
// written by a newer version. After an error nothing has changed.
type Store interface {
	// Create writes a new run in state running, held by the lease's holder
	// until it expires. The experiment and the start are fixed with it.
	Create(ctx context.Context, run meshbench.Run, lease Lease) error
	// Renew moves the lease of a running run. Conflict where another holder
	// has it or the run has ended. A lease that has expired can still be
	// renewed by its holder until InterruptExpired has seen it.
	Renew(ctx context.Context, id string, lease Lease) error
	// AddTrial appends one trial to a running run. Conflict where it has ended.
	AddTrial(ctx context.Context, id string, trial meshbench.Trial) error
	// Finish writes the run in its final state and ends the lease. The
	// headline and the content hash (see ContentHash) are fixed with it.
	// Conflict where the run has ended already, Invalid where its state is not
	// final or its experiment or start is not what was created.
	Finish(ctx context.Context, run meshbench.Run) error
	// InterruptExpired marks running runs whose lease has expired before now
	// as interrupted, as of their last heartbeat, and returns their ids in
	// order; so it does with those of whose holder gone says that it does not
	// live any more (nil: nobody can say). The trials that they have stay.
	// Beside an error stand the ids of those that were marked all the same.
	InterruptExpired(ctx context.Context, now time.Time, gone func(holder string) bool) ([]string, error)
	// Run returns a run by a reference (see ParseReference): its id, a prefix
	// of it, its number, or "latest". Invalid, with the candidates, where
	// a prefix is of several.
	Run(ctx context.Context, ref string) (meshbench.Run, error)
	// Trials returns a run's trials in the order in which they were added.
	Trials(ctx context.Context, id string) ([]meshbench.Trial, error)
	// List returns runs, newest first: in falling order of their ids.
	List(ctx context.Context, page Page) ([]Summary, error)
	// Remove deletes a run with its trials. A running one is refused with
	// Conflict while its lease lives.
	Remove(ctx context.Context, id string, now time.Time) error
	// Events returns at most limit (1 to MaxPage) events after a sequence
	// number, in order. An event is seen only when all before it are.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)
	io.Closer
}

// Limits that every store has.
const (
	// MaxPage is the longest part of a list that is returned at once.
	MaxPage = 1000
	// DefaultPage is what a Page without a limit means.
	DefaultPage = 100
	// MaxDocumentBytes is the largest JSON document of one trial, or of one
	// run without its trials, that is stored. A trial of 4 s is less than a
	// hundredth of it, one of an hour less than a half.
	MaxDocumentBytes = 16 << 20
)

// Lease says who executes a run and until when that is believed.
type Lease struct {
	Holder  string // names one process of one machine, for as long as it lives
	Expires time.Time
}

// Page is a part of a list.
type Page struct {
	Limit  int    // at most MaxPage; 0 means DefaultPage
	Before string // the id of the last run of the page before; empty: from the newest
}

// Summary is a run in a list.
type Summary struct {
	ID         string          `json:"id"`
	Number     int64           `json:"number"` // short, for display on this store only; never used again
	Name       string          `json:"name"`
	State      meshbench.State `json:"state"`
	Headline   string          `json:"headline"`
	StartedAt  time.Time       `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`
	Trials     int             `json:"trials"`
	// ContentHash is what ContentHash returns for the experiment and the
	// trials; empty while the run is running.
	ContentHash string `json:"content_hash,omitempty"`
}

// EventKind is what happened to a run.
type EventKind string

// The kinds of events.
const (
	RunCreated     EventKind = "run_created"
	RunFinished    EventKind = "run_finished" // in whichever final state its holder gave it
	RunInterrupted EventKind = "run_interrupted"
	RunRemoved     EventKind = "run_removed"
)

// Event is something that happened in a store. Events outlive their run.
type Event struct {
	Sequence int64     `json:"sequence"` // from 1, without gaps
	At       time.Time `json:"at"`
	Kind     EventKind `json:"kind"`
	Run      string    `json:"run"` // id
}
