package storetest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
	"github.com/meshbench/meshbench/internal/store"
)

// Holder is who holds the leases of the suite.
const Holder = "storetest/1/boot"

// start is the start of the first sample run; run n starts n seconds later.
var start = time.Date(2026, 11, 22, 9, 30, 0, 123456789, time.UTC)

// RunAt returns a running run as the runner makes it, number n of the suite:
// it starts n seconds after the first.
func RunAt(n int) meshbench.Run {
	at := start.Add(time.Duration(n) * time.Second)
	load := meshbench.Load{
		Rate: 500, Arrivals: meshbench.Poisson, Connections: 32, KeepAlive: true,
		Timeout: meshbench.Duration(10 * time.Second), Warmup: meshbench.Duration(2 * time.Second),
		Settle: meshbench.Duration(500 * time.Millisecond), Trial: meshbench.Duration(4 * time.Second),
	}
	work := meshbench.Workload{
		Name: "echo@1", Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1},
		Request:    meshbench.Request{Method: "GET", Path: "/", Headers: map[string]string{"x-a": "1"}},
		Response:   meshbench.Response{BodyBytes: 1024},
		Assertions: []meshbench.Assertion{{Status: 200}},
	}
	run := meshbench.Run{
		ID: store.NewID(at), State: meshbench.Running, StartedAt: at,
		Experiment: meshbench.Experiment{
			APIVersion: meshbench.APIVersion, Kind: meshbench.ExperimentKind, Name: fmt.Sprintf("sample %d", n),
			Infrastructure: meshbench.Local, Subjects: []string{"none", "envoy"}, Profile: meshbench.Parity,
			Workload: work, Load: load, Sittings: 10, Blocks: 1, MaxTime: meshbench.Duration(3 * time.Minute),
			Seed: math.MaxUint64 - uint64(n), Margin: meshbench.Margin{Percent: 1, Floor: meshbench.Duration(5 * time.Microsecond)},
			Axes: []meshbench.Axis{{Field: "load.rate", Values: []any{500.0, 800.0}}},
		},
		Fingerprint: meshbench.Fingerprint{
			Meshbench: "0.1.0", OS: "linux", Cores: 2, GeneratorCPUs: []int{0}, SystemCPUs: []int{1},
			Runtimes: []meshbench.RuntimeUsed{{Name: "envoy", Version: "1.40.0", SHA256: "00ff", Source: "wheel"}},
		},
	}
	for i, id := range []string{"none", "envoy"} {
		c := meshbench.Cell{
			ID: id, Subject: meshbench.Subject{ID: id, Mesh: id}, Infrastructure: meshbench.Local,
			Path: meshbench.PathLoopback, Profile: meshbench.Parity, Workload: work, Load: load,
			Axes: map[string]any{"rate_rps": 500.0},
		}
		if i > 0 {
			c.Baseline = "none"
		}
		run.Plan.Cells = append(run.Plan.Cells, c)
	}
	return run
}

// Ended returns a run in a final state, a minute after its start.
func Ended(run meshbench.Run, state meshbench.State) meshbench.Run {
	at := run.StartedAt.Add(time.Minute)
	run.State, run.FinishedAt, run.Headline = state, &at, "envoy adds 342 us [331, 355] to the median"
	return run
}

// TrialOf returns a trial of a cell with the histograms of 2,000 requests
// each, which is 4 s at 500 requests/s. The seed decides the latencies.
func TrialOf(cell string, sitting int, seed uint64) meshbench.Trial {
	r := rand.New(rand.NewPCG(seed, 1))
	const n = 2000
	late := latency(r, n, 8e3)
	batches := make([]meshbench.Batch, 40)
	for i := range batches {
		batches[i] = meshbench.Batch{Count: 50, Above: map[meshbench.Quantile]uint32{
			meshbench.P50: uint32(r.IntN(50)), meshbench.P90: uint32(r.IntN(10)), meshbench.P99: uint32(r.IntN(2)), meshbench.P99_9: 0}}
	}
	cost := 210.5
	return meshbench.Trial{
		Cell: cell, Sitting: sitting, Block: 1, Order: 1, StartedAt: start.Format(time.RFC3339),
		Load: meshbench.LoadResult{
			Target: "http://127.0.0.1:10001", Planned: n + 3, Completed: n, Errored: 1, TimedOut: 2,
			Errors: map[string]uint64{"reset": 1}, Sent: n + 1003, ElapsedSeconds: 4.000123, ThroughputRPS: n / 4.000123,
			Response: latency(r, n, 3e5), ConnectionWait: latency(r, n, 2e3), Service: latency(r, n, 2.8e5), Lateness: &late,
			Connect: latency(r, 32, 9e4), ErrorResponse: latency(r, 1, 1e6),
			LoadState: meshbench.Kept, Generator: meshbench.Generator{Engine: "native", CPUSeconds: 3.9, SpinSeconds: 3.8},
			Verdict: meshbench.Verdict{Status: meshbench.Valid, Reasons: []meshbench.Reason{}},
			Batches: batches,
		},
		Usage: []meshbench.Usage{
			{Role: meshbench.ClientProxy, Process: "envoy", CPUPer1000Requests: &cost, CPUCores: 0.105, MemoryMeanBytes: 31 << 20},
			{Role: meshbench.Application, Service: "echo", Process: "meshbench"},
		},
		Proof:    meshbench.Proof{Status: meshbench.Proven, Sent: n + 1003, ClientProxy: n + 1003, ServerProxy: n + 1003, Application: n + 1003, Handshakes: 1},
		Settings: []meshbench.Setting{{Name: "threads", Value: "1"}, {Name: "tls_version", Value: "TLSv1.3"}},
		Verdict:  meshbench.Verdict{Status: meshbench.Suspect, Reasons: []meshbench.Reason{{Code: "neighbour", Message: "0.2 cores"}}},
	}
}

// latency returns n lognormal times around a median in nanoseconds.
func latency(r *rand.Rand, n int, median float64) meshbench.Latency {
	h := histogram.New()
	for range n {
		// A value outside of the geometry is 40 standard deviations away.
		_ = h.RecordValue(int64(median * math.Exp(0.4*r.NormFloat64())))
	}
	raw, err := histogram.Encode(h)
	if err != nil {
		panic(err) // a histogram that was made here
	}
	l := meshbench.Latency{
		Count: uint64(n), Min: meshbench.Microseconds(h.Min()) / 1000, Max: meshbench.Microseconds(h.Max()) / 1000,
		Values: map[meshbench.Quantile]meshbench.Microseconds{}, Histogram: raw,
	}
	for _, q := range meshbench.Quantiles {
		l.Values[q] = histogram.Rank(h, int64(math.Ceil(q.Probability()*float64(n))))
	}
	return l
}

// text returns a value's JSON, by which the suite compares what went in with
// what came out.
func text(t testing.TB, value any) string {
	t.Helper()
	data, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
