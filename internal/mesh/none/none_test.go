package none_test

import (
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/mesh/none"
)

// TestConformance tries what needs no process; package test has the rest.
func TestConformance(t *testing.T) {
	meshtest.Run(t, meshtest.Suite{
		Driver:       none.Driver{},
		Applications: []meshbench.Process{{Name: "echo", Role: meshbench.Application, Service: "echo", Runtime: meshbench.Self, Ports: []string{"http"}}},
		Service:      meshbench.Service{Name: "echo", Instances: []meshbench.PortRef{{Process: "echo", Port: "http"}}},
	})
}
