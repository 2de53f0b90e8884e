package builtin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
	"github.com/meshbench/meshbench/internal/runtimes"
)

func TestFind(t *testing.T) {
	for _, d := range builtin.Drivers() {
		name := d.Describe().Name
		found, err := builtin.Find(name)
		if err != nil || found.Describe().Name != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := builtin.Find("envoi")
	e := meshbench.AsError(err)
	if e == nil || e.Code != meshbench.NotFound || !strings.Contains(e.Hint, "did you mean envoy?") {
		t.Errorf("got %+v", e)
	}
}

// TestEnvoyVersionsCanBeHad holds the driver's versions against the catalogue
// of runtimes: what a subject may ask for is pinned there, and nothing else is.
func TestEnvoyVersionsCanBeHad(t *testing.T) {
	driver, err := builtin.Find("envoy")
	if err != nil {
		t.Fatal(err)
	}
	catalogue := runtimes.Builtin().Entries
	i := slices.IndexFunc(catalogue, func(e runtimes.Entry) bool { return e.Name == "envoy" })
	if i < 0 {
		t.Fatal("the catalogue has no envoy")
	}
	var pinned []string
	for _, r := range catalogue[i].Releases {
		pinned = append(pinned, r.Version)
	}
	if versions := driver.Describe().Versions; !slices.Equal(versions, pinned) {
		t.Errorf("the driver has %v, the catalogue %v", versions, pinned)
	}
}

// TestRuntimesCanBeHad: what a driver of any version runs is pinned in the
// catalogue, but for what can only be found on PATH.
func TestRuntimesCanBeHad(t *testing.T) {
	catalogue := runtimes.Builtin()
	service := meshbench.Service{Name: "echo", Instances: []meshbench.PortRef{{Process: "echo", Port: "http"}}}
	checked := 0
	for _, driver := range builtin.Drivers() {
		d := driver.Describe()
		for _, version := range append([]string{""}, d.Versions...) {
			spec, err := driver.Render(mesh.Request{
				Subject: meshbench.Subject{Mesh: d.Name, Version: version}, Profile: meshbench.Parity,
				Services: []meshbench.Service{service}, Threads: 1,
				Workload: meshbench.Workload{Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}},
			})
			if err != nil {
				t.Errorf("%s %s: %v", d.Name, version, err)
				continue
			}
			for _, need := range spec.NeededRuntimes() {
				name, want, _ := strings.Cut(need, "@")
				if len(catalogue.Versions(name)) == 0 && slices.Contains(catalogue.Names(), name) {
					continue // on PATH alone
				}
				if got, err := catalogue.Resolve(name, want); got != want {
					t.Errorf("%s %s needs %s, the catalogue has %q: %v", d.Name, version, need, got, err)
				}
				checked++
			}
		}
	}
	if checked == 0 {
		t.Error("no driver needs anything")
	}
}
