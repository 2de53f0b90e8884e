package app

import (
	"context"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra/endpoint"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/load/worker"
)

// Load runs one job in a generator process of its own. A cancelled context
// ends the load at once and yields what was measured until then.
func (a *App) Load(ctx context.Context, job load.Job, tick func(load.Tick)) (meshbench.LoadResult, error) {
	on, err := endpoint.New(map[string]string{"target": job.Target.URL}, endpoint.Options{Executable: a.Executable, Logger: a.Logger})
	if err != nil {
		return meshbench.LoadResult{}, err
	}
	defer on.Close()
	job.CPUs = on.Placement().GeneratorCPUs
	// The worker outlives a Ctrl-C for the moment that it needs to tell what it saw.
	w, err := on.Worker(context.WithoutCancel(ctx))
	if err != nil {
		return meshbench.LoadResult{}, err
	}
	client, err := worker.Connect(context.WithoutCancel(ctx), w)
	if err != nil {
		w.Close()
		return meshbench.LoadResult{}, err
	}
	defer client.Close()
	result, err := client.Run(ctx, job, tick)
	if ctx.Err() != nil && result.Planned > 0 {
		err = nil
	}
	return result, err
}
