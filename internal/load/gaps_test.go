package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPredictedLateness(t *testing.T) {
	// One gap of 100 in a time of 1,000: P(L > x) = (100-x)/1000.
	c := Calibration{Nanos: 1000, Gaps: []int64{100}}
	for p, want := range map[float64]float64{0.5: 0, 0.9: 0, 0.95: 50, 0.99: 90} {
		if got := c.lateness(p); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v: %v, not %v", p, got, want)
		}
	}
	if c.share() != 0.1 {
		t.Errorf("share %v", c.share())
	}
	if (Calibration{}).lateness(0.99) != 0 || (Calibration{}).share() != 0 {
		t.Error("no calibration predicts something")
	}
	if (Calibration{Nanos: 100, Lost: 10, Gaps: []int64{10}}).share() != 0.2 {
		t.Error("gaps that were only added up are missing in the share")
	}
}

// The formula against arrivals thrown at random into a time with many gaps.
func TestPredictedLatenessIsThatOfAPerfectGenerator(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	type gap struct{ from, to int64 }
	var gaps []gap
	c := Calibration{}
	at := int64(0)
	for range 2000 {
		at += r.Int64N(200_000)
		long := int64(3000 + r.ExpFloat64()*20_000)
		gaps = append(gaps, gap{at, at + long})
		c.Gaps = append(c.Gaps, long)
		at += long
	}
	c.Nanos = at
	late := make([]float64, 200_000)
	for i := range late {
		x := r.Int64N(at)
		k, _ := slices.BinarySearchFunc(gaps, x, func(g gap, x int64) int { return int(g.to - x) })
		if k < len(gaps) && gaps[k].from <= x {
			late[i] = float64(gaps[k].to - x)
		}
	}
	slices.Sort(late)
	for _, p := range []float64{0.5, 0.9, 0.95, 0.99, 0.999} {
		got, want := c.lateness(p), late[int(p*float64(len(late)))]
		if math.Abs(got-want) > 0.05*want+100 {
			t.Errorf("quantile %v: %.0f predicted, %.0f happened", p, got, want)
		}
	}
}
