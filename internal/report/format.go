package report

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/meshbench/meshbench"
)

// scale is a unit and how many of the base unit it holds.
type scale struct {
	name string
	of   float64
}

// timeScale chooses the unit in which a time of the given size reads best.
func timeScale(us float64) scale {
	switch us = math.Abs(us); {
	case us >= 999_500:
		return scale{"s", 1e6}
	case us >= 999.5:
		return scale{"ms", 1e3}
	}
	return scale{"µs", 1}
}

// byteScale is timeScale for bytes, in decimal units.
func byteScale(b float64) scale {
	switch b = math.Abs(b); {
	case b >= 999.5e6:
		return scale{"GB", 1e9}
	case b >= 999_500:
		return scale{"MB", 1e6}
	case b >= 1000:
		return scale{"kB", 1e3}
	}
	return scale{"B", 1}
}

// places is how many decimals show v with the given significant digits, at
// most three.
func places(v float64, digits int) int {
	// Rounded first: 0.9996 with three digits is 1.00, not 1.000.
	if r, err := strconv.ParseFloat(strconv.FormatFloat(math.Abs(v), 'e', digits-1, 64), 64); err == nil {
		v = r
	}
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return min(3, max(0, digits-1-int(math.Floor(math.Log10(v)))))
}

// fixed writes v with n decimals, groups of thousands, and no negative zero.
func fixed(v float64, n int) string {
	s := strconv.FormatFloat(math.Abs(v), 'f', n, 64)
	whole, frac, _ := strings.Cut(s, ".")
	var b strings.Builder
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	if frac != "" {
		b.WriteString("." + frac)
	}
	if v < 0 && strings.Trim(s, "0.") != "" {
		return "-" + b.String()
	}
	return b.String()
}

// signed is fixed with a plus sign where it is one.
func signed(v float64, n int) string {
	s := fixed(v, n)
	if v > 0 && strings.Trim(s, "0.,") != "" {
		return "+" + s
	}
	return s
}

// number writes a figure with three significant digits.
func number(v float64) string { return fixed(v, places(v, 3)) }

// count writes a whole number.
func count[T ~int | ~uint64 | ~uint32 | ~int64](n T) string { return fixed(float64(n), 0) }

// micros writes a time with its unit.
func micros(us meshbench.Microseconds) string {
	s := timeScale(float64(us))
	return number(float64(us)/s.of) + " " + s.name
}

// memory writes bytes with their unit.
func memory(b uint64) string {
	s := byteScale(float64(b))
	return number(float64(b)/s.of) + " " + s.name
}

// exact writes a figure that somebody chose: a rate, a margin.
func exact(v float64) string {
	s := fixed(v, 3)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// percent writes a share.
func percent(share float64) string { return fixed(100*share, places(100*share, 2)) + " %" }

// rps writes a measured rate in requests per second.
func rps(v float64) string {
	if v < 999.5 {
		return fixed(v, 1) + "/s"
	}
	return fixed(v, 0) + "/s"
}

// interval is an estimate as it is shown.
type interval struct {
	value string // "+342 µs"
	bound string // "[+331, +355]"; empty where there is none
}

// String writes value and bounds in one.
func (i interval) String() string {
	if i.bound == "" {
		return i.value
	}
	return i.value + " " + i.bound
}

// scaleFor returns the unit in which an estimate is shown, after the JSON
// name of its own.
func scaleFor(unit string, size float64) scale {
	switch unit {
	case "us":
		return timeScale(size)
	case "bytes":
		return byteScale(size)
	case "ms_per_1000_requests":
		return scale{"ms", 1}
	case "rps":
		return scale{"requests/s", 1}
	case "":
		return scale{"", 1}
	}
	return scale{strings.ReplaceAll(unit, "_", " "), 1}
}

// difference writes an estimate of a difference: one unit for all three
// figures, and no more decimals than the interval's half-width deserves.
func difference(e meshbench.Estimate) interval {
	size, digits := math.Abs(e.Estimate), -1
	if e.Low != nil && e.High != nil {
		size = max(size, min(math.Abs(*e.Low), math.Abs(*e.High)))
	}
	s := scaleFor(e.Unit, size)
	if e.Low != nil && e.High != nil && *e.High > *e.Low {
		digits = places((*e.High-*e.Low)/2/s.of, 2)
	} else {
		digits = places(e.Estimate/s.of, 3)
	}
	out := interval{value: strings.TrimSpace(signed(e.Estimate/s.of, digits) + " " + s.name)}
	out.bound = bounds(e, func(v float64) string { return signed(v/s.of, digits) })
	return out
}

// bounds writes an interval. One side of it may be unknown, where it falls
// among requests that were never answered.
func bounds(e meshbench.Estimate, show func(float64) string) string {
	side := func(v *float64) string {
		if v == nil {
			return "unknown"
		}
		return show(*v)
	}
	if e.Low == nil && e.High == nil {
		return ""
	}
	return "[" + side(e.Low) + ", " + side(e.High) + "]"
}

// ratio writes an estimate of a ratio.
func ratio(e meshbench.Estimate) interval {
	if e.Estimate == 0 || math.IsNaN(e.Estimate) || math.IsInf(e.Estimate, 0) {
		return interval{value: "–"}
	}
	digits := min(2, places(e.Estimate, 3))
	if e.Low != nil && e.High != nil && *e.High > *e.Low {
		digits = max(1, min(2, places((*e.High-*e.Low)/2, 2)))
	}
	out := interval{value: "×" + fixed(e.Estimate, digits)}
	out.bound = bounds(e, func(v float64) string { return fixed(v, digits) })
	return out
}

// amount writes a size in the unit of an estimate: a margin, a spread.
func amount(v float64, unit string) string {
	s := scaleFor(unit, v)
	return strings.TrimSpace(number(v/s.of) + " " + s.name)
}

// margin writes a margin: a share of a measured value, or a floor that
// somebody chose.
func margin(v float64, unit string) string {
	s := scaleFor(unit, v)
	short := strings.TrimRight(strings.TrimRight(fixed(v/s.of, places(v/s.of, 3)), "0"), ".")
	if !strings.Contains(fixed(v/s.of, places(v/s.of, 3)), ".") {
		short = fixed(v/s.of, 0)
	}
	return strings.TrimSpace(short + " " + s.name)
}

// probability writes a p value.
func probability(p float64) string {
	if p < 0.001 {
		return "< 0.001"
	}
	return fixed(p, 3)
}

// level writes the attained level of an interval; it is never rounded up to
// certainty.
func level(l float64) string {
	p := 100 * l
	for n := 1; n <= 6; n++ {
		if s := fixed(p, n); s != fixed(100, n) {
			return s + " %"
		}
	}
	return "> 99.99 %"
}

// moment writes an instant for people, in UTC.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// plural writes "1 sitting", "2 sittings".
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

// words turns a name of the vocabulary into words: client_proxy.
func words[T ~string](name T) string { return strings.ReplaceAll(string(name), "_", " ") }

// clean takes out of a text what would act on a terminal or break a line:
// names come from experiment files, from servers and from other people's
// runs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
