package load

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshbench/meshbench"
)

func library(values ...int64) *hdrhistogram.Histogram {
	h := hdrhistogram.New(minNanos, maxNanos, digits)
	for _, v := range values {
		if err := h.RecordValue(v); err != nil {
			panic(err)
		}
	}
	return h
}

// someNanos draws values over the whole range, evenly on a logarithmic scale.
func someNanos(r *rand.Rand, n int) []int64 {
	values := make([]int64, n)
	for i := range values {
		values[i] = min(r.Int64N(1<<(1+r.IntN(42))), maxNanos)
	}
	return values
}

func TestCountersAreThoseOfTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	values := someNanos(r, 20_000)
	for shift := range 42 {
		for _, d := range []int64{-1, 0, 1} {
			if v := int64(1)<<shift + d; v >= 0 && v <= maxNanos {
				values = append(values, v)
			}
		}
	}
	values = append(values, maxNanos)
	one := NewHistogram()
	for _, v := range values {
		i := counterOf(v)
		if lowestOf(i) > v || highestOf(i) < v || (i+1 < counters && lowestOf(i+1) != highestOf(i)+1) {
			t.Fatalf("%d is in counter %d of %d to %d", v, i, lowestOf(i), highestOf(i))
		}
		one.Record(v)
	}
	lib := library(values...)
	for i, n := range lib.Export().Counts {
		if uint64(n) != one.counts[i] {
			t.Fatalf("counter %d: the library has %d, we have %d", i, n, one.counts[i])
		}
	}
	for range 2000 {
		p := r.Float64()
		if got, want := one.Quantile(p), lib.ValueAtQuantile(p*100); got != want {
			t.Fatalf("quantile %v: %d, the library has %d", p, got, want)
		}
	}
	if one.Min() != lib.Min() || one.Max() != lib.Max() {
		t.Errorf("min %d, max %d; the library has %d, %d", one.Min(), one.Max(), lib.Min(), lib.Max())
	}
	raw, err := one.Encode()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := lib.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.StdEncoding.EncodeToString(raw); got != string(theirs) {
		t.Error("the encoded forms differ")
	}
	back, err := DecodeHistogram(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range back.counts {
		if back.counts[i] != one.counts[i] {
			t.Fatalf("counter %d: %d after decoding, %d before", i, back.counts[i], one.counts[i])
		}
	}
}

func TestRecordRefusesWhatIsOutOfRange(t *testing.T) {
	h := NewHistogram()
	for _, v := range []int64{-1, maxNanos + 1, 1 << 62} {
		if h.Record(v) {
			t.Errorf("%d was counted", v)
		}
	}
	if !h.Record(0) || !h.Record(maxNanos) || h.Count() != 2 {
		t.Errorf("the ends of the range were not counted: %d values", h.Count())
	}
}

// Two bugs that other tools have: a server of 500 ms that is reported as 299
// where the resolution is coarse, and a p95 of 1502 that is printed as 1072.
func TestKnownBugsOfOthers(t *testing.T) {
	h := NewHistogram()
	for range 1000 {
		h.Record(500_000_000)
	}
	if got := h.Quantile(0.5); got < 500_000_000 || got > 500_500_000 {
		t.Errorf("the median of 500 ms is %d ns", got)
	}
	h = NewHistogram()
	for i := range 100 {
		v := int64(1_072_000_000)
		if i >= 94 {
			v = 1_502_000_000
		}
		h.Record(v)
	}
	if got := h.Quantile(0.95); got < 1_502_000_000 || got > 1_503_502_000 {
		t.Errorf("the p95 is %d ns, not 1502 ms", got)
	}
}

func TestAddIsExactAndAssociative(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	values := someNanos(r, 3000)
	pooled := NewHistogram()
	parts := [3]*Histogram{NewHistogram(), NewHistogram(), NewHistogram()}
	for i, v := range values {
		pooled.Record(v)
		parts[i%3].Record(v)
	}
	left, right := NewHistogram(), NewHistogram()
	left.Add(parts[0])
	left.Add(parts[1])
	left.Add(parts[2])
	right.Add(parts[2])
	right.Add(parts[1])
	right.Add(parts[0])
	want, _ := pooled.Encode()
	for name, h := range map[string]*Histogram{"left": left, "right": right} {
		if got, _ := h.Encode(); !bytes.Equal(got, want) {
			t.Errorf("%s: not the histogram of the pooled values", name)
		}
	}
}

func FuzzDecodeHistogram(f *testing.F) {
	h := NewHistogram()
	h.Record(1000)
	h.Record(maxNanos)
	raw, _ := h.Encode()
	f.Add(raw)
	f.Add([]byte{})
	f.Add(raw[:len(raw)/2])
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := DecodeHistogram(raw)
		if err != nil {
			return
		}
		if h.Quantile(0.5) > h.Max() || h.Min() > h.Max() {
			t.Errorf("min %d, median %d, max %d", h.Min(), h.Quantile(0.5), h.Max())
		}
	})
}

func TestQuantilesAmongCensoredValuesAreUnknown(t *testing.T) {
	ms := func(n int64) int64 { return n * 1_000_000 }
	fill := func(values map[int64]int) *Histogram {
		h := NewHistogram()
		for v, n := range values {
			for range n {
				h.Record(ms(v))
			}
		}
		return h
	}
	for _, c := range []struct {
		name                string
		completed, censor   map[int64]int
		known               map[meshbench.Quantile]int64 // in ms
		atLeast             map[meshbench.Quantile]int64
		count               uint64
		wantNothingAnywhere bool
	}{
		{
			name: "nothing censored", completed: map[int64]int{1: 90, 2: 10},
			known: map[meshbench.Quantile]int64{"p50": 1, "p90": 1, "p99": 2, "p99_9": 2}, count: 100,
		},
		{
			name: "5 of 100 timed out", completed: map[int64]int{1: 90, 2: 5}, censor: map[int64]int{1000: 5},
			known: map[meshbench.Quantile]int64{"p50": 1, "p90": 1}, atLeast: map[meshbench.Quantile]int64{"p99": 1000, "p99_9": 1000}, count: 95,
		},
		{
			// Cut off early: they might still be the slowest of all.
			name: "unfinished at once", completed: map[int64]int{1: 50, 2: 40}, censor: map[int64]int{0: 10},
			known: map[meshbench.Quantile]int64{"p50": 1, "p90": 2}, atLeast: map[meshbench.Quantile]int64{"p99": 2, "p99_9": 2}, count: 90,
		},
		{
			name: "all timed out", completed: nil, censor: map[int64]int{10: 3},
			known: map[meshbench.Quantile]int64{}, atLeast: map[meshbench.Quantile]int64{"p50": 10, "p90": 10, "p99": 10, "p99_9": 10},
		},
		{name: "nothing at all", wantNothingAnywhere: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := latency(fill(c.completed), fill(c.censor))
			if err != nil {
				t.Fatal(err)
			}
			if l.Count != c.count {
				t.Errorf("count %d, not %d", l.Count, c.count)
			}
			if c.wantNothingAnywhere && len(l.Values)+len(l.AtLeast) > 0 {
				t.Errorf("quantiles of nothing: %v, %v", l.Values, l.AtLeast)
			}
			near := func(got meshbench.Microseconds, want int64) bool {
				return got >= meshbench.Microseconds(want*1000)*0.999 && got <= meshbench.Microseconds(want*1000)*1.001
			}
			if len(l.Values) != len(c.known) || len(l.AtLeast) != len(c.atLeast) {
				t.Errorf("known %v, at least %v", l.Values, l.AtLeast)
			}
			for q, want := range c.known {
				if got, ok := l.Values[q]; !ok || !near(got, want) {
					t.Errorf("%s is %v, not %d ms", q, got, want)
				}
			}
			for q, want := range c.atLeast {
				if got, ok := l.AtLeast[q]; !ok || !near(got, want) {
					t.Errorf("%s is at least %v, not %d ms", q, got, want)
				} else if got > meshbench.Microseconds(want*1000) {
					t.Errorf("%s: %v is no lower bound of %d ms", q, got, want)
				}
			}
		})
	}
}
