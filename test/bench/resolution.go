package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

type runDocument struct {
	Headline    string `json:"headline"`
	State       string `json:"state"`
	Comparisons []struct {
		Metric     string `json:"metric"`
		N          int    `json:"n"`
		Difference struct {
			Estimate float64  `json:"estimate"`
			Low      *float64 `json:"low"`
			High     *float64 `json:"high"`
		} `json:"difference"`
		StdDev float64 `json:"sitting_std_dev"`
	} `json:"comparisons"`
	Verdict struct {
		Status string `json:"status"`
	} `json:"verdict"`
	Plan struct {
		InTrials string `json:"in_trials"`
	} `json:"plan"`
}

// added is what envoy adds to p50 in one default run.
type added struct {
	estimate, low, high, deviation float64
	seconds                        float64
	verdict                        string
	inTrials                       time.Duration
}

func (b *bench) defaultRun() (added, error) {
	begin := time.Now()
	cmd := exec.CommandContext(b.ctx, b.meshbench, "run", "-q", "-o", "json", "--data-dir", b.dir)
	out, err := cmd.Output()
	var doc runDocument
	if jsonErr := json.Unmarshal(out, &doc); jsonErr != nil {
		return added{}, fmt.Errorf("run: %v: %s", err, out)
	}
	for _, c := range doc.Comparisons {
		if c.Metric != "response.p50" {
			continue
		}
		if c.Difference.Low == nil || c.Difference.High == nil {
			return added{}, fmt.Errorf("no interval: %s", doc.Headline)
		}
		a := added{c.Difference.Estimate, *c.Difference.Low, *c.Difference.High, c.StdDev, time.Since(begin).Seconds(), doc.Verdict.Status, 0}
		a.inTrials, err = time.ParseDuration(doc.Plan.InTrials)
		return a, err
	}
	return added{}, fmt.Errorf("run: no comparison of p50: %s", doc.Headline)
}

// run shows how well a default run resolves what envoy adds.
func (b *bench) run() error {
	a, err := b.defaultRun()
	if err != nil {
		return err
	}
	a.print()
	return nil
}

func (a added) print() {
	figure("default_run_time", a.seconds, "s (limit 180)")
	figure("default_run_share_inside_trials", a.inTrials.Seconds()/a.seconds, "of the time (goal >= 0.5)")
	figure("envoy_adds_to_p50", a.estimate, "us")
	half := (a.high - a.low) / 2
	figure("envoy_adds_to_p50_half_width", half, "us (goal <= 5, or)")
	figure("envoy_adds_to_p50_half_width_percent", 100*half/a.estimate, "% (goal <= 5)")
	figure("sittings_std_dev_of_added_p50", a.deviation, "us")
	fmt.Printf("%-44s %12s\n", "default_run_verdict", a.verdict)
}

// repeat makes n default runs and counts the intervals that contain the
// median of the others' estimates.
func (b *bench) repeat(n int) error {
	var all []added
	for range n {
		a, err := b.defaultRun()
		if err != nil {
			return err
		}
		fmt.Printf("run %d: envoy adds %.1f us [%.1f, %.1f] to p50, %s, %.0f s\n", len(all)+1, a.estimate, a.low, a.high, a.verdict, a.seconds)
		all = append(all, a)
	}
	held := 0
	for i, a := range all {
		var others []float64
		for j, o := range all {
			if j != i {
				others = append(others, o.estimate)
			}
		}
		if m := median(others); a.low <= m && m <= a.high {
			held++
		}
	}
	figure("intervals_that_contain_the_others_median", float64(held), fmt.Sprintf("of %d (goal: 8 of 10)", n))
	return nil
}
