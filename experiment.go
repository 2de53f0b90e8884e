package meshbench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// APIVersion and ExperimentKind head every experiment document.
const (
	APIVersion     = "meshbench/v1"
	ExperimentKind = "Experiment"
)

// Duration is a time.Duration that reads and writes as "4s" or "500ms".
type Duration time.Duration

// MarshalText writes the form that time.ParseDuration reads, without the
// zero minutes and seconds of time.Duration's own ("10m", not "10m0s").
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return Errorf(Invalid, "%q is not a duration", text).WithHint("a number with a unit: 500ms, 4s, 10m")
	}
	*d = Duration(v)
	return nil
}

// String returns the shortest form that time.ParseDuration reads, in ASCII.
func (d Duration) String() string {
	s := strings.Replace(time.Duration(d).String(), "µs", "us", 1)
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Rate is an offered rate in requests per second. RateMax offers the next
// request when the last one is answered (closed loop).
type Rate float64

// RateMax is the rate "max": closed loop.
var RateMax = Rate(math.Inf(1))

// IsMax tells whether the loop is closed.
func (r Rate) IsMax() bool { return math.IsInf(float64(r), 1) }

// String returns "max" or the number.
func (r Rate) String() string {
	if r.IsMax() {
		return "max"
	}
	return strconv.FormatFloat(float64(r), 'f', -1, 64)
}

// ParseRate reads "max" or a positive number of requests per second.
func ParseRate(text string) (Rate, error) {
	if text == "max" {
		return RateMax, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f > 0) || math.IsInf(f, 0) {
		return 0, Errorf(Invalid, "rate %q is neither a positive number of requests per second nor max", text)
	}
	return Rate(f), nil
}

// MarshalJSON writes a number or "max".
func (r Rate) MarshalJSON() ([]byte, error) {
	if r.IsMax() {
		return []byte(`"max"`), nil
	}
	return json.Marshal(float64(r))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Rate) UnmarshalJSON(data []byte) error {
	v, err := ParseRate(strings.Trim(string(data), `"`))
	if err == nil {
		*r = v
	}
	return err
}

// Arrivals is the law of the intended start times in an open loop.
type Arrivals string

// The laws of arrival.
const (
	Constant Arrivals = "constant" // equal distances
	Poisson  Arrivals = "poisson"  // exponential distances: independent clients
)

// Protocol is what requests are spoken in.
type Protocol string

// HTTP1 is HTTP/1.1, the protocol of this version.
const HTTP1 Protocol = "http1"

// Profile says how alike the subjects are set up.
type Profile string

// The profiles.
const (
	Parity  Profile = "parity"  // same threads, TLS and logging for all
	Shipped Profile = "shipped" // the product's defaults
)

// The infrastructures of this version.
const (
	Local    = "local"    // processes on this machine
	Endpoint = "endpoint" // a URL that someone else runs
)

// Workload is the services behind the mesh and the requests sent to them.
type Workload struct {
	Name       string      `json:"name,omitempty"` // of the catalogue, with its version: echo@1; empty for one's own
	Protocol   Protocol    `json:"protocol"`
	Topology   Topology    `json:"topology"`
	Request    Request     `json:"request"`
	Response   Response    `json:"response"`
	Assertions []Assertion `json:"assertions"`
}

// Request is what is sent. BodyBytes zero bytes are sent where Body is empty.
type Request struct {
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers,omitempty"`
	BodyBytes int               `json:"body_bytes"`
	Body      string            `json:"body,omitempty"`
}

// Response is what the echo workload answers.
type Response struct {
	BodyBytes int `json:"body_bytes"`
}

// Assertion is what must hold for a response to count as completed. Where an
// experiment has none, a status below 400 is required.
type Assertion struct {
	Status int `json:"status"`
}

// Load is how requests are offered.
type Load struct {
	Rate        Rate     `json:"rate"`
	Arrivals    Arrivals `json:"arrivals"`
	Connections int      `json:"connections"`
	KeepAlive   bool     `json:"keep_alive"` // false: a new connection per request
	Timeout     Duration `json:"timeout"`    // from the intended start
	Warmup      Duration `json:"warmup"`     // once per sitting and cell, not counted
	Settle      Duration `json:"settle"`     // before each trial, not counted
	Trial       Duration `json:"trial"`
}

// Margin is the difference below which a subject is called equal to its
// baseline: the larger of a share of the baseline's value and a time.
type Margin struct {
	Percent float64  `json:"percent"`
	Floor   Duration `json:"floor"`
}

// Experiment is the specification: which permutations to measure, and how.
// Workload, Load and Profile hold the first value of each axis.
type Experiment struct {
	APIVersion     string            `json:"api_version"`
	Kind           string            `json:"kind"`
	Name           string            `json:"name"`
	Infrastructure string            `json:"infrastructure"`
	URLs           map[string]string `json:"urls,omitempty"` // endpoint only: name -> URL
	Subjects       []string          `json:"subjects"`
	Baseline       string            `json:"baseline,omitempty"` // a subject's id; default: the first
	Profile        Profile           `json:"profile"`
	Workload       Workload          `json:"workload"`
	Load           Load              `json:"load"`
	Metrics        []MetricSource    `json:"metrics,omitempty"` // read during trials, beside the applications' own
	Sittings       int               `json:"sittings"`
	Blocks         int               `json:"blocks"` // per sitting
	MaxTime        Duration          `json:"max_time"`
	Seed           uint64            `json:"seed"` // 0: drawn at the start of a run and recorded
	Margin         Margin            `json:"margin"`
	FailOn         []string          `json:"fail_on,omitempty"` // 'response.p99>+5%'
	Force          bool              `json:"force,omitempty"`   // run a plan that cannot reach significance

	Axes []Axis `json:"-"`
}

// Axis is a scalar field that was given as a list: one cell per value and
// subject. In a document the field simply holds the list.
type Axis struct {
	Field  string // the path of the field: "load.rate"
	Values []any  // as encoding/json decodes them
}

// AxisFields are the scalar fields that may be axes.
var AxisFields = []string{
	"profile",
	"workload.topology.chain", "workload.topology.fan_out",
	"workload.request.method", "workload.request.path", "workload.request.body_bytes",
	"workload.response.body_bytes",
	"load.rate", "load.arrivals", "load.connections", "load.keep_alive", "load.timeout",
	"load.warmup", "load.settle", "load.trial",
}

// MarshalJSON writes the document, an axis as a list in its field's place.
func (e Experiment) MarshalJSON() ([]byte, error) {
	type plain Experiment
	data, err := json.Marshal(plain(e))
	if err != nil || len(e.Axes) == 0 {
		return data, err
	}
	doc, err := decodeDocument(data)
	if err != nil {
		return nil, err
	}
	for _, a := range e.Axes {
		parent, key := documentField(doc, a.Field)
		if parent == nil {
			return nil, fmt.Errorf("axis %q names no field", a.Field)
		}
		parent[key] = a.Values
	}
	return json.Marshal(doc)
}

// UnmarshalJSON reads a document. Fields that it lacks keep the value that e
// has, so that a caller sets the defaults first.
func (e *Experiment) UnmarshalJSON(data []byte) error {
	doc, err := decodeDocument(data)
	if err != nil {
		return err
	}
	var axes []Axis
	for _, field := range AxisFields {
		parent, key := documentField(doc, field)
		if parent == nil {
			continue
		}
		values, ok := parent[key].([]any)
		if !ok {
			continue
		}
		if len(values) == 0 {
			return Errorf(Invalid, "%s: an empty list has no value to measure", field)
		}
		parent[key] = values[0]
		if len(values) > 1 {
			axes = append(axes, Axis{Field: field, Values: values})
		}
	}
	if data, err = json.Marshal(doc); err != nil {
		return err
	}
	type plain Experiment
	p := plain(*e)
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*e = Experiment(p)
	e.Axes = axes
	return nil
}

// With returns a copy of e whose scalar field holds the value.
func (e Experiment) With(field string, value any) (Experiment, error) {
	e.Axes = nil
	data, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	doc, err := decodeDocument(data)
	if err != nil {
		return e, err
	}
	parent, key := documentField(doc, field)
	if parent == nil {
		return e, fmt.Errorf("axis %q names no field", field)
	}
	parent[key] = value
	if data, err = json.Marshal(doc); err != nil {
		return e, err
	}
	var out Experiment
	return out, json.Unmarshal(data, &out)
}

// decodeDocument keeps numbers as they are written: a seed has 64 bits.
func decodeDocument(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	return doc, nil
}

// documentField returns the map that holds the last word of a dotted path,
// and that word; nil where the path leads nowhere.
func documentField(doc map[string]any, path string) (map[string]any, string) {
	words := strings.Split(path, ".")
	for _, w := range words[:len(words)-1] {
		next, ok := doc[w].(map[string]any)
		if !ok {
			return nil, ""
		}
		doc = next
	}
	return doc, words[len(words)-1]
}
