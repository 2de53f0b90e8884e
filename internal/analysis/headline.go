package analysis

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/meshbench/meshbench"
)

// clausesShown is how many compared cells the sentence tells of.
const clausesShown = 4

// errorShareShown is the share of failed requests from which the sentence
// speaks of them.
const errorShareShown = 0.001

// headlineQuantiles are what the sentence speaks of.
var headlineQuantiles = []meshbench.Quantile{meshbench.P50, meshbench.P99}

// headline is the sentence that answers the run's question in plain words,
// made from the figures that every table shows.
func headline(r meshbench.Result) string {
	completed := uint64(0)
	for _, c := range r.Cells {
		completed += c.Completed
	}
	switch {
	case len(r.Trials) == 0:
		return sentence("nothing was measured" + because(r))
	case r.Verdict.Status == meshbench.InvalidTest:
		var why []string
		for _, reason := range r.Verdict.Reasons {
			why = append(why, reason.Message)
		}
		return sentence("this run is invalid: " + strings.Join(why, "; "))
	case completed == 0:
		return sentence("no request was completed" + because(r))
	}
	h := &headliner{r: r, cells: map[string]meshbench.CellResult{}}
	for _, c := range r.Cells {
		h.cells[c.ID] = c
	}
	text := h.clauses()
	if r.State == meshbench.Interrupted {
		last := 0
		for _, t := range r.Trials {
			last = max(last, t.Sitting)
		}
		text = fmt.Sprintf("interrupted in sitting %d of %d: %s", last, r.Plan.Sittings, text)
	}
	for _, extra := range h.extras() {
		text += "; " + extra
	}
	return sentence(text)
}

// because tells why a run has nothing to show.
func because(r meshbench.Result) string {
	switch {
	case r.Error != nil:
		return ": " + strings.TrimSuffix(r.Error.Message, ".")
	case r.State == meshbench.Interrupted:
		return ": the run was interrupted"
	case len(r.Failures) > 0:
		return ": " + strings.TrimSuffix(r.Failures[len(r.Failures)-1].Message, ".")
	}
	for _, c := range r.Cells {
		for _, class := range slices.Sorted(maps.Keys(c.Errors)) {
			return fmt.Sprintf(": %s requests of %s failed (%s)", group(fmt.Sprint(c.Errors[class])), name(c), class)
		}
	}
	return ""
}

func sentence(text string) string {
	letters := []rune(text)
	letters[0] = unicode.ToUpper(letters[0])
	return string(letters) + "."
}

type headliner struct {
	r     meshbench.Result
	cells map[string]meshbench.CellResult
}

// clauses has one clause per compared cell, or per cell where nothing is
// compared, those of equal load behind one introduction.
func (h *headliner) clauses() string {
	compares := slices.ContainsFunc(h.r.Cells, func(c meshbench.CellResult) bool { return c.Baseline != "" })
	var loads []string
	byLoad := map[string][]string{}
	shown, hidden := 0, 0
	for _, c := range h.r.Cells {
		if compares && c.Baseline == "" {
			continue
		}
		if shown == clausesShown {
			hidden++
			continue
		}
		shown++
		load := loadPhrase(c.Load)
		if byLoad[load] == nil {
			loads = append(loads, load)
		}
		clause := h.alone(c)
		if compares {
			clause = h.against(c, h.cells[c.Baseline])
		}
		byLoad[load] = append(byLoad[load], clause)
	}
	var parts []string
	for _, l := range loads {
		parts = append(parts, l+", "+strings.Join(byLoad[l], "; "))
	}
	if hidden > 0 {
		parts = append(parts, fmt.Sprintf("%d more below", hidden))
	}
	return strings.Join(parts, "; ")
}

func loadPhrase(l meshbench.Load) string {
	if l.Rate.IsMax() {
		return fmt.Sprintf("in closed loop over %d connections", l.Connections)
	}
	return "at " + perSecond(float64(l.Rate))
}

func perSecond(rate float64) string {
	return scaleOf(rate, math.Max(rate/1000, 1), unitRate).number(rate) + " requests/s"
}

// name is a cell as the sentence calls it: its subject, and the axes that the
// introduction does not say.
func name(c meshbench.CellResult) string {
	var axes []string
	for _, k := range slices.Sorted(maps.Keys(c.Axes)) {
		if k != "rate_rps" {
			axes = append(axes, fmt.Sprintf("%s=%v", k, c.Axes[k]))
		}
	}
	if len(axes) == 0 {
		return c.Subject.ID
	}
	return fmt.Sprintf("%s (%s)", c.Subject.ID, strings.Join(axes, ", "))
}

// alone tells of a cell that is compared with nothing.
func (h *headliner) alone(c meshbench.CellResult) string {
	switch {
	case c.Trials == 0:
		return name(c) + " was not measured"
	case c.Completed == 0:
		return name(c) + " completed no request"
	case c.LoadState == meshbench.Saturated:
		return fmt.Sprintf("%s saturates: it answers %s", name(c), perSecond(c.ThroughputRPS))
	}
	var times []string
	for _, q := range headlineQuantiles {
		if m := c.Quantiles[q].Median; m != nil {
			times = append(times, fmt.Sprintf("%s at %s", amount(float64(*m), unitTime), of(q)))
		}
	}
	answers := name(c) + " answers"
	if c.LoadState == meshbench.ClosedLoop {
		answers += " " + perSecond(c.ThroughputRPS)
	}
	if len(times) == 0 {
		return answers
	}
	return answers + " in " + strings.Join(times, " and ")
}

func of(q meshbench.Quantile) string {
	if q == meshbench.P50 {
		return "the median"
	}
	return q.Label()
}

// against tells what a cell does compared with its baseline.
func (h *headliner) against(c, base meshbench.CellResult) string {
	who := name(c)
	for _, x := range []meshbench.CellResult{c, base} {
		switch {
		case x.Trials == 0:
			return h.uncompared(who, x, c, "was not measured")
		case x.Completed == 0:
			return h.uncompared(who, x, c, "completed no request")
		case x.LoadState == meshbench.Saturated:
			return h.uncompared(who, x, c, fmt.Sprintf("saturates at %s", perSecond(x.ThroughputRPS)))
		}
	}
	if same(c, base) {
		who += ", the same as " + name(base) + ","
	}
	var predicates []string
	if c.LoadState == meshbench.ClosedLoop {
		predicates = append(predicates, fmt.Sprintf("answers %s where %s answers %s", perSecond(c.ThroughputRPS), name(base), perSecond(base.ThroughputRPS)))
	}
	predicates = append(predicates, h.latency(c, base)...)
	if cost := h.cost(c); cost != "" {
		predicates = append(predicates, cost)
	}
	switch n := len(predicates); n {
	case 0:
		return who + " was compared in nothing"
	case 1:
		return who + " " + predicates[0]
	default:
		return who + " " + strings.Join(predicates[:n-1], ", ") + ", and " + predicates[n-1]
	}
}

// uncompared says that x, the cell c or its baseline, rules a comparison out.
func (h *headliner) uncompared(who string, x, c meshbench.CellResult, what string) string {
	if x.ID == c.ID {
		return fmt.Sprintf("%s %s, so its latencies are not compared", who, what)
	}
	return fmt.Sprintf("%s, the baseline, %s, so %s is not compared with it", name(x), what, who)
}

// same tells whether two cells measure the same subject twice (A/A).
func same(a, b meshbench.CellResult) bool {
	return a.Subject.Mesh == b.Subject.Mesh && a.Subject.Version == b.Subject.Version &&
		maps.Equal(a.Subject.Options, b.Subject.Options) && a.URL == b.URL
}

// latency has a predicate for each kind of decision about the quantiles of
// which the sentence speaks.
func (h *headliner) latency(c, base meshbench.CellResult) []string {
	var adds, takes, equal, open, silent []string
	for _, q := range headlineQuantiles {
		for _, x := range h.r.Comparisons {
			if x.Cell != c.ID || x.Metric != "response."+string(q) {
				continue
			}
			d := x.Difference
			switch {
			case math.IsNaN(d.Estimate):
				silent = append(silent, fmt.Sprintf("at %s (%s)", of(q), x.Reason))
			case x.Significance == meshbench.Worse:
				adds = append(adds, figure(d)+" to "+of(q))
			case x.Significance == meshbench.Better:
				takes = append(takes, figure(negative(d))+" off "+of(q))
			case x.Significance == meshbench.None:
				equal = append(equal, fmt.Sprintf("%s at %s", amount(math.Max(math.Abs(*d.Low), math.Abs(*d.High)), d.Unit), of(q)))
			case d.Low != nil && d.High != nil:
				open = append(open, fmt.Sprintf("at %s (could be up to ±%s)", of(q), amount(math.Max(math.Abs(*d.Low), math.Abs(*d.High)), d.Unit)))
			default:
				open = append(open, fmt.Sprintf("at %s (about %s in %s)", of(q), signed(d.Estimate, d.Unit), sittings(x.N)))
			}
		}
	}
	var out []string
	say := func(format string, what []string, joint string) {
		if len(what) > 0 {
			out = append(out, fmt.Sprintf(format, strings.Join(what, joint)))
		}
	}
	who := escape(name(base))
	say("adds %s of "+who, adds, " and ")
	say("takes %s of "+who, takes, " and ")
	say("shows no difference from "+who+" larger than %s", equal, " or ")
	say("is not decided against "+who+" %s", open, " nor ")
	say("is not compared %s", silent, " and ")
	return out
}

// escape keeps a name from being read as a format.
func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }

func negative(e meshbench.Estimate) meshbench.Estimate {
	minus := func(v *float64) *float64 {
		if v == nil {
			return nil
		}
		m := -*v
		return &m
	}
	return meshbench.Estimate{Estimate: -e.Estimate, Low: minus(e.High), High: minus(e.Low), Unit: e.Unit}
}

// signed shows a difference with its sign.
func signed(v float64, unit string) string {
	if v > 0 {
		return "+" + amount(v, unit)
	}
	return amount(v, unit)
}

func sittings(n int) string {
	if n == 1 {
		return "one sitting"
	}
	return fmt.Sprintf("%d sittings", n)
}

// figure is an estimate with its interval, as in 342 µs [331, 355].
func figure(e meshbench.Estimate) string {
	size, width := math.Abs(e.Estimate), 0.0
	if e.Low != nil && e.High != nil {
		size = math.Max(size, math.Max(math.Abs(*e.Low), math.Abs(*e.High)))
		width = *e.High - *e.Low
	}
	s := scaleOf(size, width/10, e.Unit)
	text := s.number(e.Estimate) + s.unit
	if e.Low != nil && e.High != nil {
		text += fmt.Sprintf(" [%s, %s]", s.number(*e.Low), s.number(*e.High))
	}
	return text
}

// cost tells what the processes of a cell use beyond its baseline's; nothing
// where zero lies within the interval.
func (h *headliner) cost(c meshbench.CellResult) string {
	var more, less []string
	for _, want := range []struct{ metric, after string }{{"cpu.total", " per 1,000 requests"}, {"memory.total", " of memory"}} {
		for _, x := range h.r.Resources {
			d := x.Difference
			if x.Cell != c.ID || x.Metric != want.metric || math.IsNaN(d.Estimate) {
				continue
			}
			text := amount(math.Abs(d.Estimate), d.Unit) + want.after
			low, high := d.Low, d.High
			if low == nil || high == nil {
				low, high = &d.Estimate, &d.Estimate
			}
			switch {
			case *low > 0:
				more = append(more, text)
			case *high < 0:
				less = append(less, text)
			}
		}
	}
	var out []string
	if len(more) > 0 {
		out = append(out, "costs "+strings.Join(more, " and "))
	}
	if len(less) > 0 {
		out = append(out, "saves "+strings.Join(less, " and "))
	}
	return strings.Join(out, " but ")
}

// extras are what must not be overlooked: failed requests, and cells that
// could not be measured.
func (h *headliner) extras() []string {
	var out []string
	for _, c := range h.r.Cells {
		failed := float64(c.Planned) - float64(c.Completed) - float64(c.Errors["unfinished"])
		if c.Planned > 0 && failed/float64(c.Planned) >= errorShareShown && c.Completed > 0 {
			out = append(out, fmt.Sprintf("%.2g %% of %s's requests failed", 100*failed/float64(c.Planned), name(c)))
		}
	}
	return out
}
