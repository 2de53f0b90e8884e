package experiment

import (
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/workload"
	"go.yaml.in/yaml/v3"
)

// Text is the text of a flag that may be absent. It has the methods that
// flag packages want of a value (Set, String, Type). The zero Text is absent.
type Text struct {
	text  string
	given bool
}

// Given returns a Text that was given.
func Given(text string) Text { return Text{text, true} }

// Set takes the text of the flag.
func (t *Text) Set(text string) error {
	*t = Given(text)
	return nil
}

// String returns the text; empty where the flag is absent.
func (t *Text) String() string { return t.text }

// Type is the word for the value in a flag's description.
func (t *Text) Type() string { return "value" }

// IsGiven tells whether the flag was given.
func (t *Text) IsGiven() bool { return t.given }

// Flags is what a command line can say of an experiment. What it does not say
// (an absent Text, a nil slice or pointer) stays as it is. Values are texts,
// so that a mistake is reported in the words of an experiment file. A field
// that may be an axis takes values separated by commas.
type Flags struct {
	Subjects []string // --subjects none,envoy
	Baseline Text     // --baseline ID
	Infra    Text     // --infra local
	URLs     []string // --url NAME=URL, in their order; they replace all of the file

	Profile     Text // --profile parity
	Protocol    Text // --protocol http1
	Topology    Text // --topology chain=1,5 or a workload of the catalogue
	Rate        Text // --rate 200,800
	Arrivals    Text // --arrivals poisson
	Connections Text // --connections 32
	Streams     Text // --streams: not built yet, refused
	Timeout     Text // --timeout 10s
	Warmup      Text // --warmup 2s
	Trial       Text // --trial 4s

	Metrics []string // --metrics NAME=URL; they replace all of the file

	Sittings Text     // --sittings 10
	Blocks   Text     // --blocks 1
	MaxTime  Text     // --max-time 10m
	Until    Text     // --until: not built yet, refused
	Seed     Text     // --seed 7
	FailOn   []string // --fail-on 'response.p99>+5%'
	Force    *bool    // --force
}

// Apply returns the experiment with what the flags say in place of what it
// says, checked as Parse checks a document; mistakes begin with the flag's
// name. URLs without subjects make the URLs' names the subjects. A change of
// the infrastructure without subjects makes the default ones the subjects,
// and drops the URLs and the baseline where they belonged to the old ones.
func Apply(e meshbench.Experiment, f Flags) (meshbench.Experiment, error) {
	canonical(&e)
	doc, err := toDocument(e)
	if err != nil {
		return meshbench.Experiment{}, err
	}
	a := application{doc: doc, ms: &mistakes{}, flags: map[string]string{}}
	a.infrastructure(e, f)
	if f.Topology.given {
		a.topology(f.Topology.text)
	}
	for _, s := range []struct {
		flag, field string
		text        Text
	}{
		{"--baseline", "baseline", f.Baseline},
		{"--profile", "profile", f.Profile},
		{"--protocol", "workload.protocol", f.Protocol},
		{"--rate", "load.rate", f.Rate},
		{"--arrivals", "load.arrivals", f.Arrivals},
		{"--connections", "load.connections", f.Connections},
		{"--timeout", "load.timeout", f.Timeout},
		{"--warmup", "load.warmup", f.Warmup},
		{"--trial", "load.trial", f.Trial},
		{"--sittings", "sittings", f.Sittings},
		{"--blocks", "blocks", f.Blocks},
		{"--max-time", "max_time", f.MaxTime},
		{"--seed", "seed", f.Seed},
	} {
		if s.text.given {
			a.set(s.flag, s.field, a.read(s.flag, s.field, s.text.text))
		}
	}
	a.planned("--streams", "load", "streams", f.Streams)
	a.planned("--until", "", "until", f.Until)
	if f.Metrics != nil {
		a.metrics(f.Metrics)
	}
	if f.FailOn != nil {
		a.set("--fail-on", "fail_on", a.list("--fail-on", f.FailOn))
	}
	if f.Force != nil {
		a.doc["force"] = *f.Force
	}

	var out meshbench.Experiment
	if err := decode(a.doc, &out); err != nil {
		return meshbench.Experiment{}, err
	}
	if out.Infrastructure != e.Infrastructure || f.Topology.given {
		out.Workload.Name = workloadName(out)
	}
	canonical(&out)
	// What the flags leave alone is checked too: e may come from anywhere.
	v, err := fromJSON(a.doc, place{})
	if err != nil {
		return meshbench.Experiment{}, meshbench.Errorf(meshbench.Invalid, "the experiment has a number that no field takes: %w", err)
	}
	checker{a.ms}.check(document(), v, "")
	check(out, a.ms, a.at)
	if err := a.ms.err("flags and the experiment file say the same things with the same words; " + seeReference); err != nil {
		return meshbench.Experiment{}, err
	}
	return out, nil
}

// application is the state of Apply.
type application struct {
	doc   map[string]any
	ms    *mistakes
	flags map[string]string // field -> the flag that set it
}

func (a application) at(path string) place {
	for path != "" {
		if flag, ok := a.flags[path]; ok {
			return place{source: flag}
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return place{}
}

// read makes the value of a flag's text: a list where commas separate values
// and the field may be an axis.
func (a application) read(flag, field, text string) *value {
	r := document().at(field)
	scalar, axis := r.scalar()
	if !axis || !strings.Contains(text, ",") {
		return a.scalar(flag, field, scalar, text)
	}
	v := &value{kind: list, at: place{source: flag}}
	for part := range strings.SplitSeq(text, ",") {
		if item := a.scalar(flag, field, scalar, strings.TrimSpace(part)); item != nil {
			v.items = append(v.items, item)
		}
	}
	return v
}

// scalar reads a text as YAML reads a plain word, or as text where the rule
// wants that.
func (a application) scalar(flag, field string, r *rule, text string) *value {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if r.kind == textual {
		n.Tag = "!!str"
	}
	rd := reader{name: flag, ms: a.ms, left: 1}
	v := rd.value(n, field, 0)
	if v != nil {
		v.at = place{source: flag}
	}
	return v
}

// list makes a list of texts.
func (a application) list(flag string, texts []string) *value {
	v := &value{kind: list, at: place{source: flag}}
	for _, t := range texts {
		v.items = append(v.items, &value{kind: textual, at: v.at, scalar: t})
	}
	return v
}

// set puts a flag's value into the document, if it is right.
func (a application) set(flag, field string, v *value) {
	a.flags[field] = flag
	if v == nil {
		return // said already
	}
	before := len(a.ms.found)
	checked, _ := checker{a.ms}.check(document().at(field), v, field)
	if len(a.ms.found) > before {
		return
	}
	parent, key := a.doc, field
	for {
		head, rest, nested := strings.Cut(key, ".")
		if !nested {
			break
		}
		next, ok := parent[head].(map[string]any)
		if !ok {
			return // the experiment itself is broken here: the check of all says so
		}
		parent, key = next, rest
	}
	parent[key] = checked
}

// topology reads SHAPE=SIZE[,SIZE...], or the name of a workload of the
// catalogue, which replaces the whole workload.
func (a application) topology(spec string) {
	const flag, field = "--topology", "workload.topology"
	at := place{source: flag}
	w, _ := a.doc["workload"].(map[string]any)
	if entry, ok := workload.Find(spec); ok && w != nil {
		e := Defaults()
		e.Workload = entry.Workload
		doc, err := toDocument(e)
		if err != nil {
			a.ms.add(at, field, "%v", err)
			return
		}
		a.doc["workload"] = doc["workload"]
		a.flags["workload"] = flag
		return
	}
	key, size, ok := strings.Cut(spec, "=")
	if key != "chain" && key != "fan_out" || !ok {
		var names []string
		for _, e := range workload.Catalogue() {
			names = append(names, e.Workload.Name)
		}
		a.ms.add(at, field, "found %s, expected chain=N, fan_out=N (several sizes with commas: chain=1,5) or a workload of the catalogue: %s%s",
			quote(spec), strings.Join(names, ", "), meant(spec, names))
		return
	}
	delete(w, "name") // Apply gives it anew
	if v := a.read(flag, field+"."+key, size); v != nil {
		a.set(flag, field, &value{kind: mapping, at: at, entries: []entry{{key, at, v}}})
	}
}

// planned refuses a flag whose field is of a later version.
func (a application) planned(flag, parent, key string, t Text) {
	if !t.given {
		return
	}
	r := document()
	if parent != "" {
		r = r.at(parent)
	}
	checker{a.ms}.unknown(r, entry{key: key, at: place{source: flag}}, parent)
}

// infrastructure applies what goes together: infrastructure, URLs, subjects.
func (a application) infrastructure(e meshbench.Experiment, f Flags) {
	if f.Infra.given {
		a.set("--infra", "infrastructure", a.read("--infra", "infrastructure", f.Infra.text))
	}
	moved := a.doc["infrastructure"] != e.Infrastructure
	if moved {
		delete(a.doc, "urls")
		delete(a.doc, "baseline")
		if w, ok := a.doc["workload"].(map[string]any); ok {
			delete(w, "name") // Apply gives it anew
		}
	}
	var subjects []string
	if moved && a.doc["infrastructure"] == meshbench.Local {
		subjects = Defaults().Subjects
	}
	if f.URLs != nil {
		subjects = a.urls(f.URLs)
	}
	if f.Subjects != nil {
		a.set("--subjects", "subjects", a.list("--subjects", f.Subjects))
	} else if subjects != nil {
		flag := "--infra"
		if f.URLs != nil {
			flag = "--url"
			if !f.Baseline.given && !slices.Contains(subjects, e.Baseline) {
				delete(a.doc, "baseline")
			}
		}
		a.set(flag, "subjects", a.list(flag, subjects))
	}
}

// metrics reads NAME=URL.
func (a application) metrics(texts []string) {
	const flag = "--metrics"
	at := place{source: flag}
	text := func(s string) *value { return &value{kind: textual, at: at, scalar: s} }
	v := &value{kind: list, at: at}
	for _, t := range texts {
		name, url, ok := strings.Cut(t, "=")
		if !ok || name == "" || strings.Contains(name, "://") {
			a.ms.add(at, "metrics", "found %s, expected NAME=URL, as in node=http://127.0.0.1:9100/metrics", quote(t))
			continue
		}
		v.items = append(v.items, &value{kind: mapping, at: at, entries: []entry{{"name", at, text(name)}, {"url", at, text(url)}}})
	}
	a.set(flag, "metrics", v)
}

// urls reads NAME=URL and returns the names in their order.
func (a application) urls(texts []string) []string {
	const flag = "--url"
	at := place{source: flag}
	v, names := &value{kind: mapping, at: at}, []string(nil)
	for _, t := range texts {
		name, url, ok := strings.Cut(t, "=")
		switch {
		case !ok || name == "" || strings.Contains(name, "://"):
			a.ms.add(at, "urls", "found %s, expected NAME=URL, as in base=http://127.0.0.1:8080", quote(t))
		case slices.Contains(names, name):
			a.ms.add(at, "urls", "the name %s is given twice", quote(name))
		default:
			names = append(names, name)
			v.entries = append(v.entries, entry{name, at, &value{kind: textual, at: at, scalar: url}})
		}
	}
	a.set(flag, "urls", v)
	return names
}
