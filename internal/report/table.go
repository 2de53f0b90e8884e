package report

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/meshbench/meshbench"
)

// ANSI attributes of the tones and of a title.
const (
	ansiReset = "\x1b[0m"
	ansiBold  = "\x1b[1m"
	ansiFaint = "\x1b[2m"
	ansiWorse = "\x1b[1;33m" // yellow: tells from blue for everybody
	ansiBlue  = "\x1b[1;34m"
)

// printer writes a report for a terminal: everything it is given is cleaned
// of control characters and kept within the width where words allow.
type printer struct {
	bytes.Buffer
	color bool
	width int
}

// Table writes r for a terminal: the sentence, the evidence, the doubts, and
// where the result is kept. Errors are those of w.
func Table(w io.Writer, r meshbench.Result, o TableOptions) error {
	p := &printer{color: o.Color, width: o.width()}
	for i, line := range lead(r) {
		style := ansiBold
		if i > 0 {
			line, style = "- "+line, ""
		}
		p.paragraph(line, "", style)
	}
	p.WriteByte('\n')
	p.paragraph(strings.Join(summary(r), " · "), "", ansiFaint)
	for _, s := range sections(r) {
		p.section(s)
	}
	if o.Store != "" {
		p.WriteByte('\n')
		p.line("Kept in   " + o.Store)
		p.line("Open it   meshbench results show " + r.ID)
	}
	_, err := w.Write(p.Bytes())
	return err
}

func (p *printer) section(s section) {
	p.WriteByte('\n')
	p.WriteString(p.style(clean(s.title), ansiBold) + "\n")
	if s.about != "" {
		p.paragraph(s.about, "  ", ansiFaint)
	}
	p.grid(s.grid)
	for _, n := range s.notes {
		p.paragraph("· "+n, "  ", "")
	}
}

// style wraps s in an attribute where colours are wanted.
func (p *printer) style(s, attribute string) string {
	if !p.color || attribute == "" || s == "" {
		return s
	}
	return attribute + s + ansiReset
}

func (p *printer) line(s string) { p.WriteString(clean(s) + "\n") }

// paragraph writes s within the width, each line behind the indent. On a wide
// terminal it stays as narrow as people read with ease.
func (p *printer) paragraph(s, indent, attribute string) {
	hang := indent
	if strings.HasPrefix(s, "· ") || strings.HasPrefix(s, "- ") {
		hang += "  "
	}
	for i, line := range wrap(clean(s), min(p.width, defaultWidth)-len(hang)) {
		if i == 0 {
			p.WriteString(indent)
		} else {
			p.WriteString(hang)
		}
		p.WriteString(p.style(line, attribute) + "\n")
	}
}

// wrap breaks s at spaces into lines of at most width columns. A word that is
// longer stays whole.
func wrap(s string, width int) []string {
	var lines []string
	var line string
	for _, word := range glued(strings.Fields(s)) {
		switch {
		case line == "":
			line = word
		case columns(line)+1+columns(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// glued joins units to their numbers, so that no line begins with one.
func glued(all []string) []string {
	var out []string
	for _, w := range all {
		switch strings.TrimRight(w, ".,;:)]") {
		case "ns", "µs", "ms", "s", "%", "B", "kB", "MB", "GB":
			if len(out) > 0 {
				out[len(out)-1] += " " + w
				continue
			}
		}
		out = append(out, w)
	}
	return out
}

// columns is the width of s on a terminal: its characters, none of which are
// control characters here.
func columns(s string) int { return utf8.RuneCountInString(s) }

const (
	gridIndent = "  "
	gridGap    = 2
	readable   = 24 // columns under which wrapped text is no longer read with ease
)

// grid writes a table of figures. Where it would be wider than the terminal,
// the first column moves to a line of its own above its rows, and the last
// one, if it is text, is wrapped.
func (p *printer) grid(g grid) {
	if len(g.rows) == 0 {
		return
	}
	g = cleanGrid(g)
	widths := gridWidths(g)
	last := len(g.columns) - 1
	over := total(widths) - p.width
	first, room := 0, 0
	// Wrapping the last column is enough where it stays readable.
	stacked := over > 0 && (g.columns[last].number || widths[last]-over < readable) && len(g.columns) > 2
	if stacked {
		first, widths[0] = 1, 0
		over = total(widths) + len(gridIndent) - p.width
	}
	if over > 0 && !g.columns[last].number {
		room = max(readable, widths[last]-over)
	}
	p.row(headRow(g), widths, first, room, g.columns)
	previous := ""
	for _, r := range g.rows {
		name := r[0].text
		// A first field that repeats is shown once.
		if name == previous && r[0].tone == quiet {
			r[0].text = ""
		} else if stacked {
			p.WriteString(gridIndent + p.style(name, ansiBold) + "\n")
		}
		previous = name
		p.row(r, widths, first, room, g.columns)
	}
}

// headRow is the heads as a row.
func headRow(g grid) []field {
	out := make([]field, len(g.columns))
	for i, c := range g.columns {
		out[i] = field{c.head, quiet}
	}
	return out
}

func cleanGrid(g grid) grid {
	out := grid{columns: make([]column, len(g.columns)), rows: make([][]field, len(g.rows))}
	for i, c := range g.columns {
		out.columns[i] = column{clean(c.head), c.number}
	}
	for i, r := range g.rows {
		out.rows[i] = make([]field, len(r))
		for j, f := range r {
			out.rows[i][j] = field{clean(f.text), f.tone}
		}
	}
	return out
}

func gridWidths(g grid) []int {
	widths := make([]int, len(g.columns))
	for i, c := range g.columns {
		for _, r := range g.rows {
			widths[i] = max(widths[i], columns(r[i].text))
		}
		if widths[i] > 0 { // a column that says nothing takes no room
			widths[i] = max(widths[i], columns(c.head))
		}
	}
	return widths
}

// total is how wide a row is, indent included. An empty column takes nothing.
func total(widths []int) int {
	n := len(gridIndent)
	for _, w := range widths {
		if w > 0 {
			n += w + gridGap
		}
	}
	return n - gridGap
}

// row writes the fields from the first on; the last is wrapped to room
// columns where room is not zero.
func (p *printer) row(r []field, widths []int, first, room int, heads []column) {
	var line strings.Builder
	line.WriteString(gridIndent)
	at := len(gridIndent)
	if first > 0 {
		line.WriteString(gridIndent)
		at += len(gridIndent)
	}
	var rest []string
	pending := 0 // spaces that are owed, so that no line ends in them
	for i := first; i < len(r); i++ {
		if widths[i] == 0 {
			continue
		}
		s := r[i].text
		if i == len(r)-1 && room > 0 {
			if lines := wrap(s, room); len(lines) > 1 {
				s, rest = lines[0], lines[1:]
			}
		}
		pad := widths[i] - columns(s)
		if heads[i].number {
			pending += pad
			pad = 0
		}
		if s != "" {
			line.WriteString(strings.Repeat(" ", pending))
			pending = 0
			line.WriteString(p.style(s, attribute(r[i].tone)))
		} else {
			pad = widths[i]
			if heads[i].number {
				pad = 0
			}
		}
		pending += pad + gridGap
		if i < len(r)-1 {
			at += widths[i] + gridGap
		}
	}
	p.WriteString(line.String() + "\n")
	for _, s := range rest {
		p.WriteString(strings.Repeat(" ", at) + p.style(s, attribute(r[len(r)-1].tone)) + "\n")
	}
}

func attribute(t tone) string {
	switch t {
	case worse:
		return ansiWorse
	case better:
		return ansiBlue
	case quiet:
		return ansiFaint
	case strong:
		return ansiBold
	}
	return ""
}
