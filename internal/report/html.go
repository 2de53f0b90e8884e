package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

//go:embed report.html.tmpl
var pageTemplate string

//go:embed report.css
var pageStyle string

// HTML writes r as one file that needs nothing else: no script, no font, no
// address. It reads in light and dark, from 360 px on, and on paper.
func HTML(w io.Writer, r meshbench.Result) error {
	t, err := template.New("report").Parse(pageTemplate)
	if err != nil {
		return meshbench.Errorf(meshbench.Internal, "read the page of the report: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, newPage(r)); err != nil {
		return meshbench.Errorf(meshbench.Internal, "write the page of the report: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// longLead is the length from which the first sentence is set smaller.
const longLead = 220

// page is what the template shows.
type page struct {
	Style          template.CSS
	Title, ID      string
	Status         status
	When           string
	Lead           []string
	LongLead       bool // too long for the largest letters
	Summary        []string
	Keys           []key
	Terms          []term
	Overhead       forest
	OverheadTable  tableView
	Spectrum       template.HTML
	SpectrumTable  tableView
	CPU, Memory    []barRow
	CostTable      tableView
	AddedCost      tableView
	Hops           tableView
	Strips         []stripPanel
	StripsTable    tableView
	MetricStrips   []stripPanel
	Metrics        tableView
	Lateness       template.HTML
	TrialLateness  template.HTML
	HealthTable    tableView
	TrialsTable    tableView
	Latency        tableView
	Throughput     tableView
	Verdict        doubt
	Proof          doubt
	Settings       doubt
	Remarks        []tableView
	Fingerprint    [][2]string
	ExperimentJSON string
	Baseline       string
}

type status struct {
	Symbol, Word, Class string
}

type term struct {
	Word, Meaning string
}

// tableView is a section as the template shows it.
type tableView struct {
	ID, Title, About string
	Columns          []columnView
	Rows             [][]fieldView
	Notes            []string
}

type columnView struct {
	Head  string
	Class string
}

type fieldView struct {
	Text  string
	Class string
}

// doubt answers one of the questions a sceptic asks: in a sentence, and in
// full below it.
type doubt struct {
	Question string
	Answers  []string
	Good     bool
	Table    tableView
}

func newPage(r meshbench.Result) page {
	p := newPalette(r.Cells)
	cpu, mem := costBars(r, p)
	out := page{
		Style:         template.CSS(pageStyle), // our own file
		Title:         clean(r.Experiment.Name),
		ID:            clean(r.ID),
		Status:        newStatus(r),
		Lead:          cleanAll(lead(r)),
		Summary:       slices.DeleteFunc(summary(r), func(s string) bool { return strings.HasPrefix(s, "verdict ") }), // stands before it
		Keys:          lineKeys(r.Cells, p),
		Terms:         terms(),
		Overhead:      newForest(r.Comparisons, p),
		OverheadTable: view(decisionSection(r)),
		Spectrum:      latencySpectrum(r, p),
		SpectrumTable: view(section{id: "spectrum-table", grid: spectrumGrid(r),
			about: "quantiles of all counted requests of a cell, pooled: for the picture only; what is compared are the sittings' own quantiles"}),
		CPU:           cpu,
		Memory:        mem,
		CostTable:     view(costSection(r)),
		AddedCost:     view(addedCostSection(r)),
		Hops:          view(hopsSection(r)),
		Strips:        stripPanels(r, p),
		StripsTable:   view(stripsSection(r)),
		MetricStrips:  metricStrips(r, p),
		Metrics:       view(metricsSection(r)),
		Lateness:      latenessSpectrum(r),
		TrialLateness: trialLateness(r, p),
		HealthTable:   view(healthSection(r)),
		TrialsTable:   view(section{id: "trials-table", grid: trialsGrid(r)}),
		Latency:       view(latencySection(r)),
		Throughput:    view(loadSection(r)),
		Verdict:       verdictDoubt(r),
		Proof:         proofDoubt(r),
		Settings:      settingsDoubt(r),
		Fingerprint:   fingerprint(r.Fingerprint),
		Baseline:      clean(baselines(r.Comparisons)),
	}
	out.LongLead = len(out.Lead[0]) > longLead
	if out.Title == "" {
		out.Title = "run"
	}
	if !r.StartedAt.IsZero() {
		out.When = moment(r.StartedAt)
	}
	for _, s := range []section{failuresSection(r), warningsSection(r)} {
		if len(s.notes) > 0 {
			out.Remarks = append(out.Remarks, view(s))
		}
	}
	// An experiment that cannot be encoded is one that was never read.
	if text, err := json.MarshalIndent(r.Experiment, "", "  "); err == nil {
		out.ExperimentJSON = string(text)
	}
	for _, rows := range [][]forestRow{out.Overhead.Rows, out.Overhead.Apart} {
		for i := range rows {
			rows[i].Cell, rows[i].Decision = clean(rows[i].Cell), clean(rows[i].Decision)
		}
	}
	for _, rows := range [][]barRow{out.CPU, out.Memory} {
		for i := range rows {
			rows[i].Cell, rows[i].Name = clean(rows[i].Cell), clean(rows[i].Name)
		}
	}
	for i := range out.MetricStrips {
		out.MetricStrips[i].Name = clean(out.MetricStrips[i].Name)
	}
	for _, panel := range slices.Concat(out.Strips, out.MetricStrips) {
		for i := range panel.Strips {
			panel.Strips[i].Cell = clean(panel.Strips[i].Cell)
		}
	}
	for i := range out.Keys {
		out.Keys[i].Name = clean(out.Keys[i].Name)
	}
	return out
}

func cleanAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = clean(s)
	}
	return out
}

func newStatus(r meshbench.Result) status {
	switch r.Verdict.Status {
	case meshbench.Valid:
		return status{"✔", "Valid", "valid"}
	case meshbench.Suspect:
		return status{"!", "Suspect", "suspect"}
	case meshbench.InvalidTest:
		return status{"✖", "Invalid", "invalid"}
	}
	return status{"–", "No verdict", "none"}
}

// view turns a section into what the template shows.
func view(s section) tableView {
	out := tableView{ID: s.id, Title: clean(s.title), About: clean(s.about), Notes: cleanAll(s.notes)}
	g := cleanGrid(s.grid)
	for _, c := range g.columns {
		v := columnView{Head: c.head}
		if c.number {
			v.Class = "number"
		}
		out.Columns = append(out.Columns, v)
	}
	for _, r := range g.rows {
		row := make([]fieldView, len(r))
		for i, f := range r {
			row[i] = fieldView{Text: f.text, Class: strings.TrimSpace(out.Columns[i].Class + " " + accent(f.tone))}
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// decisionSection is addedSection with what a reader needs to check the
// decisions: the margin, the p values and the level.
func decisionSection(r meshbench.Result) section {
	s := addedSection(r)
	s.grid.columns = append(s.grid.columns, heads(">margin", ">p", ">p adjusted", ">level")...)
	for i, c := range r.Comparisons {
		if hasFigure(c) && c.Significance != "" {
			s.grid.rows[i] = append(s.grid.rows[i], text("±"+margin(c.Margin, c.Difference.Unit)), text(probability(c.P)), text(probability(c.PAdjusted)), text(level(c.Level)))
			continue
		}
		s.grid.rows[i] = append(s.grid.rows[i], dash(), dash(), dash(), dash())
	}
	return s
}

// stripsSection is the table behind the dots.
func stripsSection(r meshbench.Result) section {
	s := section{id: "sittings-table", about: "each sitting's own quantile of the response time, in time order; lower is better"}
	most := 0
	for _, c := range r.Cells {
		for _, q := range c.Quantiles {
			most = max(most, len(q.Sittings))
		}
	}
	s.grid.columns = heads("cell", "of")
	for i := range most {
		s.grid.columns = append(s.grid.columns, column{fmt.Sprint(i + 1), true})
	}
	for _, c := range r.Cells {
		for _, q := range meshbench.Quantiles {
			sum := c.Quantiles[q]
			if len(sum.Sittings) == 0 {
				continue
			}
			row := []field{text(c.ID), text(q.Label())}
			for i := range most {
				if i < len(sum.Sittings) {
					row = append(row, text(micros(meshbench.Microseconds(sum.Sittings[i].Value))))
					continue
				}
				row = append(row, dash())
			}
			s.grid.rows = append(s.grid.rows, row)
		}
	}
	return s
}

func verdictDoubt(r meshbench.Result) doubt {
	s := verdictSection(r)
	d := doubt{Question: "Can I trust this?", Good: r.Verdict.Status == meshbench.Valid, Table: view(s)}
	if r.Verdict.Status == "" {
		d.Answers = []string{"Nothing was measured that could be judged."}
		return d
	}
	var parts []string
	if r.Verdict.Status == meshbench.Suspect { // those of an invalid run stand on top
		for _, reason := range r.Verdict.Reasons {
			parts = append(parts, clean(reason.Message))
		}
	}
	if g := r.Generator; g.Lateness.Count > 0 {
		parts = append(parts, fmt.Sprintf("lateness p99 %s, where this machine's gaps predict %s", micros(g.LatenessP99), micros(g.PredictedP99)))
	}
	switch n := len(r.LeftOut); n {
	case 0:
		parts = append(parts, "no block left out")
	default:
		parts = append(parts, plural(n, "block")+" left out")
	}
	parts = append(parts, "steal "+percent(r.Generator.StealShare))
	d.Answers = parts
	return d
}

func proofDoubt(r meshbench.Result) doubt {
	d := doubt{Question: "Was it really the mesh?", Good: true, Table: view(proofSection(r))}
	var parts []string
	without := false
	for _, c := range r.Cells {
		p := c.Proof
		switch p.Status {
		case meshbench.ProofFailed:
			d.Good = false
			parts = append(parts, clean(fmt.Sprintf("%s: not proven, %s", c.ID, p.Reason)))
		case meshbench.NotApplicable:
			without = without || c.Trials > 0
		case meshbench.Proven:
			line := fmt.Sprintf("%s: %s sent, %s at the client proxy, %s at the server proxy, %s at the application",
				c.ID, count(p.Sent), count(p.ClientProxy), count(p.ServerProxy), count(p.Application))
			if p.Sent == p.ClientProxy && p.Sent == p.ServerProxy && p.Sent == p.Application {
				line = fmt.Sprintf("%s: %s sent = client proxy = server proxy = application", c.ID, count(p.Sent))
			}
			if p.Handshakes > 0 && p.Plaintext == 0 {
				line += ", all under mutual TLS"
			}
			parts = append(parts, clean(line))
		}
	}
	switch {
	case len(parts) > 0:
	case without:
		parts = append(parts, "No mesh of ours stands in the path of any cell.")
	default:
		parts, d.Good = append(parts, "No path was proven."), false
	}
	d.Answers = parts
	return d
}

func settingsDoubt(r meshbench.Result) doubt {
	s := settingsSection(r)
	d := doubt{Question: "Same conditions?", Good: true, Table: view(s)}
	var parts, differ []string
	for _, row := range s.grid.rows {
		values := map[string]bool{}
		for _, f := range row[1:] {
			if f.tone != quiet { // a setting that does not apply differs from none
				values[f.text] = true
			}
		}
		switch len(values) {
		case 0:
		case 1:
			parts = append(parts, clean(row[0].text+" "+slices.Collect(maps.Keys(values))[0]))
		default:
			differ = append(differ, clean(row[0].text))
		}
	}
	if len(differ) > 0 {
		d.Good = false
		parts = append([]string{"different: " + strings.Join(differ, ", ")}, parts...)
	}
	if len(parts) == 0 {
		parts, d.Good = []string{"No settings were observed."}, false
	}
	d.Answers = parts
	return d
}

// fingerprint lists the environment.
func fingerprint(f meshbench.Fingerprint) [][2]string {
	var out [][2]string
	add := func(name, value string) {
		if value != "" {
			out = append(out, [2]string{name, clean(value)})
		}
	}
	cpus := func(list []int) string {
		return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ", "), "[]")
	}
	if f.Cores == 0 && f.Kernel == "" {
		return nil
	}
	add("Meshbench", f.Meshbench)
	add("CPU", f.CPUModel)
	add("cores", fmt.Sprintf("%d (%d per physical core)", f.Cores, f.ThreadsPerCore))
	add("memory", memory(f.MemoryBytes))
	add("system", strings.TrimSpace(f.OS+" "+f.Kernel))
	add("virtualisation", f.Virtualisation)
	add("governor", f.Governor)
	add("steal", percent(f.StealShare))
	if f.CPULimit > 0 {
		add("CPU limit", number(f.CPULimit)+" cores")
	}
	add("open files", count(f.OpenFiles))
	add("generator's CPUs", cpus(f.GeneratorCPUs))
	add("system's CPUs", cpus(f.SystemCPUs))
	for _, u := range f.Runtimes {
		add(u.Name, fmt.Sprintf("%s from %s, sha256 %s", u.Version, u.Source, u.SHA256))
	}
	for _, k := range slices.Sorted(maps.Keys(f.Mitigations)) {
		add(k, f.Mitigations[k])
	}
	add("experiment's sha256", f.ExperimentHash)
	add("seed", fmt.Sprint(f.Seed))
	return out
}

// terms explains the words of the report.
func terms() []term {
	return []term{
		{"p50, p90, p99", "The time within which 50, 90 or 99 of 100 requests were answered, counted from the moment at which each was due, so that waiting behind a slow one counts."},
		{"sitting", "All subjects deployed afresh and measured in random order. Sittings, not requests, are what the statistics count, because each start of a proxy turns out a little different."},
		{"[low, high]", "The interval that holds the true difference with the probability given beside it, corrected for the number of questions asked."},
		{"worse, better", "The difference is larger than chance explains, after that correction."},
		{"no difference larger than x", "The whole interval lies within x: if there is a difference, it does not matter here."},
		{"not decided", "This run cannot tell. More sittings could."},
		{"CPU-ms per 1,000 requests", "Processor time, user and system, that a process spent for 1,000 requests."},
		{"pooled", "All requests of a cell in one histogram: for the picture, never for a decision."},
		{"saturated", "The subject did not keep the offered rate. Its latency then says how long the trial was, so it is compared with nothing."},
	}
}
