package analysis

import (
	"fmt"

	"github.com/meshbench/meshbench"
)

// Codes of a result's warnings, beside those of its plan.
const (
	WarnUnreadable  = "histogram_unreadable" // a stored histogram is damaged; quantiles of trials are unharmed
	WarnCensored    = "censored"             // some sittings' quantiles fall among censored requests
	WarnSaturated   = "saturated_trials"     // some trials of a cell, too few to call the cell saturated
	WarnUnknownCell = "unknown_cell"         // a trial of a cell that the plan does not have
)

// analysis is what Analyse knows while it works.
type analysis struct {
	run    meshbench.Run
	trials []meshbench.Trial

	blocks []block // that count
	out    []meshbench.LeftOut
	total  int // blocks in all
	cells  []meshbench.CellResult

	warnings []meshbench.Warning
}

func (a *analysis) warn(code, format string, args ...any) {
	a.warnings = append(a.warnings, warning(code, format, args...))
}

// cell returns a cell's result; an empty one for an id that the plan lacks.
func (a *analysis) cell(id string) meshbench.CellResult {
	for _, c := range a.cells {
		if c.ID == id {
			return c
		}
	}
	return meshbench.CellResult{}
}

// Analyse turns the trials of a run into its result. Any number of trials
// will do: what was not measured has no figures, and says why. The trials are
// not changed.
func Analyse(run meshbench.Run, trials []meshbench.Trial) meshbench.Result {
	a := &analysis{run: run, warnings: append([]meshbench.Warning{}, run.Plan.Warnings...)}
	planned := map[string]bool{}
	for _, c := range run.Plan.Cells {
		planned[c.ID] = true
	}
	for _, t := range trials {
		if planned[t.Cell] {
			a.trials = append(a.trials, t)
		} else {
			a.warn(WarnUnknownCell, "a trial of %q belongs to no cell of the plan and is left out", t.Cell)
		}
	}
	a.blocks, a.out, a.total = selectBlocks(a.trials)
	for _, c := range run.Plan.Cells {
		a.cells = append(a.cells, a.cellResult(c))
	}
	var latencies, resources []compared
	for _, c := range run.Plan.Cells {
		if c.Baseline != "" {
			latencies = append(latencies, a.responses(c)...)
			resources = append(resources, a.resources(c)...)
		}
	}
	for i := range a.cells {
		a.cells[i].Hops = a.hops(a.cells[i], latencies)
	}
	a.doubts(latencies)

	r := meshbench.Result{
		SchemaVersion: meshbench.SchemaVersion,
		ID:            run.ID, State: run.State, StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
		Experiment: run.Experiment, Plan: run.Plan, Fingerprint: run.Fingerprint,
		Verdict: a.verdict(), Cells: notNil(a.cells), Generator: a.generator(),
		Comparisons: plainComparisons(latencies), Resources: plainComparisons(resources),
		LeftOut: notNil(a.out), Failures: notNil(run.Failures), Error: run.Error,
		Trials: []meshbench.TrialSummary{},
	}
	for _, t := range a.trials {
		r.Trials = append(r.Trials, meshbench.TrialSummary{
			Cell: t.Cell, Sitting: t.Sitting, Block: t.Block, Order: t.Order, Repeat: t.Repeat,
			Response: t.Load.Response, ThroughputRPS: t.Load.ThroughputRPS, Lateness: t.Load.Lateness,
			LoadState: t.Load.LoadState, Gaps: t.Load.Gaps, Usage: notNil(t.Usage), Verdict: t.Verdict,
		})
	}
	r.FailOn = failOn(run, append(latencies, resources...), r.Verdict)
	r.Warnings = notNil(a.warnings)
	r.Headline = headline(r)
	return r
}

// doubts warns of what the figures alone do not show.
func (a *analysis) doubts(latencies []compared) {
	for _, c := range latencies {
		if n := c.N - len(c.Differences); n > 0 && c.Reason == "" {
			a.warn(WarnCensored, "%s of %s against %s: in %d of %d sittings it falls among requests that timed out or were unfinished; they count as the largest", c.Metric, c.Cell, c.BaselineCell, n, c.N)
		}
	}
	for _, c := range a.cells {
		n := 0
		for _, t := range trialsOf(a.blocks, c.ID) {
			if t.Load.LoadState == meshbench.Saturated {
				n++
			}
		}
		if n > 0 && c.LoadState != meshbench.Saturated {
			a.warn(WarnSaturated, "%d of %d trials of %s were saturated: the rate is near its capacity", n, c.Trials, c.ID)
		}
	}
}

func plainComparisons(in []compared) []meshbench.Comparison {
	out := make([]meshbench.Comparison, len(in))
	for i, c := range in {
		out[i] = c.Comparison
	}
	return out
}

// notNil makes an empty list [] in JSON.
func notNil[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

// Outcomes of a --fail-on condition.
const (
	OutcomePassed       = "passed"
	OutcomeRegression   = "regression"
	OutcomeInconclusive = "inconclusive"
)

// failOn judges the conditions of a run, each for every compared cell:
// regression where the whole interval lies beyond the threshold, passed where
// all of it is at or below, else inconclusive. An invalid run decides nothing.
func failOn(run meshbench.Run, all []compared, v meshbench.Verdict) []meshbench.FailOnOutcome {
	var out []meshbench.FailOnOutcome
	for _, text := range run.Experiment.FailOn {
		add := func(cell, outcome, format string, args ...any) {
			out = append(out, meshbench.FailOnOutcome{Condition: text, Cell: cell, Outcome: outcome, Message: fmt.Sprintf(format, args...)})
		}
		f, err := ParseFailOn(text)
		if err != nil {
			add("", OutcomeInconclusive, "%s", err)
			continue
		}
		judged := false
		for _, cell := range run.Plan.Cells {
			if cell.Baseline == "" {
				continue
			}
			judged = true
			found := false
			for _, c := range all {
				if c.Cell != cell.ID || c.Metric != f.Metric {
					continue
				}
				found = true
				outcome, message := f.judge(c)
				if v.Status == meshbench.InvalidTest {
					outcome, message = OutcomeInconclusive, "the run is invalid"
				}
				add(cell.ID, outcome, "%s", message)
			}
			if !found {
				add(cell.ID, OutcomeInconclusive, "%s was not compared in this run", f.Metric)
			}
		}
		if !judged {
			add("", OutcomeInconclusive, "nothing was compared: the run has a baseline alone")
		}
	}
	return out
}
