package analysis_test

import (
	"math"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
)

// TestCostPerHop divides what five pairs of proxies cost by five.
func TestCostPerHop(t *testing.T) {
	w := world{t: t, exp: experiment(), cells: cells(500, "envoy"), subjects: map[string]subject{"none": plainSubject, "envoy": proxySubject}}
	for i := range w.cells {
		w.cells[i].Workload.Topology = meshbench.Topology{Services: []meshbench.ServiceNode{
			{Name: "a", Calls: []string{"b", "c", "d"}, Parallel: true}, {Name: "b"}, {Name: "c", Calls: []string{"d"}}, {Name: "d"},
		}}
	}
	hop := meshbench.HopProof{From: "a", To: "b", Expected: 100, ClientProxy: 90, ServerProxy: 80, Handshakes: 7, Plaintext: 1}
	w.change = func(trial *meshbench.Trial) { trial.Proof.Hops = []meshbench.HopProof{hop} }
	r := analysis.Analyse(w.run())
	none, envoy := r.Cells[0].Hops, r.Cells[1].Hops
	if none == nil || none.Hops != 5 || none.Depth != 3 || none.ProxyCPU != nil || none.AddedP50 != nil {
		t.Errorf("none: %+v", none)
	}
	if envoy == nil || envoy.ProxyCPU == nil || math.Abs(*envoy.ProxyCPU-(205+218)/5.0) > 0.001 {
		t.Errorf("envoy: %+v", envoy)
	}
	for _, c := range r.Comparisons {
		if c.Metric != "response.p50" {
			continue
		}
		if e := envoy.AddedP50; e == nil || math.Abs(e.Estimate*3-c.Difference.Estimate) > 0.001 || math.Abs(*e.Low*3-*c.Difference.Low) > 0.001 || e.Unit != "us" {
			t.Errorf("added per hop %+v of %+v", e, c.Difference)
		}
	}
	n := uint64(r.Cells[1].Trials)
	if got := r.Cells[1].Proof.Hops; len(got) != 1 || got[0] != (meshbench.HopProof{From: "a", To: "b", Expected: 100 * n, ClientProxy: 90 * n, ServerProxy: 80 * n, Handshakes: 7 * n, Plaintext: n}) {
		t.Errorf("hops over %d trials: %+v", n, got)
	}
}

// TestMetricsOverSittings sums series up: means of trials, medians of
// sittings.
func TestMetricsOverSittings(t *testing.T) {
	w := world{t: t, exp: experiment(), cells: cells(500, "envoy"), subjects: map[string]subject{"none": plainSubject, "envoy": proxySubject}}
	w.change = func(trial *meshbench.Trial) {
		if trial.Cell != "envoy" {
			return
		}
		s := float64(trial.Sitting)
		trial.Metrics = []meshbench.MetricSeries{
			{Source: "b", Series: "load", Kind: meshbench.GaugeMetric, Points: [][2]float64{{0, s}, {1, s + 2}}},
			// Its intervals are unequal: the mean is that of the whole time.
			{Source: "a", Series: "n_total", Kind: meshbench.CounterMetric, Points: [][2]float64{{1, 100}, {1.5, 400}}, Increase: 300, Seconds: 1.5, Resets: 1},
		}
		if trial.Sitting == 3 {
			trial.Metrics = trial.Metrics[:1]
		}
	}
	r := analysis.Analyse(w.run())
	if len(r.Cells[0].Metrics) != 0 {
		t.Errorf("none: %+v", r.Cells[0].Metrics)
	}
	got := r.Cells[1].Metrics
	if len(got) != 2 || got[0].Source != "a" || got[1].Source != "b" {
		t.Fatalf("%+v", got)
	}
	if m := got[0]; len(m.Sittings) != 9 || m.Median != 200 || m.Min != 100 || m.Max != 400 || m.Resets != 9 {
		t.Errorf("a counter: %+v", m)
	}
	if m := got[1]; len(m.Sittings) != 10 || m.Sittings[0].Value != 2 || m.Median != 6.5 || m.Min != 1 || m.Max != 12 || m.Kind != meshbench.GaugeMetric {
		t.Errorf("a gauge: %+v", m)
	}
}

// TestPlanCountsServices: each further service takes its time to start.
func TestPlanCountsServices(t *testing.T) {
	estimate := func(chain int) meshbench.Duration {
		exp := experiment()
		all := cells(500, "envoy")
		for i := range all {
			all[i].Workload.Topology.Chain = chain
		}
		plan, err := analysis.NewPlan(exp, all, true)
		if err != nil {
			t.Fatal(err)
		}
		return plan.Estimate
	}
	// Two subjects, ten sittings, four services more.
	if one, five := estimate(1), estimate(5); five-one < meshbench.Duration(2*10*4*100e6) {
		t.Errorf("one service takes %s, five take %s", one, five)
	}
}
