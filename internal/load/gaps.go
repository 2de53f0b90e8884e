package load

import (
	"slices"
	"time"

	"github.com/meshbench/meshbench"
)

const (
	// gapLeast is what a jump between two readings of the clock must have to
	// be a gap: many times a reading, and about the shortest interrupt.
	gapLeast = int64(3 * time.Microsecond)
	// gapsMost bounds what a calibration keeps, the rest is only added up.
	gapsMost = 8192
)

// Calibration is what a loop saw of its core while it did nothing but read
// the clock: how often, and for how long, the core was elsewhere.
type Calibration struct {
	Nanos int64   `json:"ns"`      // its length
	Gaps  []int64 `json:"gaps_ns"` // the gaps above 3 us, at most 8,192 of them
	Lost  int64   `json:"lost_ns"` // the sum of all others
}

// merge joins calibrations.
func merge(all []Calibration) Calibration {
	var m Calibration
	for _, c := range all {
		m.Nanos += c.Nanos
		m.Lost += c.Lost
		m.Gaps = append(m.Gaps, c.Gaps...)
	}
	return m
}

// share returns the share of the time that the core was elsewhere.
func (c Calibration) share() float64 {
	if c.Nanos == 0 {
		return 0
	}
	sum := c.Lost
	for _, g := range c.Gaps {
		sum += g
	}
	return float64(sum) / float64(c.Nanos)
}

// lateness returns the quantile p of the lateness of a perfect generator on
// this core, in nanoseconds: the x at which P(L > x) = sum(max(0, g-x)) / T
// falls to 1-p. (An arrival falls into a gap of length g with probability
// g/T, at a uniformly distributed place, and waits for its end.)
func (c Calibration) lateness(p float64) float64 {
	if c.Nanos == 0 {
		return 0
	}
	gaps := slices.Clone(c.Gaps)
	slices.Sort(gaps)
	want := (1 - p) * float64(c.Nanos)
	// Above the k largest gaps' smallest, the sum is linear in x.
	var sum float64
	for k := len(gaps) - 1; k >= 0; k-- {
		n := float64(len(gaps) - k)
		sum += float64(gaps[k])
		below := 0.0
		if k > 0 {
			below = float64(gaps[k-1])
		}
		if sum-n*below >= want {
			return (sum - want) / n
		}
	}
	return 0
}

// predict returns the gaps as they are reported.
func (c Calibration) predict() meshbench.Gaps {
	us := func(p float64) meshbench.Microseconds { return meshbench.Microseconds(c.lateness(p) / 1e3) }
	return meshbench.Gaps{
		Share:     c.share(),
		Predicted: meshbench.PredictedLateness{P50: us(0.5), P99: us(0.99), P99_9: us(0.999)},
	}
}

// Summary is what a loop tells of itself when it is done.
type Summary struct {
	Calibrations []Calibration `json:"calibrations"`
	Stopped      bool          `json:"stopped"`    // ended before its time
	CountedNanos int64         `json:"counted_ns"` // from the end of the warm-up to the end of the arrivals
	LoopNanos    int64         `json:"loop_ns"`    // from the first moment to the last answer
	SkewNanos    int64         `json:"skew_ns"`    // first moment after the asked one

	CPUNanos        int64   `json:"cpu_ns"`        // of the process, since the job came
	LoopCPUNanos    int64   `json:"loop_cpu_ns"`   // of the thread, while the loop ran
	SpinNanos       int64   `json:"spin_ns"`       // of it waiting, and both calibrations
	UsefulNanos     int64   `json:"useful_ns"`     // of the loop, working
	Switches        uint64  `json:"switches"`      // involuntary, while the loop ran
	DelayNanos      int64   `json:"delay_ns"`      // runnable and not running, while the loop ran; -1: not known
	ThrottledNanos  int64   `json:"throttled_ns"`  // by a CPU quota
	StealShare      float64 `json:"steal_share"`   // of the loop's CPU
	Collections     uint32  `json:"collections"`   // of garbage, while the loop ran
	WorstNanos      int64   `json:"worst_ns"`      // the longest turn of the loop beyond its wait
	LawDistance     float64 `json:"law_distance"`  // of the arrivals as they were taken up
	LawDistances    uint64  `json:"law_distances"` // how many that rests on
	PeakMemoryBytes uint64  `json:"peak_memory"`   // of the process
	Closed          bool    `json:"closed"`        // closed loop
	Poisson         bool    `json:"poisson"`       // law of the arrivals
}
