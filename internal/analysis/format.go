package analysis

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// scale is how an amount is shown: its unit, what one of it is in the unit of
// the figures, and how many decimals it has.
type scale struct {
	unit     string
	factor   float64
	decimals int
}

// scaleOf chooses a scale for amounts up to size, where a difference of
// resolution still shows (0: two digits).
func scaleOf(size, resolution float64, unit string) scale {
	size = math.Abs(size)
	s := scale{unit: " " + unit, factor: 1}
	switch unit {
	case unitTime:
		s.unit = " µs"
		if size >= 999.5e3 {
			s = scale{unit: " s", factor: 1e6}
		} else if size >= 999.5 {
			s = scale{unit: " ms", factor: 1e3}
		}
	case unitMemory:
		s = scale{unit: " kB", factor: 1e3}
		if size >= 999.5e6 {
			s = scale{unit: " GB", factor: 1e9}
		} else if size >= 999.5e3 {
			s = scale{unit: " MB", factor: 1e6}
		}
	case unitCPU:
		s.unit = " CPU-ms"
	case unitRate:
		s.unit = " requests/s"
	}
	if resolution <= 0 || math.IsInf(resolution, 0) || math.IsNaN(resolution) {
		resolution = size / 10
	}
	if resolution > 0 {
		s.decimals = min(max(int(-math.Floor(math.Log10(resolution/s.factor*1.000001))), 0), 2)
	}
	return s
}

func (s scale) number(v float64) string {
	text := strconv.FormatFloat(math.Abs(v)/s.factor, 'f', s.decimals, 64)
	if v < 0 && strings.Trim(text, "0.") != "" {
		return "-" + group(text)
	}
	return group(text)
}

// group sets commas between thousands.
func group(text string) string {
	whole, rest, dot := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dot {
		return whole + "." + rest
	}
	return whole
}

// amount shows one figure in its own scale, two digits at least.
func amount(v float64, unit string) string {
	s := scaleOf(v, 0, unit)
	return s.number(v) + s.unit
}

// span shows an interval, of which a bound may be missing.
func span(low, high *float64, unit string) string {
	size, width := 0.0, 0.0
	for _, b := range []*float64{low, high} {
		if b != nil {
			size = math.Max(size, math.Abs(*b))
		}
	}
	if low != nil && high != nil {
		width = *high - *low
	}
	s := scaleOf(size, width/10, unit)
	show := func(b *float64) string {
		if b == nil {
			return "unknown"
		}
		return s.number(*b)
	}
	return fmt.Sprintf("[%s, %s]%s", show(low), show(high), s.unit)
}
