package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// sections are the parts of the report under its first sentence, in order.
// One without figures and remarks is left out.
func sections(r meshbench.Result) []section {
	all := []section{
		latencySection(r),
		loadSection(r),
		costSection(r),
		addedSection(r),
		addedCostSection(r),
		hopsSection(r),
		metricsSection(r),
		proofSection(r),
		settingsSection(r),
		healthSection(r),
		verdictSection(r),
		failuresSection(r),
		warningsSection(r),
	}
	return slices.DeleteFunc(all, func(s section) bool { return len(s.grid.rows) == 0 && len(s.notes) == 0 })
}

// summary is the line under the first sentence: what was done.
func summary(r meshbench.Result) []string {
	out := []string{words(r.State)}
	if r.Verdict.Status != "" {
		out = append(out, "verdict "+string(r.Verdict.Status))
	}
	out = append(out, plural(sittings(r), "sitting")+" of "+plural(max(1, r.Plan.Blocks), "block"))
	load := r.Experiment.Load
	axis := func(name string) bool {
		return slices.ContainsFunc(r.Experiment.Axes, func(a meshbench.Axis) bool { return a.Field == name })
	}
	switch {
	case axis("load.rate"):
		out = append(out, "several rates")
	case load.Rate.IsMax():
		out = append(out, "closed loop")
	case load.Rate > 0:
		out = append(out, exact(float64(load.Rate))+" requests/s, "+arrivals(load.Arrivals))
	}
	if load.Trial > 0 {
		out = append(out, load.Trial.String()+" trials")
	}
	if load.Connections > 0 && !axis("load.connections") {
		out = append(out, plural(load.Connections, "connection"))
	}
	if r.Experiment.Profile != "" && !axis("profile") {
		out = append(out, string(r.Experiment.Profile)+" profile")
	}
	return out
}

// arrivals writes the law of the arrivals as people do.
func arrivals(a meshbench.Arrivals) string {
	if a == meshbench.Poisson {
		return "Poisson"
	}
	return words(a)
}

// sittings is how many sittings left at least one trial.
func sittings(r meshbench.Result) int {
	seen := map[int]bool{}
	for _, t := range r.Trials {
		seen[t.Sitting] = true
	}
	return len(seen)
}

// cellN is over how many sittings the figures of a cell are medians.
func cellN(c meshbench.CellResult) int {
	n := 0
	for _, q := range c.Quantiles {
		n = max(n, len(q.Sittings))
	}
	return n
}

func latencySection(r meshbench.Result) section {
	s := section{
		id: "latency", title: "Latency",
		about: "response time, from the intended start to the last byte; lower is better; " +
			"median over n sittings of each sitting's own quantile",
		grid: grid{columns: heads("cell", ">p50", ">p90", ">p99", ">p99.9", ">n")},
	}
	limited := false
	for _, c := range r.Cells {
		row := []field{text(c.ID)}
		for _, q := range meshbench.Quantiles {
			f := quantileField(c, q)
			if strings.HasSuffix(f.text, "*") {
				limited = true
			}
			row = append(row, f)
		}
		s.grid.rows = append(s.grid.rows, append(row, text(count(cellN(c)))))
		if c.LoadState == meshbench.Saturated {
			s.notes = append(s.notes, c.ID+" is saturated: its latency grows with the length of a trial and is compared with nothing.")
		}
	}
	if limited {
		s.notes = append(s.notes, "* machine-limited: the machine's own gaps explain more than half of this figure.")
	}
	return s
}

func quantileField(c meshbench.CellResult, q meshbench.Quantile) field {
	sum, ok := c.Quantiles[q]
	switch {
	case ok && sum.Median != nil && sum.MachineLimited:
		return text(micros(*sum.Median) + " *")
	case ok && sum.Median != nil:
		return text(micros(*sum.Median))
	case ok && sum.TrialNeeded > 0:
		return field{text: "needs --trial " + sum.TrialNeeded.String(), tone: quiet}
	case c.Response.AtLeast[q] > 0:
		return field{text: "at least " + micros(c.Response.AtLeast[q]), tone: quiet}
	}
	return dash()
}

func loadSection(r meshbench.Result) section {
	s := section{
		id: "throughput", title: "Throughput and errors",
		about: "completed requests per second, higher is better, median over n sittings; errors over all trials that count, lower is better",
		grid:  grid{columns: heads("cell", ">offered", ">throughput", ">completed", ">of planned", ">errors", "load", ">trials")},
	}
	for _, c := range r.Cells {
		offered := dash()
		switch {
		case c.Load.Rate.IsMax():
			offered = text("closed loop")
		case c.Load.Rate > 0:
			offered = text(exact(float64(c.Load.Rate)) + "/s")
		}
		throughput := dash()
		if c.Trials > 0 {
			throughput = text(rps(c.ThroughputRPS))
		}
		var errors uint64
		for _, n := range c.Errors {
			errors += n
		}
		failed := text(count(errors))
		if errors > 0 {
			failed.tone = worse
			if c.Planned > 0 {
				failed.text += " (" + percent(float64(errors)/float64(c.Planned)) + ")"
			}
		}
		state := text(words(c.LoadState))
		if c.LoadState == meshbench.Saturated {
			state.tone = worse
		}
		if c.LoadState == "" {
			state = dash()
		}
		s.grid.rows = append(s.grid.rows, []field{text(c.ID), offered, throughput,
			text(count(c.Completed)), text(count(c.Planned)), failed, state, text(count(c.Trials))})
		if list := errorList(c.Errors); list != "" {
			s.notes = append(s.notes, c.ID+": "+list+".")
		}
	}
	return s
}

// errorList writes error classes with their counts, most frequent first.
func errorList(errors map[string]uint64) string {
	classes := slices.SortedFunc(maps.Keys(errors), func(a, b string) int {
		if errors[a] != errors[b] {
			return int(min(max(int64(errors[b])-int64(errors[a]), -1), 1))
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, c := range classes {
		if errors[c] > 0 {
			out = append(out, count(errors[c])+" "+words(c))
		}
	}
	return strings.Join(out, ", ")
}

// roleRank orders roles as reports show them.
func roleRank(role meshbench.Role) int {
	if i := slices.Index(meshbench.Roles, role); i >= 0 {
		return i
	}
	return len(meshbench.Roles)
}

// usages are a cell's roles in the order of the report.
func usages(c meshbench.CellResult) []meshbench.Usage {
	return slices.SortedStableFunc(slices.Values(c.Roles), func(a, b meshbench.Usage) int {
		return roleRank(a.Role) - roleRank(b.Role)
	})
}

// usageName says whose work it is, as far as the cell's roles differ in it: by
// the service, or by the process where it serves no one service.
func usageName(u meshbench.Usage, all []meshbench.Usage) string {
	name := words(u.Role)
	same := 0
	for _, o := range all {
		if o.Role == u.Role {
			same++
		}
	}
	if same > 1 {
		name += " " + cmp.Or(u.Service, u.Process)
		if u.Instance > 0 {
			name += fmt.Sprintf(" %d", u.Instance+1)
		}
	}
	return name
}

func costSection(r meshbench.Result) section {
	s := section{
		id: "cost", title: "Cost per role",
		about: "CPU-milliseconds per 1,000 requests, cores at this rate and while idle, memory of its own (RssAnon); " +
			"lower is better; medians over n sittings, peaks as maxima",
		grid: grid{columns: heads("cell", "role", "process", ">CPU/1,000 req", ">cores", ">idle cores", ">memory", ">peak")},
	}
	for _, c := range r.Cells {
		for i, u := range usages(c) {
			cell := text(c.ID)
			if i > 0 {
				cell.tone = quiet
			}
			name := usageName(u, c.Roles)
			if u.Role == meshbench.GeneratorRole {
				name += " (not counted)"
			}
			cpu := dash()
			if u.CPUPer1000Requests != nil {
				cpu = text(number(*u.CPUPer1000Requests) + " ms")
			}
			s.grid.rows = append(s.grid.rows, []field{cell, text(name), text(u.Process), cpu,
				text(fixed(u.CPUCores, 3)), text(fixed(u.IdleCPUCores, 3)), text(memory(u.MemoryMeanBytes)), text(memory(u.MemoryPeakBytes))})
		}
	}
	if len(s.grid.rows) > 0 {
		s.notes = append(s.notes, "On loopback the sender is charged for the receiver's TCP work.")
	}
	return s
}

func proofSection(r meshbench.Result) section {
	s := section{
		id: "proof", title: "Was it really the mesh?",
		about: "requests as each station counted them, warm-up included; handshakes and plaintext connections between the proxies",
		grid:  grid{columns: heads("cell", "path", ">sent", ">client proxy", ">server proxy", ">application", ">mTLS handshakes", ">plaintext")},
	}
	for _, c := range r.Cells {
		p := c.Proof
		if c.Trials == 0 && p.Sent == 0 {
			p = meshbench.Proof{} // nothing was sent that could prove anything
		}
		status := text(words(p.Status))
		switch p.Status {
		case meshbench.ProofFailed:
			status.tone = worse
		case "":
			status = dash()
		}
		row := []field{text(c.ID), status, text(count(p.Sent))}
		// Without proxies between, zeros would read like losses.
		switch p.Status {
		case "":
			row = []field{text(c.ID), status, dash(), dash(), dash(), dash(), dash(), dash()}
		case meshbench.NotApplicable:
			row = append(row, dash(), dash(), application(p), dash(), dash())
		default:
			row = append(row, text(count(p.ClientProxy)), text(count(p.ServerProxy)), text(count(p.Application)),
				text(count(p.Handshakes)), text(count(p.Plaintext)))
		}
		s.grid.rows = append(s.grid.rows, row)
		for _, h := range p.Hops {
			s.grid.rows = append(s.grid.rows, []field{{text: c.ID, tone: quiet}, text(h.From + " to " + h.To), text(count(h.Expected)),
				text(count(h.ClientProxy)), text(count(h.ServerProxy)), dash(), text(count(h.Handshakes)), text(count(h.Plaintext))})
		}
		if p.PeerName != "" {
			s.notes = append(s.notes, c.ID+": the application saw the peer "+p.PeerName+".")
		}
		if p.Reason != "" {
			s.notes = append(s.notes, c.ID+": "+p.Reason+".")
		}
	}
	return s
}

// hopsSection tells what one hop costs, where some request makes several.
func hopsSection(r meshbench.Result) section {
	s := section{
		id: "hops", title: "Cost per hop",
		about: "a hop is one pair of proxies that a request passes; the proxies' CPU is divided by all of them, the latency added by those that follow one another; lower is better",
		grid:  grid{columns: heads("cell", ">hops", ">after one another", ">proxies' CPU/1,000 req, per hop", ">p50 added, per hop")},
	}
	several := false
	for _, c := range r.Cells {
		h := c.Hops
		if h == nil {
			continue
		}
		several = several || h.Hops > 1
		row := []field{text(c.ID), text(count(h.Hops)), text(count(h.Depth)), dash(), dash()}
		if h.ProxyCPU != nil {
			row[3] = text(number(*h.ProxyCPU) + " ms")
		}
		if h.AddedP50 != nil {
			row[4] = text(difference(*h.AddedP50).String())
		}
		s.grid.rows = append(s.grid.rows, row)
	}
	if !several {
		return section{}
	}
	return s
}

func application(p meshbench.Proof) field {
	if p.Application == 0 {
		return dash()
	}
	return text(count(p.Application))
}

func settingsSection(r meshbench.Result) section {
	s := section{id: "settings", title: "Same conditions?", about: "settings as observed, not as configured"}
	var names []string
	for _, c := range r.Cells {
		for _, set := range c.Settings {
			if !slices.Contains(names, set.Name) {
				names = append(names, set.Name)
			}
		}
	}
	if len(names) == 0 {
		return s
	}
	s.grid.columns = []column{{head: "setting"}}
	for _, c := range r.Cells {
		s.grid.columns = append(s.grid.columns, column{head: c.ID})
	}
	for _, name := range names {
		row := []field{text(words(name))}
		for _, c := range r.Cells {
			var values []string
			for _, set := range c.Settings {
				if set.Name == name && !slices.Contains(values, set.Value) {
					values = append(values, set.Value)
				}
			}
			if len(values) == 0 {
				row = append(row, dash())
				continue
			}
			row = append(row, text(strings.Join(values, ", ")))
		}
		s.grid.rows = append(s.grid.rows, row)
	}
	return s
}

func healthSection(r meshbench.Result) section {
	g := r.Generator
	s := section{
		id: "generator", title: "The generator",
		about: "lateness is the generator's own fault, predicted is what this machine's gaps alone explain; lower is better; never mixed into a subject's figures",
	}
	if g.Lateness.Count == 0 && g.CPUPerRequest == 0 && g.PeakMemoryBytes == 0 {
		return section{}
	}
	s.grid.columns = heads("figure", ">observed", ">predicted", "of")
	late := func(label string, observed, predicted meshbench.Microseconds) {
		if g.Lateness.Count == 0 {
			s.grid.rows = append(s.grid.rows, []field{text("lateness " + label), dash(), dash(), text("closed loop: nothing was due")})
			return
		}
		s.grid.rows = append(s.grid.rows, []field{text("lateness " + label), text(micros(observed)), text(micros(predicted)),
			text(count(g.Lateness.Count) + " requests, pooled; predicted: median over " + plural(len(r.Trials), "trial"))})
	}
	late("p50", g.LatenessP50, g.PredictedP50)
	late("p99", g.LatenessP99, g.PredictedP99)
	s.grid.rows = append(s.grid.rows,
		[]field{text("gaps of its core"), text(percent(g.GapShare)), dash(), text("the time")},
		[]field{text("steal"), text(percent(g.StealShare)), dash(), text("its core's time, taken by the hypervisor")},
		[]field{text("CPU per request"), text(micros(g.CPUPerRequest)), dash(), text("without waiting")},
		[]field{text("peak memory"), text(memory(g.PeakMemoryBytes)), dash(), text("the worker process")},
	)
	return s
}

func verdictSection(r meshbench.Result) section {
	s := section{id: "verdict", title: "Can I trust this?"}
	if r.Verdict.Status == "" {
		return s
	}
	s.about = "verdict: " + string(r.Verdict.Status)
	for _, reason := range r.Verdict.Reasons {
		s.notes = append(s.notes, reason.Message+" ("+reason.Code+")")
	}
	by := map[meshbench.Status]int{}
	codes := map[string]uint64{}
	for _, t := range r.Trials {
		by[t.Verdict.Status]++
		for _, reason := range t.Verdict.Reasons {
			codes[reason.Code]++
		}
	}
	if len(r.Trials) > 0 {
		line := fmt.Sprintf("%s: %d valid, %d suspect, %d invalid", plural(len(r.Trials), "trial"),
			by[meshbench.Valid], by[meshbench.Suspect], by[meshbench.InvalidTest])
		if list := errorList(codes); list != "" {
			line += " (" + list + ")"
		}
		s.notes = append(s.notes, line+".")
	}
	if len(r.LeftOut) == 0 {
		s.notes = append(s.notes, "No block was left out.")
	}
	for _, l := range r.LeftOut {
		line := fmt.Sprintf("Left out: sitting %d, block %d", l.Sitting, l.Block)
		if l.Repeated {
			line += ", whose repeat took its place"
		}
		if why := reasonsShort(l.Reasons); why != "" {
			line += ": " + why
		}
		s.notes = append(s.notes, line+".")
	}
	for _, f := range r.FailOn {
		s.notes = append(s.notes, fmt.Sprintf("--fail-on '%s', %s: %s (%s).", f.Condition, f.Cell, f.Outcome, f.Message))
	}
	return s
}

// reasonsInFull is how many reasons are told in their own words; more are
// named by their codes, and the JSON has the words.
const reasonsInFull = 3

func reasonsShort(reasons []meshbench.Reason) string {
	var out []string
	for _, r := range reasons {
		said := r.Message
		if len(reasons) > reasonsInFull {
			said = words(r.Code)
		}
		if !slices.Contains(out, said) {
			out = append(out, said)
		}
	}
	if len(reasons) > reasonsInFull {
		return strings.Join(out, ", ")
	}
	return strings.Join(out, "; ")
}

func failuresSection(r meshbench.Result) section {
	s := section{id: "failures", title: "What went wrong"}
	for _, f := range r.Failures {
		where := ""
		if f.Sitting > 0 {
			where = fmt.Sprintf("sitting %d", f.Sitting)
		}
		if f.Cell != "" {
			where = strings.TrimPrefix(where+", "+f.Cell, ", ")
		}
		if where != "" {
			where += ": "
		}
		s.notes = append(s.notes, where+f.Message)
		if line := lastLine(f.Log); line != "" {
			s.notes = append(s.notes, "its log ends: "+line)
		}
	}
	if r.Error != nil && r.Headline != "" {
		s.notes = append(s.notes, strings.TrimSpace(r.Error.Message+" "+r.Error.Hint))
	}
	return s
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

func warningsSection(r meshbench.Result) section {
	s := section{id: "warnings", title: "What this run does not answer"}
	for _, w := range slices.Concat(r.Plan.Warnings, r.Warnings) {
		if !slices.Contains(s.notes, w.Message) {
			s.notes = append(s.notes, w.Message)
		}
	}
	return s
}
