package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/report"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file under testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", name, d)
	}
}

func table(t *testing.T, r meshbench.Result, o report.TableOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.Table(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTable(t *testing.T) {
	const store = "~/.local/share/meshbench"
	golden(t, "sample.txt", table(t, sample(t), report.TableOptions{Store: store}))
	golden(t, "invalid.txt", table(t, invalid(t), report.TableOptions{Store: store}))
	golden(t, "interrupted.txt", table(t, interrupted(t), report.TableOptions{Store: store}))
	golden(t, "narrow.txt", table(t, sample(t), report.TableOptions{Store: store, Width: 72}))
	golden(t, "color.txt", table(t, sample(t), report.TableOptions{Color: true, Store: store}))
}

func TestTableKeepsItsWidth(t *testing.T) {
	for _, width := range []int{100, 120, 160} {
		for i, line := range strings.Split(string(table(t, sample(t), report.TableOptions{Width: width})), "\n") {
			if n := len([]rune(line)); n > width {
				t.Errorf("width %d, line %d has %d columns: %s", width, i+1, n, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("width %d, line %d ends in spaces: %q", width, i+1, line)
			}
		}
	}
}

func TestHeadlineOpensEverySurface(t *testing.T) {
	r := sample(t)
	one := func(b []byte) string { return strings.Join(strings.Fields(string(b)), " ") }
	if got := one(table(t, r, report.TableOptions{})); !strings.HasPrefix(got, r.Headline) {
		t.Errorf("the table begins with %.200s", got)
	}
	var b bytes.Buffer
	if err := report.Markdown(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "**"+r.Headline+"**") {
		t.Errorf("Markdown lacks the sentence:\n%.300s", b.String())
	}
	b.Reset()
	if err := report.HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), r.Headline) {
		t.Error("HTML lacks the sentence")
	}
}

func TestMarkdown(t *testing.T) {
	for name, r := range map[string]meshbench.Result{"sample.md": sample(t), "invalid.md": invalid(t), "interrupted.md": interrupted(t)} {
		var b bytes.Buffer
		if err := report.Markdown(&b, r); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
}

func TestLoad(t *testing.T) {
	r := loadSample(t)
	var b bytes.Buffer
	if err := report.LoadTable(&b, r, report.TableOptions{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "load.txt", b.Bytes())
	b.Reset()
	if err := report.LoadMarkdown(&b, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "load.md", b.Bytes())

	nothing := meshbench.LoadResult{Target: "http://127.0.0.1:1/", Planned: 500, Errored: 500, Errors: map[string]uint64{"connection_refused": 500}, Verdict: meshbench.Verdict{Status: meshbench.Valid}}
	b.Reset()
	if err := report.LoadTable(&b, nothing, report.TableOptions{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "load-nothing.txt", b.Bytes())
}
