package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// drawing builds one SVG picture. Horizontal positions are shares of the
// width, written as percentages, and vertical ones are pixels: a picture
// follows the width of its place without scaling its letters and dots, and
// needs no script for it. Every text and attribute is escaped here.
type drawing struct {
	b strings.Builder
}

// newDrawing begins a picture of the given height. With a label it is an
// image to a screen reader; without one it is hidden from it, since the text
// beside it says the same.
func newDrawing(class string, height int, label string) *drawing {
	d := &drawing{}
	d.b.WriteString(`<svg class="` + html.EscapeString(class) + `" width="100%" height="` + strconv.Itoa(height) + `" `)
	if label == "" {
		d.b.WriteString(`aria-hidden="true">`)
	} else {
		d.b.WriteString(`role="img" aria-label="` + html.EscapeString(clean(label)) + `">`)
	}
	return d
}

// html ends the picture. All that was written into it has been escaped.
func (d *drawing) html() template.HTML {
	return template.HTML(d.b.String() + "</svg>")
}

// element writes an empty element; attributes are names and values by turns.
func (d *drawing) element(name string, attributes ...string) {
	d.open(name, attributes...)
	d.b.WriteString("</" + name + ">")
}

func (d *drawing) open(name string, attributes ...string) {
	d.b.WriteString("<" + name)
	for i := 0; i+1 < len(attributes); i += 2 {
		d.b.WriteString(" " + attributes[i] + `="` + html.EscapeString(attributes[i+1]) + `"`)
	}
	d.b.WriteString(">")
}

// titled writes an element that shows a text when it is pointed at.
func (d *drawing) titled(name, title string, attributes ...string) {
	d.open(name, attributes...)
	d.b.WriteString("<title>" + html.EscapeString(clean(title)) + "</title></" + name + ">")
}

func (d *drawing) text(s string, attributes ...string) {
	d.open("text", attributes...)
	d.b.WriteString(html.EscapeString(clean(s)) + "</text>")
}

// line draws from share to share.
func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.element("line", "class", class, "x1", share(x1), "y1", px(y1), "x2", share(x2), "y2", px(y2))
}

// path draws a line through points, whose x are shares of the width and whose
// y are shares of the height from the top.
func (d *drawing) path(class string, height int, points [][2]float64) {
	if len(points) == 0 {
		return
	}
	var p strings.Builder
	for i, pt := range points {
		c := "L"
		if i == 0 {
			c = "M"
		}
		fmt.Fprintf(&p, "%s%s %s", c, px(1000*pt[0]), px(1000*pt[1]))
	}
	d.open("svg", "width", "100%", "height", strconv.Itoa(height), "viewBox", "0 0 1000 1000", "preserveAspectRatio", "none", "class", "lines")
	d.element("path", "class", class, "d", p.String())
	d.b.WriteString("</svg>")
}

// share writes a share of the width.
func share(f float64) string { return px(100*f) + "%" }

// px writes a coordinate without needless digits.
func px(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
}

// tick is a place on an axis.
type tick struct {
	at    float64 // share of the axis
	label string
	minor bool // gives way where the chart is narrow
}

// axis maps values to shares.
type axis struct {
	low, high float64
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		low, high, v = math.Log10(low), math.Log10(high), math.Log10(max(v, a.low))
	}
	if high <= low {
		return 0.5
	}
	return min(1, max(0, (v-low)/(high-low)))
}

// linearAxis covers low to high, rounded outwards to a round step, with about
// n of them.
func linearAxis(low, high float64, n int) (axis, float64) {
	if !(high > low) {
		pad := max(1, math.Abs(low)*0.1)
		low, high = low-pad, high+pad
	}
	step := roundStep((high - low) / float64(n))
	return axis{low: math.Floor(low/step+1e-9) * step, high: math.Ceil(high/step-1e-9) * step}, step
}

// roundStep is the smallest of 1, 2, 5 times a power of ten that is not below v.
func roundStep(v float64) float64 {
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*base >= v*(1-1e-9) {
			return m * base
		}
	}
	return 10 * base
}

// linearTicks names the steps of an axis in the given unit.
func linearTicks(a axis, step float64, s scale) []tick {
	digits := max(0, -int(math.Floor(math.Log10(step/s.of)+1e-9)))
	var out []tick
	for i := math.Round(a.low / step); i*step <= a.high+step/1e6; i++ {
		out = append(out, tick{a.at(i * step), fixed(i*step/s.of, digits), math.Mod(i, 2) != 0})
	}
	return out
}

// logAxis covers low to high in whole thirds of a decade (1, 2, 5).
func logAxis(low, high float64) axis {
	low, high = max(low, 1e-3), min(max(high, 2e-3), 1e12)
	down := roundStep(low)
	for down > low*(1+1e-9) {
		down = lower(down)
	}
	up := roundStep(high)
	if up <= down {
		up = 10 * down
	}
	return axis{low: down, high: up, log: true}
}

// lower is the next smaller of 1, 2, 5 times a power of ten.
func lower(v float64) float64 {
	base := math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	switch m := v / base; {
	case m > 4.9:
		return 2 * base
	case m > 1.9:
		return base
	}
	return base / 2
}

// logTicks names the decades of an axis of microseconds, and their halves
// where it spans few.
func logTicks(a axis) []tick {
	steps := []float64{1}
	if decades := math.Log10(a.high / a.low); decades < 3.5 {
		steps = []float64{1, 2, 5}
	}
	var out []tick
	for base := math.Pow(10, math.Floor(math.Log10(a.low)+1e-9)); base <= a.high*1.001; base *= 10 {
		for _, m := range steps {
			if v := m * base; v >= a.low*0.999 && v <= a.high*1.001 {
				out = append(out, tick{at: a.at(v), label: tickTime(v)})
			}
		}
	}
	return out
}

// drawTicks draws the labels of a horizontal axis.
func drawTicks(ticks []tick) template.HTML {
	d := newDrawing("axis", 20, "")
	for _, t := range ticks {
		class := "tick"
		if t.minor {
			class += " minor"
		}
		d.text(t.label, "class", class, "x", share(t.at), "y", "14", "text-anchor", "middle")
	}
	return d.html()
}

func tickTime(us float64) string {
	if us < 1 {
		return exact(us*1000) + " ns"
	}
	s := timeScale(us)
	return exact(us/s.of) + " " + s.name
}
