package behavior

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes the matrix for a terminal: a row for each probe, a column for
// each subject, and below it the evidence of what is not as expected.
func Table(w io.Writer, m Matrix) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "PROBE\t"+strings.ToUpper(strings.Join(m.Subjects, "\t")))
	for _, p := range m.Probes {
		fmt.Fprint(t, p.Name)
		for _, s := range m.Subjects {
			c, _ := m.Cell(p.Name, s)
			fmt.Fprintf(t, "\t%s", c.Result)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range []Result{Differs, Failed} {
		for _, s := range m.Subjects {
			for _, c := range m.Cells {
				if c.Subject != s || c.Result != r {
					continue
				}
				if _, err := fmt.Fprintf(w, "\n%s %s on %s\n  expected: %s\n  %s\n", c.Probe, r, s, c.Expected, clean(c.Evidence)); err != nil {
					return err
				}
			}
		}
	}
	fmt.Fprintln(w)
	for _, s := range m.Subjects {
		if _, err := fmt.Fprintf(w, "%s: %s\n", s, m.counts(s)); err != nil {
			return err
		}
	}
	return nil
}

func (m Matrix) counts(subject string) string {
	return fmt.Sprintf("%d probes, %d decided: %d passed, %d differ, %d unsupported, %d failed", len(m.Probes), m.Decided(subject),
		m.Count(subject, Passed), m.Count(subject, Differs), m.Count(subject, Unsupported), m.Count(subject, Failed))
}

// clean makes evidence fit for one line of text: bytes that no terminal should
// get are written as Go writes them.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Markdown writes the matrix as a document. command is how it was made.
func Markdown(w io.Writer, m Matrix, command string) error {
	f := m.Fingerprint
	var b strings.Builder
	b.WriteString("# What each mesh really does\n\n")
	fmt.Fprintf(&b, "Made by `%s -o markdown` (Meshbench %s, profile %s, %s, kernel %s, %d cores", command, f.Meshbench, m.Profile, f.OS, f.Kernel, f.Cores)
	for _, r := range f.Runtimes {
		fmt.Fprintf(&b, ", %s %s", r.Name, r.Version)
	}
	b.WriteString("). Do not edit it: run the command again.\n\n")
	b.WriteString("Each probe sends real requests through a real deployment and looks at what arrives at the application and what comes back.\n" +
		"`passed`: as expected. `differs`: clearly something else; whether that matters is for you to judge. `unsupported`: the mesh, or its driver here, does not have it; the evidence says why, with a source. `failed`: it could not be decided.\n" +
		"Where a standard says what must happen, that is what is expected; elsewhere it is what the named documentation says. There is no score.\n\n")
	for _, s := range m.Subjects {
		fmt.Fprintf(&b, "- `%s`: %s\n", s, m.counts(s))
	}
	b.WriteString("\n## The matrix\n")
	group := ""
	for _, p := range m.Probes {
		if p.Group != group {
			group = p.Group
			fmt.Fprintf(&b, "\n### %s\n\n| probe | question |", group)
			for _, s := range m.Subjects {
				fmt.Fprintf(&b, " `%s` |", s)
			}
			b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(m.Subjects)) + "\n")
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s |", p.Name, anchor(p.Name), cell(p.Question))
		for _, s := range m.Subjects {
			c, _ := m.Cell(p.Name, s)
			word := string(c.Result)
			if c.Result == Differs || c.Result == Failed {
				word = "**" + word + "**"
			}
			fmt.Fprintf(&b, " %s |", word)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## The evidence\n")
	for _, p := range m.Probes {
		fmt.Fprintf(&b, "\n### %s\n\n%s\nExpected: %s. Reference: %s\n\n", p.Name, p.Question, strings.TrimSuffix(cell(p.Expected), "."), link(p.Reference))
		for _, s := range m.Subjects {
			c, _ := m.Cell(p.Name, s)
			fmt.Fprintf(&b, "- `%s` %s: %s\n", s, c.Result, cell(c.Evidence))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// anchor is how GitHub names a heading.
func anchor(heading string) string { return strings.ReplaceAll(strings.ToLower(heading), ".", "") }

// cell is a text that does not end a cell of a table, nor begin anything else.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "*", "\\*", "_", "\\_").Replace(clean(s))
}

// link writes "what: address" as a link.
func link(reference string) string {
	text, address, ok := strings.Cut(reference, ": http")
	if !ok {
		return reference
	}
	return "[" + text + "](http" + address + ")"
}
