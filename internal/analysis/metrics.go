package analysis

import (
	"cmp"
	"math"
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// metrics sums up each series of a cell over its sittings.
func (a *analysis) metrics(cell string, trials []*meshbench.Trial) []meshbench.MetricSummary {
	type key struct{ source, series string }
	found := map[key]*meshbench.MetricSummary{}
	var keys []key
	for _, t := range trials {
		for _, s := range t.Metrics {
			k := key{s.Source, s.Series}
			sum := found[k]
			if sum == nil {
				sum = &meshbench.MetricSummary{Source: s.Source, Series: s.Series, Kind: s.Kind, Min: math.Inf(1), Max: math.Inf(-1)}
				found[k] = sum
				keys = append(keys, k)
			}
			sum.Resets += s.Resets
			for _, p := range s.Points {
				sum.Min, sum.Max = min(sum.Min, p[1]), max(sum.Max, p[1])
			}
		}
	}
	slices.SortFunc(keys, func(x, y key) int { return cmp.Or(cmp.Compare(x.source, y.source), cmp.Compare(x.series, y.series)) })
	var out []meshbench.MetricSummary
	for _, k := range keys {
		sum := *found[k]
		sum.Sittings = perSitting(a.blocks, ofCell(cell, func(t *meshbench.Trial) (float64, bool) {
			for _, s := range t.Metrics {
				if s.Source == k.source && s.Series == k.series && len(s.Points) > 0 {
					return meanOf(s), true
				}
			}
			return 0, false
		}))
		if len(sum.Sittings) == 0 {
			continue
		}
		sum.Median = stats.Median(plain(sum.Sittings))
		out = append(out, sum)
	}
	return out
}

// meanOf is the mean of a series over its trial; of a counter, all that it
// grew by, over the time from its first reading to its last.
func meanOf(s meshbench.MetricSeries) float64 {
	if s.Kind == meshbench.CounterMetric && s.Seconds > 0 {
		return s.Increase / s.Seconds
	}
	sum := 0.0
	for _, p := range s.Points {
		sum += p[1]
	}
	return sum / float64(len(s.Points))
}
