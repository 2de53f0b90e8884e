package analysis

import (
	"fmt"
	"math"
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// Why a comparison has no figure, or no interval; more may follow after a
// colon.
const (
	ReasonTooSmall  = "n too small" // sittings, or the effective size of a trial
	ReasonSaturated = "saturated"   // open-loop latency is then a function of the trial's length
	ReasonCensored  = "censored"    // it falls among requests that timed out or were unfinished
)

// Estimator names how every comparison is estimated.
const Estimator = "hodges_lehmann_over_sittings"

// resourceLevel is the wanted level of the intervals of resources, which have
// no significance.
const resourceLevel = 0.95

// Units of differences.
const (
	unitTime   = "us"
	unitCPU    = "ms_per_1000_requests"
	unitMemory = "bytes"
	unitRate   = "rps"
)

// compared is a comparison with the baseline's own value: the median over the
// sittings compared.
type compared struct {
	meshbench.Comparison
	base float64
}

// compare sets a cell against its baseline: per sitting the median over its
// blocks of the difference within a block, over sittings the Hodges-Lehmann
// estimate with its exact interval. The decision is not made here.
func (a *analysis) compare(cell, base, metric, unit string, value valueOf, family int, level float64) compared {
	both := func(f func(x, y float64) float64) []meshbench.SittingValue {
		values := perSitting(a.blocks, func(b block) (float64, bool) {
			x, okX := ofCell(cell, value)(b)
			y, okY := ofCell(base, value)(b)
			return f(x, y), okX && okY
		})
		for i := range values {
			values[i].Value = tidy(values[i].Value)
		}
		return values
	}
	c := compared{Comparison: meshbench.Comparison{
		Cell: cell, BaselineCell: base, Metric: metric, Estimator: Estimator, FamilySize: family, P: 1, PAdjusted: 1,
		Difference: meshbench.Estimate{Estimate: math.NaN(), Unit: unit}, Ratio: meshbench.Estimate{Estimate: math.NaN()},
	}}
	differences := both(func(x, y float64) float64 { return x - y })
	values := plain(differences)
	c.N = len(values)
	c.Differences = finite(differences)
	c.StdDev = tidy(stats.StdDev(plain(c.Differences)))
	c.BlockStdDev = a.blockStdDev(cell, base, value)
	c.base = stats.Median(plain(both(func(x, y float64) float64 { return y })))
	if c.N == 0 {
		c.Reason = ReasonTooSmall + ": no sitting measured both"
		return c
	}
	if slices.Contains(values, math.Inf(1)) && slices.Contains(values, math.Inf(-1)) {
		c.Reason = ReasonCensored
		return c
	}
	l := stats.SignedRankInterval(values, level)
	if math.IsInf(l.Estimate, 0) {
		c.Reason = ReasonCensored
		return c
	}
	c.P = stats.SignedRankTest(values)
	c.PAdjusted = stats.Bonferroni(c.P, family)
	c.Level = l.Level
	c.Difference.Estimate, c.Difference.Low, c.Difference.High = tidy(l.Estimate), known(l.Low), known(l.High)
	if l.Level == 0 {
		c.Reason = fmt.Sprintf("%s: %s, an interval needs %d", ReasonTooSmall, sittings(c.N), stats.DifferencesNeeded(max(family, 1), familyAlpha))
	}
	logs := plain(both(func(x, y float64) float64 {
		if !(x > 0 && y > 0) {
			return math.NaN()
		}
		return math.Log(x) - math.Log(y)
	}))
	if len(logs) == c.N {
		if r := stats.SignedRankInterval(logs, level); !math.IsInf(r.Estimate, 0) {
			c.Ratio.Estimate, c.Ratio.Low, c.Ratio.High = tidy(math.Exp(r.Estimate)), known(math.Exp(r.Low)), known(math.Exp(r.High))
		}
	}
	return c
}

// known returns a bound; nil where there is none.
func known(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v = tidy(v)
	return &v
}

// tidy drops what floating-point arithmetic added beyond the sixth decimal:
// times are known to the third, and the same input then gives the same text
// on every processor.
func tidy(v float64) float64 {
	if !(math.Abs(v) < 1e9) { // bytes, infinite, not a number
		return v
	}
	return math.Round(v*1e6) / 1e6
}

// blockStdDev is the spread of the blocks' differences about the means of
// their sittings; nil where no sitting has two.
func (a *analysis) blockStdDev(cell, base string, value valueOf) *float64 {
	bySitting := map[int][]float64{}
	for _, b := range a.blocks {
		x, okX := ofCell(cell, value)(b)
		y, okY := ofCell(base, value)(b)
		if d := x - y; okX && okY && !math.IsNaN(d) && !math.IsInf(d, 0) {
			bySitting[b.sitting] = append(bySitting[b.sitting], d)
		}
	}
	sum, freedom := 0.0, 0
	for _, s := range sortedKeys(bySitting) {
		v := bySitting[s]
		sd := stats.StdDev(v)
		sum += sd * sd * float64(len(v)-1)
		freedom += len(v) - 1
	}
	if freedom == 0 {
		return nil
	}
	sd := tidy(math.Sqrt(sum / float64(freedom)))
	return &sd
}

// responses compares the quantiles that the plan asked of a cell.
func (a *analysis) responses(cell meshbench.Cell) []compared {
	m := a.run.Plan.FamilySize
	level := 1 - familyAlpha/float64(max(m, 1))
	own, base := a.cell(cell.ID), a.cell(cell.Baseline)
	var out []compared
	for _, q := range asked(cell.Load) {
		c := a.compare(cell.ID, cell.Baseline, "response."+string(q), unitTime, response(q), m, level)
		c.Margin = math.Max(a.run.Experiment.Margin.Percent/100*c.base, float64(a.run.Experiment.Margin.Floor.Std().Nanoseconds())/1000)
		if math.IsNaN(c.Margin) || math.IsInf(c.Margin, 0) {
			c.Margin = float64(a.run.Experiment.Margin.Floor.Std().Nanoseconds()) / 1000
		}
		trial := max(own.Quantiles[q].TrialNeeded, base.Quantiles[q].TrialNeeded)
		switch {
		case own.LoadState == meshbench.Saturated || base.LoadState == meshbench.Saturated:
			c = c.without(ReasonSaturated)
		case c.N > 0 && trial > 0:
			c = c.without(fmt.Sprintf("%s: would need --trial %s", ReasonTooSmall, trial))
		}
		c.Significance = decide(c.Comparison)
		out = append(out, c)
	}
	return out
}

// without takes the figures away, for a reason.
func (c compared) without(reason string) compared {
	c.Difference = meshbench.Estimate{Estimate: math.NaN(), Unit: c.Difference.Unit}
	c.Ratio = meshbench.Estimate{Estimate: math.NaN()}
	c.P, c.PAdjusted, c.Level, c.StdDev, c.BlockStdDev, c.Reason = 1, 1, 0, 0, nil, reason
	c.Differences = []meshbench.SittingValue{}
	return c
}

// decide says, in this order: none, where the whole interval lies within the
// margin; worse or better, where the adjusted p is at most 5 %; inconclusive.
func decide(c meshbench.Comparison) meshbench.Significance {
	low, high := c.Difference.Low, c.Difference.High
	switch {
	case low != nil && high != nil && *low >= -c.Margin && *high <= c.Margin:
		return meshbench.None
	case c.PAdjusted <= familyAlpha && low != nil && *low > 0:
		return meshbench.Worse
	case c.PAdjusted <= familyAlpha && high != nil && *high < 0:
		return meshbench.Better
	}
	return meshbench.Inconclusive
}

// resources compares what the processes of a cell and its baseline used.
func (a *analysis) resources(cell meshbench.Cell) []compared {
	var out []compared
	add := func(metric, unit string, value valueOf) {
		c := a.compare(cell.ID, cell.Baseline, metric, unit, value, 1, resourceLevel)
		c.PAdjusted = c.P
		out = append(out, c)
	}
	present := map[meshbench.Role]bool{}
	for _, id := range []string{cell.ID, cell.Baseline} {
		for _, u := range a.cell(id).Roles {
			present[u.Role] = true
		}
	}
	delete(present, meshbench.GeneratorRole)
	if cell.Load.Rate.IsMax() {
		add("throughput", unitRate, throughput)
	}
	if len(present) == 0 {
		return out
	}
	families := []struct {
		name, unit string
		value      func(func(meshbench.Role) bool) valueOf
	}{{"cpu", unitCPU, cpu}, {"memory", unitMemory, memory}}
	for _, f := range families {
		for _, role := range meshbench.Roles {
			if present[role] {
				add(f.name+"."+string(role), f.unit, f.value(func(r meshbench.Role) bool { return r == role }))
			}
		}
		add(f.name+".total", f.unit, f.value(isSystemRole))
	}
	return out
}
