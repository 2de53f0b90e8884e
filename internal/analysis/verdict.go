package analysis

import (
	"fmt"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// Codes of the reasons of a run's verdict.
const (
	ReasonNothing = "nothing_measured" // no trial at all
	ReasonProof   = "proof_failed"     // requests of some trial did not go the way they should
	ReasonBlocks  = "blocks_left_out"  // blocks with an invalid trial that no repeat replaced
	ReasonSuspect = "trials_suspect"   // more than 1 in 5 trials are suspect
)

// verdict judges the run: invalid where a proof of path failed or more than 1
// in 5 blocks stayed out; suspect where any stayed out or more than 1 in 5
// trials are suspect; else valid.
func (a *analysis) verdict() meshbench.Verdict {
	v := meshbench.Verdict{Status: meshbench.Valid, Reasons: []meshbench.Reason{}}
	if len(a.trials) == 0 {
		v.Add(meshbench.InvalidTest, ReasonNothing, "no trial was measured")
		return v
	}
	for _, c := range a.cells {
		if c.Proof.Status == meshbench.ProofFailed {
			v.Add(meshbench.InvalidTest, ReasonProof, "it is not proven that the requests of %s went the way they should: %s", c.ID, orElse(c.Proof.Reason, "the counters disagree"))
		}
	}
	gone, causes := 0, map[string]int{} // the result's left_out tells which block for which cause
	for _, l := range a.out {
		if l.Repeated {
			continue
		}
		gone++
		seen := map[string]bool{}
		for _, r := range l.Reasons {
			if !seen[r.Code] {
				causes[r.Code]++
			}
			seen[r.Code] = true
		}
	}
	if gone > 0 {
		status := meshbench.Suspect
		if tooMany(gone, a.total) {
			status = meshbench.InvalidTest
		}
		var parts []string
		for _, code := range sortedKeys(causes) {
			parts = append(parts, fmt.Sprintf("%s in %d", code, causes[code]))
		}
		v.Add(status, ReasonBlocks, "%d of %d blocks stayed out, each for an invalid trial: %s", gone, a.total, strings.Join(parts, ", "))
	}
	suspect, counted, codes := 0, 0, map[string]int{}
	for _, b := range a.blocks {
		for _, t := range b.trials {
			counted++
			if t.Verdict.Status == meshbench.Suspect {
				suspect++
				for _, r := range t.Verdict.Reasons {
					codes[r.Code]++
				}
			}
		}
	}
	if tooMany(suspect, counted) {
		var why []string
		for _, c := range sortedKeys(codes) {
			why = append(why, fmt.Sprintf("%s %d", c, codes[c]))
		}
		v.Add(meshbench.Suspect, ReasonSuspect, "%d of %d trials are suspect: %s", suspect, counted, strings.Join(why, ", "))
	}
	return v
}

// generator gathers how the generator fared over all trials, those left out
// included.
func (a *analysis) generator() meshbench.GeneratorHealth {
	var all []*meshbench.Trial
	var gaps, steal []float64
	g := meshbench.GeneratorHealth{}
	for i := range a.trials {
		t := &a.trials[i]
		all = append(all, t)
		gaps = append(gaps, t.Load.Gaps.Share)
		steal = append(steal, t.Load.Generator.StealShare)
		g.PeakMemoryBytes = max(g.PeakMemoryBytes, t.Load.Generator.PeakMemoryBytes)
	}
	if len(all) == 0 {
		return g
	}
	g.Lateness = a.pool(all, 0, func(t *meshbench.Trial) *meshbench.Latency { return t.Load.Lateness })
	g.LatenessP50, g.LatenessP99 = g.Lateness.Values[meshbench.P50], g.Lateness.Values[meshbench.P99]
	g.PredictedP50 = meshbench.Microseconds(medianOver(all, func(t *meshbench.Trial) float64 { return float64(t.Load.Gaps.Predicted.P50) }))
	g.PredictedP99 = meshbench.Microseconds(medianOver(all, func(t *meshbench.Trial) float64 { return float64(t.Load.Gaps.Predicted.P99) }))
	g.CPUPerRequest = meshbench.Microseconds(medianOver(all, func(t *meshbench.Trial) float64 { return float64(t.Load.Generator.CPUPerRequest) }))
	g.GapShare, g.StealShare = tidy(stats.Mean(gaps)), tidy(stats.Mean(steal))
	return g
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
