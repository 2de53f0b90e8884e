package runner

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/mesh"
)

// calibration is how long the generator's core is watched for gaps before
// and after each trial.
const calibration = 150 * time.Millisecond

// drain is how long answers are waited for after a trial's last arrival. What
// is not answered by then is unfinished: censored, not lost.
const drain = 2 * time.Second

// memoryPeriod is how often memory is read during a trial: often enough for a
// mean, seldom enough not to be a neighbour.
const memoryPeriod = 500 * time.Millisecond

// settleCounters is how long counters may lag behind the last answer.
const settleCounters = 2 * time.Second

// trialSeed derives a trial's arrivals from the run's seed, so that every
// trial has its own and a run can be repeated.
func trialSeed(seed uint64, sitting, block int, cell string) uint64 {
	h := fnv.New64a()
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(sitting))
	binary.LittleEndian.PutUint64(b[16:], uint64(block))
	h.Write(b[:])
	h.Write([]byte(cell))
	return h.Sum64()
}

// jobOf turns a cell into the generator's job.
func jobOf(cell meshbench.Cell, target meshbench.Target, cpus []int) load.Job {
	return load.Job{
		Target:      target,
		Request:     cell.Workload.Request,
		Assertions:  cell.Workload.Assertions,
		Rate:        cell.Load.Rate,
		Arrivals:    cell.Load.Arrivals,
		Connections: cell.Load.Connections,
		KeepAlive:   cell.Load.KeepAlive,
		Timeout:     cell.Load.Timeout,
		Warmup:      cell.Load.Settle,
		Duration:    cell.Load.Trial,
		Drain:       meshbench.Duration(min(drain, cell.Load.Timeout.Std())),
		Calibration: meshbench.Duration(calibration),
		CPUs:        cpus,
	}
}

// snapshot is what was counted and used at one moment.
type snapshot struct {
	at     time.Time
	hops   []mesh.Hop
	seen   uint64
	peer   string
	usage  []meshbench.UsageReading
	parked uint64 // nanoseconds used by all other deployments
	busy   uint64 // nanoseconds used on the whole machine
	own    uint64 // of it, by this process
}

// trial measures one cell once.
func (r *run) trial(ctx context.Context, cell meshbench.Cell, up map[string]*deployment, t meshbench.Trial) (meshbench.Trial, error) {
	d := up[deploymentKey(cell)]
	event := Event{Phase: Measuring, Sitting: t.Sitting, Sittings: r.doc.Plan.Sittings, Cell: cell.ID, Trial: r.done + 1, Trials: r.doc.Plan.TrialsTotal}
	r.Progress(event)
	if err := d.Resume(ctx); err != nil {
		return t, err
	}
	t.StartedAt = r.Now().UTC().Format(time.RFC3339Nano)
	before, err := r.look(ctx, d, up)
	if err != nil && ctx.Err() == nil {
		return r.broken(t, d, err), nil
	}

	job := jobOf(cell, d.Target(), r.Infra.Placement().GeneratorCPUs)
	block := t.Block
	if t.Repeat {
		block = -block
	}
	job.Seed = trialSeed(r.doc.Plan.Seed, t.Sitting, block, cell.ID)
	memory := watchMemory(ctx, d)
	metrics := r.watchMetrics(ctx, d)
	result, err := r.generator.Run(ctx, job, func(tick load.Tick) {
		e := event
		e.Tick = &tick
		r.Progress(e)
	})
	samples := memory()
	t.Metrics = metrics()
	if ctx.Err() != nil {
		return t, ctx.Err()
	}
	if err != nil {
		return t, err
	}
	t.Load = result
	t.Verdict = result.Verdict
	t.Settings = d.settings
	after, err := r.lookSettled(ctx, d, up, before, result)
	if err != nil {
		return r.broken(t, d, err), nil
	}
	t.Proof = prove(d.driver, cell.Workload.Topology.Walk(), before, after, result)
	t.Usage = usage(before, after, d.idle, samples, result)
	t.ParkedCPUCores, t.NeighbourCores = elsewhere(before, after, result)
	judge(&t)
	if err := d.Check(); err != nil {
		t.Verdict.Add(meshbench.InvalidTest, "process_died", "%v", err)
		r.survived(cell.ID, t.Sitting, err, "")
	}
	return t, d.Park(ctx)
}

// watchMetrics reads what the applications and the experiment's own sources
// tell, until the function that it returns is called. A source that cannot be
// read is a failure of the run that is told once, not of every trial.
func (r *run) watchMetrics(ctx context.Context, d *deployment) func() []meshbench.MetricSeries {
	if r.Metrics == nil {
		return func() []meshbench.MetricSeries { return nil }
	}
	sources := slices.Clone(r.doc.Experiment.Metrics)
	if d.driver != nil {
		own, err := r.Workload.Metrics(d.request.Workload, d.Address)
		if err != nil {
			r.metricsUnread(err)
		}
		sources = append(own, sources...)
	}
	end := r.Metrics.Watch(ctx, sources)
	return func() []meshbench.MetricSeries {
		series, errs := end()
		for _, err := range errs {
			if ctx.Err() == nil {
				r.metricsUnread(err)
			}
		}
		return series
	}
}

func (r *run) metricsUnread(err error) {
	if !r.unread[err.Error()] {
		r.unread[err.Error()] = true
		r.survived("", 0, err, "")
	}
}

// broken is a trial whose deployment could not even be looked at.
func (r *run) broken(t meshbench.Trial, d *deployment, err error) meshbench.Trial {
	if died := d.Check(); died != nil {
		err = died
	}
	t.Verdict.Add(meshbench.InvalidTest, "process_died", "%v", err)
	t.Proof = meshbench.Proof{Status: meshbench.ProofFailed, Reason: err.Error()}
	r.survived(t.Cell, t.Sitting, err, "")
	return t
}

// look reads every counter and clock, idle.
func (r *run) look(ctx context.Context, d *deployment, up map[string]*deployment) (s snapshot, err error) {
	if d.driver != nil {
		if s.hops, err = d.driver.Counters(ctx, d, d.request); err != nil {
			return s, err
		}
	}
	if len(d.request.Services) > 0 { // the first is where load arrives
		seen, err := d.Seen(ctx, d.request.Services[0].Name)
		if err != nil {
			return s, err
		}
		s.seen, s.peer = seen.Requests, seen.PeerName
	}
	for key, other := range up {
		if key == d.key {
			continue
		}
		readings, err := other.Usage(ctx)
		if err != nil {
			continue // a parked one that died is found when its turn comes
		}
		for _, u := range readings {
			s.parked += u.UserNanos + u.SystemNanos
		}
	}
	if r.Machine != nil {
		if s.busy, err = r.Machine.Busy(); err != nil {
			return s, err
		}
		if s.own, err = r.Machine.Own(); err != nil {
			return s, err
		}
	}
	s.at = r.Now()
	s.usage, err = d.Usage(ctx)
	return s, err
}

// lookSettled looks after draining: a proxy may count a request some moments
// after its answer has been read, so it looks again until the counters agree
// with what was sent or the time for that is over.
func (r *run) lookSettled(ctx context.Context, d *deployment, up map[string]*deployment, before snapshot, result meshbench.LoadResult) (snapshot, error) {
	first, err := r.look(ctx, d, up)
	s, walk := first, d.request.Workload.Topology.Walk()
	for end := r.Now().Add(settleCounters); err == nil && d.driver != nil && r.Now().Before(end); {
		if prove(d.driver, walk, before, s, result).Status == meshbench.Proven {
			break
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		s, err = r.look(ctx, d, up)
	}
	// Clocks are those of the first look: waiting is not the load's cost.
	s.at, s.usage, s.parked, s.busy, s.own = first.at, first.usage, first.parked, first.busy, first.own
	return s, err
}

// memorySample sums up readings of one process's memory.
type memorySample struct {
	sum, peak, file uint64
	n               uint64
}

// watchMemory reads memory until the function it returns is called.
func watchMemory(ctx context.Context, d *deployment) func() map[string]memorySample {
	ctx, stop := context.WithCancel(ctx)
	samples := map[string]memorySample{}
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(memoryPeriod)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			readings, err := d.Usage(ctx)
			if err != nil {
				continue
			}
			for _, u := range readings {
				s := samples[u.Process]
				s.sum += u.AnonBytes
				s.n++
				s.peak = max(s.peak, u.AnonBytes)
				s.file = max(s.file, u.FileBytes)
				samples[u.Process] = s
			}
		}
	})
	return func() map[string]memorySample {
		stop()
		done.Wait()
		return samples
	}
}
