package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
)

// A percentile spectrum shows values over log10(1/(1-p)): each step to the
// right is a tail ten times rarer.

// curve is the spectrum of one histogram.
type curve struct {
	class  string
	points [][2]float64 // log10(1/(1-p)), µs
	thin   [][2]float64 // the same, where fewer than fewSamples lie above
	max    float64
}

// fewSamples is how many values above a quantile make its place in the
// spectrum trustworthy; beyond, the curve is drawn thin.
const fewSamples = 10

const (
	spectrumHeight = 280
	// spectrumStep is the distance of the points; a decade has fifty.
	spectrumStep = 0.02
)

// newCurve decodes a histogram. Bytes that are none make no curve: a report
// of a damaged run still opens.
func newCurve(l meshbench.Latency, class string) (curve, bool) {
	h, err := histogram.Decode(l.Histogram)
	if err != nil || h.TotalCount() == 0 {
		return curve{}, false
	}
	n := float64(h.TotalCount())
	end := math.Log10(n)
	firm := max(0, math.Log10(n/fewSamples))
	var at, percentiles []float64
	for x := 0.0; x < end; x += spectrumStep {
		at = append(at, x)
		percentiles = append(percentiles, 100*(1-math.Pow(10, -x)))
	}
	at, percentiles = append(at, end), append(percentiles, 100)
	c := curve{class: class, max: end}
	for i, v := range h.ValueAtPercentilesSlice(percentiles) {
		pt := [2]float64{at[i], float64(v) / 1000}
		if at[i] <= firm {
			c.points = append(c.points, pt)
			continue
		}
		if len(c.thin) == 0 && len(c.points) > 0 {
			c.thin = append(c.thin, c.points[len(c.points)-1])
		}
		c.thin = append(c.thin, pt)
	}
	return c, true
}

// spot is a single point of a spectrum: a prediction.
type spot struct {
	q     meshbench.Quantile
	us    float64
	title string
}

// drawSpectrum draws curves and spots on one logarithmic axis of times.
func drawSpectrum(curves []curve, spots []spot, floor float64, label string) template.HTML {
	low, high, end := math.Inf(1), math.Inf(-1), 2.0
	for _, c := range curves {
		end = max(end, c.max)
		for _, pt := range slices.Concat(c.points, c.thin) {
			low, high = min(low, pt[1]), max(high, pt[1])
		}
	}
	for _, s := range spots {
		low, high = min(low, s.us), max(high, s.us)
		end = max(end, -math.Log10(1-s.q.Probability())+0.1)
	}
	if math.IsInf(low, 0) {
		return ""
	}
	y := logAxis(max(low, floor), max(high, 2*floor))
	x := axis{low: 0, high: end}
	d := newDrawing("plot", spectrumHeight, label)
	for _, t := range logTicks(y) {
		at := spectrumHeight * (1 - t.at)
		d.line("rule", 0, at, 1, at)
		d.text(t.label, "class", "tick", "x", "0", "dx", "-8", "y", px(at), "dy", "4", "text-anchor", "end")
	}
	for _, m := range spectrumMarks(end) {
		d.line("rule", x.at(m.at), 0, x.at(m.at), spectrumHeight)
		d.text(m.label, "class", "tick", "x", share(x.at(m.at)), "y", px(spectrumHeight+18), "text-anchor", "middle")
	}
	d.line("base", 0, spectrumHeight, 1, spectrumHeight)
	place := func(pts [][2]float64) [][2]float64 {
		out := make([][2]float64, len(pts))
		for i, pt := range pts {
			out[i] = [2]float64{x.at(pt[0]), 1 - y.at(pt[1])}
		}
		return out
	}
	for _, c := range curves {
		d.path("curve thin "+c.class, spectrumHeight, place(c.thin))
		d.path("curve "+c.class, spectrumHeight, place(c.points))
	}
	for _, s := range spots {
		at := x.at(-math.Log10(1 - s.q.Probability()))
		cy := spectrumHeight * (1 - y.at(s.us))
		d.titled("circle", s.title, "class", "spot", "cx", share(at), "cy", px(cy), "r", "5")
	}
	return d.html()
}

// spectrumMarks are the named places of the axis up to its end.
func spectrumMarks(end float64) []tick {
	out := []tick{{at: 0, label: "0"}, {at: -math.Log10(0.5), label: "50"}, {at: 1, label: "90"}}
	label := "99"
	for x := 2.0; x <= end+1e-9; x++ {
		out = append(out, tick{at: x, label: label})
		if x == 2 {
			label += "."
		}
		label += "9"
	}
	return out
}

// latencySpectrum draws the pooled histograms of all cells.
func latencySpectrum(r meshbench.Result, p palette) template.HTML {
	var curves []curve
	label := "Latency by percentile, pooled over trials, in microseconds on a logarithmic axis."
	for _, c := range r.Cells {
		if cv, ok := newCurve(c.Response, p.class(c.ID)); ok {
			curves = append(curves, cv)
			label = describe(label, c.ID+":", spectrumWords(c.Response)+".")
		}
	}
	return drawSpectrum(curves, nil, 0.1, label)
}

func spectrumWords(l meshbench.Latency) string {
	out := ""
	for _, q := range meshbench.Quantiles {
		v, ok := l.Values[q]
		switch {
		case ok:
			out += ", " + q.Label() + " " + micros(v)
		case l.AtLeast[q] > 0:
			out += ", " + q.Label() + " at least " + micros(l.AtLeast[q])
		}
	}
	if out == "" {
		return "no quantile is known"
	}
	return out[2:]
}

// spectrumGrid is the table behind the spectrum.
func spectrumGrid(r meshbench.Result) grid {
	g := grid{columns: heads("cell", ">min", ">p50", ">p90", ">p99", ">p99.9", ">max", ">n, requests")}
	for _, c := range r.Cells {
		row := []field{text(c.ID), dash()}
		if c.Response.Count > 0 {
			row[1] = text(micros(c.Response.Min))
		}
		for _, q := range meshbench.Quantiles {
			v, ok := c.Response.Values[q]
			switch {
			case ok:
				row = append(row, text(micros(v)))
			case c.Response.AtLeast[q] > 0:
				row = append(row, field{"≥ " + micros(c.Response.AtLeast[q]), quiet})
			default:
				row = append(row, dash())
			}
		}
		if c.Response.Count > 0 {
			row = append(row, text(micros(c.Response.Max)))
		} else {
			row = append(row, dash())
		}
		g.rows = append(g.rows, append(row, text(count(c.Response.Count))))
	}
	return g
}

// latenessSpectrum draws how late the generator was, and how late a perfect
// one would have been for this machine's gaps.
func latenessSpectrum(r meshbench.Result) template.HTML {
	c, ok := newCurve(r.Generator.Lateness, "observed")
	if !ok {
		return ""
	}
	var spots []spot
	for _, q := range []meshbench.Quantile{meshbench.P50, meshbench.P99, meshbench.P99_9} {
		if us, ok := predicted(r, q); ok {
			spots = append(spots, spot{q, float64(us), fmt.Sprintf("predicted %s: %s", q.Label(), micros(us))})
		}
	}
	label := describe("Lateness of the generator by percentile, observed and predicted from the machine's gaps, on a logarithmic axis.",
		fmt.Sprintf("p99 observed %s, predicted %s.", micros(r.Generator.LatenessP99), micros(r.Generator.PredictedP99)))
	return drawSpectrum([]curve{c}, spots, 0.01, label)
}

// predicted is the lateness that the gaps alone explain: the result's own
// figure, or the median over trials.
func predicted(r meshbench.Result, q meshbench.Quantile) (meshbench.Microseconds, bool) {
	switch q {
	case meshbench.P50:
		return r.Generator.PredictedP50, true
	case meshbench.P99:
		return r.Generator.PredictedP99, true
	}
	var all []meshbench.Microseconds
	for _, t := range r.Trials {
		if t.Lateness != nil {
			all = append(all, t.Gaps.Predicted.P99_9)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2, true
}

const trialsHeight = 180

// trialLateness draws the p99 of each trial's lateness in the order of the
// run, with its verdict as the shape.
func trialLateness(r meshbench.Result, p palette) template.HTML {
	var trials []meshbench.TrialSummary
	low, high := math.Inf(1), math.Inf(-1)
	for _, t := range r.Trials {
		if t.Lateness == nil {
			continue
		}
		v, ok := t.Lateness.Values[meshbench.P99]
		if !ok {
			continue
		}
		trials = append(trials, t)
		for _, us := range []float64{float64(v), float64(t.Gaps.Predicted.P99)} {
			low, high = min(low, us), max(high, us)
		}
	}
	if len(trials) == 0 {
		return ""
	}
	y := logAxis(max(low, 0.01), high)
	d := newDrawing("plot trials", trialsHeight, fmt.Sprintf("Lateness p99 of %s in order, beside what the machine's gaps predict; from %s to %s.",
		plural(len(trials), "trial"), micros(meshbench.Microseconds(low)), micros(meshbench.Microseconds(high))))
	for _, t := range logTicks(y) {
		at := trialsHeight * (1 - t.at)
		d.line("rule", 0, at, 1, at)
		d.text(t.label, "class", "tick", "x", "0", "dx", "-8", "y", px(at), "dy", "4", "text-anchor", "end")
	}
	width := 1 / float64(len(trials))
	for i, t := range trials {
		x := (float64(i) + 0.5) * width
		v := t.Lateness.Values[meshbench.P99]
		cy := trialsHeight * (1 - y.at(float64(v)))
		py := trialsHeight * (1 - y.at(float64(t.Gaps.Predicted.P99)))
		d.line("expected", x-0.35*width, py, x+0.35*width, py)
		title := fmt.Sprintf("%s, sitting %d, block %d: lateness p99 %s, predicted %s, %s", t.Cell, t.Sitting, t.Block, micros(v), micros(t.Gaps.Predicted.P99), t.Verdict.Status)
		switch t.Verdict.Status {
		case meshbench.InvalidTest:
			d.line("cross "+p.class(t.Cell), x, cy-7, x, cy+7)
			d.titled("circle", title, "class", "mark hollow "+p.class(t.Cell), "cx", share(x), "cy", px(cy), "r", "5")
		case meshbench.Suspect:
			d.titled("circle", title, "class", "mark hollow "+p.class(t.Cell), "cx", share(x), "cy", px(cy), "r", "5")
		default:
			d.titled("circle", title, "class", "dot "+p.class(t.Cell), "cx", share(x), "cy", px(cy), "r", "4")
		}
	}
	d.line("base", 0, trialsHeight, 1, trialsHeight)
	return d.html()
}

// trialsGrid is the table behind it.
func trialsGrid(r meshbench.Result) grid {
	g := grid{columns: heads("cell", ">sitting", ">block", ">order", ">lateness p99", ">predicted", ">throughput", "load", "verdict", "reasons")}
	for _, t := range r.Trials {
		late := dash()
		if t.Lateness != nil {
			if v, ok := t.Lateness.Values[meshbench.P99]; ok {
				late = text(micros(v))
			}
		}
		reasons := ""
		for i, reason := range t.Verdict.Reasons {
			if i > 0 {
				reasons += "; "
			}
			reasons += reason.Message
		}
		block := count(t.Block)
		if t.Repeat {
			block += " (repeat)"
		}
		g.rows = append(g.rows, []field{text(t.Cell), text(count(t.Sitting)), text(block), text(count(t.Order)), late,
			text(micros(t.Gaps.Predicted.P99)), text(rps(t.ThroughputRPS)), text(words(t.LoadState)), text(string(t.Verdict.Status)), text(reasons)})
	}
	return g
}
