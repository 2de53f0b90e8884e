package report_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
)

func ptr[T any](v T) *T { return &v }

// latency makes a distribution of n values around the median, in µs, with a
// tail; the same seed makes the same one.
func latency(t *testing.T, seed uint64, n int, median, sigma float64) meshbench.Latency {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	h := histogram.New()
	for range n {
		us := median * math.Exp(sigma*r.NormFloat64())
		if r.Float64() < 0.02 {
			us *= 1 + 4*r.Float64()
		}
		if err := h.RecordValue(max(1, int64(us*1000))); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := histogram.Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	l := meshbench.Latency{Count: uint64(n), Histogram: raw, Values: map[meshbench.Quantile]meshbench.Microseconds{},
		Min: meshbench.Microseconds(h.Min()) / 1000, Max: meshbench.Microseconds(h.Max()) / 1000}
	for _, q := range meshbench.Quantiles {
		l.Values[q] = histogram.Rank(h, int64(math.Ceil(q.Probability()*float64(n))))
	}
	return l
}

// values draws one value per sitting.
func values(seed uint64, n int, center, spread float64) []meshbench.SittingValue {
	r := rand.New(rand.NewPCG(seed, 2))
	out := make([]meshbench.SittingValue, n)
	for i := range out {
		out[i] = meshbench.SittingValue{Sitting: i + 1, Value: center + spread*r.NormFloat64()}
	}
	return out
}

func median(all []meshbench.SittingValue) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, s.Value)
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

const sampleSittings = 10

func sampleCell(t *testing.T, id, mesh string, rate float64, seed uint64, p50, p90, p99 float64) meshbench.CellResult {
	t.Helper()
	c := meshbench.CellResult{
		Cell: meshbench.Cell{
			ID: id, Subject: meshbench.Subject{ID: mesh, Mesh: mesh}, Infrastructure: meshbench.Local, Path: meshbench.PathLoopback,
			Profile: meshbench.Parity, Axes: map[string]any{"rate_rps": rate},
			Workload: meshbench.Workload{Name: "echo@1", Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}, Request: meshbench.Request{Method: "GET", Path: "/"}},
			Load: meshbench.Load{Rate: meshbench.Rate(rate), Arrivals: meshbench.Poisson, Connections: 32, KeepAlive: true,
				Timeout: meshbench.Duration(10 * time.Second), Trial: meshbench.Duration(4 * time.Second)},
		},
		LoadState: meshbench.Kept, Trials: sampleSittings, ThroughputRPS: rate - 0.2,
		Response:  latency(t, seed, 20000, p50, 0.2),
		Planned:   20000,
		Completed: 20000,
		Quantiles: map[meshbench.Quantile]meshbench.QuantileSummary{
			meshbench.P99_9: {EffectiveSize: 1800, Needed: 3688, TrialNeeded: meshbench.Duration(10 * time.Second)},
		},
	}
	for i, q := range []meshbench.Quantile{meshbench.P50, meshbench.P90, meshbench.P99} {
		center := []float64{p50, p90, p99}[i]
		v := values(seed+uint64(i), sampleSittings, center, center*0.03*float64(i+1))
		c.Quantiles[q] = meshbench.QuantileSummary{Median: ptr(meshbench.Microseconds(median(v))), Sittings: v, EffectiveSize: 1800, Needed: 368}
	}
	return c
}

// sample is a run of three cells: none, envoy, and an envoy that is
// saturated. One comparison is not decided, one shows no difference; the
// verdict is suspect.
func sample(t *testing.T) meshbench.Result {
	t.Helper()
	none := sampleCell(t, "none", "none", 500, 11, 163, 212, 381)
	none.Proof = meshbench.Proof{Status: meshbench.NotApplicable, Sent: 31000, Application: 31000, Reason: "no mesh: nothing stands between generator and application"}
	none.Settings = []meshbench.Setting{{Name: "threads", Value: "1"}, {Name: "upstream_http", Value: "HTTP/1.1"}}
	none.Roles = []meshbench.Usage{
		{Role: meshbench.GeneratorRole, Process: "meshbench", CPUPer1000Requests: ptr(17.9), CPUCores: 0.009, MemoryMeanBytes: 21 << 20, MemoryPeakBytes: 24 << 20},
		{Role: meshbench.Application, Service: "echo", Process: "meshbench", CPUPer1000Requests: ptr(22.4), CPUCores: 0.0112, IdleCPUCores: 0.0004, MemoryMeanBytes: 9 << 20, MemoryPeakBytes: 10 << 20},
	}

	envoy := sampleCell(t, "envoy", "envoy", 500, 23, 505, 640, 1290)
	envoy.Subject.Version = "1.40.0"
	q := envoy.Quantiles[meshbench.P99]
	q.MachineLimited = true
	envoy.Quantiles[meshbench.P99] = q
	envoy.Proof = meshbench.Proof{Status: meshbench.Proven, Sent: 31012, ClientProxy: 31012, ServerProxy: 31012, Application: 31012, Handshakes: 320,
		PeerName: "spiffe://meshbench.test/ns/default/sa/client"}
	envoy.Settings = []meshbench.Setting{{Name: "threads", Value: "1"}, {Name: "upstream_http", Value: "HTTP/1.1"}, {Name: "tls_version", Value: "TLSv1.3"},
		{Name: "tls_group", Value: "X25519"}, {Name: "tls_cipher", Value: "TLS_AES_128_GCM_SHA256"}, {Name: "access_log", Value: "off"}}
	envoy.Roles = []meshbench.Usage{
		{Role: meshbench.ClientProxy, Service: "echo", Process: "envoy", CPUPer1000Requests: ptr(212.3), CPUCores: 0.106, IdleCPUCores: 0.002, MemoryMeanBytes: 31e6, MemoryPeakBytes: 32.5e6, MemoryFileBytes: 41e6},
		{Role: meshbench.ServerProxy, Service: "echo", Process: "envoy", CPUPer1000Requests: ptr(221.7), CPUCores: 0.111, IdleCPUCores: 0.002, MemoryMeanBytes: 31.2e6, MemoryPeakBytes: 33e6, MemoryFileBytes: 41e6},
		{Role: meshbench.Application, Service: "echo", Process: "meshbench", CPUPer1000Requests: ptr(22.9), CPUCores: 0.0114, IdleCPUCores: 0.0004, MemoryMeanBytes: 9 << 20, MemoryPeakBytes: 10 << 20},
		{Role: meshbench.ControlPlane, Process: "meshbench", CPUPer1000Requests: ptr(0.31), CPUCores: 0.0002, IdleCPUCores: 0.0002, MemoryMeanBytes: 28e6, MemoryPeakBytes: 29e6},
		{Role: meshbench.GeneratorRole, Process: "meshbench", CPUPer1000Requests: ptr(18.4), CPUCores: 0.009, MemoryMeanBytes: 21 << 20, MemoryPeakBytes: 24 << 20},
	}

	full := sampleCell(t, "envoy@1.39", "envoy", 500, 37, 81000, 140000, 260000)
	full.Subject = meshbench.Subject{ID: "envoy@1.39", Mesh: "envoy", Version: "1.39"}
	full.LoadState, full.ThroughputRPS, full.Completed = meshbench.Saturated, 431.7, 17268
	full.Response.Count = 17268
	full.Errors = map[string]uint64{"timed_out": 2600, "unfinished": 120, "connection_reset": 12}
	full.Response.Values = map[meshbench.Quantile]meshbench.Microseconds{meshbench.P50: 81000}
	full.Response.AtLeast = map[meshbench.Quantile]meshbench.Microseconds{meshbench.P90: 240000, meshbench.P99: 10e6, meshbench.P99_9: 10e6}
	full.Quantiles = map[meshbench.Quantile]meshbench.QuantileSummary{}
	full.Proof, full.Settings = envoy.Proof, envoy.Settings
	full.Roles = envoy.Roles[:3]

	response := func(cell, metric string, seed uint64, est, low, high, ratio float64, sig meshbench.Significance, p float64) meshbench.Comparison {
		return meshbench.Comparison{
			Cell: cell, BaselineCell: "none", Metric: metric, Estimator: "hodges_lehmann_over_sittings", N: sampleSittings, FamilySize: 6, Margin: 5, Level: 0.990234375,
			Difference: meshbench.Estimate{Estimate: est, Low: &low, High: &high, Unit: "us"},
			Ratio:      meshbench.Estimate{Estimate: ratio, Low: ptr(ratio - 0.08), High: ptr(ratio + 0.09)},
			P:          p, PAdjusted: min(1, 6*p), Significance: sig,
			Differences: values(seed, sampleSittings, est, (high-low)/3), StdDev: (high - low) / 3,
		}
	}
	comparisons := []meshbench.Comparison{
		response("envoy", "response.p50", 1, 342.2, 331.4, 355.1, 3.10, meshbench.Worse, 0.001953125),
		response("envoy", "response.p90", 2, 1.4, -2.2, 3.9, 1.01, meshbench.None, 0.4),
		response("envoy", "response.p99", 3, 902.7, -71.2, 1312.4, 3.37, meshbench.Inconclusive, 0.02),
	}
	for _, m := range []string{"response.p50", "response.p90", "response.p99"} {
		comparisons = append(comparisons, meshbench.Comparison{Cell: "envoy@1.39", BaselineCell: "none", Metric: m, FamilySize: 6, Margin: 5,
			Estimator: "hodges_lehmann_over_sittings", Reason: "saturated", Significance: meshbench.Inconclusive, P: 1, PAdjusted: 1, N: sampleSittings,
			Difference: meshbench.Estimate{Estimate: math.NaN(), Unit: "us"}, Ratio: meshbench.Estimate{Estimate: math.NaN()}})
	}
	resource := func(metric, unit string, est, half float64) meshbench.Comparison {
		return meshbench.Comparison{Cell: "envoy", BaselineCell: "none", Metric: metric, Estimator: "hodges_lehmann_over_sittings", N: sampleSittings, Level: 0.951171875,
			Difference: meshbench.Estimate{Estimate: est, Low: ptr(est - half), High: ptr(est + half), Unit: unit}, Ratio: meshbench.Estimate{},
			Differences: values(uint64(len(metric)), sampleSittings, est, half), StdDev: half}
	}

	start := time.Date(2026, 11, 22, 10, 3, 0, 0, time.UTC)
	r := meshbench.Result{
		SchemaVersion: meshbench.SchemaVersion, ID: "01KAN0Q0V7X9M4S1T5B2C3D4E5", State: meshbench.Finished, StartedAt: start, FinishedAt: ptr(start.Add(166 * time.Second)),
		Headline: "At 500 requests/s, envoy adds 342 µs [331, 355] to the median and 0.9 ms [-0.1, 1.3] to p99 of none, and costs 430 CPU-ms per 1,000 requests and 62 MB of memory.",
		Experiment: meshbench.Experiment{APIVersion: meshbench.APIVersion, Kind: meshbench.ExperimentKind, Name: "sidecar-cost", Infrastructure: meshbench.Local,
			Subjects: []string{"none", "envoy", "envoy@1.39"}, Profile: meshbench.Parity, Workload: none.Workload, Load: none.Load, Sittings: sampleSittings, Blocks: 1,
			Seed: 20261122, Margin: meshbench.Margin{Percent: 2, Floor: meshbench.Duration(5 * time.Microsecond)}},
		Plan: meshbench.Plan{Cells: []meshbench.Cell{none.Cell, envoy.Cell, full.Cell}, Sittings: sampleSittings, Blocks: 1, Seed: 20261122, FamilySize: 6, Level: 0.990234375, TrialsTotal: 30,
			Warnings: []meshbench.Warning{{Code: "p99_9_not_carried", Message: "p99.9 is not answered at 500 requests/s: it would need --trial 10s."}}},
		Fingerprint: meshbench.Fingerprint{Meshbench: "0.1.0", OS: "linux", Kernel: "6.1.0", CPUModel: "Example CPU @ 2.50GHz", Cores: 2, ThreadsPerCore: 1, MemoryBytes: 24 << 30,
			Virtualisation: "kvm", StealShare: 0.004, OpenFiles: 1048576, GeneratorCPUs: []int{0}, SystemCPUs: []int{1},
			Mitigations:    map[string]string{"spectre_v2": "Mitigation: Retpolines"},
			Runtimes:       []meshbench.RuntimeUsed{{Name: "envoy", Version: "1.40.0", SHA256: "d0c5a0000000000000000000000000000000000000000000000000000000a1b2", Source: "wheel"}},
			ExperimentHash: "77ab000000000000000000000000000000000000000000000000000000000001", Seed: 20261122},
		Verdict:     meshbench.Verdict{Status: meshbench.Suspect, Reasons: []meshbench.Reason{{Code: "blocks_left_out", Message: "2 of 10 blocks stayed out of the comparisons"}}},
		Cells:       []meshbench.CellResult{none, envoy, full},
		Comparisons: comparisons,
		Resources: []meshbench.Comparison{
			resource("cpu.client_proxy", "ms_per_1000_requests", 212.3, 4.2), resource("cpu.server_proxy", "ms_per_1000_requests", 221.7, 4.4),
			resource("cpu.total", "ms_per_1000_requests", 434.8, 8.1), resource("memory.total", "bytes", 62.2e6, 0.4e6),
		},
		Generator: meshbench.GeneratorHealth{LatenessP50: 0.12, LatenessP99: 41.3, PredictedP50: 0.1, PredictedP99: 38.2, GapShare: 0.021, StealShare: 0.004, CPUPerRequest: 18.1, PeakMemoryBytes: 24 << 20,
			Lateness: latency(t, 91, 60000, 0.4, 1.9)},
		LeftOut: []meshbench.LeftOut{{Sitting: 4, Block: 1, Repeated: true, Reasons: []meshbench.Reason{{Code: "worker_stalled", Message: "the generator stood still for 212 ms"}}},
			{Sitting: 6, Block: 1, Reasons: []meshbench.Reason{{Code: "steal", Message: "a"}, {Code: "large_gaps", Message: "b"}, {Code: "steal", Message: "c"}, {Code: "preempted", Message: "d"}}}},
		FailOn: []meshbench.FailOnOutcome{{Condition: "response.p99>+5%", Cell: "envoy", Outcome: "inconclusive", Message: "the interval reaches from -71 µs to 1.31 ms; the threshold is 19 µs"}},
		Failures: []meshbench.Failure{{Cell: "envoy@1.39", Sitting: 7, Message: "envoy (client proxy) exited with status 1 and was started again",
			Log: "[info] starting\n[critical] assert failure: false\n"}},
		Warnings: []meshbench.Warning{{Code: "one_core", Message: "generator and system under test have one core each"}},
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for s := 1; s <= sampleSittings; s++ {
		for i, c := range r.Cells {
			late := latency(t, uint64(1000+s*10+i), 200, 0.4, 1.9)
			late.Values[meshbench.P99] = meshbench.Microseconds(30 + 20*rng.Float64())
			late.Histogram = nil
			trial := meshbench.TrialSummary{Cell: c.ID, Sitting: s, Block: 1, Order: i + 1, ThroughputRPS: c.ThroughputRPS, Lateness: &late, LoadState: c.LoadState,
				Gaps:    meshbench.Gaps{Share: 0.02, Predicted: meshbench.PredictedLateness{P50: 0.1, P99: meshbench.Microseconds(28 + 20*rng.Float64()), P99_9: meshbench.Microseconds(210 + 40*rng.Float64())}},
				Verdict: meshbench.Verdict{Status: meshbench.Valid}}
			if s == 4 && i == 1 {
				trial.Verdict.Add(meshbench.InvalidTest, "worker_stalled", "the generator stood still for %d ms", 212)
				late.Values[meshbench.P99] = 180000
			}
			if s == 9 && i == 0 {
				trial.Verdict.Add(meshbench.Suspect, "steal", "the hypervisor took %s of the core", "6 %")
			}
			r.Trials = append(r.Trials, trial)
		}
	}
	return r
}

// invalid is a run whose proof of path failed.
func invalid(t *testing.T) meshbench.Result {
	r := sample(t)
	r.Verdict = meshbench.Verdict{Status: meshbench.InvalidTest, Reasons: []meshbench.Reason{{Code: "proof_failed", Message: "envoy: 31,012 requests were sent, 12 passed the client proxy"}}}
	r.Headline = "This run is invalid: envoy: 31,012 requests were sent, 12 passed the client proxy."
	r.Cells[1].Proof.Status, r.Cells[1].Proof.ClientProxy = meshbench.ProofFailed, 12
	r.Cells[1].Proof.Reason = "31,012 sent, 12 counted by the client proxy"
	return r
}

// interrupted is a run that was cut off before its first trial ended.
func interrupted(t *testing.T) meshbench.Result {
	full := sample(t)
	r := meshbench.Result{ID: full.ID, State: meshbench.Interrupted, StartedAt: full.StartedAt, Experiment: full.Experiment, Plan: full.Plan}
	for _, c := range full.Cells {
		r.Cells = append(r.Cells, meshbench.CellResult{Cell: c.Cell})
	}
	for _, c := range full.Comparisons {
		r.Comparisons = append(r.Comparisons, meshbench.Comparison{Cell: c.Cell, BaselineCell: c.BaselineCell, Metric: c.Metric, FamilySize: 6,
			Significance: meshbench.Inconclusive, Reason: "n too small: no sitting measured both", P: 1, PAdjusted: 1, Estimator: "hodges_lehmann_over_sittings",
			Difference: meshbench.Estimate{Estimate: math.NaN(), Unit: "us"}, Ratio: meshbench.Estimate{Estimate: math.NaN()}})
	}
	return r
}

// hostile puts markup, links and terminal escapes wherever a name goes.
func hostile(t *testing.T) meshbench.Result {
	const bad = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`|[x](http://evil.test)\x1b[2J\n# h\u202e"
	r := sample(t)
	r.Experiment.Name, r.Headline = bad, bad
	for i := range r.Cells {
		c := &r.Cells[i]
		id := fmt.Sprint(bad, i)
		for j := range r.Comparisons {
			if r.Comparisons[j].Cell == c.ID {
				r.Comparisons[j].Cell = id
			}
			if r.Comparisons[j].BaselineCell == c.ID {
				r.Comparisons[j].BaselineCell = id
			}
		}
		c.ID, c.Subject.ID = id, id
		c.Proof.PeerName, c.Proof.Reason = bad, bad
		c.Settings = []meshbench.Setting{{Name: bad, Value: bad}}
		c.Errors = map[string]uint64{bad: 3}
		c.Roles = slices.Clone(c.Roles)
		for j := range c.Roles {
			c.Roles[j].Service, c.Roles[j].Process = bad, bad
		}
	}
	r.Verdict.Add(meshbench.Suspect, bad, bad)
	r.Failures = []meshbench.Failure{{Cell: bad, Message: bad, Log: bad}}
	r.Warnings = []meshbench.Warning{{Code: bad, Message: bad}}
	r.Fingerprint.CPUModel = bad
	r.Fingerprint.Runtimes[0].Version = bad
	return r
}

// loadSample is an open loop with some errors.
func loadSample(t *testing.T) meshbench.LoadResult {
	late := latency(t, 6, 4989, 0.4, 1.9)
	return meshbench.LoadResult{
		Target: "http://127.0.0.1:8080/", Planned: 5000, Completed: 4989, Errored: 8, TimedOut: 3, Errors: map[string]uint64{"connection_reset": 8}, Sent: 5501,
		ElapsedSeconds: 10.001, ThroughputRPS: 498.9, Response: latency(t, 3, 4989, 163, 0.2), ConnectionWait: latency(t, 4, 4989, 0.9, 0.3), Service: latency(t, 5, 4989, 160, 0.2),
		Lateness: &late, Connect: latency(t, 8, 32, 80, 0.2), ErrorResponse: latency(t, 9, 8, 400, 0.2), LoadState: meshbench.Kept,
		Gaps:      meshbench.Gaps{Share: 0.02, Predicted: meshbench.PredictedLateness{P50: 0.1, P99: 37.5, P99_9: 210}},
		Generator: meshbench.Generator{Engine: "native", CPUSeconds: 9.81, SpinSeconds: 9.1, CPUPerRequest: 18.2, PeakMemoryBytes: 24 << 20, StealShare: 0.003},
		Verdict:   meshbench.Verdict{Status: meshbench.Valid}, BytesRead: 5_600_000, BytesWritten: 410_000,
	}
}
