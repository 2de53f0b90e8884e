package analysis

import "github.com/meshbench/meshbench"

// Analyse turns the trials of a run into its result.
func Analyse(run meshbench.Run, trials []meshbench.Trial) meshbench.Result {
	return meshbench.Result{SchemaVersion: meshbench.SchemaVersion, ID: run.ID, State: run.State, Plan: run.Plan}
}
