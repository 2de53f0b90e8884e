package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// metricName writes a metric as people read it: "p99", "CPU client proxy".
func metricName(metric string) string {
	family, name, _ := strings.Cut(metric, ".")
	switch family {
	case "response":
		return meshbench.Quantile(name).Label()
	case "cpu":
		return "CPU " + words(name)
	}
	if metric == "throughput" {
		return "throughput (higher is better)"
	}
	return words(strings.ReplaceAll(metric, ".", " "))
}

// estimatorName writes the name of an estimator as people read it.
func estimatorName(name string) string {
	return strings.ReplaceAll(words(name), "hodges lehmann", "Hodges-Lehmann estimate")
}

// estimators are the distinct estimators of a list, as people read them.
func estimators(list []meshbench.Comparison) string {
	var names []string
	for _, c := range list {
		if n := estimatorName(c.Estimator); c.Estimator != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "estimate over sittings"
	}
	return strings.Join(names, ", ")
}

// levels writes the attained levels of a list's intervals.
func levels(list []meshbench.Comparison) string {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, c := range list {
		if c.Level > 0 && c.Difference.Low != nil {
			lo, hi = min(lo, c.Level), max(hi, c.Level)
		}
	}
	switch {
	case math.IsInf(lo, 0):
		return "no intervals"
	case level(lo) == level(hi):
		return level(lo) + " interval"
	}
	return level(lo) + " to " + level(hi) + " intervals"
}

// decision writes the significance of a comparison in words.
func decision(c meshbench.Comparison) field {
	if !hasFigure(c) && c.Reason != "" {
		return field{"not compared: " + c.Reason, quiet}
	}
	switch c.Significance {
	case meshbench.Worse:
		return field{"worse", worse}
	case meshbench.Better:
		return field{"better", better}
	case meshbench.None:
		return field{"no difference larger than " + reach(c), quiet}
	case meshbench.Inconclusive:
		switch {
		case c.Reason != "":
			return field{"not decided: " + c.Reason, quiet}
		case c.Difference.Low != nil && c.Difference.High != nil:
			return field{"not decided: could be up to " + reach(c), quiet}
		}
		return field{"not decided", quiet}
	}
	return field{c.Reason, quiet}
}

// reach is the larger end of an interval: what a difference could be.
func reach(c meshbench.Comparison) string {
	var most float64
	for _, v := range []*float64{c.Difference.Low, c.Difference.High} {
		if v != nil {
			most = max(most, math.Abs(*v))
		}
	}
	return margin(most, c.Difference.Unit)
}

// hasFigure tells whether a comparison has an estimate to show.
func hasFigure(c meshbench.Comparison) bool {
	return c.N > 0 && !math.IsNaN(c.Difference.Estimate) && !math.IsInf(c.Difference.Estimate, 0)
}

// baselines names what a list compares with, once.
func baselines(list []meshbench.Comparison) string {
	var names []string
	for _, c := range list {
		if !slices.Contains(names, c.BaselineCell) {
			names = append(names, c.BaselineCell)
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return "the baseline"
}

func addedSection(r meshbench.Result) section {
	s := section{
		id: "overhead", title: "Added to " + baselines(r.Comparisons),
		about: "difference in response time, lower is better; " + estimators(r.Comparisons) + ", " + levels(r.Comparisons) +
			"; s.d. is of the sittings' differences; the ratio is descriptive",
		grid: grid{columns: heads("cell", "of", ">added", "interval", ">ratio", "interval", ">s.d.", ">n", "decision")},
	}
	several := s.title == "Added to the baseline"
	last := ""
	for _, c := range r.Comparisons {
		cell := text(c.Cell)
		if several {
			cell.text += " − " + c.BaselineCell
		}
		if cell.text == last {
			cell.tone = quiet
		}
		last = cell.text
		row := []field{cell, text(metricName(c.Metric))}
		if hasFigure(c) {
			d, q := difference(c.Difference), ratio(c.Ratio)
			row = append(row, field{d.value, strong}, text(d.bound), text(q.value), text(q.bound), spread(c))
		} else {
			row = append(row, dash(), text(""), dash(), text(""), dash())
		}
		s.grid.rows = append(s.grid.rows, append(row, text(count(c.N)), decision(c)))
		if c.BlockStdDev != nil {
			s.notes = append(s.notes, fmt.Sprintf("%s %s: s.d. %s between sittings, %s between blocks of one sitting.",
				c.Cell, metricName(c.Metric), amount(c.StdDev, c.Difference.Unit), amount(*c.BlockStdDev, c.Difference.Unit)))
		}
	}
	if len(r.Comparisons) > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Decided by the exact signed-rank test, p adjusted for %s; equal means within %s.",
			plural(r.Comparisons[0].FamilySize, "question"), marginRule(r.Experiment.Margin)))
	}
	return s
}

// spread is the standard deviation of the sittings' differences.
func spread(c meshbench.Comparison) field {
	if len(c.Differences) < 2 {
		return dash()
	}
	return text(amount(c.StdDev, c.Difference.Unit))
}

func marginRule(m meshbench.Margin) string {
	if m.Percent == 0 && m.Floor == 0 {
		return "the margin"
	}
	return fmt.Sprintf("%s %% of the baseline or %s, whichever is more", exact(m.Percent), margin(float64(m.Floor.Std().Nanoseconds())/1000, "us"))
}

func addedCostSection(r meshbench.Result) section {
	s := section{
		id: "overhead-cost", title: "Added cost",
		about: "CPU-milliseconds per 1,000 requests and bytes of memory more than " + baselines(r.Resources) + ", lower is better; " +
			estimators(r.Resources) + ", " + levels(r.Resources) + "; descriptive, no decision",
		grid: grid{columns: heads("cell", "of", ">added", "interval", ">ratio", ">s.d.", ">n", "remark")},
	}
	last := ""
	for _, c := range r.Resources {
		cell := text(c.Cell)
		if c.Cell == last {
			cell.tone = quiet
		}
		last = c.Cell
		row := []field{cell, text(metricName(c.Metric))}
		if hasFigure(c) {
			d := difference(c.Difference)
			row = append(row, field{d.value, strong}, text(d.bound), text(ratio(c.Ratio).value), spread(c))
		} else {
			row = append(row, dash(), text(""), dash(), dash())
		}
		s.grid.rows = append(s.grid.rows, append(row, text(count(c.N)), field{c.Reason, quiet}))
	}
	return s
}
