package load

import (
	"math"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// quiet is a result and a summary that nothing is wrong with.
func quiet() (meshbench.LoadResult, Summary) {
	late := meshbench.Latency{Values: map[meshbench.Quantile]meshbench.Microseconds{"p50": 1, "p99": 60}}
	r := meshbench.LoadResult{
		Lateness: &late,
		Response: meshbench.Latency{Values: map[meshbench.Quantile]meshbench.Microseconds{"p50": 200, "p99": 900}},
		Gaps:     meshbench.Gaps{Predicted: meshbench.PredictedLateness{P50: 0, P99: 40}},
	}
	s := Summary{
		LoopNanos: int64(4 * time.Second), UsefulNanos: int64(time.Second), DelayNanos: int64(10 * time.Millisecond),
		StealShare: 0.04, WorstNanos: int64(3 * time.Millisecond), LawDistance: 0.02, LawDistances: 20_000,
		Calibrations: []Calibration{{Nanos: int64(250 * time.Millisecond), Gaps: []int64{int64(2 * time.Millisecond), 50_000}}},
	}
	return r, s
}

func TestAQuietTrialIsValid(t *testing.T) {
	r, s := quiet()
	if v := judge(r, []Summary{s, s}, 0); v.Status != meshbench.Valid || len(v.Reasons) != 0 || v.Reasons == nil {
		t.Errorf("%+v", v)
	}
	r.Lateness, s.Closed = nil, true
	s.UsefulNanos = s.LoopNanos * 94 / 100
	if v := judge(r, []Summary{s}, 0); v.Status != meshbench.Valid {
		t.Errorf("closed loop: %+v", v)
	}
}

// Every reason: what is just not enough, what makes suspect, what invalid.
func TestReasons(t *testing.T) {
	share := func(f float64) int64 { return int64(f * 4e9) }
	none := math.NaN() // this reason never makes invalid
	for _, c := range []struct {
		code                     string
		set                      func(r *meshbench.LoadResult, s *Summary, x float64) (outOfRange uint64)
		enough, suspect, invalid float64
	}{
		{LatenessBeyondGaps, func(r *meshbench.LoadResult, _ *Summary, x float64) uint64 {
			r.Lateness.Values["p99"] = meshbench.Microseconds(x)
			return 0
		}, 139, 141, 1041},
		{LatenessBeyondGaps, func(r *meshbench.LoadResult, _ *Summary, x float64) uint64 {
			r.Lateness.Values["p50"] = meshbench.Microseconds(x)
			return 0
		}, 19, 21, 201},
		{LatenessBeyondGaps, func(r *meshbench.LoadResult, _ *Summary, x float64) uint64 { // of slow responses
			r.Response.Values["p50"], r.Lateness.Values["p50"] = 10_000, meshbench.Microseconds(x)
			return 0
		}, 190, 210, 1100},
		{LatenessBeyondGaps, func(r *meshbench.LoadResult, _ *Summary, x float64) uint64 { // of responses that did not come
			delete(r.Response.Values, "p50")
			r.Response.AtLeast = map[meshbench.Quantile]meshbench.Microseconds{"p50": 10_000}
			r.Lateness.Values["p50"] = meshbench.Microseconds(x)
			return 0
		}, 190, 210, 1100},
		{GeneratorBusy, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.UsefulNanos = share(x); return 0 }, 0.84, 0.86, 0.98},
		{GeneratorBusy, func(r *meshbench.LoadResult, s *Summary, x float64) uint64 {
			s.Closed, r.Lateness = true, nil
			s.UsefulNanos = share(x)
			return 0
		}, 0.94, 0.96, none},
		{Throttled, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.ThrottledNanos = share(x); return 0 }, 0, 0.001, 0.02},
		{Steal, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.StealShare = x; return 0 }, 0.09, 0.11, none},
		{LargeGaps, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 {
			s.Calibrations[0].Gaps = []int64{int64(x * float64(s.Calibrations[0].Nanos))}
			return 0
		}, 0.09, 0.11, none},
		{GarbageCollection, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.Collections = uint32(x); return 0 }, 0, 1, none},
		{ArrivalsOffPlan, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.LawDistance = x; return 0 }, 0.06, 0.08, 0.18},
		{ArrivalsOffPlan, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { // too few to tell
			s.LawDistances, s.LawDistance = 20, x
			return 0
		}, 0.45, 0.52, 0.7},
		{Preempted, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.DelayNanos = share(x); return 0 }, 0.019, 0.021, 0.21},
		{WorkerStalled, func(_ *meshbench.LoadResult, s *Summary, x float64) uint64 { s.WorstNanos = int64(x * 1e6); return 0 }, 21, 23, 103},
		{HistogramOutOfRange, func(_ *meshbench.LoadResult, _ *Summary, x float64) uint64 { return uint64(x) }, 0, 1, none},
	} {
		for want, x := range map[meshbench.Status]float64{meshbench.Valid: c.enough, meshbench.Suspect: c.suspect, meshbench.InvalidTest: c.invalid} {
			if math.IsNaN(x) {
				continue
			}
			r, s := quiet()
			v := judge(r, []Summary{s}, 0)
			if v.Status != meshbench.Valid {
				t.Fatal("the quiet trial is not valid")
			}
			n := c.set(&r, &s, x)
			v = judge(r, []Summary{s}, n)
			if v.Status != want {
				t.Errorf("%s of %v: %s, not %s (%+v)", c.code, x, v.Status, want, v.Reasons)
			}
			if want != meshbench.Valid && (len(v.Reasons) != 1 || v.Reasons[0].Code != c.code || v.Reasons[0].Message == "") {
				t.Errorf("%s of %v: %+v", c.code, x, v.Reasons)
			}
		}
	}
}
