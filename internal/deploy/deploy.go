// Package deploy brings a subject up with a workload behind it: what a run, a
// playground and a probe of behaviour begin with.
package deploy

import (
	"context"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Workload knows the services behind the mesh.
type Workload interface {
	// Services are those of a workload; load enters by the first.
	Services(w meshbench.Workload) []meshbench.Service
	// Processes are the applications; routes are the ways from one service to
	// another, where a mesh is between them.
	Processes(w meshbench.Workload, threads int, routes []meshbench.Route) []meshbench.Process
	// Metrics are where the applications tell theirs; address gives host:port
	// of a port of a process.
	Metrics(w meshbench.Workload, address func(process, port string) (string, error)) ([]meshbench.MetricSource, error)
}

// closeTime is what the end of a deployment that failed may take.
const closeTime = 20 * time.Second

// Up renders, starts and configures what request asks for, and returns when
// all of it is ready. The services and the threads of the request are filled
// in. On error nothing is left; where a process died, the error is its death
// with the last lines of its log.
func Up(ctx context.Context, on infra.Infrastructure, driver mesh.Driver, workload Workload, request *mesh.Request) (infra.Deployment, error) {
	request.Threads = max(1, len(on.Placement().SystemCPUs))
	request.Services = workload.Services(request.Workload)
	spec, err := driver.Render(*request)
	if err != nil {
		return nil, err
	}
	spec.Processes = append(workload.Processes(request.Workload, request.Threads, spec.Routes), spec.Processes...)
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	up, err := on.Deploy(ctx, request.Subject.ID, spec, func(ctx context.Context, access infra.Access, process string) error {
		return driver.Prepare(ctx, access, *request, process)
	})
	if err != nil {
		return nil, err
	}
	if err := driver.Configure(ctx, up, *request); err != nil {
		if died := up.Check(); died != nil {
			err = died
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		up.Close(closing)
		return nil, err
	}
	return up, nil
}
