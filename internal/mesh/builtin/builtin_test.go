package builtin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
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
