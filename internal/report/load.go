package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/meshbench/meshbench"
)

// LoadTable writes what one `meshbench load` measured, for a terminal.
func LoadTable(w io.Writer, r meshbench.LoadResult, o TableOptions) error {
	p := &printer{color: o.Color, width: o.width()}
	for i, line := range loadLead(r) {
		style := ansiBold
		if i > 0 {
			line, style = "- "+line, ""
		}
		p.paragraph(line, "", style)
	}
	for _, s := range loadSections(r) {
		p.section(s)
	}
	if o.Store != "" {
		p.WriteByte('\n')
		p.line("Kept in   " + o.Store)
	}
	_, err := w.Write(p.Bytes())
	return err
}

// LoadMarkdown writes the same with the tables of GitHub.
func LoadMarkdown(w io.Writer, r meshbench.LoadResult) error {
	var b bytes.Buffer
	b.WriteString("## Meshbench: load on " + markdownText(r.Target) + "\n\n")
	for i, line := range loadLead(r) {
		if i == 0 {
			b.WriteString("**" + markdownText(line) + "**\n\n")
			continue
		}
		b.WriteString("- " + markdownText(line) + "\n")
	}
	for _, s := range loadSections(r) {
		markdownSection(&b, s)
	}
	_, err := w.Write(squeeze(b.Bytes()))
	return err
}

// loadLead is the first sentence, or the reasons of a verdict that forbids it.
func loadLead(r meshbench.LoadResult) []string {
	if r.Verdict.Status == meshbench.InvalidTest {
		out := []string{"This measurement is invalid: its figures answer nothing."}
		for _, reason := range r.Verdict.Reasons {
			out = append(out, reason.Message+" ("+reason.Code+")")
		}
		return out
	}
	if r.Completed == 0 {
		line := fmt.Sprintf("%s completed none of %s.", r.Target, plural(int(r.Planned), "request"))
		if list := errorList(r.Errors); list != "" {
			line = strings.TrimSuffix(line, ".") + ": " + list + "."
		}
		return []string{line}
	}
	line := fmt.Sprintf("%s completed %s of %s in %s s (%s)", r.Target, count(r.Completed), plural(int(r.Planned), "request"),
		number(r.ElapsedSeconds), rps(r.ThroughputRPS))
	var times []string
	for _, q := range []meshbench.Quantile{meshbench.P50, meshbench.P99} {
		if v, ok := r.Response.Values[q]; ok {
			times = append(times, q.Label()+" "+micros(v))
		}
	}
	if len(times) > 0 {
		line += ": response " + strings.Join(times, ", ")
	}
	out := []string{line + "."}
	switch r.LoadState {
	case meshbench.Saturated:
		out = append(out, "The target is saturated: it did not keep the offered rate, and its latency grows with the length of the load.")
	case meshbench.ClosedLoop:
		out = append(out, "Closed loop: the answers set the pace, so these latencies are not comparable with those of an open loop.")
	}
	return out
}

func loadSections(r meshbench.LoadResult) []section {
	out := []section{loadTimes(r), loadCounts(r), loadHealth(r)}
	return out
}

func loadTimes(r meshbench.LoadResult) section {
	s := section{
		id: "times", title: "Time", about: "lower is better; quantiles over n requests",
		grid: grid{columns: heads("", ">p50", ">p90", ">p99", ">p99.9", ">max", ">n", "from, to")},
	}
	add := func(name string, l meshbench.Latency, what string) {
		row := []field{text(name)}
		for _, q := range meshbench.Quantiles {
			if v, ok := l.Values[q]; ok {
				row = append(row, text(micros(v)))
			} else if v, ok := l.AtLeast[q]; ok {
				row = append(row, field{"≥ " + micros(v), quiet})
			} else {
				row = append(row, dash())
			}
		}
		largest := dash()
		if l.Count > 0 {
			largest = text(micros(l.Max))
		}
		s.grid.rows = append(s.grid.rows, append(row, largest, text(count(l.Count)), field{what, quiet}))
	}
	add("response", r.Response, "intended start, last byte read")
	add("connection wait", r.ConnectionWait, "taken up, first byte written, less connecting")
	add("service", r.Service, "first byte written, last byte read")
	if r.Lateness != nil {
		add("lateness", *r.Lateness, "intended start, taken up: the generator's own")
	}
	if r.Connect.Count > 0 {
		add("connect", r.Connect, "setting up a connection")
	}
	if r.ErrorResponse.Count > 0 {
		add("errors", r.ErrorResponse, "intended start, the error")
	}
	return s
}

func loadCounts(r meshbench.LoadResult) section {
	s := section{id: "requests", title: "Requests", about: "planned = completed + errored + timed out + skipped + unfinished",
		grid: grid{columns: heads(">planned", ">completed", ">errored", ">timed out", ">skipped", ">unfinished", ">completed/s", "load")}}
	bad := func(n uint64) field {
		f := text(count(n))
		if n > 0 {
			f.tone = worse
		}
		return f
	}
	state := text(words(r.LoadState))
	if r.LoadState == meshbench.Saturated {
		state.tone = worse
	}
	s.grid.rows = [][]field{{text(count(r.Planned)), text(count(r.Completed)), bad(r.Errored), bad(r.TimedOut), bad(r.Skipped), bad(r.Unfinished),
		text(rps(r.ThroughputRPS)), state}}
	if list := errorList(r.Errors); list != "" {
		s.notes = append(s.notes, "errors: "+list+".")
	}
	if list := errorList(r.ConnectionErrors); list != "" {
		s.notes = append(s.notes, "connections without a request: "+list+".")
	}
	s.notes = append(s.notes, "read "+memory(r.BytesRead)+", written "+memory(r.BytesWritten)+".")
	return s
}

func loadHealth(r meshbench.LoadResult) section {
	s := section{id: "generator", title: "Can I trust this?", about: "verdict: " + string(r.Verdict.Status)}
	for _, reason := range r.Verdict.Reasons {
		s.notes = append(s.notes, reason.Message+" ("+reason.Code+")")
	}
	if r.Lateness != nil && r.Lateness.Count > 0 {
		s.notes = append(s.notes, fmt.Sprintf("lateness p99 %s, predicted from this machine's gaps %s; gaps take %s of the time.",
			micros(r.Lateness.Values[meshbench.P99]), micros(r.Gaps.Predicted.P99), percent(r.Gaps.Share)))
	}
	g := r.Generator
	if g.Workers > 1 {
		s.notes = append(s.notes, plural(g.Workers, "worker")+" shared the load and started within "+
			micros(meshbench.Microseconds(g.StartSkewSeconds*1e6))+".")
	}
	s.notes = append(s.notes, fmt.Sprintf("generator (%s): %s CPU per request, %s s CPU of which %s s waiting, peak memory %s, steal %s.",
		g.Engine, micros(g.CPUPerRequest), number(g.CPUSeconds), number(g.SpinSeconds), memory(g.PeakMemoryBytes), percent(g.StealShare)))
	return s
}
