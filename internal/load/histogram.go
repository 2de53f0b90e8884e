package load

import (
	"encoding/base64"
	"fmt"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshbench/meshbench"
)

// The geometry of every histogram: HDR with 3 significant digits from 1 ns to
// 1 h. The counters are those of hdrhistogram.New(1, maxNanos, 3), index for
// index; the tests hold it.
const (
	minNanos    = 1
	maxNanos    = 3_600_000_000_000
	digits      = 3
	subBuckets  = 2048 // the power of two above 2 * 10^digits
	subHalfBits = 10   // log2(subBuckets/2)
	counters    = 33792
)

// counterOf returns the counter of a value of 0..maxNanos nanoseconds.
// (Source: HdrHistogram's getBucketIndex and getSubBucketIndex with a unit
// magnitude of 0, folded into one expression.)
func counterOf(nanos int64) int {
	bucket := 64 - (subHalfBits + 1) - bits.LeadingZeros64(uint64(nanos)|(subBuckets-1))
	return bucket<<subHalfBits + int(uint64(nanos)>>bucket)
}

// lowestOf and highestOf return the smallest and largest value in nanoseconds
// that a counter counts.
func lowestOf(counter int) int64 {
	if counter < subBuckets {
		return int64(counter)
	}
	bucket := counter>>subHalfBits - 1
	sub := counter&(subBuckets/2-1) + subBuckets/2
	return int64(sub) << bucket
}

func highestOf(counter int) int64 {
	if counter < subBuckets {
		return int64(counter)
	}
	return lowestOf(counter) + int64(1)<<(counter>>subHalfBits-1) - 1
}

// Histogram is a distribution of times. The zero value is not usable; see
// NewHistogram. Adding is exact and associative: histograms of parts, added,
// equal the histogram of the whole, counter by counter.
type Histogram struct {
	counts []uint64
	total  uint64
}

// NewHistogram returns an empty histogram (270 kB).
func NewHistogram() *Histogram { return &Histogram{counts: make([]uint64, counters)} }

// Record counts one value; it reports false, and counts nothing, where the
// value lies outside 0..1 h.
func (h *Histogram) Record(nanos int64) bool {
	if nanos < 0 || nanos > maxNanos {
		return false
	}
	h.add(counterOf(nanos), 1)
	return true
}

func (h *Histogram) add(counter int, n uint64) {
	h.counts[counter] += n
	h.total += n
}

// Add adds all counts of o.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// Count returns the number of values recorded.
func (h *Histogram) Count() uint64 { return h.total }

// rank is the position, from 1, of a quantile among n sorted values. It is
// HdrHistogram's, so that every reader of the encoded form finds the same.
func rank(p float64, n uint64) uint64 {
	r := p*float64(n) + 0.5
	switch {
	case !(r >= 1):
		return 1
	case r >= float64(n):
		return n
	}
	return uint64(r)
}

// at returns the counter that holds the value of a rank, or -1 where fewer
// values are recorded.
func (h *Histogram) at(rank uint64) int {
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return i
		}
	}
	return -1
}

// Quantile returns the value in nanoseconds below or at which the share p of
// the values lies (the upper edge of its counter, as HdrHistogram does); 0
// where nothing is recorded.
func (h *Histogram) Quantile(p float64) int64 {
	if h.total == 0 {
		return 0
	}
	return highestOf(h.at(rank(p, h.total)))
}

// Min and Max return the smallest and largest value, as their counters' outer
// edges, in nanoseconds; 0 where nothing is recorded.
func (h *Histogram) Min() int64 {
	if h.total == 0 {
		return 0
	}
	return lowestOf(h.at(1))
}

// Max returns the upper edge of the highest counter in use, in nanoseconds.
func (h *Histogram) Max() int64 {
	for i := len(h.counts) - 1; i >= 0; i-- {
		if h.counts[i] > 0 {
			return highestOf(i)
		}
	}
	return 0
}

// Encode returns the HDR V2 compressed form (raw bytes: JSON adds the base64
// in which every HdrHistogram library exchanges it).
func (h *Histogram) Encode() ([]byte, error) {
	counts := make([]int64, counters)
	for i, n := range h.counts {
		counts[i] = int64(n)
	}
	text, err := hdrhistogram.Import(&hdrhistogram.Snapshot{
		LowestTrackableValue: minNanos, HighestTrackableValue: maxNanos,
		SignificantFigures: digits, Counts: counts,
	}).Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(raw, text)
	return raw[:n], err
}

// DecodeHistogram reads what Encode writes. A histogram of another geometry
// is refused.
func DecodeHistogram(raw []byte) (*Histogram, error) {
	d, err := hdrhistogram.Decode([]byte(base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "the histogram cannot be read: %w", err)
	}
	s := d.Export()
	if s.LowestTrackableValue != minNanos || s.SignificantFigures != digits || len(s.Counts) != counters {
		return nil, meshbench.Errorf(meshbench.Invalid, "the histogram has %d digits from %d to %d, not %d from %d to %d",
			s.SignificantFigures, s.LowestTrackableValue, s.HighestTrackableValue, digits, minNanos, int64(maxNanos))
	}
	h := NewHistogram()
	for i, n := range s.Counts {
		if n > 0 {
			h.add(i, uint64(n))
		}
	}
	return h, nil
}

// latency summarises h. censored holds values that are known to be at least
// what was recorded (timed out, unfinished, never sent), nil for none: a
// quantile is known where it does not depend on how large they really are.
func latency(h, censored *Histogram) (meshbench.Latency, error) {
	raw, err := h.Encode()
	if err != nil {
		return meshbench.Latency{}, err
	}
	l := meshbench.Latency{
		Count: h.total, Min: micros(h.Min()), Max: micros(h.Max()), Histogram: raw,
		Values: map[meshbench.Quantile]meshbench.Microseconds{},
	}
	low := h // every censored value at its censoring time
	n := h.total
	if censored != nil && censored.total > 0 {
		low = NewHistogram()
		low.Add(h)
		low.Add(censored)
		n += censored.total
	}
	if n == 0 {
		return l, nil
	}
	for _, q := range meshbench.Quantiles {
		r := rank(q.Probability(), n)
		least, high := low.at(r), h.at(r) // h.at: every censored value at infinity
		if least == high {
			l.Values[q] = micros(highestOf(least))
			continue
		}
		if l.AtLeast == nil {
			l.AtLeast = map[meshbench.Quantile]meshbench.Microseconds{}
		}
		l.AtLeast[q] = micros(lowestOf(least))
	}
	return l, nil
}

func micros(nanos int64) meshbench.Microseconds { return meshbench.Microseconds(float64(nanos) / 1e3) }
