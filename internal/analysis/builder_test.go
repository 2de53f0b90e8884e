package analysis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/histogram"
)

// experiment is the default one with the fields that a plan reads.
func experiment() meshbench.Experiment {
	return meshbench.Experiment{
		Infrastructure: meshbench.Local, Subjects: []string{"none", "envoy"}, Profile: meshbench.Parity,
		Sittings: 10, Blocks: 1, MaxTime: meshbench.Duration(10 * time.Minute), Seed: 7,
		Margin: meshbench.Margin{Percent: 2, Floor: meshbench.Duration(5 * time.Microsecond)},
	}
}

func load(rate meshbench.Rate) meshbench.Load {
	return meshbench.Load{
		Rate: rate, Arrivals: meshbench.Poisson, Connections: 32, KeepAlive: true, Timeout: meshbench.Duration(10 * time.Second),
		Warmup: meshbench.Duration(2 * time.Second), Settle: meshbench.Duration(500 * time.Millisecond), Trial: meshbench.Duration(4 * time.Second),
	}
}

// cells are none and, compared with it, the others.
func cells(rate meshbench.Rate, others ...string) []meshbench.Cell {
	out := []meshbench.Cell{}
	for _, id := range append([]string{"none"}, others...) {
		s, err := meshbench.ParseSubject(trimRepeat(id))
		if err != nil {
			panic(err)
		}
		s.ID = id
		c := meshbench.Cell{ID: id, Subject: s, Infrastructure: meshbench.Local, Path: meshbench.PathLoopback,
			Profile: meshbench.Parity, Load: load(rate), Axes: map[string]any{"rate_rps": float64(rate)}}
		if rate.IsMax() {
			c.Axes["rate_rps"] = nil
		}
		if id != "none" {
			c.Baseline = "none"
		}
		out = append(out, c)
	}
	return out
}

func trimRepeat(id string) string {
	for i, r := range id {
		if r == '#' {
			return id[:i]
		}
	}
	return id
}

// subject is how a subject behaves in a synthetic run.
type subject struct {
	base   float64 // us: median latency
	spread float64 // us: standard deviation of the sittings
	cpu    map[meshbench.Role]float64
	memory map[meshbench.Role]uint64
}

var (
	plainSubject = subject{160, 4, map[meshbench.Role]float64{meshbench.Application: 22}, map[meshbench.Role]uint64{meshbench.Application: 9e6}}
	proxySubject = subject{502, 9,
		map[meshbench.Role]float64{meshbench.Application: 23, meshbench.ClientProxy: 205, meshbench.ServerProxy: 218, meshbench.ControlPlane: 1},
		map[meshbench.Role]uint64{meshbench.Application: 9e6, meshbench.ClientProxy: 31e6, meshbench.ServerProxy: 30e6, meshbench.ControlPlane: 20e6}}
)

// world makes synthetic runs.
type world struct {
	t        *testing.T
	exp      meshbench.Experiment
	cells    []meshbench.Cell
	subjects map[string]subject
	change   func(trial *meshbench.Trial) // of each trial, after it was made
	whole    bool                         // with histograms, which take their time to encode
}

func (w world) plan() meshbench.Plan {
	w.t.Helper()
	plan, err := analysis.NewPlan(w.exp, w.cells, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// run makes a finished run and its trials.
func (w world) run() (meshbench.Run, []meshbench.Trial) {
	w.t.Helper()
	end := time.Date(2026, 11, 22, 10, 3, 0, 0, time.UTC)
	run := meshbench.Run{ID: "01KAPR0000000000000000TEST", State: meshbench.Finished, StartedAt: end.Add(-3 * time.Minute), FinishedAt: &end,
		Experiment: w.exp, Plan: w.plan()}
	rng := rand.New(rand.NewPCG(1, 2))
	var trials []meshbench.Trial
	for s, blocks := range analysis.Orders(run.Plan) {
		level := map[string]float64{}
		for _, c := range w.cells {
			x := w.subjects[c.ID]
			level[c.ID] = x.base + x.spread*rng.NormFloat64()
		}
		for b, order := range blocks {
			for i, id := range order {
				t := w.trial(id, level[id]+rng.NormFloat64())
				t.Sitting, t.Block, t.Order = s+1, b+1, i+1
				if w.change != nil {
					w.change(&t)
				}
				trials = append(trials, t)
			}
		}
	}
	return run, trials
}

// trial is a plausible one around a median latency: 2,000 requests, of which
// the histogram holds the quantiles of an exponential tail.
func (w world) trial(id string, median float64) meshbench.Trial {
	w.t.Helper()
	const n = 2000
	h, late := histogram.New(), histogram.New()
	for i := range n {
		p := (float64(i) + 0.5) / n
		v := median * (0.8 + 0.2885*-math.Log(1-p)) // 1 at the median
		if err := h.RecordValue(int64(v * 1000)); err != nil {
			w.t.Fatal(err)
		}
		if err := late.RecordValue(int64(100 + 8000*p*p)); err != nil {
			w.t.Fatal(err)
		}
	}
	latency := func(of *hdrhistogram.Histogram, raw []byte) meshbench.Latency {
		l := meshbench.Latency{Count: n, Min: meshbench.Microseconds(of.Min()) / 1000, Max: meshbench.Microseconds(of.Max()) / 1000,
			Values: map[meshbench.Quantile]meshbench.Microseconds{}, Histogram: raw}
		for _, q := range meshbench.Quantiles {
			l.Values[q] = meshbench.Microseconds(of.ValueAtQuantile(100*q.Probability())) / 1000
		}
		return l
	}
	encoded := func(of *hdrhistogram.Histogram) []byte {
		if !w.whole {
			return nil
		}
		raw, err := histogram.Encode(of)
		if err != nil {
			w.t.Fatal(err)
		}
		return raw
	}
	lateness := latency(late, encoded(late))
	t := meshbench.Trial{
		Cell: id,
		Load: meshbench.LoadResult{
			Planned: n, Completed: n, Sent: n, Errors: map[string]uint64{}, ElapsedSeconds: 4, ThroughputRPS: n / 4.0,
			Response: latency(h, encoded(h)), Lateness: &lateness, LoadState: meshbench.Kept,
			Gaps:      meshbench.Gaps{Share: 0.02, Predicted: meshbench.PredictedLateness{P50: 0, P99: 6, P99_9: 900}},
			Generator: meshbench.Generator{Engine: "native", CPUPerRequest: 7.5, PeakMemoryBytes: 21e6, StealShare: 0.01},
			Verdict:   meshbench.Verdict{Status: meshbench.Valid},
		},
		Proof:    meshbench.Proof{Status: meshbench.NotApplicable, Sent: n, Application: n, Reason: "there is no mesh"},
		Settings: []meshbench.Setting{{Name: "threads", Value: "1"}},
		Verdict:  meshbench.Verdict{Status: meshbench.Valid},
	}
	for range 40 {
		t.Load.Batches = append(t.Load.Batches, meshbench.Batch{Count: 50, Above: map[meshbench.Quantile]uint32{
			meshbench.P50: 25, meshbench.P90: 5, meshbench.P99: uint32(len(t.Load.Batches) % 2)}})
	}
	if id != "none" && trimRepeat(id) != "none" {
		t.Proof = meshbench.Proof{Status: meshbench.Proven, Sent: n, ClientProxy: n, ServerProxy: n, Application: n, Handshakes: 32, PeerName: "spiffe://meshbench/client"}
	}
	for _, role := range meshbench.Roles {
		if cpu, ok := w.subjects[id].cpu[role]; ok {
			u := meshbench.Usage{Role: role, Service: "echo", Process: string(role), CPUPer1000Requests: &cpu, CPUCores: cpu / 2000,
				UserCores: cpu / 4000, SystemCores: cpu / 4000, MemoryMeanBytes: w.subjects[id].memory[role], MemoryPeakBytes: w.subjects[id].memory[role] + 1e6}
			t.Usage = append(t.Usage, u)
		}
	}
	return t
}

// usual is a run of none and envoy.
func usual(t *testing.T) world {
	return world{t: t, exp: experiment(), cells: cells(500, "envoy"), subjects: map[string]subject{"none": plainSubject, "envoy": proxySubject}}
}

// analyse makes a run, lets it be changed, and analyses it.
func (w world) analyse() meshbench.Result {
	w.t.Helper()
	return analysis.Analyse(w.run())
}

func find(t *testing.T, list []meshbench.Comparison, cell, metric string) meshbench.Comparison {
	t.Helper()
	for _, c := range list {
		if c.Cell == cell && c.Metric == metric {
			return c
		}
	}
	t.Fatalf("no comparison of %s in %s", cell, metric)
	return meshbench.Comparison{}
}

func invalidate(t *meshbench.Trial) {
	t.Verdict = meshbench.Verdict{Status: meshbench.InvalidTest, Reasons: []meshbench.Reason{{Code: "generator_busy", Message: "the generator's core was busy"}}}
}

func at(sitting, block int) string { return fmt.Sprintf("%d/%d", sitting, block) }
