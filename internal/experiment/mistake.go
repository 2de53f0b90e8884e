package experiment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// maxMistakes is how many mistakes an error lists.
const maxMistakes = 20

// place is where something was written: in a document (line and column from
// 1), by a flag (source is its name, line 0), or nowhere in particular (zero).
type place struct {
	source       string
	line, column int
}

// mistake is one thing that is wrong with a document.
type mistake struct {
	at   place
	path string // of the field: "load.rate"; an element of a list is "subjects[1]"
	text string
	// lost is the field that has no value, or the wrong one, because of it.
	lost string
}

// String returns file:line:column: field: what is wrong; where a flag is the
// cause, its name alone; where there is neither, the field alone.
func (m mistake) String() string {
	field, _, _ := strings.Cut(m.path, "[")
	switch {
	case m.at.line > 0 && field != "":
		return fmt.Sprintf("%s:%d:%d: %s: %s", m.at.source, m.at.line, m.at.column, field, m.text)
	case m.at.line > 0:
		return fmt.Sprintf("%s:%d:%d: %s", m.at.source, m.at.line, m.at.column, m.text)
	case m.at.source != "":
		return m.at.source + ": " + m.text
	case field != "":
		return field + ": " + m.text
	}
	return m.text
}

// mistakes collects what is wrong with a document.
type mistakes struct {
	found []mistake
	form  *form // of the document; nil: an experiment
}

// form is a kind of document that this package reads.
type form struct {
	what     string // "experiment"
	one      string // with its article: "an experiment"
	smallest string // document that is worth a file
	root     func() *rule
}

var experimentForm = form{"experiment", "an experiment", "subjects: [none, envoy]", document}

// of returns the form of the document.
func (ms *mistakes) of() *form {
	if ms.form == nil {
		return &experimentForm
	}
	return ms.form
}

func (ms *mistakes) add(at place, path, format string, args ...any) {
	ms.found = append(ms.found, mistake{at, path, fmt.Sprintf(format, args...), path})
}

// touch tells whether one of the fields was lost, or something below or above
// it: what follows from such a field is not worth reporting.
func (ms *mistakes) touch(paths ...string) bool {
	for _, m := range ms.found {
		for _, p := range paths {
			if m.lost != "" && (within(m.lost, p) || within(p, m.lost)) {
				return true
			}
		}
	}
	return false
}

// within tells whether a path is another or lies below it.
func within(path, above string) bool {
	rest, ok := strings.CutPrefix(path, above)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// err returns one error with a line per mistake, in the order of the
// document; nil where there is none.
func (ms *mistakes) err(hint string) error {
	if len(ms.found) == 0 {
		return nil
	}
	slices.SortStableFunc(ms.found, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.column, b.at.column))
	})
	var lines []string
	for i, m := range ms.found {
		if i == maxMistakes {
			lines = append(lines, fmt.Sprintf("and %d more", len(ms.found)-maxMistakes))
			break
		}
		lines = append(lines, m.String())
	}
	return &meshbench.Error{Code: meshbench.Invalid, Message: strings.Join(lines, "\n"), Hint: hint}
}
