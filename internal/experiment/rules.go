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
	"github.com/meshbench/meshbench/internal/workload"
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
	r.topology()
	r.metrics()
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
	if w, ok := meshbench.Nearest(written, words); ok {
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
		entry, _ := workload.Find(w.Name)
		r.wrong("workload.name", "found %s beside fields that differ from it; leave the name out for a workload of your own, or the fields (%s is %s)", w.Name, w.Name, entry.Summary)
	}
}

// Limits of a topology, beyond which one machine has nothing to tell.
const (
	maxInstances = 40
	maxHops      = 60
)

// topology checks what a schema cannot say of the services.
func (r rules) topology() {
	const path = "workload.topology"
	if !r.sound(path) {
		return
	}
	t := r.e.Workload.Topology
	var shapes []string
	for _, s := range []struct {
		name string
		set  bool
	}{{"chain", t.Chain != 0}, {"fan_out", t.FanOut != 0}, {"services", len(t.Services) > 0}} {
		if s.set {
			shapes = append(shapes, s.name)
		}
	}
	if len(shapes) > 1 {
		r.wrong(path, "found %s, expected one of them", strings.Join(shapes, " beside "))
		return
	}
	if r.e.Infrastructure == meshbench.Endpoint && t.String() != (meshbench.Topology{}).String() && r.sound("infrastructure") {
		r.wrong(path, "found a topology, but what answers at an endpoint is somebody else's; leave it out")
	}
	if len(t.Services) > 0 && r.services(t.Services) {
		if hops := t.Walk().Hops; hops > maxHops {
			r.wrong(join(path, "services"), "one request would make %d hops, expected at most %d", hops, maxHops)
		}
	}
}

// services checks services that are written out; true: nothing is wrong.
func (r rules) services(nodes []meshbench.ServiceNode) bool {
	right := true
	wrong := func(i int, field, format string, args ...any) {
		right = false
		r.wrong(join(fmt.Sprintf("workload.topology.services[%d]", i), field), format, args...)
	}
	processes, names, instances := map[string]string{}, []string{}, 0
	for i, n := range nodes {
		if n.Name == "client" || strings.HasSuffix(n.Name, "-proxy") {
			wrong(i, "name", "found %s, which is the name of something else; client is who sends the load, and -proxy ends the names of proxies", n.Name)
		}
		if slices.Contains(names, n.Name) {
			wrong(i, "name", "the service %s is there already", n.Name)
			continue
		}
		names = append(names, n.Name)
		for k := range max(1, n.Instances) {
			p := workload.ProcessName(n.Name, k)
			if other, taken := processes[p]; taken {
				wrong(i, "name", "%s would be the name of a process of %s and of one of %s; give one of them another name", p, other, n.Name)
			}
			processes[p] = n.Name
		}
		instances += max(1, n.Instances)
		if n.Latency != nil && n.Latency.Sigma != 0 && n.Latency.Law != meshbench.LognormalTime {
			wrong(i, "latency", "found sigma beside the law %s; only lognormal has it", n.Latency.Law)
		}
	}
	if instances > maxInstances {
		wrong(0, "instances", "found %d instances of all services, expected at most %d", instances, maxInstances)
	}
	callees := map[string][]string{}
	for i, n := range nodes {
		for k, to := range n.Calls {
			if !slices.Contains(names, to) {
				wrong(i, fmt.Sprintf("calls[%d]", k), "found %s, expected a service: %s%s", quote(to), strings.Join(names, ", "), meant(to, names))
			}
		}
		callees[n.Name] = n.Calls
	}
	if ring := cycle(names, callees); right && len(ring) > 0 {
		i := slices.Index(names, ring[0])
		wrong(i, "calls", "a request would go round for ever: %s", strings.Join(ring, " calls "))
	}
	return right
}

// cycle returns a way that ends where it begins; nil: there is none.
func cycle(names []string, callees map[string][]string) []string {
	done := map[string]bool{}
	var way []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if at := slices.Index(way, name); at >= 0 {
			return append(slices.Clone(way[at:]), name)
		}
		if done[name] {
			return nil
		}
		way = append(way, name)
		for _, to := range callees[name] {
			if ring := visit(to); ring != nil {
				return ring
			}
		}
		way = way[:len(way)-1]
		done[name] = true
		return nil
	}
	for _, n := range names {
		if ring := visit(n); ring != nil {
			return ring
		}
	}
	return nil
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
		for _, field := range []string{"profile", "workload.topology.chain", "workload.topology.fan_out", "workload.response.body_bytes"} {
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

// metrics checks the sources of metrics: their names tell them apart.
func (r rules) metrics() {
	names := []string{}
	for i, m := range r.e.Metrics {
		path := fmt.Sprintf("metrics[%d]", i)
		if !r.sound(path) {
			continue
		}
		if slices.Contains(names, m.Name) {
			r.wrong(path, "the name %s is there already", m.Name)
		}
		names = append(names, m.Name)
		if m.Query != "" && len(m.Series) > 0 {
			r.wrong(path, "found series beside query, expected one of them: a query says itself what it wants")
		}
		if u, err := url.Parse(m.URL); err != nil || u.Hostname() == "" {
			r.wrong(path, "found %s, expected http://HOST[:PORT]/PATH", quote(m.URL))
		} else if u.User != nil {
			r.wrong(path, "found %s: a URL is kept in results, so it must not hold a user or password", quote(m.URL))
		}
	}
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
