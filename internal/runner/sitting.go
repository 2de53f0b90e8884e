package runner

import (
	"context"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/deploy"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/mesh"
)

// deployment is a subject with a workload that is up.
type deployment struct {
	infra.Deployment
	key      string
	driver   mesh.Driver // nil: nothing is driven (endpoint)
	request  mesh.Request
	settings []meshbench.Setting
	idle     map[string]float64 // process -> cores that it used without load
}

// closeTime is what the end of a deployment may take, also after Ctrl-C.
const closeTime = 20 * time.Second

// sitting deploys every subject anew, warms each cell up and measures the
// blocks; blocks with an invalid trial are repeated once at its end.
func (r *run) sitting(ctx context.Context, number int, blocks [][]string) (err error) {
	up := map[string]*deployment{}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		var group sync.WaitGroup
		for _, d := range up {
			group.Go(func() {
				if err := d.Close(closing); err != nil && r.Logger != nil {
					r.Logger.Warn("close", "deployment", d.key, "err", err)
				}
			})
		}
		group.Wait()
	}()
	if err := r.Store.Renew(ctx, r.doc.ID, r.lease()); err != nil {
		return err
	}
	if err := r.deployAll(ctx, number, up); err != nil {
		return err
	}
	for _, id := range r.warmupOrder(blocks) {
		if err := r.warmUp(ctx, number, r.cells[id], up); err != nil {
			return err
		}
	}

	var again []int
	for b, order := range blocks {
		fit, err := r.block(ctx, number, b+1, order, false, up)
		if err != nil {
			return err
		}
		if !fit {
			again = append(again, b)
		}
	}
	for _, b := range again {
		if _, err := r.block(ctx, number, b+1, blocks[b], true, up); err != nil {
			return err
		}
	}
	return nil
}

// warmupOrder is the order of the first block: what is measured first has
// waited longest since its own warm-up, for every subject alike.
func (r *run) warmupOrder(blocks [][]string) []string { return blocks[0] }

// deployAll brings up what the sitting needs. A subject that does not come up
// is recorded and left out of this sitting.
func (r *run) deployAll(ctx context.Context, sitting int, up map[string]*deployment) error {
	keys, first := r.deploymentKeys()
	for _, k := range keys {
		if r.failures[k] >= giveUpAfter {
			continue
		}
		if err := r.bringUp(ctx, sitting, first[k], up); err != nil {
			return err
		}
	}
	return nil
}

// bringUp deploys one subject; the error it returns ends the run, one that
// does not is recorded.
func (r *run) bringUp(ctx context.Context, sitting int, cell meshbench.Cell, up map[string]*deployment) error {
	r.Progress(Event{Phase: Deploying, Sitting: sitting, Sittings: r.doc.Plan.Sittings, Cell: cell.ID, Trial: r.done, Trials: r.doc.Plan.TrialsTotal})
	key := deploymentKey(cell)
	d, err := r.deploy(ctx, cell)
	if ctx.Err() != nil {
		if d != nil {
			up[key] = d // closed by the sitting
		}
		return ctx.Err()
	}
	if err != nil {
		r.failures[key]++
		r.survived(cell.ID, sitting, err, "")
		if r.failures[key] >= giveUpAfter {
			r.survived(cell.ID, sitting, meshbench.Errorf(meshbench.Unavailable,
				"%s did not come up in %d sittings and is left out from here on", cell.Subject.ID, giveUpAfter), "")
		}
		return nil
	}
	r.failures[key] = 0
	up[key] = d
	return d.Park(ctx)
}

func (r *run) deploy(ctx context.Context, cell meshbench.Cell) (*deployment, error) {
	d := &deployment{key: deploymentKey(cell)}
	var err error
	if !r.Infra.Deploys() {
		d.Deployment, err = r.Infra.Deploy(ctx, cell.Subject.ID, meshbench.Spec{}, nil)
	} else if d.driver, err = r.Driver(cell.Subject.Mesh); err == nil {
		d.request = mesh.Request{Subject: cell.Subject, Profile: cell.Profile, Workload: cell.Workload}
		d.Deployment, err = deploy.Up(ctx, r.Infra, d.driver, r.Workload, &d.request)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// warmUp sends a cell's load without counting it, and then looks at what the
// proxies really do.
func (r *run) warmUp(ctx context.Context, sitting int, cell meshbench.Cell, up map[string]*deployment) error {
	d := up[deploymentKey(cell)]
	if d == nil {
		return nil
	}
	if err := d.Resume(ctx); err != nil {
		return err
	}
	if cell.Load.Warmup > 0 {
		event := Event{Phase: WarmingUp, Sitting: sitting, Sittings: r.doc.Plan.Sittings, Cell: cell.ID, Trial: r.done, Trials: r.doc.Plan.TrialsTotal}
		r.Progress(event)
		job := jobOf(cell, d.Target(), r.Infra.Placement().GeneratorCPUs)
		job.Seed = trialSeed(r.doc.Plan.Seed, sitting, 0, cell.ID)
		job.Warmup, job.Duration, job.Calibration = 0, cell.Load.Warmup, 0
		_, err := r.generator.Run(ctx, job, func(t load.Tick) { e := event; e.Tick = &t; r.Progress(e) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	if d.driver != nil {
		settings, err := d.driver.Settings(ctx, d, d.request)
		if err != nil {
			r.survived(cell.ID, sitting, err, "")
		}
		d.settings = settings
	}
	if err := r.watchIdle(ctx, d); err != nil {
		return err
	}
	return d.Park(ctx)
}

// idleTime is how long a deployment is watched without load for its standing
// cost, once per sitting.
const idleTime = 200 * time.Millisecond

// watchIdle measures what a deployment costs when nothing is asked of it.
func (r *run) watchIdle(ctx context.Context, d *deployment) error {
	if d.idle != nil {
		return nil
	}
	before, err := d.Usage(ctx)
	if err != nil {
		return nil // what died is found by the trial
	}
	begin := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleTime):
	}
	after, err := d.Usage(ctx)
	if err != nil {
		return nil
	}
	elapsed := float64(time.Since(begin))
	d.idle = map[string]float64{}
	for _, b := range before {
		for _, a := range after {
			if a.Process == b.Process {
				d.idle[a.Process] = float64(a.UserNanos+a.SystemNanos-b.UserNanos-b.SystemNanos) / elapsed
			}
		}
	}
	return nil
}

// block measures one trial of every cell in order and tells whether all of
// its trials are fit to be compared.
func (r *run) block(ctx context.Context, sitting, block int, order []string, repeat bool, up map[string]*deployment) (bool, error) {
	fit := true
	for i, id := range order {
		cell := r.cells[id]
		key := deploymentKey(cell)
		if d := up[key]; d != nil && d.Check() != nil {
			// It died in an earlier trial: the next gets a fresh one.
			r.discard(ctx, key, up)
		}
		if up[key] == nil && r.failures[key] < giveUpAfter {
			if err := r.bringUp(ctx, sitting, cell, up); err != nil {
				return false, err
			}
			if err := r.warmUp(ctx, sitting, cell, up); err != nil {
				return false, err
			}
		}
		if up[key] == nil {
			if !repeat {
				r.done++
			}
			fit = false
			continue
		}
		trial, err := r.trial(ctx, cell, up, meshbench.Trial{Cell: id, Sitting: sitting, Block: block, Order: i + 1, Repeat: repeat})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			return false, err
		}
		if !repeat {
			r.done++
		}
		r.trials = append(r.trials, trial)
		if err := r.Store.AddTrial(ctx, r.doc.ID, trial); err != nil {
			return false, err
		}
		if err := r.Store.Renew(ctx, r.doc.ID, r.lease()); err != nil {
			return false, err
		}
		fit = fit && trial.Verdict.Status != meshbench.InvalidTest
	}
	return fit, nil
}

// discard closes a deployment of which something died.
func (r *run) discard(ctx context.Context, key string, up map[string]*deployment) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	up[key].Close(closing)
	delete(up, key)
}
