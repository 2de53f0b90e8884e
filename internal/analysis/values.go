package analysis

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// valueOf takes one figure from a trial; ok is false where the trial has
// none. A figure known only to be larger than what could be seen is +Inf.
type valueOf func(t *meshbench.Trial) (v float64, ok bool)

func response(q meshbench.Quantile) valueOf {
	return func(t *meshbench.Trial) (float64, bool) {
		if v, ok := t.Load.Response.Values[q]; ok {
			return float64(v), true
		}
		_, censored := t.Load.Response.AtLeast[q]
		return math.Inf(1), censored
	}
}

func throughput(t *meshbench.Trial) (float64, bool) { return t.Load.ThroughputRPS, true }

// cpu returns the CPU-milliseconds per 1,000 requests over the processes of
// some roles; none where nothing completed.
func cpu(of func(meshbench.Role) bool) valueOf {
	return func(t *meshbench.Trial) (float64, bool) {
		sum := 0.0
		for _, u := range t.Usage {
			if !of(u.Role) {
				continue
			}
			if u.CPUPer1000Requests == nil {
				return 0, false
			}
			sum += *u.CPUPer1000Requests
		}
		return sum, t.Load.Completed > 0
	}
}

// memory returns the mean anonymous memory over the processes of some roles.
func memory(of func(meshbench.Role) bool) valueOf {
	return func(t *meshbench.Trial) (float64, bool) {
		sum := 0.0
		for _, u := range t.Usage {
			if of(u.Role) {
				sum += float64(u.MemoryMeanBytes)
			}
		}
		return sum, true
	}
}

// perSitting returns the median over its blocks for each sitting that has a
// figure at all.
func perSitting(blocks []block, figure func(b block) (float64, bool)) []meshbench.SittingValue {
	values := map[int][]float64{}
	for _, b := range blocks {
		if v, ok := figure(b); ok && !math.IsNaN(v) {
			values[b.sitting] = append(values[b.sitting], v)
		}
	}
	out := []meshbench.SittingValue{}
	for _, s := range sortedKeys(values) {
		if v := stats.Median(values[s]); !math.IsNaN(v) {
			out = append(out, meshbench.SittingValue{Sitting: s, Value: v})
		}
	}
	return out
}

// ofCell is the figure of one cell in a block.
func ofCell(cell string, value valueOf) func(b block) (float64, bool) {
	return func(b block) (float64, bool) {
		if t := b.trials[cell]; t != nil {
			return value(t)
		}
		return 0, false
	}
}

// medianOver returns the median over trials of a figure; 0 without trials.
func medianOver(trials []*meshbench.Trial, figure func(t *meshbench.Trial) float64) float64 {
	if len(trials) == 0 {
		return 0
	}
	values := make([]float64, len(trials))
	for i, t := range trials {
		values[i] = figure(t)
	}
	return stats.Median(values)
}

func plain(values []meshbench.SittingValue) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v.Value
	}
	return out
}

func finite(values []meshbench.SittingValue) []meshbench.SittingValue {
	return slices.DeleteFunc(slices.Clone(values), func(v meshbench.SittingValue) bool { return math.IsInf(v.Value, 0) })
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
