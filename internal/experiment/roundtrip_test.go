package experiment

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/meshbench/meshbench"
)

// roundTrip checks everything that holds of an accepted experiment.
func roundTrip(t testing.TB, e meshbench.Experiment) {
	t.Helper()
	if err := Validate(e); err != nil {
		t.Errorf("accepted, but not valid: %v", err)
	}
	text, err := YAML(e)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.yaml", text)
	if err != nil {
		t.Fatalf("its own document is refused: %v\n%s", err, text)
	}
	if d := cmp.Diff(e, again); d != "" {
		t.Errorf("by YAML, -before +after\n%s\n%s", d, text)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var stored meshbench.Experiment
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	if Hash(stored) != Hash(e) || Hash(again) != Hash(e) || len(Hash(e)) != 64 {
		t.Errorf("hashes %s, %s (by JSON), %s (by YAML)", Hash(e), Hash(stored), Hash(again))
	}
	same, err := Apply(e, Flags{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, same); d != "" {
		t.Errorf("no flags change it, -before +after\n%s", d)
	}
	cells, err := Cells(e)
	if err != nil {
		t.Fatal(err)
	}
	ids, baselines := map[string]bool{}, 0
	for _, c := range cells {
		if ids[c.ID] {
			t.Errorf("the id %q is there twice", c.ID)
		}
		ids[c.ID] = true
		if c.Baseline == "" {
			baselines++
		}
	}
	for _, c := range cells {
		if c.Baseline != "" && (!ids[c.Baseline] || c.Baseline == c.ID) {
			t.Errorf("%q has the baseline %q", c.ID, c.Baseline)
		}
	}
	if baselines*len(e.Subjects) != len(cells) {
		t.Errorf("%d cells of %d subjects have %d baselines", len(cells), len(e.Subjects), baselines)
	}
}

func TestRoundTrip(t *testing.T) {
	accepted := 0
	for seed := range uint64(1500) {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		data, err := json.Marshal(g.document(document(), "", 0)) // JSON is YAML
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse("generated.yaml", data)
		if err != nil {
			continue
		}
		accepted++
		if roundTrip(t, e); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if accepted < 50 {
		t.Errorf("only %d of 1500 documents were accepted", accepted)
	}
	roundTrip(t, Defaults())
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, s := range []string{"", "{}", "\t", "a: &a [*a]", "---\n---\n", "? [", "load: {rate: 1e999999999}", "workload: {request: {body: \"\\u0085\\u2028\\ufeff \\n x\\t\"}}",
		"name: |\n  a\n b", "seed: 0o17", "subjects: [a, a, a]", "workload: {request: {body: \"a\\nb\\n\"}}", "infrastructure: endpoint\nurls: {a: http://[::1]:80/x}", "%YAML 1.1\n---\n{}", "load: {timeout: 1.5us, trial: [1s, 2s]}"} {
		f.Add(s)
	}
	j := judge(f)
	f.Fuzz(func(t *testing.T, data string) {
		var ms mistakes
		if v := readYAML("fuzz.yaml", []byte(data), &ms); v != nil && len(ms.found) == 0 {
			agree(t, j, v)
		}
		e, err := Parse("fuzz.yaml", []byte(data))
		if err == nil {
			roundTrip(t, e)
			return
		}
		var known *meshbench.Error
		if !errors.As(err, &known) || known.Code != meshbench.Invalid || !strings.HasPrefix(known.Message, "fuzz.yaml:") {
			t.Errorf("%v", err)
		}
	})
}

// BenchmarkFirstParse is what a start of the program pays: the schema is read
// and a document is parsed.
func BenchmarkFirstParse(b *testing.B) {
	for b.Loop() {
		if _, err := readSchema(schemaText); err != nil {
			b.Fatal(err)
		}
		if _, err := Parse("e.yaml", []byte("subjects: [none, envoy]")); err != nil {
			b.Fatal(err)
		}
	}
}
