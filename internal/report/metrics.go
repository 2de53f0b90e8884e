package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
)

// metricPanels is how many series are drawn; the JSON has all.
const metricPanels = 12

// shown returns a cell's series that a report shows: those that the
// experiment named one by one or asked for by a query, and of the
// applications how many requests came and how long they took.
func shown(r meshbench.Result, c meshbench.CellResult) []meshbench.MetricSummary {
	return slices.DeleteFunc(slices.Clone(c.Metrics), func(m meshbench.MetricSummary) bool {
		i := slices.IndexFunc(r.Experiment.Metrics, func(s meshbench.MetricSource) bool { return s.Name == m.Source })
		if i >= 0 {
			return len(r.Experiment.Metrics[i].Series) == 0 && r.Experiment.Metrics[i].Query == ""
		}
		name, _, _ := strings.Cut(m.Series, "{")
		return name != "meshbench_requests_total" && name != "meshbench_request_duration_seconds_mean"
	})
}

// seriesName writes a series with where it is from.
func seriesName(m meshbench.MetricSummary) string { return m.Source + ": " + m.Series }

// metricValue writes a value of a series.
func metricValue(m meshbench.MetricSummary, v float64) string {
	out := number(v)
	if v != 0 && math.Abs(v) < 0.1 { // seconds, mostly
		out = strconv.FormatFloat(v, 'g', 3, 64)
	}
	if m.Kind == meshbench.CounterMetric {
		out += "/s"
	}
	return out
}

func metricsSection(r meshbench.Result) section {
	s := section{
		id: "metrics", title: "Metrics",
		about: "what applications and other programs told while trials ran; counters as their increase per second; median over n sittings of each trial's mean, least and largest reading",
		grid:  grid{columns: heads("cell", "source", "series", ">median", ">least", ">largest", ">n")},
	}
	left, resets := 0, 0
	for _, c := range r.Cells {
		list := shown(r, c)
		left += len(c.Metrics) - len(list)
		for i, m := range list {
			resets += m.Resets
			cell := text(c.ID)
			if i > 0 {
				cell.tone = quiet
			}
			s.grid.rows = append(s.grid.rows, []field{cell, text(m.Source), text(m.Series), text(metricValue(m, m.Median)),
				text(metricValue(m, m.Min)), text(metricValue(m, m.Max)), text(count(len(m.Sittings)))})
		}
	}
	if left > 0 {
		s.notes = append(s.notes, fmt.Sprintf("%s more series are in the JSON; those that a source names one by one in the experiment are shown here.", count(left)))
	}
	if resets > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Counters began anew %d times: what they had reached before counts too.", resets))
	}
	return s
}

// metricStrips are the sittings of each series, drawn as those of the latency
// are, and beside them.
func metricStrips(r meshbench.Result, p palette) []stripPanel {
	var names []string
	for _, c := range r.Cells {
		for _, m := range shown(r, c) {
			if n := seriesName(m); !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	var out []stripPanel
	for _, name := range names {
		low, high := math.Inf(1), math.Inf(-1)
		of := map[string]meshbench.MetricSummary{}
		unit := "value"
		for _, c := range r.Cells {
			for _, m := range shown(r, c) {
				if seriesName(m) != name {
					continue
				}
				of[c.ID] = m
				if m.Kind == meshbench.CounterMetric {
					unit = "per second"
				}
				for _, v := range m.Sittings {
					low, high = min(low, v.Value), max(high, v.Value)
				}
			}
		}
		if math.IsInf(low, 0) || low == 0 && high == 0 {
			continue
		}
		if len(out) == metricPanels {
			break
		}
		a, step := linearAxis(low, high, 4)
		ticks := linearTicks(a, step, scale{"", 1})
		panel := stripPanel{Name: name, Unit: unit}
		for _, c := range r.Cells {
			m, ok := of[c.ID]
			if !ok {
				continue
			}
			panel.Strips = append(panel.Strips, metricStrip(c.ID, m, a, ticks, p.class(c.ID)))
		}
		panel.Axis = drawTicks(ticks)
		out = append(out, panel)
	}
	return out
}

func metricStrip(cell string, m meshbench.MetricSummary, a axis, ticks []tick, class string) strip {
	d := newDrawing("strip "+class, stripHeight, "")
	for _, t := range ticks {
		d.line("rule", t.at, 0, t.at, stripHeight)
	}
	for i, v := range m.Sittings {
		y := float64(stripHeight) / 2
		if n := len(m.Sittings); n > 1 { // the first sitting on top
			y = 4 + float64(stripHeight-8)*float64(i)/float64(n-1)
		}
		d.titled("circle", fmt.Sprintf("%s, sitting %d: %s", cell, v.Sitting, metricValue(m, v.Value)),
			"class", "dot", "cx", share(a.at(v.Value)), "cy", px(y), "r", "3")
	}
	d.line("median", a.at(m.Median), 1, a.at(m.Median), stripHeight-1)
	return strip{Cell: cell, Class: class, Value: metricValue(m, m.Median), Plot: d.html()}
}
