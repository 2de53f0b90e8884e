package load

import (
	"math"
	"slices"
	"testing"

	"github.com/meshbench/meshbench"
)

func TestTwoCursorsWalkTheSameArrivals(t *testing.T) {
	for _, law := range []meshbench.Arrivals{meshbench.Constant, meshbench.Poisson} {
		j := Job{Rate: 12345, Arrivals: law, Seed: 7, WorkerIndex: 1, WorkerCount: 3}
		a, b := newArrivals(j), newArrivals(j)
		last := int64(-1)
		for range 10_000 {
			x := a.next()
			if y := b.next(); x != y {
				t.Fatalf("%s: %d and %d", law, x, y)
			}
			if x < last {
				t.Fatalf("%s: %d after %d", law, x, last)
			}
			last = x
		}
	}
	a, b := newArrivals(Job{Rate: 10, Seed: 1, WorkerCount: 1}), newArrivals(Job{Rate: 10, Seed: 2, WorkerCount: 1})
	if a.next() == b.next() {
		t.Error("the seed makes no difference")
	}
}

func TestConstantArrivalsOfWorkersInterleave(t *testing.T) {
	var all []int64
	for i := range 3 {
		a := newArrivals(Job{Rate: 1000, Arrivals: meshbench.Constant, WorkerIndex: i, WorkerCount: 3})
		for range 100 {
			all = append(all, a.next())
		}
	}
	slices.Sort(all)
	for i, at := range all {
		if want := int64(i) * 1_000_000; at != want {
			t.Fatalf("arrival %d at %d, not %d", i, at, want)
		}
	}
}

// The union of the workers' Poisson streams is a Poisson stream at the whole
// rate: Kolmogorov's D of its distances.
func TestPoissonArrivalsOfWorkers(t *testing.T) {
	const rate, n = 5000.0, 4
	var all []int64
	for i := range n {
		a := newArrivals(Job{Rate: rate, Arrivals: meshbench.Poisson, Seed: 3, WorkerIndex: i, WorkerCount: n})
		for at := a.next(); at < 4_000_000_000; at = a.next() {
			all = append(all, at)
		}
	}
	slices.Sort(all)
	if got := float64(len(all)); math.Abs(got-4*rate) > 4*math.Sqrt(4*rate) {
		t.Errorf("%v arrivals in 4 s at %v per second", got, rate)
	}
	if d := kolmogorov(all, 1e9/rate); d > 0.02 {
		t.Errorf("Kolmogorov's D is %.4f", d)
	}
}

// kolmogorov returns D between the distances of some moments and the
// exponential law.
func kolmogorov(moments []int64, mean float64) float64 {
	var distances []float64
	for i := 1; i < len(moments); i++ {
		distances = append(distances, float64(moments[i]-moments[i-1]))
	}
	slices.Sort(distances)
	var d float64
	for i, x := range distances {
		f := 1 - math.Exp(-x/mean)
		d = max(d, math.Abs(f-float64(i)/float64(len(distances))), math.Abs(f-float64(i+1)/float64(len(distances))))
	}
	return d
}

func TestLaw(t *testing.T) {
	const mean = 1e6
	feed := func(poisson bool, change func(i int, d int64) int64) float64 {
		l := law{poisson: poisson, mean: mean}
		of := meshbench.Constant
		if poisson {
			of = meshbench.Poisson
		}
		a := newArrivals(Job{Rate: 1e9 / mean, Arrivals: of, Seed: 11, WorkerCount: 1})
		last := a.next()
		for i := range 20_000 {
			at := a.next()
			l.add(change(i, at-last))
			last = at
		}
		return l.distance()
	}
	same := func(_ int, d int64) int64 { return d }
	bursts := func(i int, d int64) int64 { // ten at once, then a pause
		if i%10 == 9 {
			return 10 * mean
		}
		return 0
	}
	for _, c := range []struct {
		name      string
		poisson   bool
		change    func(int, int64) int64
		low, high float64
	}{
		{"poisson kept", true, same, 0, 0.02},
		{"poisson in bursts", true, bursts, 0.5, 1},
		{"poisson made constant", true, func(int, int64) int64 { return mean }, 0.3, 1},
		{"poisson a little late", true, func(i int, d int64) int64 { return d + int64(i%3)*10_000 }, 0, 0.02},
		{"constant kept", false, same, 0, 0},
		{"constant in bursts", false, bursts, 0.9, 1},
		{"constant a little late", false, func(i int, d int64) int64 { return d + int64(i%3)*10_000 }, 0, 0},
	} {
		if d := feed(c.poisson, c.change); d < c.low || d > c.high {
			t.Errorf("%s: distance %.3f, not between %v and %v", c.name, d, c.low, c.high)
		}
	}
	if d := (&law{}).distance(); d != 0 {
		t.Errorf("no arrivals at all are %v off", d)
	}
}
