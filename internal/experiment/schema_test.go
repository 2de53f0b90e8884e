package experiment

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// judge is a validator of somebody else's: what it says of a document and
// what this package says must agree. Compiling checks the schema against the
// meta-schema of draft 2020-12.
func judge(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("urn:meshbench:schema:experiment:v1", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("urn:meshbench:schema:experiment:v1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// agree compares the two verdicts on a value. This package may refuse more:
// the bounds of durations, which JSON Schema cannot compare, and two ways of
// writing one duration in one list.
func agree(t testing.TB, j *jsonschema.Schema, v *value) {
	t.Helper()
	var ms mistakes
	checker{&ms}.check(document(), v, "")
	verdict := j.Validate(v.json())
	if len(ms.found) == 0 {
		if verdict != nil {
			t.Errorf("accepted here, refused by the judge: %v\n%v", verdict, v.json())
		}
		return
	}
	if verdict != nil {
		return
	}
	for _, m := range ms.found {
		if !strings.Contains(m.text, "expected a duration from") && !strings.Contains(m.text, "is in the list already") {
			t.Errorf("accepted by the judge, refused here: %v\n%v", m, v.json())
		}
	}
}

// allRules returns every rule by the path of its field, lists as [].
func allRules() map[string]*rule {
	out := map[string]*rule{}
	var walk func(r *rule, path string)
	walk = func(r *rule, path string) {
		out[path] = r
		for _, p := range r.properties {
			walk(p.rule, join(path, p.name))
		}
		if r.additional != nil {
			walk(r.additional, path+".*")
		}
		if r.items != nil {
			walk(r.items, path+"[]")
		}
		for i, b := range r.anyOf {
			walk(b, fmt.Sprintf("%s|%d", path, i))
		}
	}
	walk(document(), "")
	return out
}

func TestSchemaIsWhole(t *testing.T) {
	judge(t)
	axes := []string{}
	for path, r := range allRules() {
		if r.format == "go-duration" {
			if bound(r.least) >= bound(r.most) {
				t.Errorf("%s: no duration is from %s to %s", path, r.least, r.most)
			}
		}
		for _, n := range []string{r.least, r.most, r.above} {
			if r.format == "" && n != "" {
				exact(n)
			}
		}
		if _, axis := r.scalar(); axis {
			axes = append(axes, path)
		}
		for _, p := range r.properties {
			if p.rule.description == "" {
				t.Errorf("%s has no description", join(path, p.name))
			}
			leaf := len(p.rule.properties) == 0
			if leaf && p.rule.text == "" && p.rule.defaultText == "" && len(p.rule.examples) == 0 {
				t.Errorf("%s has neither a default nor an example", join(path, p.name))
			}
		}
	}
	want := slices.Sorted(slices.Values(meshbench.AxisFields))
	slices.Sort(axes)
	if d := cmp.Diff(want, axes); d != "" {
		t.Errorf("fields that may be lists, -types +schema\n%s", d)
	}
	for _, field := range meshbench.AxisFields {
		if axisNames[field].id == "" || axisNames[field].axis == "" {
			t.Errorf("%s has no name in a cell", field)
		}
	}
}

func TestSchemaRefusesUnknownKeywords(t *testing.T) {
	for _, text := range []string{
		`{"type": "object", "properties": {"a": {"type": "string", "minLength": 3}}}`,
		`{"type": "thing"}`,
		`{"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {}}`,
		`{"pattern": "("}`,
		`{"items": 3}`,
	} {
		if _, err := readSchema([]byte(text)); err == nil {
			t.Errorf("accepted %s", text)
		}
	}
}

// full is an experiment in which every field of the types is set.
func full() meshbench.Experiment {
	e := Defaults()
	e.Name, e.Infrastructure, e.Baseline = "all", meshbench.Endpoint, "b"
	e.URLs, e.Subjects = map[string]string{"a": "http://x", "b": "http://y"}, []string{"a", "b"}
	size := 9
	e.Workload.Topology.FanOut = 2
	e.Workload.Topology.Services = []meshbench.ServiceNode{{
		Name: "a", Instances: 2, Calls: []string{"b"}, Parallel: true, BodyBytes: &size,
		Latency: &meshbench.ServiceTime{Law: meshbench.LognormalTime, Mean: meshbench.Duration(time.Millisecond), Sigma: 1},
		Errors:  &meshbench.ServiceErrors{Status: 503, Percent: 1},
	}}
	e.Workload.Request.Headers, e.Workload.Request.Body = map[string]string{"x": "y"}, "hello"
	e.Workload.Assertions = []meshbench.Assertion{{Status: 200}}
	e.Metrics = []meshbench.MetricSource{{Name: "n", URL: "http://x", Series: []string{"a*"}, Query: "up", Interval: meshbench.Duration(time.Second)}}
	e.FailOn, e.Force = []string{"response.p99>+5%"}, true
	return e
}

// TestSchemaHasTheFieldsOfTheTypes compares keys, both ways.
func TestSchemaHasTheFieldsOfTheTypes(t *testing.T) {
	var of func(doc any, path string, into map[string]bool)
	of = func(doc any, path string, into map[string]bool) {
		switch d := doc.(type) {
		case map[string]any:
			for k, v := range d {
				if path == "urls" || path == "workload.request.headers" {
					continue
				}
				into[join(path, k)] = true
				of(v, join(path, k), into)
			}
		case []any:
			for _, v := range d {
				of(v, path, into)
			}
		}
	}
	doc, err := toDocument(full())
	if err != nil {
		t.Fatal(err)
	}
	types, schema := map[string]bool{}, map[string]bool{}
	of(doc, "", types)
	for path := range allRules() {
		path = strings.ReplaceAll(path, "[]", "")
		if path != "" && !strings.ContainsAny(path, "|*") {
			schema[path] = true
		}
	}
	if d := cmp.Diff(types, schema); d != "" {
		t.Errorf("-types +schema\n%s", d)
	}
}

// TestSchemaDefaults holds the schema's defaults to Defaults.
func TestSchemaDefaults(t *testing.T) {
	var b strings.Builder
	var write func(r *rule, indent string)
	write = func(r *rule, indent string) {
		for _, p := range r.properties {
			switch {
			case p.rule.text != "":
				fmt.Fprintf(&b, "%s%s: %s\n", indent, p.name, p.rule.text)
			case len(p.rule.properties) > 0:
				fmt.Fprintf(&b, "%s%s:\n", indent, p.name)
				write(p.rule, indent+"  ")
			}
		}
	}
	write(document(), "")
	var ms mistakes
	v := readYAML("defaults", []byte(b.String()), &ms)
	checked, _ := checker{&ms}.check(document(), v, "")
	var e meshbench.Experiment
	if err := decode(checked.(map[string]any), &e); err != nil || len(ms.found) > 0 {
		t.Fatal(err, ms.found)
	}
	e.Workload.Name = workloadName(e)
	canonical(&e)
	if d := cmp.Diff(Defaults(), e); d != "" {
		t.Errorf("-Defaults +schema\n%s", d)
	}
}

func TestExamplesAreValid(t *testing.T) {
	j := judge(t)
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			e, err := Parse(f, data)
			if err != nil {
				t.Fatal(err)
			}
			var ms mistakes
			if err := j.Validate(readYAML(f, data, &ms).json()); err != nil {
				t.Errorf("the judge: %v", err)
			}
			// What results hold is an experiment too.
			doc, err := toDocument(e)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Validate(doc); err != nil {
				t.Errorf("the judge, of its JSON: %v", err)
			}
			roundTrip(t, e)
			cells, err := Cells(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := analysis.NewPlan(e, cells, e.Infrastructure == meshbench.Local); err != nil {
				t.Errorf("its plan: %v", err)
			}
		})
	}
}

// TestBrokenExamples breaks every field of an experiment in several ways;
// both validators must refuse each.
func TestBrokenExamples(t *testing.T) {
	j := judge(t)
	doc, err := toDocument(full())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, r := range allRules() {
		if path == "" || strings.ContainsAny(path, "|*[") || strings.HasPrefix(path, "workload.assertions.") {
			continue
		}
		for _, bad := range []any{nil, json.Number("-1"), json.Number("1e18"), "\x00", true, []any{}, []any{nil}, map[string]any{"unknown": "\x00"}} {
			if _, isBool := bad.(bool); isBool && strings.HasSuffix(path, "keep_alive") || path == "force" && bad == true {
				continue
			}
			if path == "workload.request.body" && bad == "\x00" || path == "seed" && bad == json.Number("1e18") {
				continue // these are right
			}
			if l, ok := bad.([]any); ok && len(l) == 0 && (path == "workload.assertions" || path == "fail_on" || path == "metrics") {
				continue
			}
			broken := set(doc, path, bad)
			v, err := fromJSON(broken, place{})
			if err != nil {
				t.Fatal(err)
			}
			var ms mistakes
			checker{&ms}.check(document(), v, "")
			if len(ms.found) == 0 {
				t.Errorf("%s = %#v is accepted here", path, bad)
			}
			if j.Validate(broken) == nil {
				t.Errorf("%s = %#v is accepted by the judge", path, bad)
			}
			n++
		}
		_ = r
	}
	if n < 200 {
		t.Errorf("only %d broken documents", n)
	}
}

// set returns a copy of a document with one field replaced.
func set(doc map[string]any, path string, to any) map[string]any {
	c := maps.Clone(doc)
	head, rest, nested := strings.Cut(path, ".")
	if !nested {
		c[head] = to
		return c
	}
	c[head] = set(doc[head].(map[string]any), rest, to)
	return c
}

// generator makes documents that are mostly right.
type generator struct{ *rand.Rand }

func (g generator) of(list ...any) any { return list[g.IntN(len(list))] }

// document makes one by walking the schema; in one of wrong places it puts
// something else.
func (g generator) document(r *rule, path string, wrong int) any {
	if wrong > 0 && g.IntN(wrong) == 0 {
		return g.of(nil, true, "", "x", "max", "GET", "4s", json.Number("0"), json.Number("1"), json.Number("0.5"),
			[]any{}, []any{"x", "x"}, []any{json.Number("1"), json.Number("2")}, map[string]any{}, map[string]any{"x": "y"})
	}
	if len(r.anyOf) > 0 {
		return g.document(r.anyOf[g.IntN(len(r.anyOf))], path, wrong)
	}
	switch r.kind {
	case boolean:
		return g.IntN(2) == 0
	case integer, number:
		return json.Number(g.of("1", "2", "3", "7", "32", "200", "1024").(string))
	case list:
		out := []any{}
		for range g.IntN(3) + 1 {
			item := g.document(r.items, path+"[]", wrong)
			if !slices.ContainsFunc(out, func(o any) bool { return cmp.Equal(o, item) }) {
				out = append(out, item)
			}
		}
		return out
	case mapping:
		out := map[string]any{}
		for _, p := range r.properties {
			if g.IntN(2) == 0 || slices.Contains(r.required, p.name) {
				out[p.name] = g.document(p.rule, join(path, p.name), wrong)
			}
		}
		if r.additional != nil {
			for range g.IntN(3) {
				out[g.of("base", "next", "x-1", "Accept").(string)] = g.document(r.additional, path+".*", wrong)
			}
		}
		if wrong > 0 && g.IntN(4*wrong) == 0 {
			out[g.of("rate", "nmae", "x y", "until").(string)] = "x"
		}
		return out
	}
	return g.word(r, path)
}

// word makes a text for a rule.
func (g generator) word(r *rule, path string) any {
	switch {
	case len(r.words) > 0:
		return r.words[g.IntN(len(r.words))]
	case r.format == "go-duration":
		return g.of("100ms", "1s", "4s", "1.5s")
	case strings.HasSuffix(path, "[].url"):
		return g.of("http://127.0.0.1:80/metrics", "https://host.example")
	case strings.HasPrefix(path, "metrics[]"):
		return g.of("up", "node_cpu", "a")
	case strings.HasPrefix(path, "urls"):
		return g.of("http://127.0.0.1:80", "http://host.example/path")
	case strings.HasPrefix(path, "fail_on"):
		return g.of("response.p99>+5%", "cpu.total>+10%", "response.p50>+100us")
	case strings.HasPrefix(path, "subjects"), path == "baseline":
		return g.of("none", "envoy", "envoy@1.40", "envoy:b=2:a=1", "base", "next")
	case strings.Contains(path, "services[]"):
		return g.of("a", "front", "x-1")
	case strings.HasSuffix(path, "method"):
		return g.of("GET", "POST", "DELETE")
	case strings.Contains(path, "request.path"):
		return g.of("/", "/a", "/a/b?c=d&e=%20", "/\"", "/x,y", "/[1]", "/{a: b}")
	}
	return g.of("", "plain", "a b", "5", "true", "null", "~", "-", "#x", "a: b", "'", "\"", "[", "{}", "1e3", "0x1", "2026-01-01", "!a", "&a", "*a", "%", "@", "`", "yes", "=", "<<")
}

func TestBothValidatorsAgree(t *testing.T) {
	j := judge(t)
	right := 0
	for seed := range uint64(2000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		v, err := fromJSON(g.document(document(), "", int(seed%4)*20), place{})
		if err != nil {
			t.Fatal(err)
		}
		agree(t, j, v)
		if j.Validate(v.json()) == nil {
			right++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if right < 400 || right > 1600 {
		t.Errorf("%d of 2000 documents are right: the generator tests one side only", right)
	}
}
