package experiment

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
)

// MaxCells is how many cells an experiment may have. Each is measured in
// every sitting, so more would never end.
const MaxCells = 200

// rules collects what is wrong with an experiment that a schema cannot say.
type rules struct {
	e  meshbench.Experiment
	ms *mistakes
	at func(path string) place
}

// wrong reports a mistake at a path.
func (r rules) wrong(path, format string, args ...any) {
	r.ms.add(r.at(path), path, format, args...)
}

// sound tells whether nothing is known to be wrong with the fields yet.
func (r rules) sound(paths ...string) bool { return !r.ms.touch(paths...) }

// check applies all rules.
func check(e meshbench.Experiment, ms *mistakes, at func(path string) place) {
	r := rules{e, ms, at}
	r.urls()
	r.subjects()
	r.baseline()
	r.workload()
	r.axes()
	r.failOn()
}

func (r rules) urls() {
	if !r.sound("infrastructure", "urls") {
		return
	}
	if r.e.Infrastructure != meshbench.Endpoint {
		if len(r.e.URLs) > 0 {
			r.wrong("urls", "found urls, which only the infrastructure endpoint has; expected infrastructure endpoint beside them (--infra endpoint)")
		}
		return
	}
	if len(r.e.URLs) == 0 {
		r.wrong("infrastructure", "found endpoint without urls, expected at least one name with its URL (--url base=http://127.0.0.1:8080)")
	}
	for _, name := range slices.Sorted(maps.Keys(r.e.URLs)) {
		if why := badURL(r.e.URLs[name]); why != "" {
			r.wrong(join("urls", name), "found %s: %s", quote(r.e.URLs[name]), why)
		}
	}
}

// badURL says why requests cannot be sent to a URL; empty: they can.
func badURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" || u.Hostname() == "":
		return "expected http://HOST[:PORT][/PATH]"
	case u.User != nil:
		return "a URL is kept in results, so it must not hold a user or password"
	case u.RawQuery != "" || u.ForceQuery:
		return "expected no query here; put it into workload.request.path"
	case u.Fragment != "":
		return "expected no fragment (#)"
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || port < 1 || port > 65535) {
		return "expected a port from 1 to 65535"
	}
	return ""
}

func (r rules) subjects() {
	if !r.sound("infrastructure", "urls") {
		return
	}
	names := slices.Sorted(maps.Keys(r.e.URLs))
	for i, s := range r.e.Subjects {
		path := fmt.Sprintf("subjects[%d]", i)
		if !r.sound(path) {
			continue
		}
		subject, err := meshbench.ParseSubject(s)
		if err != nil {
			r.wrong(path, "%v", err)
			continue
		}
		if r.e.Infrastructure != meshbench.Endpoint {
			if subject.Mesh == meshbench.Endpoint {
				r.wrong(path, "endpoint is an infrastructure, not a mesh; expected subjects such as none, envoy, or infrastructure endpoint with urls")
			}
			continue
		}
		if _, ok := r.e.URLs[s]; ok || len(names) == 0 {
			continue
		}
		r.wrong(path, "found %s, expected the name of one of the urls: %s%s", quote(s), strings.Join(names, ", "), meant(s, names))
	}
}

// meant is the end of a sentence that names what was probably meant.
func meant(written string, words []string) string {
	if w, ok := Nearest(written, words); ok {
		return "; did you mean " + w + "?"
	}
	return ""
}

func (r rules) baseline() {
	if r.e.Baseline == "" || !r.sound("baseline", "subjects", "infrastructure") {
		return
	}
	subjects, err := meshbench.ParseSubjects(r.e.Subjects)
	if err != nil {
		return // said where it is
	}
	if baselineID(r.e.Baseline, subjects) != "" {
		return
	}
	var ids []string
	for _, s := range subjects {
		ids = append(ids, s.ID)
	}
	r.wrong("baseline", "found %s, expected the id of a subject: %s%s", quote(r.e.Baseline), strings.Join(ids, ", "), meant(r.e.Baseline, ids))
}

// baselineID returns the id of the subject that a baseline names; empty: none.
func baselineID(baseline string, subjects []meshbench.Subject) string {
	if baseline == "" && len(subjects) > 0 {
		return subjects[0].ID
	}
	ids := []string{baseline}
	if s, err := meshbench.ParseSubject(baseline); err == nil {
		ids = append(ids, s.ID) // its options may be written in another order
	}
	for _, s := range subjects {
		if slices.Contains(ids, s.ID) {
			return s.ID
		}
	}
	return ""
}

// ownHeaders are set by whoever sends a request, from other fields.
var ownHeaders = []string{"connection", "content-length", "expect", "transfer-encoding", "upgrade"}

func (r rules) workload() {
	w := r.e.Workload
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.Request.Headers)) {
		path, lower := join("workload.request.headers", name), strings.ToLower(name)
		if slices.Contains(ownHeaders, lower) {
			r.wrong(path, "found the header %s, which the generator sets itself, from load.keep_alive and the body; leave it out", name)
		} else if lower == "host" && r.e.Infrastructure == meshbench.Local {
			r.wrong(path, "found the header %s, by which a mesh finds the service; leave it out (an endpoint may have one)", name)
		} else if first, twice := seen[lower]; twice {
			r.wrong(path, "found the header %s beside %s; names of headers are the same in capitals", name, first)
		}
		seen[lower] = name
	}
	if slices.Contains(r.values("workload.request.method", w.Request.Method), any("CONNECT")) {
		r.wrong("workload.request.method", "found CONNECT, which asks for a tunnel, not for an answer; expected a method such as GET or POST")
	}
	if w.Request.Body != "" && r.sound("workload.request.body", "workload.request.body_bytes") &&
		(w.Request.BodyBytes != 0 || r.axis("workload.request.body_bytes")) {
		r.wrong("workload.request.body_bytes", "found body_bytes beside body, expected one of them")
	}
	for i, a := range w.Assertions {
		if !r.sound("workload.assertions") {
			break
		}
		if a.Status != w.Assertions[0].Status {
			r.wrong(fmt.Sprintf("workload.assertions[%d]", i), "found the status %d beside %d; no response has both", a.Status, w.Assertions[0].Status)
		}
	}
	if w.Name == "" || !r.sound("workload", "infrastructure") {
		return
	}
	if r.e.Infrastructure == meshbench.Endpoint {
		r.wrong("workload.name", "found %s, but what answers at an endpoint is somebody else's; leave the name out", w.Name)
	} else if workloadName(r.e) != w.Name {
		r.wrong("workload.name", "found %s beside fields that differ from it; leave the name out for a workload of your own, or the fields (echo@1 is GET / with an empty body, answered by 1024 bytes)", w.Name)
	}
}

func (r rules) axis(field string) bool {
	return slices.ContainsFunc(r.e.Axes, func(a meshbench.Axis) bool { return a.Field == field })
}

// values returns all values that a field takes: those of its axis, or the one.
func (r rules) values(field string, one any) []any {
	for _, a := range r.e.Axes {
		if a.Field == field {
			return a.Values
		}
	}
	return []any{one}
}

// axes checks the lists of values as a whole.
func (r rules) axes() {
	cells := len(r.e.Subjects)
	for _, a := range r.e.Axes {
		if !slices.Contains(meshbench.AxisFields, a.Field) {
			if !r.sound(a.Field) {
				return // said already
			}
			r.wrong(a.Field, "this field cannot be an axis; those that can: %s", strings.Join(meshbench.AxisFields, ", "))
			return
		}
		if cells *= len(a.Values); cells > MaxCells {
			break
		}
	}
	if cells > MaxCells {
		r.wrong("", "the subjects and axes make more than %d cells; measure fewer at a time", MaxCells)
	}
	if r.e.Infrastructure == meshbench.Endpoint && r.sound("infrastructure") {
		for _, field := range []string{"profile", "workload.response.body_bytes"} {
			if r.axis(field) {
				r.wrong(field, "found a list, but nothing is set up at an endpoint: its cells would all be the same")
			}
		}
	}
	if r.axis("load.arrivals") && r.sound("load.rate") && r.alwaysMax() {
		r.wrong("load.arrivals", "found a list, but with rate max there are no arrivals: its cells would all be the same")
	}
}

// alwaysMax tells whether every cell is a closed loop.
func (r rules) alwaysMax() bool {
	for _, a := range r.e.Axes {
		if a.Field == "load.rate" {
			return false // the values differ, so only one of them is max
		}
	}
	return r.e.Load.Rate.IsMax()
}

func (r rules) failOn() {
	for i, condition := range r.e.FailOn {
		path := fmt.Sprintf("fail_on[%d]", i)
		if !r.sound(path) {
			continue
		}
		if _, err := analysis.ParseFailOn(condition); err != nil {
			r.wrong(path, "%v", err)
		}
	}
}

// axisText returns a value of an axis as people write it.
func axisText(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(value)
}
