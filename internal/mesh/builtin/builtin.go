// Package builtin is the explicit list of the meshes that Meshbench has a
// driver for. (Package mesh cannot hold it: its drivers import mesh.)
package builtin

import (
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/consul"
	"github.com/meshbench/meshbench/internal/mesh/envoy"
	"github.com/meshbench/meshbench/internal/mesh/istio"
	"github.com/meshbench/meshbench/internal/mesh/linkerd"
	"github.com/meshbench/meshbench/internal/mesh/mosn"
	"github.com/meshbench/meshbench/internal/mesh/none"
)

// Drivers returns a driver of every mesh, the baseline first.
func Drivers() []mesh.Driver {
	return []mesh.Driver{none.Driver{}, envoy.New(), istio.New(), consul.New(), mosn.New(), linkerd.New()}
}

// Find returns the driver of a mesh. The error has the code NotFound and
// names what there is.
func Find(name string) (mesh.Driver, error) {
	drivers := Drivers()
	names := make([]string, len(drivers))
	for i, d := range drivers {
		names[i] = d.Describe().Name
	}
	if i := slices.Index(names, name); i >= 0 {
		return drivers[i], nil
	}
	return nil, meshbench.Errorf(meshbench.NotFound, "there is no mesh called %q", name).
		WithHint("%s", mesh.Suggest(name, names))
}
