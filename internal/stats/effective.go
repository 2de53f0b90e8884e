package stats

import "math"

// DesignEffect returns how many times more the number of requests above a
// trial's own quantile varies from batch to batch than it would if requests
// were independent:
//
//	D = sum((x_t - r n_t)^2) / (r (1 - r) sum(n_t)),  r = sum(x) / sum(n)
//
// with x_t of the n_t requests of batch t above the quantile (the design
// effect of cluster sampling, Kish 1965). NaN where nothing or everything is
// above, or where there are fewer than two batches: then it says nothing.
func DesignEffect(above, count []float64) float64 {
	var x, n float64
	for t := range count {
		x += above[t]
		n += count[t]
	}
	r := x / n
	if len(count) < 2 || !(r > 0 && r < 1) {
		return math.NaN()
	}
	sum := 0.0
	for t := range count {
		d := above[t] - r*count[t]
		sum += d * d
	}
	return sum / (r * (1 - r) * n)
}

// Join returns the sums of k neighbours each: batches of 100 ms become
// batches of 500 ms with k = 5. A shorter rest at the end is a batch too.
func Join(batches []float64, k int) []float64 {
	out := make([]float64, 0, (len(batches)+k-1)/k)
	for i, v := range batches {
		if i%k == 0 {
			out = append(out, 0)
		}
		out[len(out)-1] += v
	}
	return out
}

// EffectiveSize returns how many independent requests n requests with design
// effect d are worth; a d below 1, or none (NaN), counts as 1.
func EffectiveSize(n, d float64) float64 {
	if d > 1 {
		return n / d
	}
	return n
}

// RequiredSize returns the effective sample size that carries the p-quantile:
// 3.689 = -ln 0.025 requests are then expected above it, so that none at all
// is with at most 2.5 % probability (p^n < exp(-n (1 - p))), and a
// distribution-free interval has an upper end. 7 for the median, 36, 368,
// 3,688 and 36,888 for p90, p99, p99.9 and p99.99.
func RequiredSize(p float64) float64 { return math.Floor(-math.Log(0.025) / (1 - p)) }
