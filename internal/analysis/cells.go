package analysis

import (
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
	"github.com/meshbench/meshbench/internal/stats"
)

// tooMany is the share of trials or blocks above which a state or a doubt is
// that of the whole: more than 1 in 5.
func tooMany(some, all int) bool { return 5*some > all }

// cellResult gathers what was measured of a cell: from the trials that count,
// and from all of them whether a proof of path failed.
func (a *analysis) cellResult(cell meshbench.Cell) meshbench.CellResult {
	trials := trialsOf(a.blocks, cell.ID)
	r := meshbench.CellResult{
		Cell: cell, Trials: len(trials), LoadState: loadState(trials, cell.Load),
		Quantiles: map[meshbench.Quantile]meshbench.QuantileSummary{}, Errors: map[string]uint64{},
		Settings: settings(trials), Roles: a.roles(cell.ID, trials),
	}
	censored := uint64(0)
	for _, t := range trials {
		l := t.Load
		r.Planned += l.Planned
		r.Completed += l.Completed
		for class, n := range l.Errors {
			r.Errors[class] += n
		}
		for class, n := range map[string]uint64{"timed_out": l.TimedOut, "unfinished": l.Unfinished, "skipped": l.Skipped} {
			if n > 0 {
				r.Errors[class] += n
			}
		}
		censored += l.TimedOut + l.Unfinished
	}
	if r.Axes == nil {
		r.Axes = map[string]any{}
	}
	r.Response = a.pool(trials, censored, func(t *meshbench.Trial) *meshbench.Latency { return &t.Load.Response })
	if v := perSitting(a.blocks, ofCell(cell.ID, throughput)); len(v) > 0 {
		r.ThroughputRPS = stats.Median(plain(v))
	}
	for _, q := range meshbench.Quantiles {
		r.Quantiles[q] = a.quantile(cell, trials, q)
	}
	r.Proof = a.proof(cell.ID, trials)
	r.Metrics = a.metrics(cell.ID, trials)
	return r
}

// quantile summarises one quantile of a cell: whether its trials carry it,
// and if so the median over sittings of the sittings' medians.
func (a *analysis) quantile(cell meshbench.Cell, trials []*meshbench.Trial, q meshbench.Quantile) meshbench.QuantileSummary {
	s := meshbench.QuantileSummary{Needed: stats.RequiredSize(q.Probability()), Sittings: []meshbench.SittingValue{}}
	if len(trials) == 0 {
		return s
	}
	d := designEffect(trials, q)
	for i, t := range trials {
		if size := stats.EffectiveSize(answered(t), d); i == 0 || size < s.EffectiveSize {
			s.EffectiveSize = size
		}
	}
	if s.EffectiveSize < s.Needed {
		s.TrialNeeded = trialFor(cell.Load.Trial.Std(), s.EffectiveSize, s.Needed)
		return s
	}
	values := perSitting(a.blocks, ofCell(cell.ID, response(q)))
	s.Sittings = finite(values)
	if 2*len(s.Sittings) <= len(values) {
		return s // the median itself is censored
	}
	median := meshbench.Microseconds(stats.Median(plain(values)))
	s.Median = &median
	// The calibration sees the generator's core; the system's core is taken
	// to be absent as often, so that together they explain twice as much. For
	// p90 the prediction for p50 stands in: a lower bound.
	predicted := medianOver(trials, func(t *meshbench.Trial) float64 {
		p := t.Load.Gaps.Predicted
		switch q {
		case meshbench.P99:
			return float64(p.P99)
		case meshbench.P99_9:
			return float64(p.P99_9)
		}
		return float64(p.P50)
	})
	s.MachineLimited = 2*predicted > float64(median)/2
	return s
}

// answered is the number of requests that a trial's quantiles are made of.
func answered(t *meshbench.Trial) float64 {
	n := 0.0
	for _, b := range t.Load.Batches {
		n += float64(b.Count)
	}
	if n == 0 {
		n = float64(t.Load.Completed)
	}
	return n
}

// batchesJoined is how many batches of 100 ms make one of 500 ms.
const batchesJoined = 5

// designEffect returns the larger of the design effects over batches of 100
// ms and of 500 ms, each averaged over the trials of a cell (one trial has
// too few batches to tell), at least 1.
func designEffect(trials []*meshbench.Trial, q meshbench.Quantile) float64 {
	var fine, coarse []float64
	for _, t := range trials {
		above, count := make([]float64, len(t.Load.Batches)), make([]float64, len(t.Load.Batches))
		for i, b := range t.Load.Batches {
			above[i], count[i] = float64(b.Above[q]), float64(b.Count)
		}
		if d := stats.DesignEffect(above, count); d >= 0 { // not NaN
			fine = append(fine, d)
		}
		if d := stats.DesignEffect(stats.Join(above, batchesJoined), stats.Join(count, batchesJoined)); d >= 0 {
			coarse = append(coarse, d)
		}
	}
	d := 1.0
	for _, v := range [][]float64{fine, coarse} {
		if len(v) > 0 {
			d = max(d, stats.Mean(v))
		}
	}
	return d
}

// pool merges the histograms of trials: for spectra only. Censored requests
// count as slower than all others; a quantile that any trial could not give is
// absent.
func (a *analysis) pool(trials []*meshbench.Trial, censored uint64, of func(t *meshbench.Trial) *meshbench.Latency) meshbench.Latency {
	var sum *hdrhistogram.Histogram
	out := meshbench.Latency{}
	known := slices.Clone(meshbench.Quantiles)
	for _, t := range trials {
		l := of(t)
		if l == nil || l.Count == 0 {
			continue
		}
		known = slices.DeleteFunc(known, func(q meshbench.Quantile) bool { _, ok := l.Values[q]; return !ok })
		h, err := histogram.Decode(l.Histogram)
		switch {
		case err != nil:
			a.warn(WarnUnreadable, "a histogram of %s, sitting %d, cannot be read and is missing from the spectrum: %v", t.Cell, t.Sitting, err)
			continue
		case h.TotalCount() == 0:
			continue
		case out.Count == 0 || l.Min < out.Min:
			out.Min = l.Min
		}
		out.Max = max(out.Max, l.Max)
		out.Count += uint64(h.TotalCount())
		if sum == nil {
			sum = h
		} else {
			sum.Merge(h)
		}
	}
	if sum == nil {
		return out
	}
	out.Values = map[meshbench.Quantile]meshbench.Microseconds{}
	for _, q := range known {
		if rank := stats.QuantileRank(int(out.Count+censored), q.Probability()); rank <= int(out.Count) {
			out.Values[q] = histogram.Rank(sum, int64(rank))
		}
	}
	raw, err := histogram.Encode(sum)
	if err != nil {
		a.warn(WarnUnreadable, "a pooled histogram cannot be written: %v", err)
	}
	out.Histogram = raw
	return out
}

// loadState is saturated where more than 1 in 5 trials are.
func loadState(trials []*meshbench.Trial, l meshbench.Load) meshbench.LoadState {
	saturated := 0
	for _, t := range trials {
		if t.Load.LoadState == meshbench.Saturated {
			saturated++
		}
	}
	switch {
	case tooMany(saturated, len(trials)):
		return meshbench.Saturated
	case l.Rate.IsMax():
		return meshbench.ClosedLoop
	case len(trials) == 0:
		return ""
	}
	return meshbench.Kept
}

// codeDied is the verdict's reason of a trial in which a process of the
// subject ended: it is invalid, and its counters prove nothing either way.
const codeDied = "process_died"

func died(t *meshbench.Trial) bool {
	return slices.ContainsFunc(t.Verdict.Reasons, func(r meshbench.Reason) bool { return r.Code == codeDied })
}

// proof sums the proofs of the trials that count. One failure in any trial,
// left out or not, fails it, unless a process had died.
func (a *analysis) proof(cell string, trials []*meshbench.Trial) meshbench.Proof {
	sum := meshbench.Proof{Status: meshbench.NotApplicable}
	for i, t := range trials {
		p := t.Proof
		sum.Sent += p.Sent
		sum.ClientProxy += p.ClientProxy
		sum.ServerProxy += p.ServerProxy
		sum.Application += p.Application
		sum.Handshakes += p.Handshakes
		sum.Plaintext += p.Plaintext
		sum.Hops = addHops(sum.Hops, p.Hops)
		if p.PeerName != "" {
			sum.PeerName = p.PeerName
		}
		if p.Status != meshbench.Proven && sum.Reason == "" {
			sum.Reason = p.Reason
		}
		if i == 0 {
			sum.Status = p.Status
		} else if p.Status != meshbench.Proven {
			sum.Status = p.Status
		}
	}
	for i := range a.trials {
		if t := &a.trials[i]; t.Cell == cell && t.Proof.Status == meshbench.ProofFailed && !died(t) {
			sum.Status, sum.Reason = meshbench.ProofFailed, t.Proof.Reason
			break
		}
	}
	if sum.Status == "" {
		sum.Status = meshbench.NotApplicable
	}
	return sum
}

// addHops sums what was counted between services.
func addHops(sum, more []meshbench.HopProof) []meshbench.HopProof {
	for _, h := range more {
		i := slices.IndexFunc(sum, func(s meshbench.HopProof) bool { return s.From == h.From && s.To == h.To })
		if i < 0 {
			sum = append(sum, meshbench.HopProof{From: h.From, To: h.To})
			i = len(sum) - 1
		}
		s := &sum[i]
		s.Expected += h.Expected
		s.ClientProxy += h.ClientProxy
		s.ServerProxy += h.ServerProxy
		s.Handshakes += h.Handshakes
		s.Plaintext += h.Plaintext
	}
	return sum
}

// settings are what was observed; a setting that changed shows every value.
func settings(trials []*meshbench.Trial) []meshbench.Setting {
	var names []string
	values := map[string][]string{}
	for _, t := range trials {
		for _, s := range t.Settings {
			if values[s.Name] == nil {
				names = append(names, s.Name)
			}
			if !slices.Contains(values[s.Name], s.Value) {
				values[s.Name] = append(values[s.Name], s.Value)
			}
		}
	}
	out := []meshbench.Setting{}
	for _, n := range names {
		out = append(out, meshbench.Setting{Name: n, Value: strings.Join(values[n], " | ")})
	}
	return out
}

// roles are the medians over sittings of what each process used; peaks are
// maxima.
func (a *analysis) roles(cell string, trials []*meshbench.Trial) []meshbench.Usage {
	type key struct {
		role     meshbench.Role
		service  string
		instance int
		process  string
	}
	keyOf := func(u meshbench.Usage) key { return key{u.Role, u.Service, u.Instance, u.Process} }
	var keys []key
	for _, t := range trials {
		for _, u := range t.Usage {
			if !slices.Contains(keys, keyOf(u)) {
				keys = append(keys, keyOf(u))
			}
		}
	}
	slices.SortStableFunc(keys, func(x, y key) int {
		return slices.Index(meshbench.Roles, x.role) - slices.Index(meshbench.Roles, y.role)
	})
	out := []meshbench.Usage{}
	for _, k := range keys {
		median := func(field func(u meshbench.Usage) (float64, bool)) (float64, bool) {
			v := perSitting(a.blocks, ofCell(cell, func(t *meshbench.Trial) (float64, bool) {
				for _, u := range t.Usage {
					if keyOf(u) == k {
						return field(u)
					}
				}
				return 0, false
			}))
			if len(v) == 0 {
				return 0, false
			}
			return stats.Median(plain(v)), true
		}
		always := func(field func(u meshbench.Usage) float64) float64 {
			v, _ := median(func(u meshbench.Usage) (float64, bool) { return field(u), true })
			return v
		}
		u := meshbench.Usage{Role: k.role, Service: k.service, Instance: k.instance, Process: k.process}
		if v, ok := median(func(u meshbench.Usage) (float64, bool) {
			if u.CPUPer1000Requests == nil {
				return 0, false
			}
			return *u.CPUPer1000Requests, true
		}); ok {
			u.CPUPer1000Requests = &v
		}
		u.CPUCores = always(func(u meshbench.Usage) float64 { return u.CPUCores })
		u.UserCores = always(func(u meshbench.Usage) float64 { return u.UserCores })
		u.SystemCores = always(func(u meshbench.Usage) float64 { return u.SystemCores })
		u.IdleCPUCores = always(func(u meshbench.Usage) float64 { return u.IdleCPUCores })
		u.MemoryMeanBytes = uint64(always(func(u meshbench.Usage) float64 { return float64(u.MemoryMeanBytes) }))
		u.MemoryFileBytes = uint64(always(func(u meshbench.Usage) float64 { return float64(u.MemoryFileBytes) }))
		for _, t := range trials {
			for _, v := range t.Usage {
				if keyOf(v) == k {
					u.MemoryPeakBytes = max(u.MemoryPeakBytes, v.MemoryPeakBytes)
				}
			}
		}
		out = append(out, u)
	}
	return out
}
