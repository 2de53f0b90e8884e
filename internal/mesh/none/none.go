// Package none is no mesh at all: requests go straight to the application.
// It is the baseline that a mesh is compared with.
package none

import (
	"context"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Driver implements mesh.Driver.
type Driver struct{}

var _ mesh.Driver = Driver{}

// Describe tells that there is no proxy.
func (Driver) Describe() mesh.Description {
	return mesh.Description{
		Name:     "none",
		Title:    "No mesh",
		Summary:  "Requests go straight to the application: the baseline.",
		Profiles: []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
	}
}

// Render adds no process; load enters at the application.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	return meshbench.Spec{Entry: r.Services[0].At}, nil
}

// Configure has nothing to configure.
func (Driver) Configure(context.Context, mesh.Access, mesh.Request) error { return nil }

// Counters are all 0: nobody counts.
func (Driver) Counters(context.Context, mesh.Access) (mesh.Counters, error) {
	return mesh.Counters{}, nil
}

// Settings is empty: there is no proxy to look at.
func (Driver) Settings(context.Context, mesh.Access) ([]meshbench.Setting, error) {
	return []meshbench.Setting{}, nil
}
