package load

import (
	"math"
	"time"

	"github.com/meshbench/meshbench"
)

// The reasons for which the generator doubts its own measurement. A subject
// that is slow, fails or saturates is never one.
const (
	// LatenessBeyondGaps: requests were taken up later than the machine's own
	// gaps explain, by an amount that matters beside the response times.
	LatenessBeyondGaps = "lateness_beyond_gaps"
	// GeneratorBusy: the loop had so little time left that requests waited for
	// it; in closed loop, that it and not the subject may have set the pace.
	GeneratorBusy = "generator_busy"
	// Throttled: a CPU quota stopped the generator.
	Throttled = "throttled"
	// Steal: the hypervisor took the loop's CPU away.
	Steal = "steal"
	// LargeGaps: the calibration saw the core elsewhere for much of the time.
	LargeGaps = "large_gaps"
	// GarbageCollection: the Go runtime collected garbage during the load.
	GarbageCollection = "garbage_collection"
	// ArrivalsOffPlan: the distances between requests do not follow the
	// planned law.
	ArrivalsOffPlan = "arrivals_off_plan"
	// Preempted: other processes ran on the loop's core while it had work.
	Preempted = "preempted"
	// WorkerStalled: the loop stood still at a stretch.
	WorkerStalled = "worker_stalled"
	// HistogramOutOfRange: times above one hour are missing in a histogram.
	HistogramOutOfRange = "histogram_out_of_range"
)

// limit is from where on a figure makes a trial suspect, and invalid. What is
// suspect stays in a comparison: medians over sittings bear it. What is
// invalid would move them.
type limit struct{ suspect, invalid float64 }

var (
	// A tail that is 100 us late is visible beside a proxy's (some 0.5 ms); one
	// of 1 ms is larger than it. The median carries the headline, hence a
	// fifth of both. In nanoseconds.
	latenessP50 = limit{float64(20 * time.Microsecond), float64(200 * time.Microsecond)}
	latenessP99 = limit{float64(100 * time.Microsecond), float64(time.Millisecond)}
	// Where responses are slow, lateness matters in proportion to them: below
	// the margin that comparisons use, and from the size of an effect on.
	latenessShare = limit{0.02, 0.10}
	// A queue of Poisson arrivals at 85 % utilisation waits some six times
	// its service, at 97 % over thirty times.
	busyOpen = limit{0.85, 0.97}
	// A closed loop's rate is its own and not the subject's when it never waits.
	busyClosed = limit{0.95, 2}
	// Any throttling lasts tens of milliseconds at once.
	throttledShare = limit{0, 0.01}
	// Virtual machines lose a few percent at all times, which the gaps
	// predict; only far more makes doubtful, and never invalid.
	stealShare = limit{0.10, 2}
	gapShare   = limit{0.10, 2}
	// Waiting on the run queue is not predicted by gaps seen at another time.
	preemptedShare = limit{0.02, 0.20}
	// Schedulers give a time slice of up to 20 ms to somebody else; from 100 ms
	// on a whole batch is missing.
	stalledTime = limit{float64(20 * time.Millisecond), float64(100 * time.Millisecond)}
	// Kolmogorov's D, or the share of constant distances that are off; to it
	// comes the share of the gaps, each of which makes a burst.
	lawDistance = limit{0.05, 0.15}
)

// lawRoom is the D that chance exceeds once in a thousand trials, times the
// root of n. (Source: the limit of Kolmogorov's distribution.)
const lawRoom = 1.95

// judge gives the verdict on a result, whose other fields are complete.
func judge(r meshbench.LoadResult, summaries []Summary, outOfRange uint64) meshbench.Verdict {
	v := meshbench.Verdict{Status: meshbench.Valid, Reasons: []meshbench.Reason{}}
	over := func(l limit, value float64) (meshbench.Status, bool) {
		switch {
		case value > l.invalid:
			return meshbench.InvalidTest, true
		case value > l.suspect:
			return meshbench.Suspect, true
		}
		return meshbench.Valid, false
	}
	judgeLateness(&v, r)
	for _, s := range summaries {
		loop := float64(max(s.LoopNanos, 1))
		busy, note := busyOpen, "requests waited for it"
		if s.Closed {
			busy, note = busyClosed, "it may have set the pace"
		}
		share := float64(s.UsefulNanos) / loop
		if status, bad := over(busy, share); bad {
			v.Add(status, GeneratorBusy, "the generator's core was busy for %.0f %% of the time: %s", 100*share, note)
		}
		share = float64(s.ThrottledNanos) / loop
		if status, bad := over(throttledShare, share); bad {
			v.Add(status, Throttled, "a CPU quota stopped the generator for %s", round(s.ThrottledNanos))
		}
		if status, bad := over(stealShare, s.StealShare); bad {
			v.Add(status, Steal, "the hypervisor took %.0f %% of the generator's core", 100*s.StealShare)
		}
		gaps := merge(s.Calibrations)
		if status, bad := over(gapShare, gaps.share()); bad {
			v.Add(status, LargeGaps, "the generator's core was elsewhere for %.0f %% of the calibration", 100*gaps.share())
		}
		if s.Collections > 0 {
			v.Add(meshbench.Suspect, GarbageCollection, "the generator collected garbage %d times during the load", s.Collections)
		}
		if status, bad := over(preemptedShare, float64(s.DelayNanos)/loop); bad {
			v.Add(status, Preempted, "the generator could not run for %s, %d times, because others ran on its core", round(s.DelayNanos), s.Switches)
		}
		largest := 0.0
		for _, g := range gaps.Gaps {
			largest = max(largest, float64(g))
		}
		if status, bad := over(stalledTime, float64(s.WorstNanos)-largest); bad {
			v.Add(status, WorkerStalled, "the generator stood still for %s at a stretch", round(s.WorstNanos))
		}
		if s.LawDistances > 0 {
			room := gaps.share() + lawRoom/math.Sqrt(float64(s.LawDistances))
			if status, bad := over(lawDistance, s.LawDistance-room); bad {
				v.Add(status, ArrivalsOffPlan, "the distances between requests do not follow the plan (distance %.2f, limit %.2f)", s.LawDistance, lawDistance.suspect+room)
			}
		}
	}
	if outOfRange > 0 {
		v.Add(meshbench.Suspect, HistogramOutOfRange, "%d times above one hour are missing in the histograms", outOfRange)
	}
	return v
}

func judgeLateness(v *meshbench.Verdict, r meshbench.LoadResult) {
	if r.Lateness == nil {
		return
	}
	for _, c := range []struct {
		q         meshbench.Quantile
		predicted meshbench.Microseconds
		l         limit
	}{
		{meshbench.P50, r.Gaps.Predicted.P50, latenessP50},
		{meshbench.P99, r.Gaps.Predicted.P99, latenessP99},
	} {
		observed, ok := r.Lateness.Values[c.q]
		if !ok {
			continue
		}
		response, ok := r.Response.Values[c.q]
		if !ok {
			response = r.Response.AtLeast[c.q]
		}
		beyond := float64(observed-c.predicted) * 1e3
		status := meshbench.Valid
		switch {
		case beyond > max(c.l.invalid, latenessShare.invalid*float64(response)*1e3):
			status = meshbench.InvalidTest
		case beyond > max(c.l.suspect, latenessShare.suspect*float64(response)*1e3):
			status = meshbench.Suspect
		default:
			continue
		}
		v.Add(status, LatenessBeyondGaps, "requests were taken up late: %s %.0f us, of which the machine's gaps explain %.0f us", c.q.Label(), observed, c.predicted)
	}
}

// round makes nanoseconds readable.
func round(nanos int64) time.Duration { return time.Duration(nanos).Round(100 * time.Microsecond) }
