// Package experiment reads and writes experiments: YAML text in, cells out.
//
// A document is checked in two steps. Its structure (keys, kinds, ranges,
// words) is checked against the published JSON Schema, which Schema returns
// and which this package itself walks. What a schema cannot say (a baseline
// names a subject) is checked by Validate. Files, flags and experiments in
// memory go through the same two steps, so that they are refused with the
// same words. All mistakes of a document are reported at once.
package experiment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/workload"
)

// Defaults returns the experiment that an empty document means: no mesh
// against Envoy, on this machine, 500 requests/s, ten sittings.
func Defaults() meshbench.Experiment {
	return meshbench.Experiment{
		APIVersion:     meshbench.APIVersion,
		Kind:           meshbench.ExperimentKind,
		Infrastructure: meshbench.Local,
		Subjects:       []string{"none", "envoy"},
		Profile:        meshbench.Parity,
		Workload:       defaultWorkload(),
		Load: meshbench.Load{
			Rate:        500,
			Arrivals:    meshbench.Poisson,
			Connections: 32,
			KeepAlive:   true,
			Timeout:     meshbench.Duration(10 * time.Second),
			Warmup:      meshbench.Duration(2 * time.Second),
			Settle:      meshbench.Duration(500 * time.Millisecond),
			Trial:       meshbench.Duration(4 * time.Second),
		},
		Sittings: 10,
		Blocks:   1,
		MaxTime:  meshbench.Duration(10 * time.Minute),
		Margin:   meshbench.Margin{Percent: 2, Floor: meshbench.Duration(5 * time.Microsecond)},
	}
}

// defaultWorkload is the first of the catalogue.
func defaultWorkload() meshbench.Workload { return workload.Catalogue()[0].Workload }

// workloadName returns the name that the workload of an experiment has. An
// endpoint's application is somebody else's, so it has none; neither has one
// that varies.
func workloadName(e meshbench.Experiment) string {
	if e.Infrastructure != meshbench.Local {
		return ""
	}
	for _, a := range e.Axes {
		if within(a.Field, "workload") {
			return ""
		}
	}
	return workload.NameOf(e.Workload)
}

const seeReference = "meshbench schema experiment prints what an experiment may contain; docs/experiment.md explains it"

// Parse reads the YAML document of an experiment and fills in the defaults.
// The name is that of the file, for messages. The error is a
// *meshbench.Error of code invalid whose message has one line per mistake
// (at most 20), each with file:line:column, what was found, what was
// expected, and the nearest valid word. Subjects come back in their canonical
// notation, and the subjects of an endpoint default to its URLs' names in the
// order of the document.
func Parse(name string, data []byte) (meshbench.Experiment, error) {
	var ms mistakes
	v := readYAML(name, data, &ms)
	if v == nil {
		return meshbench.Experiment{}, ms.err(seeReference)
	}
	checked, _ := checker{&ms}.check(document(), v, "")
	doc, ok := checked.(map[string]any)
	if !ok {
		return meshbench.Experiment{}, ms.err(seeReference)
	}
	if _, given := doc["subjects"]; !given && doc["infrastructure"] == meshbench.Endpoint {
		if names := urlNames(v, doc); len(names) > 0 {
			doc["subjects"] = names
		}
	}
	e := Defaults()
	w, _ := doc["workload"].(map[string]any)
	asked, _ := w["name"].(string)
	if entry, ok := workload.Find(asked); ok {
		e.Workload = entry.Workload
	}
	if err := decode(doc, &e); err != nil {
		return meshbench.Experiment{}, err
	}
	if asked == "" {
		e.Workload.Name = workloadName(e)
	}
	canonical(&e)
	places := v.places()
	check(e, &ms, func(path string) place { return nearestPlace(places, path) })
	if err := ms.err(seeReference); err != nil {
		return meshbench.Experiment{}, err
	}
	return e, nil
}

// urlNames returns the names of the URLs in the order of the document.
func urlNames(v *value, doc map[string]any) []any {
	urls, _ := doc["urls"].(map[string]any)
	var names []any
	for _, e := range v.entries {
		if e.key != "urls" {
			continue
		}
		for _, u := range e.value.entries {
			if _, valid := urls[u.key]; valid {
				names = append(names, u.key)
			}
		}
	}
	return names
}

// decode reads a checked document over the values that e has.
func decode(doc map[string]any, e *meshbench.Experiment) error {
	data, err := json.Marshal(doc)
	if err == nil {
		err = json.Unmarshal(data, e)
	}
	if err != nil {
		// The schema let something through that the type cannot hold.
		return meshbench.Errorf(meshbench.Internal, "a checked experiment cannot be read: %w", err)
	}
	return nil
}

// canonical gives equal experiments equal forms.
func canonical(e *meshbench.Experiment) {
	if subjects, err := meshbench.ParseSubjects(e.Subjects); err == nil {
		texts := make([]string, len(subjects))
		for i, s := range subjects {
			texts[i] = s.String()
		}
		e.Subjects = texts
		if b, err := meshbench.ParseSubject(e.Baseline); err == nil {
			e.Baseline = b.ID
		}
	}
	if e.Workload.Assertions == nil {
		e.Workload.Assertions = []meshbench.Assertion{}
	}
	if len(e.Workload.Request.Headers) == 0 {
		e.Workload.Request.Headers = nil
	}
	if len(e.URLs) == 0 {
		e.URLs = nil
	}
	if len(e.FailOn) == 0 {
		e.FailOn = nil
	}
	if len(e.Metrics) == 0 {
		e.Metrics = nil
	}
}

// Validate checks an experiment that was made in memory or read from a
// store: its structure against the schema, then what a schema cannot say. The
// error is as that of Parse, with the fields' paths in place of lines.
func Validate(e meshbench.Experiment) error {
	var ms mistakes
	doc, err := toDocument(e)
	if err != nil {
		return err
	}
	v, err := fromJSON(doc, place{})
	if err != nil {
		return meshbench.Errorf(meshbench.Invalid, "the experiment has a number that no field takes: %w", err)
	}
	checker{&ms}.check(document(), v, "")
	check(e, &ms, func(string) place { return place{} })
	return ms.err(seeReference)
}

// toDocument returns an experiment as encoding/json decodes it, numbers as
// json.Number.
func toDocument(e meshbench.Experiment) (map[string]any, error) {
	if e.Workload.Assertions == nil {
		e.Workload.Assertions = []meshbench.Assertion{}
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "the experiment cannot be written as JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "the experiment's own JSON cannot be read: %w", err)
	}
	return doc, nil
}

// Hash returns the SHA-256, in hexadecimal, of the experiment's canonical
// JSON: all fields, keys in alphabetical order, no blanks, only the escapes
// that JSON demands. Experiments that mean the same cells in the same way
// have the same hash, whatever their documents looked like. An experiment
// that cannot be written (a margin that is no number) has the empty hash.
func Hash(e meshbench.Experiment) string {
	canonical(&e)
	doc, err := toDocument(e)
	if err != nil {
		return ""
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return ""
	}
	sum := sha256.Sum256(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return hex.EncodeToString(sum[:])
}
