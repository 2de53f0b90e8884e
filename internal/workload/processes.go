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

// Processes returns the processes of a workload's services: one echo service,
// which runs on the given number of threads (GOMAXPROCS). It may be parked.
func Processes(w meshbench.Workload, threads int) []meshbench.Process {
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
