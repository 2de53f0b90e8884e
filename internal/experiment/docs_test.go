package experiment

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/experiment.md anew")

const (
	reference      = "../../docs/experiment.md"
	generatedBegin = "<!-- begin: made from internal/experiment/schema.json by `go test ./internal/experiment -update` -->\n"
	generatedEnd   = "<!-- end -->\n"
)

// fieldTables writes the tables of all fields from a schema, with a column for
// axes where it has any.
func fieldTables(root *rule, axes bool) string {
	var b strings.Builder
	var write func(r *rule, path string)
	write = func(r *rule, path string) {
		title := "The document"
		if path != "" {
			title = "`" + path + "`"
		}
		axisHead, axisRule := " axis |", " --- |"
		if !axes {
			axisHead, axisRule = "", ""
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| field | default |%s what it is, and what it may be |\n| --- | --- |%s --- |\n", title, r.description, axisHead, axisRule)
		var below []property
		for _, p := range r.properties {
			scalar, axis := p.rule.scalar()
			mark, def := "", "`"+p.rule.text+"`"
			if axes {
				mark = "  |"
			}
			if axis {
				mark = " yes |"
			}
			inner, innerPath := scalar, join(path, p.name)
			if scalar.kind == list && len(scalar.items.properties) > 0 {
				inner, innerPath = scalar.items, innerPath+"[]"
			}
			text := p.rule.description
			switch {
			case len(inner.properties) > 0:
				below = append(below, property{innerPath, inner})
				text += " Its fields stand below."
			case len(scalar.words) != 1 || len(scalar.planned) > 0:
				text += " Takes " + p.rule.expects() + "."
			}
			switch {
			case p.rule.defaultText != "":
				def = p.rule.defaultText
			case p.rule.text == "" && slices.Contains(r.required, p.name):
				def = "needed"
				if len(p.rule.examples) > 0 {
					def += "; for example `" + p.rule.examples[0] + "`"
				}
			case p.rule.text == "" && len(inner.properties) > 0 && axes:
				def = "its fields' own"
			case p.rule.text == "" && len(inner.properties) > 0:
				def = "none"
			case p.rule.text == "" && len(p.rule.examples) > 0:
				def = "none; for example `" + p.rule.examples[0] + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s |%s %s |\n", p.name, cellText(def), mark, cellText(text))
		}
		for _, p := range below {
			write(p.rule, p.name)
		}
	}
	write(root, "")
	return b.String() + "\n"
}

// cellText keeps a text in its cell of a Markdown table.
func cellText(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ")
}

// TestReference holds docs/experiment.md to the schema, and the examples in
// it to Parse.
func TestReference(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	before, rest, ok1 := strings.Cut(doc, generatedBegin)
	generated, after, ok2 := strings.Cut(rest, generatedEnd)
	if !ok1 || !ok2 {
		t.Fatal("the marks of the generated part are missing")
	}
	if want := fieldTables(document(), true); generated != want {
		if !*update {
			t.Errorf("the tables of fields are not those of the schema: go test ./internal/experiment -update")
		} else if err := os.WriteFile(reference, []byte(before+generatedBegin+want+generatedEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(doc, -1)
	if len(blocks) < 2 {
		t.Errorf("%d examples", len(blocks))
	}
	for i, b := range blocks {
		if _, err := Parse(fmt.Sprintf("example %d", i+1), []byte(b[1])); err != nil {
			t.Errorf("%v\n%s", err, b[1])
		}
	}
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.Contains(doc, "(examples/"+filepath.Base(f)+")") {
			t.Errorf("no word of %s", f)
		}
	}
}

// TestReferenceShowsTheDefaults: the document of the defaults in the
// reference is what is printed.
func TestReferenceShowsTheDefaults(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	text, err := YAML(Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "```yaml\n"+string(text)+"```") {
		t.Errorf("the reference does not show\n%s", text)
	}
}

// TestReferenceShowsRealMistakes: the messages in the reference are those
// that the document beside them gives.
func TestReferenceShowsRealMistakes(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml-with-mistakes\n(.*?)```\n\n```text\n(.*?)```").FindStringSubmatch(string(data))
	if m == nil {
		t.Fatal("no document with mistakes")
	}
	_, err = Parse("experiment.yaml", []byte(m[1]))
	if got := fmt.Sprintln(err); got != m[2] {
		t.Errorf("got\n%s\nthe reference shows\n%s", got, m[2])
	}
}
