package workload

import (
	"strconv"

	"github.com/meshbench/meshbench"
)

// The names in a Spec.
const (
	Service     = "echo"    // the service, and its process
	HTTPPort    = "http"    // where the workload arrives
	ControlPort = "control" // where Meshbench asks what was seen
)

// Services knows the services of every workload.
type Services struct{}

// Services returns the services of a workload, the one that load enters by
// first.
func (Services) Services(meshbench.Workload) []meshbench.Service {
	return []meshbench.Service{{Name: Service, Instances: []meshbench.PortRef{{Process: Service, Port: HTTPPort}}}}
}

// Processes returns the processes of a workload's services: one echo service,
// which runs on the given number of threads (GOMAXPROCS). It may be parked.
// routes are the ways from service to service.
func (Services) Processes(w meshbench.Workload, threads int, routes []meshbench.Route) []meshbench.Process {
	return []meshbench.Process{{
		Name:    Service,
		Role:    meshbench.Application,
		Service: Service,
		Runtime: meshbench.Self,
		Args: []string{
			"workload", "echo",
			"--listen", `{{address "` + Service + `" "` + HTTPPort + `"}}`,
			"--control", `{{address "` + Service + `" "` + ControlPort + `"}}`,
			"--body-bytes", strconv.Itoa(w.Response.BodyBytes),
		},
		Env:      []string{"GOMAXPROCS=" + strconv.Itoa(threads)},
		Ports:    []string{HTTPPort, ControlPort},
		ReadyURL: `http://{{address "` + Service + `" "` + ControlPort + `"}}` + ReadyPath,
		MayPark:  true,
	}}
}
