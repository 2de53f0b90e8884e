package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// forestRow is a comparison as a line of the overhead chart.
type forestRow struct {
	Cell, Class      string // Cell is empty where it repeats
	Name             string
	Value, Bound     string
	Ratio            string
	Decision, Accent string
	Plot             template.HTML
}

// forest is the overhead chart: estimates with their intervals against zero.
type forest struct {
	Rows  []forestRow
	Apart []forestRow   // cells without any figure, under the axis
	Axis  template.HTML // empty where nothing has a figure
	Unit  string
}

const forestHeight = 34

func newForest(list []meshbench.Comparison, p palette) forest {
	low, high := 0.0, 0.0
	for _, c := range list {
		if !hasFigure(c) {
			continue
		}
		all := []float64{c.Difference.Estimate}
		for _, v := range []*float64{c.Difference.Low, c.Difference.High} {
			if v != nil {
				all = append(all, *v)
			}
		}
		for _, v := range c.Differences {
			all = append(all, v.Value)
		}
		low, high = min(low, slices.Min(all)), max(high, slices.Max(all))
	}
	f := forest{}
	a, step := linearAxis(low, high, 5)
	unit := timeScale(max(math.Abs(low), math.Abs(high)))
	f.Unit = unit.name
	ticks := linearTicks(a, step, unit)
	if low == 0 && high == 0 {
		a, ticks = axis{low: -1, high: 1}, nil
	}
	last := ""
	for i, c := range list {
		if !hasFigure(c) {
			// Where a cell has no figure at all, one line says it for all
			// questions that share a reason.
			some := anyFigure(list, c.Cell)
			if !some && i > 0 && list[i-1].Cell == c.Cell && !hasFigure(list[i-1]) && list[i-1].Reason == c.Reason {
				continue
			}
			row := forestRow{Class: p.class(c.Cell), Decision: decision(c).text}
			if c.Cell != last {
				row.Cell = c.Cell
			}
			last = c.Cell
			if some {
				row.Decision = metricName(c.Metric) + " " + row.Decision
				f.Rows = append(f.Rows, row)
			} else {
				f.Apart = append(f.Apart, row)
			}
			continue
		}
		row := forestRow{Class: p.class(c.Cell), Name: metricName(c.Metric), Decision: decision(c).text, Accent: accent(decision(c).tone)}
		if c.Cell != last {
			row.Cell = c.Cell
		}
		last = c.Cell
		d := difference(c.Difference)
		row.Value, row.Bound, row.Ratio = d.value, d.bound, ratio(c.Ratio).value
		row.Plot = forestPlot(c, a, ticks, p.class(c.Cell))
		f.Rows = append(f.Rows, row)
	}
	if len(ticks) > 0 {
		f.Axis = drawTicks(ticks)
	}
	return f
}

// anyFigure tells whether a cell has a figure in any comparison.
func anyFigure(list []meshbench.Comparison, cell string) bool {
	return slices.ContainsFunc(list, func(c meshbench.Comparison) bool { return c.Cell == cell && hasFigure(c) })
}

func forestPlot(c meshbench.Comparison, a axis, ticks []tick, class string) template.HTML {
	const middle = forestHeight / 2
	d := newDrawing("forest "+class, forestHeight, "")
	for _, t := range ticks {
		d.line("rule", t.at, 0, t.at, forestHeight)
	}
	if c.Margin > 0 {
		from, to := a.at(-c.Margin), a.at(c.Margin)
		d.titled("rect", "the margin: differences within ±"+margin(c.Margin, c.Difference.Unit)+" count as none",
			"class", "margin", "x", share(from), "y", "0", "width", share(to-from), "height", px(forestHeight))
	}
	d.line("zero", a.at(0), 0, a.at(0), forestHeight)
	for _, v := range c.Differences {
		d.titled("circle", fmt.Sprintf("sitting %d: %s", v.Sitting, difference(meshbench.Estimate{Estimate: v.Value, Unit: c.Difference.Unit}).value),
			"class", "speck", "cx", share(a.at(v.Value)), "cy", px(middle+9), "r", "2")
	}
	// An end that is not known runs out of the picture, without a stop.
	from, to := 0.0, 1.0
	if v := c.Difference.Low; v != nil {
		from = a.at(*v)
		d.line("span", from, middle-4, from, middle+4)
	}
	if v := c.Difference.High; v != nil {
		to = a.at(*v)
		d.line("span", to, middle-4, to, middle+4)
	}
	if c.Difference.Low != nil || c.Difference.High != nil {
		d.line("span", from, middle, to, middle)
	}
	mark := "mark"
	if c.Significance != meshbench.Worse && c.Significance != meshbench.Better {
		mark += " hollow"
	}
	d.titled("circle", metricName(c.Metric)+": "+difference(c.Difference).String()+", "+decision(c).text,
		"class", mark, "cx", share(a.at(c.Difference.Estimate)), "cy", px(middle), "r", "5")
	return d.html()
}

// accent is the CSS class of a tone.
func accent(t tone) string {
	switch t {
	case worse:
		return "worse"
	case better:
		return "better"
	case quiet:
		return "quiet"
	case strong:
		return "strong"
	}
	return ""
}

// barRow is a figure as a bar.
type barRow struct {
	Cell, Class string // Cell is empty where it repeats
	Name, Value string
	Bar         template.HTML
}

// costBars draws CPU and memory per role, each on one scale for all cells.
func costBars(r meshbench.Result, p palette) (cpu, mem []barRow) {
	var mostCPU, mostMemory float64
	for _, c := range r.Cells {
		for _, u := range c.Roles {
			if u.CPUPer1000Requests != nil {
				mostCPU = max(mostCPU, *u.CPUPer1000Requests)
			}
			mostMemory = max(mostMemory, float64(u.MemoryPeakBytes), float64(u.MemoryMeanBytes))
		}
	}
	for _, c := range r.Cells {
		cell := c.ID
		for _, u := range usages(c) {
			name, class := usageName(u, c.Roles), p.class(c.ID)
			if u.Role == meshbench.GeneratorRole {
				name, class = name+", not counted", class+" aside"
			}
			used := barRow{Cell: cell, Class: p.class(c.ID), Name: name, Value: "–"}
			if u.CPUPer1000Requests != nil {
				used.Value = number(*u.CPUPer1000Requests) + " ms"
				used.Bar = bar(class, *u.CPUPer1000Requests/mostCPU, -1)
			}
			cpu = append(cpu, used)
			held := barRow{Cell: cell, Class: p.class(c.ID), Name: name, Value: memory(u.MemoryMeanBytes),
				Bar: bar(class, float64(u.MemoryMeanBytes)/mostMemory, float64(u.MemoryPeakBytes)/mostMemory)}
			mem = append(mem, held)
			cell = ""
		}
	}
	return cpu, mem
}

// bar draws a share of the longest bar, with a stroke at the peak if that is
// not negative.
func bar(class string, length, peak float64) template.HTML {
	d := newDrawing("bar "+class, 16, "")
	d.element("rect", "class", "groove", "x", "0", "y", "6", "width", "100%", "height", "4")
	d.element("rect", "class", "fill", "x", "0", "y", "3", "width", share(finite(length)), "height", "10")
	if peak >= 0 {
		d.line("peak", finite(peak), 1, finite(peak), 15)
	}
	return d.html()
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return min(1, max(0, f))
}

// strip is one cell's sittings in one quantile.
type strip struct {
	Cell, Class string
	Value       string
	Plot        template.HTML
}

// stripPanel is one quantile of all cells, on one axis.
type stripPanel struct {
	Name   string
	Unit   string
	Strips []strip
	Axis   template.HTML
}

const stripHeight = 30

func stripPanels(r meshbench.Result, p palette) []stripPanel {
	var out []stripPanel
	for _, q := range meshbench.Quantiles {
		low, high := math.Inf(1), math.Inf(-1)
		for _, c := range r.Cells {
			for _, v := range c.Quantiles[q].Sittings {
				low, high = min(low, v.Value), max(high, v.Value)
			}
		}
		if math.IsInf(low, 0) {
			continue
		}
		a, step := linearAxis(low, high, 4)
		unit := timeScale(high)
		ticks := linearTicks(a, step, unit)
		panel := stripPanel{Name: q.Label(), Unit: unit.name}
		for _, c := range r.Cells {
			panel.Strips = append(panel.Strips, newStrip(c, q, a, ticks, p.class(c.ID)))
		}
		panel.Axis = drawTicks(ticks)
		out = append(out, panel)
	}
	return out
}

func newStrip(c meshbench.CellResult, q meshbench.Quantile, a axis, ticks []tick, class string) strip {
	d := newDrawing("strip "+class, stripHeight, "")
	for _, t := range ticks {
		d.line("rule", t.at, 0, t.at, stripHeight)
	}
	s := c.Quantiles[q]
	for i, v := range s.Sittings {
		y := float64(stripHeight) / 2
		if n := len(s.Sittings); n > 1 { // the first sitting on top
			y = 4 + float64(stripHeight-8)*float64(i)/float64(n-1)
		}
		d.titled("circle", fmt.Sprintf("%s, sitting %d: %s", c.ID, v.Sitting, micros(meshbench.Microseconds(v.Value))),
			"class", "dot", "cx", share(a.at(v.Value)), "cy", px(y), "r", "3")
	}
	out := strip{Cell: c.ID, Class: class, Value: quantileField(c, q).text}
	if s.Median != nil {
		d.line("median", a.at(float64(*s.Median)), 1, a.at(float64(*s.Median)), stripHeight-1)
	}
	if c.LoadState == meshbench.Saturated && len(s.Sittings) == 0 {
		out.Value = "saturated"
	}
	out.Plot = d.html()
	return out
}

// key is an entry of a legend.
type key struct {
	Name, Class string
	Mark        template.HTML
}

// lineKeys is the legend of a chart of lines.
func lineKeys(cells []meshbench.CellResult, p palette) []key {
	var out []key
	for _, c := range cells {
		name := c.ID
		if c.LoadState == meshbench.Saturated {
			name += " (saturated)"
		}
		d := &drawing{}
		d.b.WriteString(`<svg class="sample ` + p.class(c.ID) + `" width="28" height="12" aria-hidden="true">`)
		d.element("line", "class", "curve", "x1", "0", "y1", "6", "x2", "28", "y2", "6")
		out = append(out, key{Name: name, Class: p.class(c.ID), Mark: d.html()})
	}
	return out
}

// describe joins the parts of an image's description.
func describe(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}
