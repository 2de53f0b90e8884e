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
		Name:    "none",
		Title:   "No mesh",
		Summary: "Requests go straight to the application: the baseline.",
		Options: []mesh.Option{{
			Name: mesh.PathOption, Values: []string{string(meshbench.PathLoopback), string(meshbench.PathNamespaces)},
			Summary: "namespaces: over the links that a mesh in network namespaces has, for its comparison",
		}},
		Profiles: []meshbench.Profile{meshbench.Parity, meshbench.Shipped},

		Capabilities: capabilities(),
	}
}

// Render adds no process; load enters at the application.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	spec := meshbench.Spec{Entry: r.Services[0].At()}
	if mesh.PathOf(d.Describe(), r.Subject) == meshbench.PathNamespaces {
		spec.Namespaces = namespaces(r.Services)
	}
	return spec, nil
}

// namespaces has each instance in one of its own. What the generator sends
// passes one more, where a mesh has its client's proxy: the way is the same,
// less the proxies.
func namespaces(services []meshbench.Service) []meshbench.Namespace {
	out := []meshbench.Namespace{{Name: mesh.Client}}
	for i, s := range services {
		for _, app := range s.Instances {
			n := meshbench.Namespace{Name: app.Process, Processes: []string{app.Process}}
			if i == 0 {
				n.Through = mesh.Client
			}
			out = append(out, n)
		}
	}
	return out
}

// Prepare has nothing to prepare.
func (Driver) Prepare(context.Context, mesh.Access, mesh.Request, string) error { return nil }

// Configure has nothing to configure, and refuses policies: nobody would
// carry them out.
func (d Driver) Configure(_ context.Context, _ mesh.Access, r mesh.Request) error {
	return mesh.CheckPolicies(d.Describe(), r)
}

// Show is empty: there is no configuration.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	return []mesh.Document{}, mesh.CheckPolicies(d.Describe(), r)
}

// Counters are none: nobody counts.
func (Driver) Counters(context.Context, mesh.Access, mesh.Request) ([]mesh.Hop, error) {
	return nil, nil
}

// Settings is empty: there is no proxy to look at.
func (Driver) Settings(context.Context, mesh.Access, mesh.Request) ([]meshbench.Setting, error) {
	return []meshbench.Setting{}, nil
}

// capabilities are none.
func capabilities() []mesh.Capability {
	var out []mesh.Capability
	for _, k := range meshbench.PolicyKinds() {
		out = append(out, mesh.Capability{Policy: k, Note: "there is no proxy that could do it", Source: "docs/architecture.md"})
	}
	return out
}
