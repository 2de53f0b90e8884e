package behavior

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocument holds docs/behavior.md to the probes that there are: it is
// made by a command, and must be made again when they change.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/behavior.md")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile("Made by `meshbench behavior --subjects [^`]+ -o markdown`").Match(text) {
		t.Error("it does not say by which command it was made")
	}
	_, evidence, _ := strings.Cut(string(text), "\n## The evidence\n")
	var headings []string
	for _, line := range strings.Split(evidence, "\n") {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			headings = append(headings, name)
		}
	}
	var want []string
	for _, p := range Probes() {
		want = append(want, p.Name)
	}
	if strings.Join(headings, " ") != strings.Join(want, " ") {
		t.Errorf("the document has other probes:\n%v\n%v", headings, want)
	}
	if strings.Contains(string(text), "**failed**") {
		t.Error("something could not be decided")
	}
	counts := regexp.MustCompile("(?m)^- `([^`]+)`: \\d+ probes, (\\d+) decided:").FindAllStringSubmatch(string(text), -1)
	if len(counts) < 3 {
		t.Errorf("the subjects are %v", counts)
	}
	for _, c := range counts {
		if n, err := strconv.Atoi(c[2]); err != nil || n < 30 {
			t.Errorf("%s: %s probes are decided", c[1], c[2])
		}
	}
}
