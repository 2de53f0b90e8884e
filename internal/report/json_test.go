package report_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
	"github.com/meshbench/meshbench/internal/report"
)

// at returns what stands at a dotted path of a document; lists are entered
// at their first element.
func at(t *testing.T, doc any, path string) (any, bool) {
	t.Helper()
	for _, word := range strings.Split(path, ".") {
		if list, ok := doc.([]any); ok {
			if len(list) == 0 {
				return nil, false
			}
			doc = list[0]
		}
		object, ok := doc.(map[string]any)
		if !ok {
			return nil, false
		}
		if doc, ok = object[word]; !ok {
			return nil, false
		}
	}
	return doc, true
}

func decode(t *testing.T, data []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Fatal("more than one document")
	}
	return doc
}

// The keys that scripts rely on: they are added to, never renamed.
var runContract = strings.Fields(`
	schema_version id state headline experiment fingerprint verdict.status verdict.reasons
	cells.id cells.subject.id cells.subject.mesh cells.axes.rate_rps cells.path cells.load_state cells.trials cells.response.count
	cells.response.p50_us cells.response.p99_9_us cells.response.histogram cells.throughput_rps cells.errors
	cells.proof.status cells.proof.sent cells.proof.client_proxy cells.proof.server_proxy cells.proof.application cells.proof.handshakes cells.proof.plaintext
	cells.roles.role cells.roles.service cells.roles.instance cells.roles.process cells.roles.cpu_ms_per_1000_requests cells.roles.cpu_cores
	cells.roles.idle_cpu_cores cells.roles.memory_mean_bytes cells.roles.memory_peak_bytes
	comparisons.cell comparisons.baseline_cell comparisons.metric comparisons.estimator comparisons.n comparisons.family_size comparisons.margin
	comparisons.level comparisons.difference.estimate comparisons.difference.low comparisons.difference.high comparisons.difference.unit
	comparisons.ratio.estimate comparisons.ratio.low comparisons.ratio.high comparisons.p comparisons.p_adjusted comparisons.significance
	trials.cell trials.sitting trials.block trials.response trials.load_state trials.verdict`)

var loadContract = strings.Fields(`
	schema_version target planned completed errored timed_out skipped unfinished errors elapsed_seconds throughput_rps
	response.count response.min_us response.p50_us response.p90_us response.p99_us response.p99_9_us response.max_us response.histogram
	connection_wait.p50_us service.p50_us lateness.p99_us load_state gaps.share
	gaps.predicted_lateness.p50_us gaps.predicted_lateness.p99_us gaps.predicted_lateness.p99_9_us
	generator.engine generator.cpu_seconds generator.spin_seconds generator.cpu_us_per_request generator.peak_memory_bytes verdict.status verdict.reasons`)

func TestJSONKeepsItsContract(t *testing.T) {
	var b bytes.Buffer
	if err := report.JSON(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	doc := decode(t, b.Bytes())
	for _, path := range runContract {
		if _, ok := at(t, doc, path); !ok {
			t.Errorf("run: %s is missing", path)
		}
	}
	b.Reset()
	if err := report.LoadJSON(&b, loadSample(t)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "{\n  \"schema_version\": 1,") {
		t.Errorf("load begins with %.60s", b.String())
	}
	doc = decode(t, b.Bytes())
	for _, path := range loadContract {
		if _, ok := at(t, doc, path); !ok {
			t.Errorf("load: %s is missing", path)
		}
	}
}

// A run that was cut off has the same lists as one that was not, and writing
// it changes nothing of it.
func TestJSONHasNoNullLists(t *testing.T) {
	r := interrupted(t)
	before := interrupted(t)
	for i := range r.Cells {
		r.Cells[i].Axes, before.Cells[i].Axes = nil, nil
	}
	r.Cells[1].Load.Rate, before.Cells[1].Load.Rate = meshbench.RateMax, meshbench.RateMax
	var b bytes.Buffer
	if err := report.JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, r, cmpopts.EquateNaNs()); d != "" {
		t.Errorf("JSON changed its argument (-before +after):\n%s", d)
	}
	doc := decode(t, b.Bytes())
	for _, path := range strings.Fields(`cells comparisons resource_comparisons trials left_out failures warnings verdict.reasons
		cells.errors cells.quantiles cells.settings cells.roles cells.axes comparisons.sitting_differences plan.warnings fingerprint.runtimes`) {
		if v, ok := at(t, doc, path); !ok || v == nil {
			t.Errorf("%s is %v", path, v)
		}
	}
	cells := doc["cells"].([]any)
	if v, ok := at(t, cells[0], "axes.rate_rps"); !ok || v != 500.0 {
		t.Errorf("rate_rps of an open loop is %v", v)
	}
	if v, ok := at(t, cells[1], "axes.rate_rps"); !ok || v != nil {
		t.Errorf("rate_rps of a closed loop is %v, want null", v)
	}
	var back meshbench.Result
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.ID != r.ID || back.State != r.State {
		t.Errorf("read back: %v, %s %s", err, back.ID, back.State)
	}
	b.Reset()
	if err := report.JSON(&b, meshbench.Result{}); err == nil {
		decode(t, b.Bytes())
	} else if b.Len() > 0 {
		t.Errorf("an error (%v) after %d bytes", err, b.Len())
	}
}

func TestJSONWritesAllOrNothing(t *testing.T) {
	r := sample(t)
	r.Comparisons[0].P = math.NaN()
	var b bytes.Buffer
	err := report.JSON(&b, r)
	if err == nil || b.Len() > 0 {
		t.Fatalf("error %v, %d bytes written", err, b.Len())
	}
	if code := meshbench.AsError(err).Code; code != meshbench.Internal {
		t.Errorf("code %s", code)
	}
}

func TestNDJSON(t *testing.T) {
	trials := []meshbench.Trial{
		{Cell: "none", Sitting: 1, Block: 1, Order: 2, Load: loadSample(t)},
		{Cell: "envoy", Sitting: 1, Block: 1, Order: 1},
	}
	r := sample(t)
	var b bytes.Buffer
	if err := report.NDJSON(&b, r, trials); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	lines := bufio.NewScanner(&b)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		doc := decode(t, lines.Bytes())
		if doc["schema_version"] != 1.0 {
			t.Errorf("schema_version is %v", doc["schema_version"])
		}
		kinds = append(kinds, doc["kind"].(string)+" "+map[bool]any{true: doc["cell"], false: doc["id"]}[doc["kind"] == "trial"].(string))
	}
	if want := []string{"trial none", "trial envoy", "result " + r.ID}; !cmp.Equal(kinds, want) {
		t.Errorf("lines are %v, want %v", kinds, want)
	}
}

func TestJUnit(t *testing.T) {
	for name, r := range map[string]meshbench.Result{"sample.junit.xml": sample(t), "invalid.junit.xml": invalid(t)} {
		var b bytes.Buffer
		if err := report.JUnit(&b, r); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
	var b bytes.Buffer
	if err := report.JUnit(&b, hostile(t)); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Suites []struct {
			Tests int `xml:"tests,attr"`
			Cases []struct {
				Name string `xml:"name,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Suites) != 1 || doc.Suites[0].Tests != len(doc.Suites[0].Cases) || doc.Suites[0].Tests == 0 {
		t.Errorf("suites %+v", doc.Suites)
	}
}

// The histogram in the JSON is the text that other HDR tools read.
func TestHistogramsAreHDRText(t *testing.T) {
	var b bytes.Buffer
	r := loadSample(t)
	if err := report.LoadJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	v, _ := at(t, decode(t, b.Bytes()), "response.histogram")
	text, _ := v.(string)
	if !strings.HasPrefix(text, "HISTF") {
		t.Errorf("histogram begins with %.12s", text)
	}
	var back meshbench.LoadResult
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	h, err := histogram.Decode(back.Response.Histogram)
	if err != nil || uint64(h.TotalCount()) != r.Response.Count {
		t.Errorf("decoded %v values, %v", h.TotalCount(), err)
	}
}
