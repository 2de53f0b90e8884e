package workload

import (
	"testing"

	"github.com/meshbench/meshbench"
)

// TestCatalogueNeverChanges holds each workload to its digest. Where this
// fails, a named workload says something else than it did: give the new one
// a new version, and leave the old one alone.
func TestCatalogueNeverChanges(t *testing.T) {
	want := map[string]string{
		"echo@1":   "b1a4998d3373bb2a77ccf1d8c00e4679d8cbd60416ad4045eee53fb916a5808e",
		"chain3@1": "bfed98ec604f350579b55f51afc48de25c36625f206c871699db0abebe1238d9",
		"shop@1":   "1e7ab9a5f7af95d5f6478de9b5dae1297464f646b051421939268f6509c759e5",
	}
	for _, e := range Catalogue() {
		name := e.Workload.Name
		if got := Digest(e.Workload); got != want[name] {
			t.Errorf("%s: digest %s, want %s", name, got, want[name])
		}
		if found, ok := Find(name); !ok || found.Summary == "" || NameOf(found.Workload) != name {
			t.Errorf("%s is not found as itself", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s has gone", name)
	}
}

func TestNameOf(t *testing.T) {
	echo := Catalogue()[0].Workload
	echo.Name, echo.Assertions, echo.Topology = "", nil, meshbench.Topology{}
	if got := NameOf(echo); got != "echo@1" {
		t.Errorf("the same without a name is %q", got)
	}
	chain := Catalogue()[1].Workload
	chain.Topology = meshbench.Topology{Services: chain.Topology.Nodes()}
	if got := NameOf(chain); got != "chain3@1" {
		t.Errorf("a chain that is written out is %q", got)
	}
	for name, change := range map[string]func(*meshbench.Workload){
		"path":    func(w *meshbench.Workload) { w.Request.Path = "/x" },
		"answer":  func(w *meshbench.Workload) { w.Response.BodyBytes++ },
		"demands": func(w *meshbench.Workload) { w.Assertions = []meshbench.Assertion{{Status: 200}} },
		"shape":   func(w *meshbench.Workload) { w.Topology.Chain = 2 },
	} {
		w := Catalogue()[0].Workload
		change(&w)
		if got := NameOf(w); got != "" {
			t.Errorf("with another %s it is still %s", name, got)
		}
	}
	if _, ok := Find("echo@2"); ok {
		t.Error("echo@2 is found")
	}
}

func TestShopWalk(t *testing.T) {
	shop, _ := Find("shop@1")
	if w := shop.Workload.Topology.Walk(); w.Hops != 7 || w.Depth != 6 || w.Requests["prices"] != 2 {
		t.Errorf("%+v: docs/workloads.md says 7 hops, 6 after one another", w)
	}
}
