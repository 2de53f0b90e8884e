package report

import (
	"bytes"
	"io"
	"strings"

	"github.com/meshbench/meshbench"
)

// Markdown writes r with the tables of GitHub: the same sentence, figures and
// remarks as Table.
func Markdown(w io.Writer, r meshbench.Result) error {
	var b bytes.Buffer
	name := r.Experiment.Name
	if name == "" {
		name = "run"
	}
	b.WriteString("## Meshbench: " + markdownText(name) + "\n\n")
	for i, line := range lead(r) {
		if i == 0 {
			b.WriteString("**" + markdownText(line) + "**\n\n")
			continue
		}
		b.WriteString("- " + markdownText(line) + "\n")
	}
	b.WriteString("\n" + markdownText(strings.Join(summary(r), " · ")) + "\n")
	for _, s := range sections(r) {
		markdownSection(&b, s)
	}
	if r.ID != "" {
		b.WriteString("\n`meshbench results show " + strings.ReplaceAll(clean(r.ID), "`", "'") + "`\n")
	}
	_, err := w.Write(squeeze(b.Bytes()))
	return err
}

func markdownSection(b *bytes.Buffer, s section) {
	b.WriteString("\n### " + markdownText(s.title) + "\n\n")
	if s.about != "" {
		b.WriteString(markdownText(s.about) + "\n\n")
	}
	if len(s.grid.rows) > 0 {
		rule := "|"
		b.WriteString("|")
		for _, c := range s.grid.columns {
			b.WriteString(" " + markdownText(c.head) + " |")
			if c.number {
				rule += " ---: |"
			} else {
				rule += " --- |"
			}
		}
		b.WriteString("\n" + rule + "\n")
		for _, row := range s.grid.rows {
			b.WriteString("|")
			for _, f := range row {
				t := markdownText(f.text)
				if f.text != "" && (f.tone == strong || f.tone == worse || f.tone == better) {
					t = "**" + t + "**"
				}
				b.WriteString(" " + t + " |")
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	for _, n := range s.notes {
		b.WriteString("- " + markdownText(n) + "\n")
	}
}

// markdownText makes s appear as it is: what would be read as markup, a
// link, an image or HTML is escaped, and a line stays one line.
func markdownText(s string) string {
	s = strings.TrimSpace(clean(s))
	s = strings.NewReplacer(
		`\`, `\\`, "`", "\\`", "*", `\*`, "|", `\|`, "~", `\~`,
		"&", "&amp;", "<", "&lt;", ">", "&gt;",
		"](", `]\(`, "][", `]\[`, "]:", `]\:`,
	).Replace(s)
	// What makes a heading, a list or a rule does so only at a line's beginning.
	if s != "" && (strings.ContainsRune("#=_", rune(s[0])) || strings.HasPrefix(s, "- ") || strings.HasPrefix(s, "+ ") || strings.HasPrefix(s, "--")) {
		s = `\` + s
	}
	return s
}

// squeeze joins runs of empty lines.
func squeeze(b []byte) []byte {
	for bytes.Contains(b, []byte("\n\n\n")) {
		b = bytes.ReplaceAll(b, []byte("\n\n\n"), []byte("\n\n"))
	}
	return b
}
