package stats

import (
	"math"
	"slices"
	"sync"
)

// ExactLimit is the largest number of differences for which the signed-rank
// distribution is computed exactly; beyond it the normal approximation with
// continuity correction serves, which is then right to four digits.
const ExactLimit = 200

// signedRankCDF returns P(W <= w) for w = 0..n(n+1)/2, where W is the sum of
// the ranks 1..n that carry a plus sign, each sign being fair: by dynamic
// programming over the ranks (rank i is added or not, with probability 1/2).
// All terms are positive, so that the relative error stays near n epsilon.
func signedRankCDF(n int) []float64 {
	m := n * (n + 1) / 2
	p := make([]float64, m+1)
	p[0] = 1
	top := 0
	for i := 1; i <= n; i++ {
		top += i
		for w := top; w >= i; w-- {
			p[w] = (p[w] + p[w-i]) / 2
		}
		for w := i - 1; w >= 0; w-- {
			p[w] /= 2
		}
	}
	sum := 0.0
	for w := range p {
		sum += p[w]
		p[w] = math.Min(1, sum)
	}
	return p
}

// SignedRank is the null distribution of Wilcoxon's signed-rank statistic
// for n differences. The zero value is of no use: see NewSignedRank.
type SignedRank struct {
	n   int
	cdf func() []float64 // nil beyond ExactLimit
}

// NewSignedRank returns the distribution for n >= 0 differences.
func NewSignedRank(n int) SignedRank {
	if n > ExactLimit {
		return SignedRank{n: n}
	}
	return SignedRank{n: n, cdf: sync.OnceValue(func() []float64 { return signedRankCDF(n) })}
}

// CDF returns P(W <= w).
func (s SignedRank) CDF(w int) float64 {
	m := s.n * (s.n + 1) / 2
	switch {
	case w < 0:
		return 0
	case w >= m:
		return 1
	case s.cdf != nil:
		return s.cdf()[w]
	}
	n := float64(s.n)
	mean := n * (n + 1) / 4
	sd := math.Sqrt(n * (n + 1) * (2*n + 1) / 24)
	return math.Erfc((mean-float64(w)-0.5)/(sd*math.Sqrt2)) / 2
}

// critical returns the largest k with 2 P(W <= k-1) <= alpha; 0 where there
// is none.
func (s SignedRank) critical(alpha float64) int {
	lo, hi := 0, s.n*(s.n+1)/4+1 // 2 P is at least 1 beyond the middle
	for lo < hi {
		k := (lo + hi + 1) / 2
		if 2*s.CDF(k-1) <= alpha {
			lo = k
		} else {
			hi = k - 1
		}
	}
	return lo
}

// Level returns the attained level of the two-sided interval that is wanted
// at a level: the least possible one that is not below it. ok is false where
// n is too small for any; the level is then 0.
func (s SignedRank) Level(wanted float64) (attained float64, ok bool) {
	k := s.critical(1 - wanted)
	if k == 0 {
		return 0, false
	}
	return 1 - 2*s.CDF(k-1), true
}

// SignedRankTest returns the two-sided p of the hypothesis that differences
// are symmetric about zero: 1 where there are none.
//
// Zeros, and ties between differences of opposite sign, come from rounding
// (a histogram has three digits): the p is the largest over all ways to break
// them, by which it is valid whatever hides beneath the rounding, and agrees
// with SignedRankInterval always: p <= 1 - level where, and only where, zero
// lies outside. Without zeros and ties it is Wilcoxon's exact p.
//
// Infinite differences of one sign are allowed (a censored value); their size
// has no influence beyond being the largest.
func SignedRankTest(differences []float64) float64 {
	n := len(differences)
	notBelow, notAbove := 0, 0 // Walsh averages; those equal to zero in both
	for i, a := range differences {
		for _, b := range differences[i:] {
			if a+b >= 0 {
				notBelow++
			}
			if a+b <= 0 {
				notAbove++
			}
		}
	}
	return math.Min(1, 2*NewSignedRank(n).CDF(min(notBelow, notAbove)))
}

// SmallestP returns the smallest two-sided p that n differences can have.
func SmallestP(n int) float64 { return math.Min(1, 2*math.Pow(0.5, float64(n))) }

// DifferencesNeeded returns the least n with which m comparisons can have a
// significant one: m 2/2^n <= alpha (m >= 1).
func DifferencesNeeded(m int, alpha float64) int {
	n := 1
	for float64(max(m, 1))*SmallestP(n) > alpha {
		n++
	}
	return n
}

// Location is a point estimate with its interval.
type Location struct {
	Estimate  float64 // Hodges-Lehmann: the median of the Walsh averages; NaN where there are no values
	Low, High float64 // of the closed interval; NaN where n is too small for one
	Level     float64 // attained; 0 where there is no interval
}

// SignedRankInterval returns the Hodges-Lehmann estimate and the exact
// confidence interval of the centre of symmetry at the least attained level
// that is not below the wanted one: the k-th smallest and k-th largest of the
// n(n+1)/2 Walsh averages (x_i + x_j)/2, i <= j, with the largest k such that
// 2 P(W <= k-1) <= 1 - level (Hollander, Wolfe, Chicken 2014, section 3.3).
func SignedRankInterval(values []float64, wanted float64) Location {
	nan := math.NaN()
	if len(values) == 0 {
		return Location{Estimate: nan, Low: nan, High: nan}
	}
	walsh := make([]float64, 0, len(values)*(len(values)+1)/2)
	for i, a := range values {
		for _, b := range values[i:] {
			walsh = append(walsh, a/2+b/2)
		}
	}
	slices.Sort(walsh)
	dist := NewSignedRank(len(values))
	out := Location{Estimate: medianSorted(walsh), Low: nan, High: nan}
	if k := dist.critical(1 - wanted); k > 0 {
		out.Low, out.High = walsh[k-1], walsh[len(walsh)-k]
		out.Level = 1 - 2*dist.CDF(k-1)
	}
	return out
}

// HodgesLehmann returns the median of the Walsh averages; NaN where there are
// no values.
func HodgesLehmann(values []float64) float64 { return SignedRankInterval(values, 1).Estimate }
