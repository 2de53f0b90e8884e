package load

import (
	"math"
	"time"
)

// lawBins is how finely the distances between arrivals are looked at.
const lawBins = 512

// law watches whether arrivals are taken up by the law that was planned.
type law struct {
	poisson bool
	mean    float64 // nanoseconds
	bins    [lawBins]uint32
	n       uint64
	off     uint64 // constant arrivals: distances that are off by half and more
}

// lawTolerance is by how much a distance may differ from the planned one
// before it counts: on a smaller scale it is the work of sending, not a burst,
// and lateness shows it in full.
const lawTolerance = float64(25 * time.Microsecond)

// add takes the distance between two arrivals in nanoseconds.
func (l *law) add(distance int64) {
	l.n++
	d := float64(distance)
	if !l.poisson {
		if math.Abs(d-l.mean) > max(l.mean/2, lawTolerance) {
			l.off++
		}
		return
	}
	l.bins[min(int(l.share(d)*lawBins), lawBins-1)]++
}

// share is the planned law: the share of the distances that are smaller.
func (l *law) share(distance float64) float64 { return -math.Expm1(-max(distance, 0) / l.mean) }

// distance returns how far the observed law is from the planned one: for
// Poisson arrivals Kolmogorov's D at the bins' edges, outside the band that
// the tolerance leaves; for constant ones the share of distances that are off.
func (l *law) distance() float64 {
	if l.n == 0 {
		return 0
	}
	if !l.poisson {
		return float64(l.off) / float64(l.n)
	}
	var seen uint64
	var d float64
	for i, n := range l.bins[:lawBins-1] {
		seen += uint64(n)
		observed := float64(seen) / float64(l.n)
		edge := -l.mean * math.Log1p(-float64(i+1)/lawBins)
		d = max(d, observed-l.share(edge+lawTolerance), l.share(edge-lawTolerance)-observed)
	}
	return d
}
