package app

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/endpoint"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/infra/process"
	"github.com/meshbench/meshbench/internal/load/worker"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
	"github.com/meshbench/meshbench/internal/runner"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/telemetry"
	"github.com/meshbench/meshbench/internal/telemetry/scrape"
	"github.com/meshbench/meshbench/internal/workload"
)

// RunOptions are how a run tells what it is doing.
type RunOptions struct {
	Progress func(runner.Event)
	Fetching func(runtimes.Progress)
	Waiting  func(holder string) // another run has this machine
	Planned  func(id string, plan meshbench.Plan)
}

// Plan turns an experiment into what a run of it will do; nothing is touched.
func (a *App) Plan(exp meshbench.Experiment) (meshbench.Plan, error) {
	cells, err := experiment.Cells(exp)
	if err != nil {
		return meshbench.Plan{}, err
	}
	for _, c := range cells {
		if c.Infrastructure == meshbench.Endpoint {
			continue
		}
		if _, err := driverOf(c.Subject); err != nil {
			return meshbench.Plan{}, err
		}
	}
	if cells, err = onPaths(cells); err != nil {
		return meshbench.Plan{}, err
	}
	return analysis.NewPlan(exp, cells, exp.Infrastructure != meshbench.Endpoint)
}

// Run executes an experiment, keeps it, and returns its result. Two runs on
// one machine would disturb each other, so the second waits. Where the run
// ended early the result is what was measured, and its state says so; an
// error that comes with an empty result means that nothing was begun.
func (a *App) Run(ctx context.Context, exp meshbench.Experiment, o RunOptions) (meshbench.Result, []meshbench.Trial, error) {
	if exp.Seed == 0 {
		exp.Seed = rand.Uint64()>>1 | 1
	}
	plan, err := a.Plan(exp)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	keep, err := a.Store(ctx)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	defer keep.Close()
	unlock, err := local.Lock(ctx, true, o.Waiting)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	defer unlock()
	if ended, err := local.Recover(ctx, a.DataDir); err != nil {
		return meshbench.Result{}, nil, err
	} else if len(ended) > 0 {
		a.Logger.Info("ended what an earlier run left behind", "processes", len(ended))
	}

	used := &usedRuntimes{cache: a.Runtimes(), progress: o.Fetching}
	if err := used.ahead(ctx, plan.Cells); err != nil {
		return meshbench.Result{}, nil, err
	}
	doc := meshbench.Run{
		ID: store.NewID(a.Now()), State: meshbench.Running, StartedAt: a.Now().UTC(),
		Experiment: exp, Plan: plan,
	}
	on, err := a.infrastructure(ctx, exp, doc.ID, used)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	defer on.Close()
	doc.Fingerprint = telemetry.Fingerprint()
	doc.Fingerprint.Meshbench = Version()
	doc.Fingerprint.GeneratorCPUs = on.Placement().GeneratorCPUs
	doc.Fingerprint.SystemCPUs = on.Placement().SystemCPUs
	doc.Fingerprint.ExperimentHash = experiment.Hash(exp)
	doc.Fingerprint.Seed = exp.Seed
	doc.Fingerprint.Runtimes = used.list()
	if o.Planned != nil {
		o.Planned(doc.ID, plan)
	}

	run, trials, err := runner.Run(ctx, runner.Config{
		Infra:    on,
		Driver:   builtin.Find,
		Workload: workload.Services{},
		Connect: func(ctx context.Context, w io.ReadWriteCloser) (runner.Generator, error) {
			client, err := worker.Connect(ctx, w)
			process.StepBack()
			return client, err
		},
		Machine:  machine{},
		Metrics:  scrape.Reader{Client: &http.Client{}},
		Store:    keep,
		Holder:   holder(),
		Progress: o.Progress,
		Now:      a.Now,
		Logger:   a.Logger,
	}, doc)
	return analysis.Analyse(run, trials), trials, err
}

func (a *App) infrastructure(ctx context.Context, exp meshbench.Experiment, id string, used *usedRuntimes) (infra.Infrastructure, error) {
	if exp.Infrastructure == meshbench.Endpoint {
		return endpoint.New(exp.URLs, endpoint.Options{Executable: a.Executable, Logger: a.Logger})
	}
	dir := filepath.Join(a.DataDir, "runs", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the run's directory: %w", err).WithHint("name another data directory with --data-dir")
	}
	return local.New(ctx, local.Options{
		Executable: a.Executable, Dir: dir, StateDir: a.DataDir, Runtime: used.path, Logger: a.Logger,
	})
}

// usedRuntimes resolves runtimes once and remembers them for the fingerprint.
type usedRuntimes struct {
	cache    *runtimes.Cache
	progress func(runtimes.Progress)

	mu   sync.Mutex
	byID map[string]runtimes.Runtime
	ids  []string
}

// ahead gets every runtime that the cells need, before anything is measured.
func (u *usedRuntimes) ahead(ctx context.Context, cells []meshbench.Cell) error {
	for _, c := range cells {
		if c.Infrastructure == meshbench.Endpoint {
			continue
		}
		driver, err := builtin.Find(c.Subject.Mesh)
		if err != nil {
			return err
		}
		if err := u.need(ctx, driver, mesh.Request{
			Subject: c.Subject, Profile: c.Profile, Workload: c.Workload, Threads: 1,
			Services: workload.Services{}.Services(c.Workload),
		}); err != nil {
			return err
		}
	}
	return nil
}

// need gets the runtimes of one deployment.
func (u *usedRuntimes) need(ctx context.Context, driver mesh.Driver, request mesh.Request) error {
	spec, err := driver.Render(request)
	if err != nil {
		return err
	}
	for _, ref := range spec.NeededRuntimes() {
		if _, err := u.path(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// path returns where a runtime such as envoy@1.40.0 is, and gets it if need be.
func (u *usedRuntimes) path(ctx context.Context, ref string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r, ok := u.byID[ref]; ok {
		return r.Path, nil
	}
	name, version, err := runtimes.ParseRef(ref)
	if err != nil {
		return "", err
	}
	r, err := u.cache.Get(ctx, name, version, u.progress)
	if err != nil {
		return "", err
	}
	if u.byID == nil {
		u.byID = map[string]runtimes.Runtime{}
	}
	u.byID[ref] = r
	u.ids = append(u.ids, ref)
	return r.Path, nil
}

func (u *usedRuntimes) list() []meshbench.RuntimeUsed {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := []meshbench.RuntimeUsed{}
	for _, id := range u.ids {
		r := u.byID[id]
		out = append(out, meshbench.RuntimeUsed{Name: r.Name, Version: r.Version, SHA256: r.SHA256, Source: r.Source})
	}
	return out
}

// machine is this machine's clocks.
type machine struct{}

// Busy is the CPU time that the machine has spent on anything.
func (machine) Busy() (uint64, error) {
	cpus, err := telemetry.ReadMachine()
	if err != nil {
		return 0, err
	}
	var busy uint64
	for _, c := range cpus {
		busy += c.Busy
	}
	return busy, nil
}

// Own is the CPU time of this process.
func (machine) Own() (uint64, error) { return telemetry.CPUClock(os.Getpid()) }
