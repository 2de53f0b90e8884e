package load

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/meshbench/meshbench"
)

// The limits of what an Aggregate keeps to make batches of: with more, a load
// is so long that nobody asks for its effective sample size.
const (
	maxBatches    = 3000 // 5 minutes
	maxBatchBytes = 16 << 20
)

// The rules of the load state.
const (
	// keptShare is the share of what was planned that must be answered.
	keptShare = 0.99
	// growthShare is the share of what was planned by which the backlog grows,
	// over the counted time and by a straight line through it, when the
	// subject does not keep up.
	growthShare = 0.01
)

// Aggregate folds the Reports of a job's workers into its result. It is not
// safe for concurrent use.
type Aggregate struct {
	job      Job
	channels [channelCount]*Histogram
	scratch  *Histogram
	total    Report // sums; the fields that are not sums are unused
	errors   map[string]uint64
	idle     map[string]uint64 // errors of connections without a request
	lastDone int64

	batches    map[int64]*batch
	batchBytes int // -1: given up

	growth  line  // of the backlog
	backlog int64 // at the last counted report
}

// batch is what was answered in one slot.
type batch struct {
	count uint64
	pairs [][]byte // of each worker, as in Report.Counts
}

// NewAggregate returns an empty Aggregate of a job. Its WorkerCount tells from
// how many workers reports will come.
func NewAggregate(job Job) *Aggregate {
	a := &Aggregate{job: job, scratch: NewHistogram(), errors: map[string]uint64{}, idle: map[string]uint64{}, batches: map[int64]*batch{}}
	for i := range a.channels {
		a.channels[i] = NewHistogram()
	}
	return a
}

// Add takes a report of any worker and returns what to show of it. The error's
// code is invalid: the report is not one.
func (a *Aggregate) Add(r Report) (Tick, error) {
	for c, name := range channelNames {
		if err := addCounts(a.channels[c], r.Counts[name]); err != nil {
			return Tick{}, err
		}
	}
	t := &a.total
	t.Sent += r.Sent
	t.Planned += r.Planned
	t.Completed += r.Completed
	t.Errored += r.Errored
	t.TimedOut += r.TimedOut
	t.Skipped += r.Skipped
	t.Unfinished += r.Unfinished
	t.BytesRead += r.BytesRead
	t.BytesWritten += r.BytesWritten
	t.OutOfRange += r.OutOfRange
	for class, n := range r.Errors {
		a.errors[class] += n
	}
	for class, n := range r.ConnectionErrors {
		a.idle[class] += n
	}
	a.lastDone = max(a.lastDone, r.LastNanos)
	if r.Phase == Measure {
		a.growth.add(float64(r.Slot), float64(r.Backlog))
		a.backlog = r.Backlog
	}
	answered := r.Counts[channelNames[chResponse]]
	a.keep(r, answered)
	p50, p99, err := a.quantiles(answered)
	return Tick{
		Phase: r.Phase, Elapsed: time.Duration(r.ElapsedNanos),
		Sent: r.Sent, Planned: r.Planned, Completed: r.Completed, Errored: r.Errored, TimedOut: r.TimedOut,
		Backlog: r.Backlog, InFlight: r.InFlight, P50: p50, P99: p99, MaxLateness: micros(r.MaxLatenessNanos),
		Total: Totals{Sent: t.Sent, Planned: t.Planned, Completed: t.Completed, Errored: t.Errored, TimedOut: t.TimedOut},
	}, err
}

// keep remembers the answers of a slot.
func (a *Aggregate) keep(r Report, answered []byte) {
	if a.batchBytes < 0 || r.Completed == 0 {
		return
	}
	b := a.batches[r.Slot]
	if b == nil {
		b = &batch{}
		a.batches[r.Slot] = b
	}
	b.count += r.Completed
	b.pairs = append(b.pairs, answered)
	a.batchBytes += len(answered)
	if a.batchBytes > maxBatchBytes || len(a.batches) > maxBatches {
		a.batches, a.batchBytes = nil, -1
	}
}

func (a *Aggregate) quantiles(answered []byte) (p50, p99 meshbench.Microseconds, err error) {
	if err := addCounts(a.scratch, answered); err != nil {
		return 0, 0, err
	}
	p50, p99 = micros(a.scratch.Quantile(0.5)), micros(a.scratch.Quantile(0.99))
	for rest := answered; len(rest) > 0; {
		i, n := binary.Uvarint(rest)
		_, m := binary.Uvarint(rest[n:])
		a.scratch.counts[i] = 0
		rest = rest[n+m:]
	}
	a.scratch.total = 0
	return p50, p99, nil
}

// Merge adds what another Aggregate of the same job has: the result is, counter
// for counter, that of one Aggregate which had seen all reports.
func (a *Aggregate) Merge(o *Aggregate) {
	for c := range a.channels {
		a.channels[c].Add(o.channels[c])
	}
	t, u := &a.total, o.total
	t.Sent += u.Sent
	t.Planned += u.Planned
	t.Completed += u.Completed
	t.Errored += u.Errored
	t.TimedOut += u.TimedOut
	t.Skipped += u.Skipped
	t.Unfinished += u.Unfinished
	t.BytesRead += u.BytesRead
	t.BytesWritten += u.BytesWritten
	t.OutOfRange += u.OutOfRange
	for class, n := range o.errors {
		a.errors[class] += n
	}
	for class, n := range o.idle {
		a.idle[class] += n
	}
	a.lastDone = max(a.lastDone, o.lastDone)
	a.growth.merge(o.growth)
	a.backlog += o.backlog
	if a.batchBytes < 0 || o.batchBytes < 0 {
		a.batches, a.batchBytes = nil, -1
		return
	}
	a.batchBytes += o.batchBytes
	for slot, b := range o.batches {
		if a.batches[slot] == nil {
			a.batches[slot] = &batch{}
		}
		a.batches[slot].count += b.count
		a.batches[slot].pairs = append(a.batches[slot].pairs, b.pairs...)
	}
}

// Result returns what was measured. It takes the summaries of all workers.
func (a *Aggregate) Result(summaries ...Summary) (meshbench.LoadResult, error) {
	r := meshbench.LoadResult{
		Target: a.job.Target.URL, Sent: a.total.Sent,
		Planned: a.total.Planned, Completed: a.total.Completed, Errored: a.total.Errored,
		TimedOut: a.total.TimedOut, Skipped: a.total.Skipped, Unfinished: a.total.Unfinished,
		Errors: a.errors, ConnectionErrors: a.idle,
		BytesRead: a.total.BytesRead, BytesWritten: a.total.BytesWritten,
	}
	var lateness meshbench.Latency
	for _, l := range []struct {
		into     *meshbench.Latency
		of       channel
		censored *Histogram
	}{
		{&r.Response, chResponse, a.channels[chCensored]},
		{&r.ConnectionWait, chWait, nil},
		{&r.Service, chService, nil},
		{&lateness, chLateness, nil},
		{&r.Connect, chConnect, nil},
		{&r.ErrorResponse, chErrorResponse, nil},
	} {
		var err error
		if *l.into, err = latency(a.channels[l.of], l.censored); err != nil {
			return r, err
		}
	}
	closed := a.job.Rate.IsMax()
	if !closed {
		r.Lateness = &lateness
	}
	a.account(&r, summaries)
	r.LoadState = a.state(closed)
	// What a saturated subject, or a closed loop, answered after the counted
	// time took it that much longer.
	var counted int64
	for _, s := range summaries {
		counted = max(counted, s.CountedNanos)
	}
	if r.LoadState != meshbench.Kept {
		counted = max(counted, a.lastDone)
	}
	r.ElapsedSeconds = float64(counted) / 1e9
	if counted > 0 {
		r.ThroughputRPS = float64(r.Completed) / r.ElapsedSeconds
	}
	r.Batches = a.samples()
	r.Verdict = judge(r, summaries, a.total.OutOfRange)
	return r, nil
}

// account adds up what the workers cost.
func (a *Aggregate) account(r *meshbench.LoadResult, summaries []Summary) {
	g := &r.Generator
	g.Engine, g.Workers = EngineName, len(summaries)
	var useful int64
	var calibrations []Calibration
	for i, s := range summaries {
		g.CPUSeconds += float64(s.CPUNanos) / 1e9
		g.SpinSeconds += float64(s.SpinNanos) / 1e9
		g.PeakMemoryBytes = max(g.PeakMemoryBytes, s.PeakMemoryBytes)
		g.InvoluntarySwitches += s.Switches
		g.StealShare = max(g.StealShare, s.StealShare)
		g.GarbageCollections += s.Collections
		g.StartSkewSeconds = max(g.StartSkewSeconds, float64(s.SkewNanos-summaries[0].SkewNanos)/1e9)
		if i > 0 {
			g.StartSkewSeconds = max(g.StartSkewSeconds, float64(summaries[0].SkewNanos-s.SkewNanos)/1e9)
		}
		useful += s.UsefulNanos
		calibrations = append(calibrations, s.Calibrations...)
	}
	if r.Sent > 0 {
		g.CPUPerRequest = meshbench.Microseconds(float64(useful) / 1e3 / float64(r.Sent))
	}
	r.Gaps = merge(calibrations).predict()
}

// state decides what became of the offered rate.
func (a *Aggregate) state(closed bool) meshbench.LoadState {
	t := a.total
	if closed {
		return meshbench.ClosedLoop
	}
	if float64(t.Completed+t.Errored) < keptShare*float64(t.Planned) {
		return meshbench.Saturated
	}
	grown := a.growth.slope() * a.growth.span() * float64(a.job.WorkerCount)
	if grown > growthShare*float64(t.Planned) && float64(a.backlog*int64(a.job.WorkerCount)) > grown/2 {
		return meshbench.Saturated
	}
	return meshbench.Kept
}

// samples returns the batches, in order of time.
func (a *Aggregate) samples() []meshbench.Batch {
	if len(a.batches) == 0 {
		return nil
	}
	answered, censored := a.channels[chResponse], a.channels[chCensored]
	edges := map[meshbench.Quantile]int{}
	for _, q := range meshbench.Quantiles {
		if at := answered.at(rank(q.Probability(), answered.total+censored.total)); at >= 0 {
			edges[q] = at
		}
	}
	slots := make([]int64, 0, len(a.batches))
	for slot := range a.batches {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	out := make([]meshbench.Batch, 0, len(slots))
	for _, slot := range slots {
		b := meshbench.Batch{Count: uint32(a.batches[slot].count), Above: map[meshbench.Quantile]uint32{}}
		for q := range edges {
			b.Above[q] = 0
		}
		for _, rest := range a.batches[slot].pairs {
			for len(rest) > 0 { // sound: addCounts has read it
				i, n := binary.Uvarint(rest)
				c, m := binary.Uvarint(rest[n:])
				for q, edge := range edges {
					if int(i) > edge {
						b.Above[q] += uint32(c)
					}
				}
				rest = rest[n+m:]
			}
		}
		out = append(out, b)
	}
	return out
}

// line is a straight line through points by least squares.
type line struct {
	n, x, y, xx, xy float64
	low, high       float64
}

func (l *line) add(x, y float64) {
	if l.n == 0 {
		l.low, l.high = x, x
	}
	l.low, l.high = min(l.low, x), max(l.high, x)
	l.n++
	l.x += x
	l.y += y
	l.xx += x * x
	l.xy += x * y
}

func (l *line) merge(o line) {
	if o.n == 0 {
		return
	}
	if l.n == 0 {
		*l = o
		return
	}
	*l = line{l.n + o.n, l.x + o.x, l.y + o.y, l.xx + o.xx, l.xy + o.xy, min(l.low, o.low), max(l.high, o.high)}
}

func (l *line) slope() float64 {
	d := l.n*l.xx - l.x*l.x
	if d <= 0 {
		return 0
	}
	return (l.n*l.xy - l.x*l.y) / d
}

// span is the length in x, one step included.
func (l *line) span() float64 { return l.high - l.low + 1 }
