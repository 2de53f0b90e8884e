package experiment

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/meshbench/meshbench"
)

func TestParsePolicies(t *testing.T) {
	got, err := ParsePolicies("p.yaml", []byte(`
kind: Policies
policies:
  - {to: echo, timeout: {request: 1.5s}}
  - name: all of it
    match: {path_prefix: /a, method: GET, headers: {x-user: dev}}
    headers: {request: {set: {a: b}, add: {c: "1"}, remove: [d]}, response: {remove: [e]}}
  - fault: {abort: {status: 503, percent: 12.5}, delay: {duration: 2ms, percent: 100}}
  - split: {backends: [{service: a, weight: 1}, {service: b, weight: 0}]}
  - {retry: {attempts: 3, on: [5xx, reset], per_try_timeout: 1s}}
  - {authorization: {action: allow, from: [client], paths: [/], methods: [GET]}}
  - {outlier_detection: {consecutive_errors: 2, base_ejection: 1m}}
`))
	if err != nil {
		t.Fatal(err)
	}
	d := func(d time.Duration) meshbench.Duration { return meshbench.Duration(d) }
	want := []meshbench.Policy{
		{To: "echo", Timeout: &meshbench.TimeoutPolicy{Request: d(1500 * time.Millisecond)}},
		{
			Name: "all of it", Match: &meshbench.Match{PathPrefix: "/a", Method: "GET", Headers: map[string]string{"x-user": "dev"}},
			Headers: &meshbench.HeadersPolicy{
				Request:  &meshbench.HeaderChange{Set: map[string]string{"a": "b"}, Add: map[string]string{"c": "1"}, Remove: []string{"d"}},
				Response: &meshbench.HeaderChange{Remove: []string{"e"}},
			},
		},
		{Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 12.5}, Delay: &meshbench.Delay{Duration: d(2 * time.Millisecond), Percent: 100}}},
		{Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "a", Weight: 1}, {Service: "b"}}}},
		{Retry: &meshbench.RetryPolicy{Attempts: 3, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnReset}, PerTryTimeout: d(time.Second)}},
		{Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{"client"}, Paths: []string{"/"}, Methods: []string{"GET"}}},
		{OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 2, BaseEjection: d(time.Minute)}},
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
	none, err := ParsePolicies("p.yaml", []byte("policies: []\n"))
	if err != nil || len(none) != 0 {
		t.Errorf("an empty list: %v, %v", none, err)
	}
}

// TestPoliciesMistakes is the table of what people get wrong and what they
// are told.
func TestPoliciesMistakes(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // parts of the lines, in their order
	}{
		{"", []string{"p.yaml:1:1: the file is empty; the smallest list of policies is"}},
		{"kind: Policies\n", []string{"p.yaml:1:1: the key policies is missing"}},
		{"kind: Experiment\npolicies: []\n", []string{`p.yaml:1:7: kind: found "Experiment", expected Policies`}},
		{"policies:\n  - {to: echo, tiemout: {request: 1s}}\n", []string{`p.yaml:2:16: policies: unknown key "tiemout"; did you mean timeout?`}},
		{"policies:\n  - {mtls: {mode: strikt}}\n", []string{`p.yaml:2:19: policies: found "strikt", expected strict, permissive or off; did you mean strict?`}},
		{"policies:\n  - {timeout: {request: 5}}\n", []string{"p.yaml:2:25: policies: found 5, expected a duration from 1ms to 1h, as in 500ms, 4s or 10m; did you mean 5s?"}},
		{"policies:\n  - {to: Echo!, retry: {attempts: 1, on: [4xx]}}\n", []string{`p.yaml:2:10: policies: found "Echo!"`, `p.yaml:2:43: policies: found "4xx", expected 5xx, gateway_error, connect_failure or reset; did you mean 5xx?`}},
		{"policies:\n  - {fault: {abort: {status: 503, percent: 101}}}\n", []string{"p.yaml:2:44: policies: found 101"}},
		{"policies:\n  - {name: empty}\n", []string{`p.yaml:2:5: policies: policy "empty" says nothing`}},
		{"policies:\n  - {timeout: {request: 1s}, mtls: {mode: strict}}\n", []string{"p.yaml:2:5: policies: a policy is of several kinds: [mtls timeout]"}},
		{"policies:\n  - {match: {method: GET}, mtls: {mode: strict}}\n", []string{"cannot have a match"}},
		{"policies:\n  - {split: {backends: [{service: a, weight: 0}]}}\n", []string{"must not all be 0"}},
		{"policies:\n  - {fault: {}}\n", []string{"abort or a delay"}},
		{"policies: [\n", []string{"p.yaml:1:"}},
		{"policies: []\n---\npolicies: []\n", []string{"a file holds one list of policies"}},
	} {
		_, err := ParsePolicies("p.yaml", []byte(c.text))
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Invalid || e.Hint == "" {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		lines := strings.Split(e.Message, "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%q: %d mistakes, want %d:\n%s", c.text, len(lines), len(c.want), e.Message)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%q: %q, want %q", c.text, lines[i], want)
			}
		}
	}
}

// policiesJudge is somebody else's validator with the schema of policies.
func policiesJudge(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(PoliciesSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("urn:meshbench:schema:policies:v1", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("urn:meshbench:schema:policies:v1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPoliciesReference holds docs/policies.md and the examples to the parser,
// the schema, and the kinds that there are.
func TestPoliciesReference(t *testing.T) {
	const name = "../../docs/policies.md"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	begin := strings.Replace(generatedBegin, "schema.json", "policies.json", 1)
	before, rest, ok1 := strings.Cut(doc, begin)
	generated, after, ok2 := strings.Cut(rest, generatedEnd)
	if !ok1 || !ok2 {
		t.Fatal("the marks of the generated part are missing")
	}
	if want := fieldTables(policiesRule(), false); generated != want {
		if !*update {
			t.Errorf("the tables of fields are not those of the schema: go test ./internal/experiment -update")
		} else if err := os.WriteFile(name, []byte(before+begin+want+generatedEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	j := policiesJudge(t)
	valid := func(what string, text []byte) {
		if _, err := ParsePolicies(what, text); err != nil {
			t.Errorf("%v", err)
		}
		if err := j.Validate(readYAML(what, text, &mistakes{form: &policiesForm}).json()); err != nil {
			t.Errorf("%s: the judge: %v", what, err)
		}
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(doc, -1)
	for i, b := range blocks {
		valid(fmt.Sprintf("example %d", i+1), []byte(b[1]))
	}
	for _, k := range meshbench.PolicyKinds() {
		if !strings.Contains(doc, "\n## "+string(k)+"\n```yaml\n") {
			t.Errorf("no chapter with an example of %s", k)
		}
		if policiesRule().property("policies").items.property(string(k)) == nil {
			t.Errorf("the schema lacks %s", k)
		}
	}
	files, err := filepath.Glob("../../docs/examples/policies/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		valid(f, text)
		if !strings.Contains(doc, "(examples/policies/"+filepath.Base(f)+")") {
			t.Errorf("no word of %s", f)
		}
	}
	m := regexp.MustCompile("(?s)```yaml-with-mistakes\n(.*?)```\n\n```text\n(.*?)```").FindStringSubmatch(doc)
	if m == nil {
		t.Fatal("no document with mistakes")
	}
	_, err = ParsePolicies("policies.yaml", []byte(m[1]))
	if got := fmt.Sprintln(err); got != m[2] {
		t.Errorf("got\n%s\nthe reference shows\n%s", got, m[2])
	}
}

func FuzzParsePolicies(f *testing.F) {
	files, err := filepath.Glob("../../docs/examples/policies/*.yaml")
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
	f.Add("policies: [{fault: {abort: {status: 2e2, percent: 1e-9}}}]")
	f.Fuzz(func(t *testing.T, data string) {
		policies, err := ParsePolicies("fuzz.yaml", []byte(data))
		if err != nil {
			if e := meshbench.AsError(err); e.Code != meshbench.Invalid || !strings.HasPrefix(e.Message, "fuzz.yaml:") {
				t.Errorf("%v", err)
			}
			return
		}
		for _, p := range policies {
			if _, err := p.Kind(); err != nil {
				t.Error(err)
			}
		}
	})
}
