package analysis

import (
	"math"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// isProxy tells whether a role's work is the mesh's data plane.
func isProxy(r meshbench.Role) bool {
	return r == meshbench.ClientProxy || r == meshbench.ServerProxy || r == meshbench.Gateway
}

// hops returns what each hop of a request costs. Nothing is known of the
// services behind an endpoint.
func (a *analysis) hops(cell meshbench.CellResult, latencies []compared) *meshbench.HopCost {
	if cell.Infrastructure == meshbench.Endpoint {
		return nil
	}
	walk := cell.Workload.Topology.Walk()
	h := &meshbench.HopCost{Hops: walk.Hops, Depth: walk.Depth}
	for _, u := range cell.Roles {
		if !isProxy(u.Role) {
			continue
		}
		if v := perSitting(a.blocks, ofCell(cell.ID, cpu(isProxy))); len(v) > 0 {
			per := tidy(stats.Median(plain(v)) / float64(walk.Hops))
			h.ProxyCPU = &per
		}
		break
	}
	for _, c := range latencies {
		if c.Cell != cell.ID || c.Metric != "response."+string(meshbench.P50) || math.IsNaN(c.Difference.Estimate) {
			continue
		}
		share := func(v float64) float64 { return tidy(v / float64(walk.Depth)) }
		e := meshbench.Estimate{Estimate: share(c.Difference.Estimate), Unit: c.Difference.Unit}
		if c.Difference.Low != nil {
			e.Low = known(share(*c.Difference.Low))
		}
		if c.Difference.High != nil {
			e.High = known(share(*c.Difference.High))
		}
		h.AddedP50 = &e
	}
	return h
}
