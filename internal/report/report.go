// Package report shows a result: as a table for terminals, as JSON, NDJSON,
// Markdown and JUnit, and as one HTML file that opens offline. It computes
// nothing that could be argued about: every figure and every decision comes
// from the meshbench.Result that all surfaces share, and the sentence that
// opens each of them is that result's headline.
//
// Table, Markdown and HTML are three renderings of the same sections (see
// section), so that none of them can say something that another does not.
package report

import (
	"github.com/meshbench/meshbench"
)

// TableOptions says how Table and LoadTable write.
type TableOptions struct {
	Color bool   // ANSI colours and weights; the caller honours NO_COLOR and pipes
	Width int    // columns of the terminal; 0 means 100
	Store string // where the result is kept, a path or a URL; empty: it is not kept
}

// defaultWidth is the width of a table in columns where none is asked for.
const defaultWidth = 100

func (o TableOptions) width() int {
	if o.Width <= 0 {
		return defaultWidth
	}
	return max(o.Width, 40)
}

// tone is what a field means; each renderer has its own way to show it, and
// none shows it by colour alone.
type tone int

const (
	plain tone = iota
	worse
	better
	quiet // not decided, not known, does not apply
	strong
)

// field is one place of a grid.
type field struct {
	text string
	tone tone
}

// column is a column's head. Numbers stand right-aligned.
type column struct {
	head   string
	number bool
}

// grid is a table of figures.
type grid struct {
	columns []column
	rows    [][]field
}

// section is a part of the report: a title, what its figures are (unit,
// direction, estimator, n), the figures, and remarks on them.
type section struct {
	id    string // anchor in HTML
	title string
	about string
	grid  grid
	notes []string
}

// text makes a field without a tone.
func text(s string) field { return field{text: s} }

// dash is a figure that does not exist.
func dash() field { return field{text: "–", tone: quiet} }

// heads makes columns; a name that begins with ">" is a number's.
func heads(names ...string) []column {
	out := make([]column, len(names))
	for i, n := range names {
		if len(n) > 0 && n[0] == '>' {
			out[i] = column{head: n[1:], number: true}
			continue
		}
		out[i] = column{head: n}
	}
	return out
}

// lead returns what stands first: the headline, which for an invalid run says
// why it is; without one, the reasons why there is none.
func lead(r meshbench.Result) []string {
	if r.Headline == "" && r.Verdict.Status == meshbench.InvalidTest {
		out := []string{"This run is invalid: its figures answer nothing."}
		for _, reason := range r.Verdict.Reasons {
			out = append(out, reason.Message+" ("+reason.Code+")")
		}
		return out
	}
	if r.Headline != "" {
		return []string{r.Headline}
	}
	if r.Error != nil {
		out := []string{r.Error.Message}
		if r.Error.Hint != "" {
			out = append(out, r.Error.Hint)
		}
		return out
	}
	if r.State == "" {
		return []string{"Nothing was measured."}
	}
	return []string{"Nothing was measured: the run is " + string(r.State) + "."}
}
