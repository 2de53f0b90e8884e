package report

import (
	"math"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
)

// The curve of a known distribution passes through its quantiles.
func TestCurvePassesThroughQuantiles(t *testing.T) {
	h := histogram.New()
	const n = 100_000
	for i := 1; i <= n; i++ {
		if err := h.RecordValue(int64(i) * 1000); err != nil { // 1 µs to 100 ms
			t.Fatal(err)
		}
	}
	raw, err := histogram.Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := newCurve(meshbench.Latency{Count: n, Histogram: raw}, "s0")
	if !ok {
		t.Fatal("no curve")
	}
	points := append(append([][2]float64{}, c.points...), c.thin...)
	for i, pt := range points {
		p := 1 - math.Pow(10, -pt[0])
		if want := p * n; math.Abs(pt[1]-want) > 2+want/500 {
			t.Errorf("at p = %.5f the curve is at %.0f µs, want %.0f", p, pt[1], want)
		}
		if i > 0 && (pt[0] < points[i-1][0] || pt[1] < points[i-1][1]) {
			t.Fatalf("the curve turns back at point %d", i)
		}
	}
	if last := points[len(points)-1]; math.Abs(last[0]-5) > 1e-9 {
		t.Errorf("the curve of 100,000 values ends at %v, want 5 nines", last[0])
	}
	if first := c.thin[len(c.thin)-1]; len(c.thin) == 0 || first[0] < 4 {
		t.Error("nothing is thin")
	}
	for _, pt := range c.points {
		if above := n * math.Pow(10, -pt[0]); above < fewSamples-0.5 {
			t.Errorf("the curve is firm where %.1f values lie above", above)
		}
	}
}

func TestDamagedHistogramsMakeNoCurve(t *testing.T) {
	for name, raw := range map[string][]byte{"none": nil, "garbage": []byte("garbage"), "short": {0x1c, 0x84, 0x93, 0x14, 0, 0, 0, 9, 1}} {
		if _, ok := newCurve(meshbench.Latency{Count: 3, Histogram: raw}, "s0"); ok {
			t.Errorf("%s: a curve", name)
		}
	}
}

func TestAxes(t *testing.T) {
	for _, tt := range []struct {
		low, high float64
		n         int
		wantLow   float64
		wantHigh  float64
		labels    []string
	}{
		{0, 355, 5, 0, 400, []string{"0", "100", "200", "300", "400"}},
		{-71, 2040, 5, -500, 2500, []string{"-500", "0", "500", "1,000", "1,500", "2,000", "2,500"}},
		{0.12, 0.19, 4, 0.12, 0.2, []string{"0.12", "0.14", "0.16", "0.18", "0.20"}},
		{7, 7, 4, 6, 8, []string{"6.0", "6.5", "7.0", "7.5", "8.0"}},
	} {
		a, step := linearAxis(tt.low, tt.high, tt.n)
		if math.Abs(a.low-tt.wantLow) > 1e-9 || math.Abs(a.high-tt.wantHigh) > 1e-9 {
			t.Errorf("%v to %v: the axis is %v to %v", tt.low, tt.high, a.low, a.high)
		}
		var labels []string
		for _, tk := range linearTicks(a, step, scale{"", 1}) {
			labels = append(labels, tk.label)
			if tk.at < 0 || tk.at > 1 {
				t.Errorf("%v to %v: a tick at %v", tt.low, tt.high, tk.at)
			}
		}
		if len(labels) != len(tt.labels) {
			t.Errorf("%v to %v: labels %v, want %v", tt.low, tt.high, labels, tt.labels)
			continue
		}
		for i := range labels {
			if labels[i] != tt.labels[i] {
				t.Errorf("%v to %v: labels %v, want %v", tt.low, tt.high, labels, tt.labels)
				break
			}
		}
	}
	for _, tt := range []struct{ low, high, wantLow, wantHigh float64 }{
		{37, 812, 20, 1000}, {100, 100, 100, 1000}, {0, 3, 0.001, 5}, {999, 1001, 500, 2000}, {5, math.Inf(1), 5, 1e12},
	} {
		a := logAxis(tt.low, tt.high)
		if math.Abs(a.low/tt.wantLow-1) > 1e-9 || math.Abs(a.high/tt.wantHigh-1) > 1e-9 {
			t.Errorf("log %v to %v: the axis is %v to %v, want %v to %v", tt.low, tt.high, a.low, a.high, tt.wantLow, tt.wantHigh)
		}
		if a.at(a.low) != 0 || math.Abs(a.at(a.high)-1) > 1e-12 || len(logTicks(a)) == 0 {
			t.Errorf("log %v to %v: ends at %v and %v, ticks %v", tt.low, tt.high, a.at(a.low), a.at(a.high), logTicks(a))
		}
	}
}

func TestFigures(t *testing.T) {
	low, high := -71.2, 1312.4
	narrow, wide := 341.96, 342.44
	for got, want := range map[string]string{
		micros(0):       "0 µs",
		micros(0.12):    "0.120 µs",
		micros(999.4):   "999 µs",
		micros(999.6):   "1.00 ms",
		micros(1234567): "1.23 s",
		memory(999):     "999 B",
		memory(62.2e6):  "62.2 MB",
		count(1234567):  "1,234,567",
		percent(0.0213): "2.1 %",
		level(0.999999): "99.9999 %",
		level(1):        "> 99.99 %",
		difference(meshbench.Estimate{Estimate: 902.7, Low: &low, High: &high, Unit: "us"}).String():    "+903 µs [-71, +1,312]",
		difference(meshbench.Estimate{Estimate: 342.2, Low: &narrow, High: &wide, Unit: "us"}).String(): "+342.20 µs [+341.96, +342.44]",
		difference(meshbench.Estimate{Estimate: -0.0001, Unit: "us"}).String():                          "0.000 µs",
		difference(meshbench.Estimate{Estimate: 2500, Low: &high, Unit: "us"}).String():                 "+2.50 ms [+1.31, unknown]",
		difference(meshbench.Estimate{Estimate: 430.2, Unit: "ms_per_1000_requests"}).String():          "+430 ms",
		ratio(meshbench.Estimate{Estimate: math.NaN()}).String():                                        "–",
		margin(5, "us"):             "5 µs",
		margin(3.26, "us"):          "3.26 µs",
		margin(100, "us"):           "100 µs",
		exact(500):                  "500",
		exact(0.25):                 "0.25",
		clean("a\x1b[2J\nb\u202ec"): "a\ufffd[2J b\ufffdc",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whatever a name is, it stays one line of plain text.
func FuzzMarkdownText(f *testing.F) {
	for _, s := range []string{"envoy@1.40:mtls=strict", "none#2", "<b>", "a|b", "`", "[x](y)", "![x](y)", "# h", "- x", "\\|", "a\r\nb", "[x]: y", "**x**"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := markdownText(s)
		escaped := false
		for i, r := range got {
			if escaped {
				escaped = false
				continue
			}
			switch r {
			case '\\':
				escaped = true
			case '\n', '\r', '<', '>', '|', '`', '*', '~':
				t.Fatalf("%q becomes %q: %q at %d is markup", s, got, r, i)
			}
		}
	})
}
