package analysis

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
)

// FailOn is a condition under which a run counts as a regression, as in
// 'response.p99>+5%' or 'cpu.total>+50ms'.
type FailOn struct {
	Metric string // as in Comparison.Metric: "response.p99_9"
	// Threshold is what the difference to the baseline must exceed: a share
	// of the baseline's value (0.05 for 5 %) where Relative, else in the
	// metric's unit (us, ms per 1,000 requests, bytes).
	Threshold float64
	Relative  bool
	text      string
}

// String returns the condition as it was written.
func (f FailOn) String() string { return f.text }

var failOnForm = regexp.MustCompile(`^\s*([a-z_]+\.[a-z0-9_.]+)\s*>\s*([+-]?)([0-9]+(?:\.[0-9]+)?)\s*(%|[A-Za-z]+)?\s*$`)

// The units of absolute thresholds, in the unit of the metric's differences.
var (
	timeUnits   = map[string]float64{"us": 1, "µs": 1, "ms": 1e3, "s": 1e6}
	cpuUnits    = map[string]float64{"ms": 1}
	memoryUnits = map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
)

// ParseFailOn reads METRIC>[+|-]NUMBER UNIT: a metric is response.p50 (p90,
// p99, p99.9), cpu.total or cpu.ROLE, memory.total or memory.ROLE; a unit is
// % of the baseline's value, or us, ms, s for response, ms (of CPU per 1,000
// requests) for cpu, B, kB, MB, GB, KiB, MiB, GiB for memory. Errors are of
// code invalid, with a hint.
func ParseFailOn(text string) (FailOn, error) {
	bad := func(format string, args ...any) (FailOn, error) {
		return FailOn{}, meshbench.Errorf(meshbench.Invalid, "fail-on %q: "+format, append([]any{text}, args...)...).
			WithHint("for example: 'response.p99>+5%%', 'response.p50>+100us', 'cpu.total>+10%%', 'memory.total>+20MB'")
	}
	m := failOnForm.FindStringSubmatch(strings.ReplaceAll(text, "µs", "us"))
	if m == nil {
		return bad("expected METRIC>+NUMBER with %% or a unit")
	}
	metric, sign, number, unit := strings.ReplaceAll(m[1], "p99.9", "p99_9"), m[2], m[3], m[4]
	family, of, _ := strings.Cut(metric, ".")
	var units map[string]float64
	switch family {
	case "response":
		units = timeUnits
		known := false
		for _, q := range meshbench.Quantiles {
			known = known || of == string(q)
		}
		if !known {
			return bad("response has p50, p90, p99 and p99.9, not %q", of)
		}
	case "cpu", "memory":
		units = cpuUnits
		if family == "memory" {
			units = memoryUnits
		}
		if of != "total" && !isSystemRole(meshbench.Role(of)) {
			return bad("%s has total and the roles of the system under test, not %q", family, of)
		}
	default:
		return bad("%q is no family of metrics: response, cpu or memory", family)
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsInf(value, 0) {
		return bad("%q is not a number", number)
	}
	if sign == "-" {
		value = -value
	}
	f := FailOn{Metric: metric, text: text}
	if unit == "%" {
		f.Threshold, f.Relative = value/100, true
		return f, nil
	}
	factor, ok := units[unit]
	if !ok {
		return bad("%q is no unit of %s", unit, family)
	}
	f.Threshold = value * factor
	return f, nil
}

// isSystemRole tells whether a role belongs to the system under test.
func isSystemRole(role meshbench.Role) bool {
	for _, r := range meshbench.Roles {
		if r == role {
			return r != meshbench.GeneratorRole
		}
	}
	return false
}

// judge decides the condition for one comparison.
func (f FailOn) judge(c compared) (outcome, message string) {
	threshold := f.Threshold
	if f.Relative {
		if !(c.base > 0) || math.IsInf(c.base, 0) {
			return OutcomeInconclusive, fmt.Sprintf("%s has no %s to take a percentage of: give an absolute threshold", c.BaselineCell, f.Metric)
		}
		threshold *= c.base
	}
	unit := c.Difference.Unit
	limit := amount(threshold, unit)
	low, high := c.Difference.Low, c.Difference.High
	switch {
	case low != nil && *low > threshold:
		return OutcomeRegression, fmt.Sprintf("%s differs by %s or more, beyond %s", f.Metric, amount(*low, unit), limit)
	case high != nil && low != nil && *high <= threshold:
		return OutcomePassed, fmt.Sprintf("%s differs by %s at most, not beyond %s", f.Metric, amount(*high, unit), limit)
	case low == nil && high == nil:
		return OutcomeInconclusive, fmt.Sprintf("%s has no interval (%s)", f.Metric, orElse(c.Reason, ReasonTooSmall))
	}
	return OutcomeInconclusive, fmt.Sprintf("%s differs by something in %s, which has %s inside", f.Metric, span(low, high, unit), limit)
}
