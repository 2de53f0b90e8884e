// Package stats holds the formulas behind every figure: quantiles, effective
// sample size, the exact signed-rank test with its interval, and the
// Hodges-Lehmann estimate. It is pure: numbers in, numbers out.
package stats

import (
	"math"
	"slices"
)

// Quantile returns the p-quantile of ascending values: the smallest value
// that at least p of them do not exceed (the inverse of the empirical
// distribution function; definition 1 of Hyndman and Fan, 1996). It is what
// HDR histograms report. NaN where there are no values.
func Quantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[QuantileRank(len(sorted), p)-1]
}

// QuantileRank returns the rank, from 1, of the p-quantile of n >= 1 values.
func QuantileRank(n int, p float64) int {
	// The product of a decimal like 0.99 and n may exceed the whole number
	// that it stands for by a few last bits.
	k := int(math.Ceil(p*float64(n) - 1e-9*float64(n)*p))
	return min(max(k, 1), n)
}

// Median returns the middle value, or the mean of the middle two; NaN where
// there are no values. The order of values is left as it is.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return medianSorted(slices.Sorted(slices.Values(values)))
}

func medianSorted(v []float64) float64 {
	lo, hi := v[(len(v)-1)/2], v[len(v)/2]
	if lo == hi { // of two infinities too
		return lo
	}
	return lo + (hi-lo)/2
}

// Mean returns the arithmetic mean; NaN where there are no values.
func Mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// StdDev returns the standard deviation with n - 1 in its denominator; 0 for
// fewer than two values.
func StdDev(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	mean, sum := Mean(values), 0.0
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return math.Sqrt(sum / float64(len(values)-1))
}

// Bonferroni returns the p of one of m comparisons, adjusted: min(1, m p).
func Bonferroni(p float64, m int) float64 {
	return math.Min(1, p*float64(max(m, 1)))
}
