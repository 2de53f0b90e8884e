// Package runner executes a run: it deploys what the plan says, warms it up,
// measures trial after trial, judges each, and hands what it learned to the
// store. It sees interfaces only: infrastructures, drivers, generators and
// stores are given to it.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/deploy"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/store"
)

// Generator offers load and tells what it measured.
type Generator interface {
	Run(ctx context.Context, job load.Job, tick func(load.Tick)) (meshbench.LoadResult, error)
	Close() error
}

// Machine watches what else the machine does. Busy returns the CPU time in
// nanoseconds that the machine has spent on anything so far; Own what
// Meshbench itself (this process) has.
type Machine interface {
	Busy() (uint64, error)
	Own() (uint64, error)
}

// Metrics reads other programs' metrics from now on until the function that
// it returns is called. The errors are of sources that could not be read.
type Metrics interface {
	Watch(ctx context.Context, sources []meshbench.MetricSource) (end func() ([]meshbench.MetricSeries, []error))
}

// Config is what a run needs from outside.
type Config struct {
	Infra    infra.Infrastructure
	Driver   func(name string) (mesh.Driver, error)
	Workload deploy.Workload
	Connect  func(ctx context.Context, w io.ReadWriteCloser) (Generator, error)
	Machine  Machine // nil: not watched
	Metrics  Metrics // nil: not read
	Store    store.Store
	Holder   string // of the run's lease
	Progress func(Event)
	Now      func() time.Time
	Logger   *slog.Logger
}

// Phase is what a run is doing.
type Phase string

// The phases, in order; those from Deploying on come once per sitting.
const (
	Deploying Phase = "deploying"
	WarmingUp Phase = "warming up"
	Measuring Phase = "measuring"
	Judging   Phase = "judging"
)

// Event is one step of progress.
type Event struct {
	Phase    Phase
	Sitting  int // from 1
	Sittings int
	Cell     string
	Trial    int // from 1; those of all sittings
	Trials   int
	Tick     *load.Tick // while load runs
	Note     string     // something a person should know: a failure that was survived
}

// run is the state of one execution.
type run struct {
	Config
	doc    meshbench.Run
	cells  map[string]meshbench.Cell
	trials []meshbench.Trial

	generator Generator
	failures  map[string]int  // deployment -> sittings in a row in which it did not come up
	done      int             // trials measured or given up
	unread    map[string]bool // sources of metrics that failed, by what was said of them
}

// leaseTime is how long a run is believed to be alive without a sign of it,
// beside the length of a trial: nothing is written while one runs.
const leaseTime = 2 * time.Minute

// giveUpAfter is how many sittings in a row a deployment may fail to come up
// before its cells are given up.
const giveUpAfter = 2

// Run executes the plan of doc and returns the run in its final state with
// its trials. An error means that nothing was measured or that the store
// failed; the run's state says so too. A cancelled context ends the load at
// once and yields what was measured, with state interrupted.
func Run(ctx context.Context, c Config, doc meshbench.Run) (meshbench.Run, []meshbench.Trial, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Progress == nil {
		c.Progress = func(Event) {}
	}
	r := &run{Config: c, doc: doc, cells: map[string]meshbench.Cell{}, failures: map[string]int{}, unread: map[string]bool{}}
	for _, cell := range doc.Plan.Cells {
		r.cells[cell.ID] = cell
	}
	if err := c.Store.Create(ctx, r.doc, r.lease()); err != nil {
		return r.doc, nil, err
	}
	err := r.execute(ctx)
	r.Progress(Event{Phase: Judging})
	return r.finish(ctx, err)
}

func (r *run) lease() store.Lease {
	longest := time.Duration(0)
	for _, c := range r.doc.Plan.Cells {
		longest = max(longest, c.Load.Trial.Std()+c.Load.Warmup.Std()+c.Load.Settle.Std())
	}
	return store.Lease{Holder: r.Holder, Expires: r.Now().Add(leaseTime + longest)}
}

func (r *run) execute(ctx context.Context) error {
	worker, err := r.Infra.Worker(ctx)
	if err != nil {
		return err
	}
	if r.generator, err = r.Connect(ctx, worker); err != nil {
		worker.Close()
		return err
	}
	defer r.generator.Close()

	orders := analysis.Orders(r.doc.Plan)
	deadline := time.Time{}
	if limit := r.doc.Experiment.MaxTime.Std(); limit > 0 {
		deadline = r.Now().Add(limit)
	}
	var longest time.Duration
	for i, blocks := range orders {
		begin := r.Now()
		if !deadline.IsZero() && i > 0 && begin.Add(longest).After(deadline) {
			r.survived("", i+1, meshbench.Errorf(meshbench.Unavailable,
				"max_time %s is used up after %d of %d sittings", r.doc.Experiment.MaxTime, i, len(orders)), "")
			return nil
		}
		if err := r.sitting(ctx, i+1, blocks); err != nil {
			return err
		}
		longest = max(longest, r.Now().Sub(begin))
	}
	return nil
}

// finish fixes state, headline and failures and writes the run, also when the
// context has ended.
func (r *run) finish(ctx context.Context, err error) (meshbench.Run, []meshbench.Trial, error) {
	now := r.Now().UTC()
	r.doc.FinishedAt = &now
	measured := map[string]bool{}
	for _, t := range r.trials {
		if t.Load.Completed > 0 {
			measured[t.Cell] = true
		}
	}
	switch {
	case ctx.Err() != nil:
		r.doc.State, err = meshbench.Interrupted, nil
	case err != nil && len(measured) == 0:
		r.doc.State, r.doc.Error = meshbench.Failed, meshbench.AsError(err)
	case err != nil:
		r.doc.State, r.doc.Error = meshbench.Partial, meshbench.AsError(err)
	case len(measured) == 0:
		r.doc.State = meshbench.Failed
		r.doc.Error = meshbench.Errorf(meshbench.Unavailable, "no cell completed a single request")
		if n := len(r.doc.Failures); n > 0 {
			r.doc.Error = meshbench.Errorf(meshbench.Unavailable, "nothing could be measured: %s", r.doc.Failures[n-1].Message)
		}
		err = r.doc.Error
	case len(measured) < len(r.cells):
		r.doc.State = meshbench.Partial
	default:
		r.doc.State = meshbench.Finished
	}
	r.doc.Headline = analysis.Analyse(r.doc, r.trials).Headline
	if storeErr := r.Store.Finish(context.WithoutCancel(ctx), r.doc); storeErr != nil {
		err = errors.Join(err, storeErr)
	}
	return r.doc, r.trials, err
}

// survived records something that went wrong in a run that goes on.
func (r *run) survived(cell string, sitting int, err error, log string) {
	r.doc.Failures = append(r.doc.Failures, meshbench.Failure{Cell: cell, Sitting: sitting, Message: err.Error(), Log: log})
	r.Progress(Event{Phase: Measuring, Sitting: sitting, Sittings: r.doc.Plan.Sittings, Cell: cell, Note: err.Error()})
	if r.Logger != nil {
		r.Logger.Warn("survived", "cell", cell, "sitting", sitting, "err", err)
	}
}

// deploymentKey tells which cells share a deployment: those that differ in
// their load alone.
func deploymentKey(c meshbench.Cell) string {
	return fmt.Sprintf("%s|%s|%s|%s|%d", c.Subject.ID, c.Profile, c.Workload.Protocol, c.Workload.Topology, c.Workload.Response.BodyBytes)
}

// deploymentKeys returns the deployments that the plan needs, in its order,
// with the first cell of each.
func (r *run) deploymentKeys() ([]string, map[string]meshbench.Cell) {
	var keys []string
	first := map[string]meshbench.Cell{}
	for _, c := range r.doc.Plan.Cells {
		k := deploymentKey(c)
		if _, ok := first[k]; !ok {
			keys = append(keys, k)
			first[k] = c
		}
	}
	return keys, first
}
