package analysis_test

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/histogram"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a result with a file by structure, without its histograms
// and the fields that only repeat the input.
func golden(t *testing.T, name string, r meshbench.Result) {
	t.Helper()
	r.Trials, r.Experiment = nil, meshbench.Experiment{}
	r.Plan.Cells = nil
	r.Generator.Lateness.Histogram = nil
	for i := range r.Cells {
		r.Cells[i].Response.Histogram = nil
	}
	got, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", file, diff)
	}
}

func TestGolden(t *testing.T) {
	t.Run("usual", func(t *testing.T) {
		w := usual(t)
		w.whole = true
		golden(t, "usual", w.analyse())
	})
	t.Run("three subjects, blocks, a repeat", func(t *testing.T) {
		w := usual(t)
		w.cells = cells(500, "none#2", "envoy")
		w.subjects["none#2"] = plainSubject
		w.exp.Blocks, w.exp.FailOn = 2, []string{"response.p99>+5%", "cpu.total>+10%"}
		run, trials := w.run()
		trials = repeat(t, w, trials, 4, 2, false)
		golden(t, "blocks", analysis.Analyse(run, trials))
	})
	t.Run("interrupted at once", func(t *testing.T) {
		run, _ := usual(t).run()
		run.State, run.FinishedAt = meshbench.Interrupted, nil
		golden(t, "empty", analysis.Analyse(run, nil))
	})
}

// repeat makes a block's first trial invalid and adds its repeat, which may
// have an invalid trial as well.
func repeat(t *testing.T, w world, trials []meshbench.Trial, sitting, block int, again bool) []meshbench.Trial {
	t.Helper()
	done := false
	out := slices.Clone(trials)
	for i, x := range trials {
		if x.Sitting != sitting || x.Block != block {
			continue
		}
		fresh := w.trial(x.Cell, w.subjects[x.Cell].base)
		fresh.Sitting, fresh.Block, fresh.Order, fresh.Repeat = sitting, block, x.Order, true
		if !done {
			invalidate(&out[i])
			if again {
				invalidate(&fresh)
			}
			done = true
		}
		out = append(out, fresh)
	}
	if !done {
		t.Fatalf("no block %s", at(sitting, block))
	}
	return out
}

func TestLeftOutBlocks(t *testing.T) {
	w := usual(t)
	run, trials := w.run()

	r := analysis.Analyse(run, repeat(t, w, trials, 3, 1, false))
	if len(r.LeftOut) != 1 || !r.LeftOut[0].Repeated || r.LeftOut[0].Sitting != 3 || len(r.LeftOut[0].Reasons) == 0 {
		t.Errorf("repeated: %+v", r.LeftOut)
	}
	c := find(t, r.Comparisons, "envoy", "response.p50")
	if c.N != 10 || math.Abs(c.Differences[2].Value-(proxySubject.base-plainSubject.base)) > 1 {
		t.Errorf("the repeat did not take the block's place: %+v", c.Differences)
	}
	if r.Verdict.Status != meshbench.Valid {
		t.Errorf("verdict %+v", r.Verdict)
	}

	r = analysis.Analyse(run, repeat(t, w, trials, 3, 1, true))
	if len(r.LeftOut) != 1 || r.LeftOut[0].Repeated {
		t.Errorf("repeated in vain: %+v", r.LeftOut)
	}
	if c := find(t, r.Comparisons, "envoy", "response.p50"); c.N != 9 || r.Cells[0].Trials != 9 {
		t.Errorf("n %d, trials %d", c.N, r.Cells[0].Trials)
	}
	if len(r.Trials) != 22 {
		t.Errorf("%d trials are listed, all 22 should be", len(r.Trials))
	}

	// A block that lacked a cell, and its repeat that had it.
	var partial []meshbench.Trial
	for _, x := range repeat(t, w, trials, 3, 1, false) {
		if x.Sitting == 3 && !x.Repeat {
			if x.Cell == "envoy" {
				continue
			}
			x.Verdict = meshbench.Verdict{Status: meshbench.Valid}
		}
		partial = append(partial, x)
	}
	r = analysis.Analyse(run, partial)
	if c := find(t, r.Comparisons, "envoy", "response.p50"); c.N != 10 || len(r.LeftOut) != 1 || r.LeftOut[0].Reasons[0].Code != "incomplete" {
		t.Errorf("n %d, left out %+v", c.N, r.LeftOut)
	}
}

func TestVerdict(t *testing.T) {
	suspect := func(t *meshbench.Trial) {
		t.Verdict = meshbench.Verdict{Status: meshbench.Suspect, Reasons: []meshbench.Reason{{Code: "steal", Message: "the hypervisor took the core"}}}
	}
	for _, c := range []struct {
		name   string
		change func(t *meshbench.Trial)
		status meshbench.Status
		code   string
	}{
		{"all is well", nil, meshbench.Valid, ""},
		{"one proof failed", func(t *meshbench.Trial) {
			if t.Sitting == 2 && t.Cell == "envoy" {
				t.Proof.Status, t.Proof.Reason = meshbench.ProofFailed, "7 connections were not encrypted"
			}
		}, meshbench.InvalidTest, analysis.ReasonProof},
		{"one proof failed in a trial that is left out", func(t *meshbench.Trial) {
			if t.Sitting == 2 && t.Cell == "envoy" {
				invalidate(t)
				t.Proof.Status, t.Proof.Reason = meshbench.ProofFailed, "7 connections were not encrypted"
			}
		}, meshbench.InvalidTest, analysis.ReasonProof},
		{"a process died, and nothing could be counted", func(t *meshbench.Trial) {
			if t.Sitting == 2 && t.Cell == "envoy" {
				t.Verdict.Add(meshbench.InvalidTest, "process_died", "envoy ended with status 139")
				t.Proof = meshbench.Proof{Status: meshbench.ProofFailed, Reason: "connection refused"}
			}
		}, meshbench.Suspect, analysis.ReasonBlocks},
		{"1 in 10 blocks out", func(t *meshbench.Trial) {
			if t.Sitting == 2 {
				invalidate(t)
			}
		}, meshbench.Suspect, analysis.ReasonBlocks},
		{"1 in 5 blocks out", func(t *meshbench.Trial) {
			if t.Sitting <= 2 {
				invalidate(t)
			}
		}, meshbench.Suspect, analysis.ReasonBlocks},
		{"3 in 10 blocks out", func(t *meshbench.Trial) {
			if t.Sitting <= 3 && t.Cell == "none" {
				invalidate(t)
			}
		}, meshbench.InvalidTest, analysis.ReasonBlocks},
		{"4 of 20 trials suspect", func(t *meshbench.Trial) {
			if t.Sitting <= 4 && t.Cell == "none" {
				suspect(t)
			}
		}, meshbench.Valid, ""},
		{"5 of 20 trials suspect", func(t *meshbench.Trial) {
			if t.Sitting <= 5 && t.Cell == "none" {
				suspect(t)
			}
		}, meshbench.Suspect, analysis.ReasonSuspect},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := usual(t)
			w.change = c.change
			r := w.analyse()
			if r.Verdict.Status != c.status {
				t.Errorf("%+v, want %s", r.Verdict, c.status)
			}
			has := slices.ContainsFunc(r.Verdict.Reasons, func(x meshbench.Reason) bool { return x.Code == c.code })
			if has != (c.code != "") || c.code == "" && len(r.Verdict.Reasons) > 0 {
				t.Errorf("reasons %+v, want %q", r.Verdict.Reasons, c.code)
			}
			if told := strings.HasPrefix(r.Headline, "This run is invalid"); told != (c.status == meshbench.InvalidTest) {
				t.Errorf("headline %q", r.Headline)
			}
		})
	}
}

func TestSignificance(t *testing.T) {
	for _, c := range []struct {
		name    string
		subject subject
		want    meshbench.Significance
	}{
		{"worse", subject{base: 200, spread: 4}, meshbench.Worse},
		{"better", subject{base: 120, spread: 4}, meshbench.Better},
		{"none", subject{base: 160, spread: 1}, meshbench.None},
		{"none, though p is small", subject{base: 163, spread: 0.1}, meshbench.None}, // within 5 us
		{"inconclusive", subject{base: 165, spread: 40}, meshbench.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := usual(t)
			w.subjects = map[string]subject{"none": {base: 160, spread: 0.1}, "envoy": c.subject}
			got := find(t, w.analyse().Comparisons, "envoy", "response.p50")
			if got.Significance != c.want {
				t.Errorf("%s: [%v, %v], p %v, margin %v", got.Significance, *got.Difference.Low, *got.Difference.High, got.PAdjusted, got.Margin)
			}
			if got.Margin != 5 || got.FamilySize != 3 || got.Level < 1-0.05/3 || got.Estimator != analysis.Estimator {
				t.Errorf("%+v", got)
			}
			if excludes := *got.Difference.Low > 0 || *got.Difference.High < 0; excludes != (got.PAdjusted <= 0.05) {
				t.Errorf("interval and p disagree: %+v", got)
			}
		})
	}
	t.Run("the margin grows with the baseline", func(t *testing.T) {
		w := usual(t)
		w.subjects = map[string]subject{"none": {base: 1000, spread: 0.1}, "envoy": {base: 1015, spread: 0.1}}
		if got := find(t, w.analyse().Comparisons, "envoy", "response.p50"); math.Abs(got.Margin-20) > 0.1 || got.Significance != meshbench.None {
			t.Errorf("%+v", got)
		}
	})
}

func TestInterrupted(t *testing.T) {
	run, trials := usual(t).run()
	run.State = meshbench.Interrupted
	for n := range 21 {
		r := analysis.Analyse(run, trials[:n])
		if _, err := json.Marshal(r); err != nil {
			t.Fatalf("%d trials: %v", n, err)
		}
		c := find(t, r.Comparisons, "envoy", "response.p50")
		if whole := n / 2; c.N != whole || c.FamilySize != 3 {
			t.Errorf("%d trials: n %d, family %d", n, c.N, c.FamilySize)
		}
		if has := c.Difference.Low != nil; has != (c.N >= 7) || has != (c.Difference.High != nil) || has != (c.Level > 0) || has != (c.Reason == "") {
			t.Errorf("%d trials: %+v", n, c)
		}
		if math.IsNaN(c.Difference.Estimate) != (c.N == 0) {
			t.Errorf("%d trials: estimate %v", n, c.Difference.Estimate)
		}
		if want := map[bool]meshbench.Significance{true: meshbench.Worse, false: meshbench.Inconclusive}[c.N >= 7]; c.Significance != want {
			t.Errorf("%d trials: %s", n, c.Significance)
		}
		if r.Headline == "" || n > 0 && !strings.HasPrefix(r.Headline, "Interrupted in sitting ") {
			t.Errorf("%d trials: %q", n, r.Headline)
		}
	}
}

func TestSaturated(t *testing.T) {
	saturate := func(last int) func(t *meshbench.Trial) {
		return func(t *meshbench.Trial) {
			if t.Cell == "envoy" && t.Sitting <= last {
				t.Load.LoadState, t.Load.ThroughputRPS = meshbench.Saturated, 371
			}
		}
	}
	w := usual(t)
	w.change = saturate(10)
	r := w.analyse()
	c := find(t, r.Comparisons, "envoy", "response.p50")
	if r.Cells[1].LoadState != meshbench.Saturated || c.Reason != analysis.ReasonSaturated || !math.IsNaN(c.Difference.Estimate) || c.Significance != meshbench.Inconclusive {
		t.Errorf("%s: %+v", r.Cells[1].LoadState, c)
	}
	if r.Cells[1].ThroughputRPS != 371 || find(t, r.Resources, "envoy", "cpu.total").Difference.Low == nil {
		t.Error("capacity or cost is missing")
	}
	if r.Verdict.Status != meshbench.Valid {
		t.Errorf("a finding became a fault: %+v", r.Verdict)
	}
	w.change = saturate(2)
	r = w.analyse()
	if c := find(t, r.Comparisons, "envoy", "response.p50"); r.Cells[1].LoadState != meshbench.Kept || c.Significance != meshbench.Worse {
		t.Errorf("2 of 10 trials: %s, %+v", r.Cells[1].LoadState, c)
	}
	if !slices.ContainsFunc(r.Warnings, func(x meshbench.Warning) bool { return x.Code == analysis.WarnSaturated }) {
		t.Errorf("no warning: %+v", r.Warnings)
	}
}

func TestQuantilesThatTrialsDoNotCarry(t *testing.T) {
	w := usual(t)
	r := w.analyse()
	far := r.Cells[0].Quantiles[meshbench.P99_9]
	if far.Median != nil || far.TrialNeeded.String() != "8s" || far.Needed != 3688 || far.EffectiveSize != 2000 {
		t.Errorf("p99.9: %+v", far)
	}
	// All slow requests of a trial come in one batch: D = 39 of 40 batches.
	w.change = func(t *meshbench.Trial) {
		for i := range t.Load.Batches {
			t.Load.Batches[i].Above[meshbench.P99] = 0
		}
		t.Load.Batches[7].Above[meshbench.P99] = 20
	}
	r = w.analyse()
	c := find(t, r.Comparisons, "envoy", "response.p99")
	if !strings.HasPrefix(c.Reason, analysis.ReasonTooSmall+": would need --trial ") || !math.IsNaN(c.Difference.Estimate) || c.Significance != meshbench.Inconclusive {
		t.Errorf("p99: %+v", c)
	}
	if q := r.Cells[1].Quantiles[meshbench.P99]; q.Median != nil || q.TrialNeeded == 0 || q.EffectiveSize > 110 {
		t.Errorf("p99: %+v", q)
	}
	if c := find(t, r.Comparisons, "envoy", "response.p50"); c.Significance != meshbench.Worse || c.FamilySize != 3 {
		t.Errorf("p50 suffers too: %+v", c)
	}
}

func TestCensored(t *testing.T) {
	censor := func(last int) func(t *meshbench.Trial) {
		return func(t *meshbench.Trial) {
			if t.Cell == "envoy" && t.Sitting <= last {
				delete(t.Load.Response.Values, meshbench.P99)
				t.Load.Response.AtLeast = map[meshbench.Quantile]meshbench.Microseconds{meshbench.P99: 1e7}
				t.Load.TimedOut, t.Load.Completed = 40, 1960
			}
		}
	}
	w := usual(t)
	w.whole = true
	w.change = censor(1)
	r := w.analyse()
	c := find(t, r.Comparisons, "envoy", "response.p99")
	if c.N != 10 || len(c.Differences) != 9 || c.Significance != meshbench.Worse || c.Difference.High != nil {
		t.Errorf("one sitting: %+v", c)
	}
	if !slices.ContainsFunc(r.Warnings, func(x meshbench.Warning) bool { return x.Code == analysis.WarnCensored }) {
		t.Errorf("no warning: %+v", r.Warnings)
	}
	if _, ok := r.Cells[1].Response.Values[meshbench.P99]; ok || r.Cells[1].Errors["timed_out"] != 40 {
		t.Errorf("pooled %+v, errors %v", r.Cells[1].Response.Values, r.Cells[1].Errors)
	}
	w.change = censor(10)
	r = w.analyse()
	if c := find(t, r.Comparisons, "envoy", "response.p99"); c.Reason != analysis.ReasonCensored || !math.IsNaN(c.Difference.Estimate) {
		t.Errorf("all sittings: %+v", c)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if r.Cells[1].Quantiles[meshbench.P99].Median != nil || !strings.Contains(r.Headline, "2 % of envoy's requests failed") {
		t.Errorf("%+v; %s", r.Cells[1].Quantiles[meshbench.P99], r.Headline)
	}
}

func TestMachineLimited(t *testing.T) {
	w := usual(t)
	w.change = func(t *meshbench.Trial) { t.Load.Gaps.Predicted.P99 = 150 }
	r := w.analyse()
	for i, want := range []bool{true, false} { // p99 of none is 341 us, of envoy 1,070
		if got := r.Cells[i].Quantiles[meshbench.P99].MachineLimited; got != want {
			t.Errorf("%s: %v (median %v)", r.Cells[i].ID, got, *r.Cells[i].Quantiles[meshbench.P99].Median)
		}
		if r.Cells[i].Quantiles[meshbench.P50].MachineLimited {
			t.Errorf("%s: p50", r.Cells[i].ID)
		}
	}
}

func TestPooling(t *testing.T) {
	w := usual(t)
	w.whole = true
	run, trials := w.run()
	r := analysis.Analyse(run, trials)
	for _, c := range r.Cells {
		h, err := histogram.Decode(c.Response.Histogram)
		if err != nil {
			t.Fatal(err)
		}
		if c.Response.Count != 20000 || h.TotalCount() != 20000 {
			t.Errorf("%s: %d, %d in its histogram", c.ID, c.Response.Count, h.TotalCount())
		}
		if got, want := float64(c.Response.Values[meshbench.P99]), float64(h.ValueAtQuantile(99))/1000; got != want {
			t.Errorf("%s: p99 %v, want %v", c.ID, got, want)
		}
	}
	if r.Generator.Lateness.Count != 40000 || r.Generator.LatenessP99 <= 0 || r.Generator.PredictedP99 != 6 || r.Generator.CPUPerRequest != 7.5 {
		t.Errorf("%+v", r.Generator)
	}
	trials[0].Load.Response.Histogram = []byte("no histogram")
	trials = append(trials, meshbench.Trial{Cell: "stranger"})
	r = analysis.Analyse(run, trials)
	var codes []string
	for _, x := range r.Warnings {
		codes = append(codes, x.Code)
	}
	if !slices.Contains(codes, analysis.WarnUnreadable) || !slices.Contains(codes, analysis.WarnUnknownCell) {
		t.Errorf("warnings %v", codes)
	}
	if find(t, r.Comparisons, "envoy", "response.p50").N != 10 {
		t.Error("a damaged histogram took figures away")
	}
}

func TestResources(t *testing.T) {
	r := usual(t).analyse()
	for metric, want := range map[string]float64{
		"cpu.client_proxy": 205, "cpu.server_proxy": 218, "cpu.application": 1, "cpu.control_plane": 1, "cpu.total": 425,
		"memory.client_proxy": 31e6, "memory.server_proxy": 30e6, "memory.application": 0, "memory.total": 81e6,
	} {
		c := find(t, r.Resources, "envoy", metric)
		if math.Abs(c.Difference.Estimate-want) > 1e-6 || c.Significance != "" || c.Level < 0.95 || c.FamilySize != 1 {
			t.Errorf("%s: %+v, want %v", metric, c, want)
		}
		if alone := metric == "cpu.client_proxy" || metric == "cpu.server_proxy"; alone != math.IsNaN(c.Ratio.Estimate) && strings.HasPrefix(metric, "cpu.") && metric != "cpu.control_plane" {
			t.Errorf("%s: ratio %v", metric, c.Ratio.Estimate)
		}
	}
	if slices.ContainsFunc(r.Resources, func(c meshbench.Comparison) bool { return c.Metric == "cpu.generator" }) {
		t.Error("the generator is counted as the subject's")
	}
}
