package load

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
)

// pairs encodes values as a loop does.
func pairs(values ...int64) []byte {
	h := NewHistogram()
	for _, v := range values {
		h.Record(v)
	}
	var b []byte
	for i, n := range h.counts {
		if n > 0 {
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(i)), n)
		}
	}
	return b
}

func add(t *testing.T, a *Aggregate, r Report) Tick {
	t.Helper()
	tick, err := a.Add(r)
	if err != nil {
		t.Fatal(err)
	}
	return tick
}

// Histograms of n workers equal the histogram of the pooled values, bit for
// bit: the reports of three workers in one Aggregate, in one each and merged,
// and of one worker that saw all values.
func TestWorkersPool(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	job := goodJob()
	job.WorkerCount = 3
	together, merged, one := NewAggregate(job), NewAggregate(job), NewAggregate(job)
	var parts [3]*Aggregate
	for i := range parts {
		parts[i] = NewAggregate(job)
	}
	for slot := range int64(5) {
		var pooled []int64
		for i := range parts {
			values := someNanos(r, 200+r.IntN(100))
			pooled = append(pooled, values...)
			report := Report{Phase: Measure, Slot: slot, Planned: uint64(len(values)), Completed: uint64(len(values)),
				Errors: map[string]uint64{"x": 1}, Counts: map[string][]byte{"response": pairs(values...), "service": pairs(values...)}}
			add(t, together, report)
			add(t, parts[i], report)
		}
		add(t, one, Report{Phase: Measure, Slot: slot, Planned: uint64(len(pooled)), Completed: uint64(len(pooled)),
			Errors: map[string]uint64{"x": 3}, Counts: map[string][]byte{"response": pairs(pooled...), "service": pairs(pooled...)}})
	}
	for _, p := range parts {
		merged.Merge(p)
	}
	s := Summary{CountedNanos: int64(500 * time.Millisecond), LoopNanos: int64(500 * time.Millisecond), DelayNanos: -1}
	want, err := one.Result(s, s, s)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*Aggregate{"together": together, "merged": merged} {
		got, err := a.Result(s, s, s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Response.Histogram, want.Response.Histogram) {
			t.Errorf("%s: the histograms differ", name)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestBatchesCountWhatIsAboveTheTrialsOwnQuantiles(t *testing.T) {
	a := NewAggregate(goodJob())
	const ms = int64(time.Millisecond)
	add(t, a, Report{Phase: Measure, Slot: 0, Planned: 3, Completed: 3, Counts: map[string][]byte{"response": pairs(ms, ms, 2*ms)}})
	add(t, a, Report{Phase: Measure, Slot: 1, Planned: 4, Completed: 4, Counts: map[string][]byte{"response": pairs(ms, 3*ms, 4*ms, 5*ms)}})
	add(t, a, Report{Phase: Drain, Slot: 1, Completed: 1, Planned: 1, Counts: map[string][]byte{"response": pairs(9 * ms)}})
	r, err := a.Result(Summary{CountedNanos: 2 * slotTime, LoopNanos: 2 * slotTime, DelayNanos: -1})
	if err != nil {
		t.Fatal(err)
	}
	// 8 values: 1 1 1 2 3 4 5 9; p50 is the 4th.
	want := []meshbench.Batch{
		{Count: 3, Above: map[meshbench.Quantile]uint32{"p50": 0, "p90": 0, "p99": 0, "p99_9": 0}},
		{Count: 5, Above: map[meshbench.Quantile]uint32{"p50": 4, "p90": 1, "p99": 0, "p99_9": 0}},
	}
	if d := cmp.Diff(want, r.Batches); d != "" {
		t.Error(d)
	}
	if r.ElapsedSeconds != 0.2 || r.ThroughputRPS != 40 {
		t.Errorf("%v s, %v per second", r.ElapsedSeconds, r.ThroughputRPS)
	}
}

func TestBatchesOfALongLoadAreNotKept(t *testing.T) {
	a := NewAggregate(goodJob())
	for slot := range int64(maxBatches + 10) {
		add(t, a, Report{Phase: Measure, Slot: slot, Planned: 1, Completed: 1, Counts: map[string][]byte{"response": pairs(slot)}})
	}
	r, err := a.Result(Summary{CountedNanos: 1, DelayNanos: -1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Batches) != 0 || a.batches != nil || r.Response.Count != maxBatches+10 {
		t.Errorf("%d batches, %d responses", len(r.Batches), r.Response.Count)
	}
}

func TestLoadState(t *testing.T) {
	for _, c := range []struct {
		name    string
		rate    meshbench.Rate
		reports func(a *Aggregate)
		want    meshbench.LoadState
	}{
		{"kept", 1000, func(a *Aggregate) {
			for slot := range int64(40) {
				add(t, a, Report{Phase: Measure, Slot: slot, Planned: 100, Completed: 100, Backlog: slot % 2})
			}
		}, meshbench.Kept},
		{"kept with a burst", 1000, func(a *Aggregate) {
			for slot := range int64(40) {
				b := int64(0)
				if slot == 30 {
					b = 50
				}
				add(t, a, Report{Phase: Measure, Slot: slot, Planned: 100, Completed: 100, Backlog: b})
			}
		}, meshbench.Kept},
		{"answered after all, but the backlog grew", 1000, func(a *Aggregate) {
			for slot := range int64(40) {
				add(t, a, Report{Phase: Measure, Slot: slot, Planned: 100, Completed: 90, Backlog: 10 * (slot + 1)})
			}
			add(t, a, Report{Phase: Drain, Slot: 40, Completed: 400})
		}, meshbench.Saturated},
		{"timed out", 1000, func(a *Aggregate) {
			add(t, a, Report{Phase: Measure, Planned: 100, Completed: 90, Errored: 8, TimedOut: 2})
		}, meshbench.Saturated},
		{"errors are answers", 1000, func(a *Aggregate) {
			add(t, a, Report{Phase: Measure, Planned: 100, Completed: 1, Errored: 99})
		}, meshbench.Kept},
		{"closed loop", meshbench.RateMax, func(a *Aggregate) {
			add(t, a, Report{Phase: Measure, Planned: 100, Completed: 10, TimedOut: 90})
		}, meshbench.ClosedLoop},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := goodJob()
			job.Rate = c.rate
			a := NewAggregate(job)
			c.reports(a)
			r, err := a.Result(Summary{CountedNanos: 4e9, LoopNanos: 4e9, DelayNanos: -1, Closed: job.Rate.IsMax()})
			if err != nil {
				t.Fatal(err)
			}
			if r.LoadState != c.want {
				t.Errorf("%s", r.LoadState)
			}
			if (r.Lateness == nil) != job.Rate.IsMax() {
				t.Error("lateness is null in closed loop, and only there")
			}
			// Saturation of the subject is not a fault of the generator.
			if r.Verdict.Status != meshbench.Valid {
				t.Errorf("%+v", r.Verdict)
			}
		})
	}
}

func TestTickShowsItsOwnQuantiles(t *testing.T) {
	a := NewAggregate(goodJob())
	for i := range int64(3) {
		v := (i + 1) * 1_000_000
		tick := add(t, a, Report{Phase: Measure, Slot: i, Sent: 2, Completed: 1, Counts: map[string][]byte{"response": pairs(v)}})
		if want := micros(v); tick.P50 < want || tick.P50 > want*1.001 || tick.P99 != tick.P50 {
			t.Errorf("tick %d: p50 %v, p99 %v", i, tick.P50, tick.P99)
		}
		if tick.Total.Sent != uint64(2*(i+1)) || tick.Total.Completed != uint64(i+1) {
			t.Errorf("tick %d: %+v", i, tick.Total)
		}
	}
}
