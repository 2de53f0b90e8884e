package analysis

import "github.com/meshbench/meshbench"

// NewPlan fixes what a run will do before it starts.
func NewPlan(exp meshbench.Experiment, cells []meshbench.Cell, deploys bool) (meshbench.Plan, error) {
	return meshbench.Plan{Cells: cells, Sittings: exp.Sittings, Blocks: exp.Blocks, Seed: exp.Seed}, nil
}

// Orders returns for each sitting and block the ids of the cells in the order
// in which to measure them.
func Orders(plan meshbench.Plan) [][][]string {
	out := make([][][]string, plan.Sittings)
	for s := range out {
		out[s] = make([][]string, plan.Blocks)
		for b := range out[s] {
			for _, c := range plan.Cells {
				out[s][b] = append(out[s][b], c.ID)
			}
		}
	}
	return out
}
