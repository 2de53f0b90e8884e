package stats_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/meshbench/meshbench/internal/stats"
)

const tolerance = 1e-9

func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= tolerance*math.Max(1, math.Max(math.Abs(a), math.Abs(b)))
}

type interval struct {
	Level, Estimate, Attained float64
	Low, High                 *float64
}

// golden is what scipy says; see testdata/golden.py.
type golden struct {
	Samples []struct {
		Values         []float64
		P, Median, Std float64
		Intervals      []interval
	}
	CDF []struct {
		N, W int
		P    float64
	}
	Ties []struct {
		Values []float64
		P      float64
	}
	Quantiles []struct {
		N    int
		P    float64
		Rank int
	}
	Design []struct {
		Above, Count []float64
		D            float64
	}
}

func readGolden(t *testing.T) golden {
	t.Helper()
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Samples) < 10 || len(g.CDF) < 10 || len(g.Ties) < 5 || len(g.Quantiles) < 10 || len(g.Design) < 3 {
		t.Fatal("golden.json lacks cases")
	}
	return g
}

func TestAgainstScipy(t *testing.T) {
	g := readGolden(t)
	for _, s := range g.Samples {
		n := len(s.Values)
		if got := stats.SignedRankTest(s.Values); !near(got, s.P) {
			t.Errorf("n=%d: p %v, want %v", n, got, s.P)
		}
		if got := stats.Median(s.Values); !near(got, s.Median) {
			t.Errorf("n=%d: median %v, want %v", n, got, s.Median)
		}
		if got := stats.StdDev(s.Values); !near(got, s.Std) {
			t.Errorf("n=%d: standard deviation %v, want %v", n, got, s.Std)
		}
		for _, want := range s.Intervals {
			got := stats.SignedRankInterval(s.Values, want.Level)
			if !near(got.Estimate, want.Estimate) || !near(got.Level, want.Attained) {
				t.Errorf("n=%d at %v: %+v, want estimate %v at %v", n, want.Level, got, want.Estimate, want.Attained)
			}
			if want.Low == nil {
				if !math.IsNaN(got.Low) || !math.IsNaN(got.High) {
					t.Errorf("n=%d at %v: interval [%v, %v], want none", n, want.Level, got.Low, got.High)
				}
				continue
			}
			if !near(got.Low, *want.Low) || !near(got.High, *want.High) {
				t.Errorf("n=%d at %v: [%v, %v], want [%v, %v]", n, want.Level, got.Low, got.High, *want.Low, *want.High)
			}
			if level, ok := stats.NewSignedRank(n).Level(want.Level); !ok || !near(level, want.Attained) {
				t.Errorf("n=%d: level %v of the plan, %v of the interval", n, level, want.Attained)
			}
		}
	}
	for _, c := range g.CDF {
		got := stats.NewSignedRank(c.N).CDF(c.W)
		if math.Abs(got-c.P) > tolerance*c.P { // relative: far tails decide
			t.Errorf("P(W <= %d | n=%d) = %v, want %v", c.W, c.N, got, c.P)
		}
	}
	for _, c := range g.Ties {
		if got := stats.SignedRankTest(c.Values); !near(got, c.P) {
			t.Errorf("%v: p %v, want %v, the largest over all ways to break ties", c.Values, got, c.P)
		}
	}
	for _, c := range g.Quantiles {
		if got := stats.QuantileRank(c.N, c.P); got != c.Rank {
			t.Errorf("rank of the %v-quantile of %d: %d, want %d", c.P, c.N, got, c.Rank)
		}
	}
	for _, c := range g.Design {
		if got := stats.DesignEffect(c.Above, c.Count); !near(got, c.D) {
			t.Errorf("design effect %v, want %v", got, c.D)
		}
	}
}

func TestIntervalAgreesWithTest(t *testing.T) {
	// p <= 1 - wanted level if and only if zero lies outside the closed
	// interval, for every pattern of small whole numbers: ties and zeros galore.
	for n := 5; n <= 7; n++ {
		x := make([]float64, n)
		rejected := 0
		for code := range int(math.Pow(5, float64(n))) {
			c := code
			for i := range x {
				x[i] = float64(c%5) - 1
				c /= 5
			}
			in := stats.SignedRankInterval(x, 0.9)
			out := in.Low > 0 || in.High < 0
			if out {
				rejected++
			}
			if p := stats.SignedRankTest(x); (p <= 1-0.9) != out {
				t.Fatalf("%v: p %v, interval [%v, %v]", x, p, in.Low, in.High)
			}
		}
		if rejected == 0 {
			t.Errorf("n=%d: nothing was ever significant", n)
		}
	}
}

func TestInfiniteDifferences(t *testing.T) {
	x := []float64{1, 2, 3, 4, 5, 6, math.Inf(1)}
	in := stats.SignedRankInterval(x, 0.95)
	// Of 28 Walsh averages seven are infinite; k = 3 leaves the third largest.
	if in.Estimate != 4 || in.Low != 2 || !math.IsInf(in.High, 1) {
		t.Errorf("%+v", in)
	}
	if p := stats.SignedRankTest(x); p != 2.0/128 {
		t.Errorf("p %v", p)
	}
}

func TestNothing(t *testing.T) {
	if p := stats.SignedRankTest(nil); p != 1 {
		t.Errorf("p of nothing: %v", p)
	}
	in := stats.SignedRankInterval(nil, 0.95)
	if !math.IsNaN(in.Estimate) || !math.IsNaN(in.Low) || !math.IsNaN(in.High) || in.Level != 0 {
		t.Errorf("interval of nothing: %+v", in)
	}
	for name, v := range map[string]float64{
		"median": stats.Median(nil), "mean": stats.Mean(nil), "quantile": stats.Quantile(nil, 0.5),
		"Hodges-Lehmann": stats.HodgesLehmann(nil),
		"design effect":  stats.DesignEffect([]float64{0, 0}, []float64{5, 5}),
	} {
		if !math.IsNaN(v) {
			t.Errorf("%s of nothing: %v", name, v)
		}
	}
	if got := stats.StdDev([]float64{3}); got != 0 {
		t.Errorf("standard deviation of one value: %v", got)
	}
}

func TestSittingsNeeded(t *testing.T) {
	for _, c := range []struct{ m, n int }{{0, 6}, {1, 6}, {3, 7}, {12, 9}} {
		if got := stats.DifferencesNeeded(c.m, 0.05); got != c.n {
			t.Errorf("m=%d: %d sittings, want %d", c.m, got, c.n)
		}
		m := max(c.m, 1)
		if _, ok := stats.NewSignedRank(c.n).Level(1 - 0.05/float64(m)); !ok {
			t.Errorf("m=%d: no interval with the %d sittings that are called enough", c.m, c.n)
		}
		if _, ok := stats.NewSignedRank(c.n - 1).Level(1 - 0.05/float64(m)); ok {
			t.Errorf("m=%d: an interval with %d sittings", c.m, c.n-1)
		}
	}
	if got := stats.SmallestP(0); got != 1 {
		t.Errorf("smallest p of no sittings: %v", got)
	}
	if got := stats.Bonferroni(0.03, 3); !near(got, 0.09) {
		t.Errorf("Bonferroni: %v", got)
	}
	if got := stats.Bonferroni(0.5, 3); got != 1 {
		t.Errorf("Bonferroni above one: %v", got)
	}
}

func TestEffectiveSize(t *testing.T) {
	for p, want := range map[float64]float64{0.5: 7, 0.9: 36, 0.99: 368, 0.999: 3688, 0.9999: 36888} {
		if got := stats.RequiredSize(p); got != want {
			t.Errorf("required for %v: %v, want %v", p, got, want)
		}
	}
	if got := stats.EffectiveSize(2000, 4); got != 500 {
		t.Errorf("2,000 requests at D = 4: %v", got)
	}
	for _, d := range []float64{0.3, math.NaN()} {
		if got := stats.EffectiveSize(2000, d); got != 2000 {
			t.Errorf("2,000 requests at D = %v: %v", d, got)
		}
	}
	// All slow requests in one of ten batches of 100: x = 10, r = 0.01,
	// sum = 9 * 1 + 81 = 90, D = 90 / (0.01 * 0.99 * 1000).
	above, count := make([]float64, 10), slices.Repeat([]float64{100}, 10)
	above[3] = 10
	if got, want := stats.DesignEffect(above, count), 90/9.9; !near(got, want) {
		t.Errorf("clustered: D %v, want %v", got, want)
	}
	if got := stats.Join([]float64{1, 2, 3, 4, 5, 6, 7}, 3); !slices.Equal(got, []float64{6, 15, 7}) {
		t.Errorf("joined: %v", got)
	}
}

func TestQuantile(t *testing.T) {
	v := []float64{1, 2, 3, 4}
	for p, want := range map[float64]float64{0: 1, 0.25: 1, 0.26: 2, 0.5: 2, 0.75: 3, 0.99: 4, 1: 4} {
		if got := stats.Quantile(v, p); got != want {
			t.Errorf("%v-quantile: %v, want %v", p, got, want)
		}
	}
	shuffled := []float64{4, 1, 3, 2}
	if got := stats.Median(shuffled); got != 2.5 || shuffled[0] != 4 {
		t.Errorf("median %v, or the argument was sorted: %v", got, shuffled)
	}
}
