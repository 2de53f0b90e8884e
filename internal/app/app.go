// Package app wires everything together: the one place in which concrete
// infrastructures, drivers, stores and runtimes are named.
package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/store/sqlstore"
)

// App is Meshbench on this machine, for one user.
type App struct {
	Executable string // this program, which starts itself as worker, workload, ...
	DataDir    string // results, logs, the journal of what is running
	CacheDir   string // runtimes
	Environ    []string
	Logger     *slog.Logger
	Now        func() time.Time
}

// New returns the App of the current user. An empty dataDir is the default:
// $XDG_DATA_HOME/meshbench, else ~/.local/share/meshbench.
func New(dataDir string, environ []string, logger *slog.Logger) (*App, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "finding this program: %w", err)
	}
	a := &App{Executable: exe, DataDir: dataDir, Environ: environ, Logger: logger, Now: time.Now}
	if a.DataDir == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, meshbench.Errorf(meshbench.Unavailable, "no home directory: %w", err).WithHint("name a directory with --data-dir")
			}
			base = filepath.Join(home, ".local", "share")
		}
		a.DataDir = filepath.Join(base, "meshbench")
	}
	if a.DataDir, err = filepath.Abs(a.DataDir); err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "data directory %q: %w", dataDir, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(a.DataDir, "cache")
	}
	a.CacheDir = filepath.Join(cache, "meshbench")
	return a, nil
}

// Version is that of this program, as the Go tool chain recorded it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				version += "-" + s.Value[:12]
			}
		}
	}
	return version
}

// StorePath is the file that results are kept in.
func (a *App) StorePath() string { return filepath.Join(a.DataDir, "results.db") }

// Store opens the results, and marks runs that were cut off as interrupted.
func (a *App) Store(ctx context.Context) (store.Store, error) {
	s, err := sqlstore.Open(ctx, a.StorePath())
	if err != nil {
		return nil, err
	}
	cut, err := s.InterruptExpired(ctx, a.Now(), gone)
	if err != nil {
		s.Close()
		return nil, err
	}
	for _, id := range cut {
		a.Logger.Info("an earlier run was cut off and is marked interrupted", "run", id)
	}
	return s, nil
}

// Runtimes is the catalogue with this user's cache.
func (a *App) Runtimes() *runtimes.Cache {
	return runtimes.NewCache(filepath.Join(a.CacheDir, "runtimes"), runtimes.Builtin(), runtimes.Options{Environ: a.Environ})
}

// Result reads a run and analyses it.
func (a *App) Result(ctx context.Context, ref string) (meshbench.Result, []meshbench.Trial, error) {
	s, err := a.Store(ctx)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	defer s.Close()
	run, err := s.Run(ctx, ref)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	trials, err := s.Trials(ctx, run.ID)
	if err != nil {
		return meshbench.Result{}, nil, err
	}
	return analysis.Analyse(run, trials), trials, nil
}

// RemoveLogs removes what a run's processes wrote.
func (a *App) RemoveLogs(id string) error {
	if err := os.RemoveAll(filepath.Join(a.DataDir, "runs", id)); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "removing the logs of run %s: %w", id, err)
	}
	return nil
}
