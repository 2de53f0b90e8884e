package meshbench

import (
	"encoding/json"
	"fmt"
	"testing"
)

func TestWalk(t *testing.T) {
	for _, c := range []struct {
		topology    Topology
		hops, depth int
		requests    string
	}{
		{Topology{}, 1, 1, "map[echo:1]"},
		{Topology{Chain: 5}, 5, 5, "map[echo:1 hop2:1 hop3:1 hop4:1 hop5:1]"},
		{Topology{FanOut: 3}, 4, 2, "map[front:1 leaf1:1 leaf2:1 leaf3:1]"},
		{Topology{Services: []ServiceNode{{Name: "a", Calls: []string{"b", "c"}}, {Name: "b", Calls: []string{"c"}}, {Name: "c"}, {Name: "d"}}}, 4, 4, "map[a:1 b:1 c:2]"},
		{Topology{Services: []ServiceNode{{Name: "a", Parallel: true, Calls: []string{"b", "c"}}, {Name: "b", Calls: []string{"c"}}, {Name: "c"}}}, 4, 3, "map[a:1 b:1 c:2]"},
	} {
		w := c.topology.Walk()
		if w.Hops != c.hops || w.Depth != c.depth || fmt.Sprint(w.Requests) != c.requests {
			t.Errorf("%s: %+v, want %d hops, depth %d, %s", c.topology, w, c.hops, c.depth, c.requests)
		}
	}
	// Doubling at each step makes 2^20 ways, and is worked out at once.
	var wide Topology
	for i := range 20 {
		wide.Services = append(wide.Services, ServiceNode{Name: fmt.Sprint("s", i)})
		if i > 0 {
			wide.Services[i-1].Calls = []string{fmt.Sprint("s", i), fmt.Sprint("s", i)}
		}
	}
	if w := wide.Walk(); w.Hops != 1<<20-1 {
		t.Errorf("%d hops", w.Hops)
	}
}

func TestTopologyIsReadAsAWhole(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "chain=1", `{"chain":3}`: "chain=3", `{"fan_out":2}`: "fan_out=2", `{"services":[{"name":"a"}]}`: `[{"name":"a"}]`,
	} {
		w := Workload{Topology: Topology{Chain: 1}}
		if err := json.Unmarshal([]byte(`{"topology":`+text+`}`), &w); err != nil || w.Topology.String() != want {
			t.Errorf("%s becomes %s (%v), want %s", text, w.Topology, err, want)
		}
	}
	var top Topology
	if err := json.Unmarshal([]byte(`{"chain":"x"}`), &top); err == nil {
		t.Error("a chain of x")
	}
}
