package app

import (
	"context"
	"os"
	"path/filepath"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// BehaviorOptions are what a matrix is made of, and how it tells what it is
// doing.
type BehaviorOptions struct {
	Subjects []string // as in an experiment
	Probes   []string // names or groups; empty: all
	Profile  meshbench.Profile
	Progress func(behavior.Event)
	Fetching func(runtimes.Progress)
	Waiting  func(holder string) // another run has this machine
}

// Behavior tries the probes on each subject. It takes the machine's lock, as
// a run does. An error that comes with cells means that it ended early.
func (a *App) Behavior(ctx context.Context, o BehaviorOptions) (behavior.Matrix, error) {
	subjects, err := meshbench.ParseSubjects(o.Subjects)
	if err != nil {
		return behavior.Matrix{}, err
	}
	probes, err := behavior.Select(behavior.Probes(), o.Probes)
	if err != nil {
		return behavior.Matrix{}, err
	}
	for _, s := range subjects {
		driver, err := builtin.Find(s.Mesh)
		if err == nil {
			err = mesh.Check(driver.Describe(), s)
		}
		if err != nil {
			wrong := *meshbench.AsError(err)
			wrong.Code = meshbench.Invalid
			return behavior.Matrix{}, &wrong
		}
	}
	unlock, err := local.Lock(ctx, true, o.Waiting)
	if err != nil {
		return behavior.Matrix{}, err
	}
	defer unlock()
	if _, err := local.Recover(ctx, a.DataDir); err != nil {
		return behavior.Matrix{}, err
	}
	used := &usedRuntimes{cache: a.Runtimes(), progress: o.Fetching}
	dir := filepath.Join(a.DataDir, "behavior", store.NewID(a.Now()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return behavior.Matrix{}, meshbench.Errorf(meshbench.Unavailable, "the directory of logs: %w", err).WithHint("name another data directory with --data-dir")
	}
	fingerprint := telemetry.Fingerprint()
	fingerprint.Meshbench = Version()
	m, err := behavior.Run(ctx, behavior.Config{
		Infra: func(ctx context.Context) (infra.Infrastructure, error) {
			at, err := os.MkdirTemp(dir, "deployment-")
			if err != nil {
				return nil, meshbench.Errorf(meshbench.Unavailable, "the directory of logs: %w", err)
			}
			return local.New(ctx, local.Options{Executable: a.Executable, Dir: at, StateDir: a.DataDir, Runtime: used.path, Logger: a.Logger})
		},
		Driver: builtin.Find, Profile: o.Profile, Fingerprint: fingerprint, Progress: o.Progress, Logger: a.Logger,
	}, subjects, probes)
	m.Fingerprint.Runtimes = used.list()
	if err == nil && !m.Has(behavior.Failed) {
		// The logs are for what could not be decided.
		if err := os.RemoveAll(dir); err != nil {
			a.Logger.Warn("removing logs", "err", err)
		}
	}
	return m, err
}
