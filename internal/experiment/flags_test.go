package experiment

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/meshbench/meshbench"
)

func parse(t *testing.T, text string) meshbench.Experiment {
	t.Helper()
	e, err := Parse("e.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestApplyMeansTheSameAsADocument: what flags say, a file can say.
func TestApplyMeansTheSameAsADocument(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		file  string
		flags Flags
		want  string
	}{
		"nothing": {"{}", Flags{}, "{}"},
		"everything": {"{}", Flags{
			Subjects: []string{"envoy:b=1:a=2", "none"}, Baseline: Given("none"), Infra: Given("local"),
			Profile: Given("shipped"), Protocol: Given("http1"), Topology: Given("chain=1"), Rate: Given("max"),
			Arrivals: Given("constant"), Connections: Given("8"), Timeout: Given("1s"), Warmup: Given("0s"), Trial: Given("2s"),
			Sittings: Given("7"), Blocks: Given("2"), MaxTime: Given("1h"), Seed: Given("18446744073709551615"),
			FailOn: []string{"response.p99>+5%"}, Force: &yes,
		}, `{subjects: ["envoy:a=2:b=1", none], baseline: none, profile: shipped, load: {rate: max, arrivals: constant, connections: 8,
			timeout: 1s, warmup: 0s, trial: 2s}, sittings: 7, blocks: 2, max_time: 1h, seed: 18446744073709551615,
			fail_on: [response.p99>+5%], force: true}`},
		"axes": {"{}", Flags{Rate: Given("200, 800,max"), Connections: Given("1,2"), Profile: Given("parity,shipped"), Trial: Given("1s,2s")},
			"{profile: [parity, shipped], load: {rate: [200, 800, max], connections: [1, 2], trial: [1s, 2s]}}"},
		"a chain":                      {"{}", Flags{Topology: Given("chain=3")}, "workload: {name: chain3@1}"},
		"chains":                       {"workload: {request: {path: /x}}", Flags{Topology: Given("chain=1,5")}, "workload: {topology: {chain: [1, 5]}, request: {path: /x}}"},
		"a fan-out":                    {"workload: {topology: {chain: [1, 5]}}", Flags{Topology: Given("fan_out=3")}, "workload: {topology: {fan_out: 3}}"},
		"of the catalogue":             {"workload: {request: {path: /x}}", Flags{Topology: Given("shop@1")}, "workload: {name: shop@1}"},
		"metrics":                      {"metrics: [{name: x, url: 'http://x'}]", Flags{Metrics: []string{"node=http://127.0.0.1:9100/metrics?a=b"}}, "metrics: [{name: node, url: 'http://127.0.0.1:9100/metrics?a=b'}]"},
		"a value in place of an axis":  {"load: {rate: [1, 2], connections: [3, 4]}", Flags{Rate: Given("5")}, "load: {rate: 5, connections: [3, 4]}"},
		"an axis in place of a value":  {"load: {rate: 5}", Flags{Rate: Given("1,2")}, "load: {rate: [1, 2]}"},
		"an axis of one value":         {"load: {rate: 5}", Flags{Rate: Given("1,")}, ""},
		"the rest of the file remains": {"{name: n, seed: 4, workload: {request: {path: /x}}}", Flags{Seed: Given("5")}, "{name: n, seed: 5, workload: {request: {path: /x}}}"},
		"not forced":                   {"force: true", Flags{Force: &no}, "{}"},
		"no conditions":                {"fail_on: [response.p99>+5%]", Flags{FailOn: []string{}}, "{}"},
		"subjects move the baseline":   {"{}", Flags{Subjects: []string{"envoy", "none"}}, "subjects: [envoy, none]"},
		"endpoints":                    {"{}", Flags{Infra: Given("endpoint"), URLs: []string{"z=http://x", "a=http://y/?"}}, ""},
		"endpoints in order": {"{}", Flags{Infra: Given("endpoint"), URLs: []string{"z=http://x", "a=http://y"}},
			"{infrastructure: endpoint, urls: {z: http://x, a: http://y}}"},
		"some of the endpoints": {"{}", Flags{Infra: Given("endpoint"), URLs: []string{"z=http://x", "a=http://y"}, Subjects: []string{"a", "a"}, Baseline: Given("a#2")},
			"{infrastructure: endpoint, urls: {z: http://x, a: http://y}, subjects: [a, a], baseline: a#2}"},
		"other endpoints": {"{infrastructure: endpoint, urls: {z: http://x, a: http://y}, baseline: a}", Flags{URLs: []string{"b=http://b"}},
			"{infrastructure: endpoint, urls: {b: http://b}}"},
		"the same endpoints elsewhere": {"{infrastructure: endpoint, urls: {z: http://x, a: http://y}, baseline: a}", Flags{URLs: []string{"a=http://1", "z=http://2"}},
			"{infrastructure: endpoint, urls: {a: http://1, z: http://2}, baseline: a}"},
		"from endpoints to here": {"{infrastructure: endpoint, urls: {a: http://y}, baseline: a, seed: 3}", Flags{Infra: Given("local")}, "seed: 3"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Apply(parse(t, c.file), c.flags)
			if c.want == "" {
				if err == nil {
					t.Errorf("accepted: %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(parse(t, c.want), got); d != "" {
				t.Errorf("-file +flags\n%s", d)
			}
			roundTrip(t, got)
		})
	}
}

func TestApplyMistakes(t *testing.T) {
	_, err := Apply(Defaults(), Flags{
		Subjects: []string{"none", "a b"}, Infra: Given("kubernetes"), URLs: []string{"x", "http://y=z"}, Profile: Given("parety"),
		Protocol: Given("grpc"), Topology: Given("fanout=3"), Rate: Given("200,8o0"), Arrivals: Given("poison"), Connections: Given(""),
		Streams: Given("3"), Timeout: Given("5"), Until: Given("response.p50:5us"), Sittings: Given("0"), Seed: Given("0x10"),
		FailOn: []string{"response.p98>+5%"}, Trial: Given("4s"),
	})
	want := strings.Split(`--infra: kubernetes is not built yet; this version has local and endpoint
--url: found "x", expected NAME=URL, as in base=http://127.0.0.1:8080
--url: found "http://y=z", expected NAME=URL, as in base=http://127.0.0.1:8080
--subjects: found "a b", expected mesh[@version][:option=value]..., as in none, envoy, envoy@1.40
--topology: found "fanout=3", expected chain=N, fan_out=N (several sizes with commas: chain=1,5) or a workload of the catalogue: echo@1, chain3@1, shop@1
--profile: found "parety", expected parity or shipped; did you mean parity?
--protocol: grpc is not built yet; this version has http1
--rate: found "8o0", expected a number of requests per second above 0 and at most 10000000, or max
--arrivals: found "poison", expected constant or poisson; did you mean poisson?
--connections: found nothing, expected a whole number from 1 to 10000
--timeout: found "5", expected a duration from 1ms to 10m, as in 500ms, 4s or 10m; did you mean 5s?
--sittings: found 0, expected a whole number from 1 to 1000
--seed: found "0x10", expected a number in decimal digits
--streams: streams is not built yet (keys here: rate, arrivals, connections, keep_alive, timeout, warmup, settle, trial)
--until: until is not built yet (keys here: api_version, kind, name, infrastructure, urls, subjects, baseline, profile, workload, load, metrics, sittings, blocks, max_time, seed, margin, fail_on, force)
--fail-on: fail-on "response.p98>+5%": response has p50, p90, p99 and p99.9, not "p98"`, "\n")
	e := meshbench.AsError(err)
	if e == nil || e.Code != meshbench.Invalid || e.Hint == "" {
		t.Fatalf("got %#v", e)
	}
	if d := cmp.Diff(want, strings.Split(e.Message, "\n")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestApplyMistakesBetweenFlagsAndFile(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		flags Flags
		want  string
	}{
		"urls without endpoint": {"{}", Flags{URLs: []string{"a=http://x"}}, "--url: found urls, which only the infrastructure endpoint has; expected infrastructure endpoint beside them (--infra endpoint)"},
		"endpoint without urls": {"{}", Flags{Infra: Given("endpoint")}, "--infra: found endpoint without urls, expected at least one name with its URL (--url base=http://127.0.0.1:8080)"},
		"a URL twice":           {"{}", Flags{Infra: Given("endpoint"), URLs: []string{"a=http://x", "a=http://y"}}, `--url: the name "a" is given twice`},
		"https":                 {"{}", Flags{Infra: Given("endpoint"), URLs: []string{"a=https://x"}}, `--url: found "https://x", expected a URL that begins with http://`},
		"subjects lose the file's baseline": {"baseline: envoy", Flags{Subjects: []string{"none", "none"}},
			`baseline: found "envoy", expected the id of a subject: none, none#2`},
		"baseline":       {"{}", Flags{Baseline: Given("envoi")}, `--baseline: found "envoi", expected the id of a subject: none, envoy; did you mean envoy?`},
		"longest chain":  {"{}", Flags{Topology: Given("chain=99")}, "--topology: found 99, expected a whole number from 1 to 10"},
		"no shape":       {"{}", Flags{Topology: Given("shop@2")}, `--topology: found "shop@2", expected chain=N, fan_out=N (several sizes with commas: chain=1,5) or a workload of the catalogue: echo@1, chain3@1, shop@1; did you mean shop@1?`},
		"of an endpoint": {"{infrastructure: endpoint, urls: {a: http://y}}", Flags{Topology: Given("chain=3")}, "--topology: found a topology, but what answers at an endpoint is somebody else's; leave it out"},
		"too many cells": {"load: {connections: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}", Flags{Rate: Given("1,2,3,4,5,6,7,8,9,10,11")}, "the subjects and axes make more than 200 cells; measure fewer at a time"},
		"metrics":        {"{}", Flags{Metrics: []string{"http://x"}}, `--metrics: found "http://x", expected NAME=URL, as in node=http://127.0.0.1:9100/metrics`},
		"no axis":        {"{}", Flags{Sittings: Given("5,10")}, `--sittings: found "5,10", expected a whole number from 1 to 1000`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Apply(parse(t, c.file), c.flags)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestApplyChecksTheExperiment: what came from elsewhere is not trusted.
func TestApplyChecksTheExperiment(t *testing.T) {
	e := Defaults()
	e.Load.Connections = 0
	if _, err := Apply(e, Flags{}); err == nil || !strings.HasPrefix(err.Error(), "load.connections: found 0") {
		t.Errorf("got %v", err)
	}
	fixed, err := Apply(e, Flags{Connections: Given("3")})
	if err != nil || fixed.Load.Connections != 3 {
		t.Errorf("a flag mends it: %v", err)
	}
}

func TestApplyLeavesItsInputAlone(t *testing.T) {
	e := parse(t, "{infrastructure: endpoint, urls: {a: http://x, b: http://y}, load: {rate: [1, 2]}}")
	before := Hash(e)
	if _, err := Apply(e, Flags{URLs: []string{"c=http://z"}, Rate: Given("7,8"), Subjects: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
	if Hash(e) != before {
		t.Errorf("changed: %+v", e)
	}
}

func TestValidate(t *testing.T) {
	if err := Validate(Defaults()); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*meshbench.Experiment)
		want   string
	}{
		"no subject":   {func(e *meshbench.Experiment) { e.Subjects = nil }, "subjects: found nothing, expected a list of subjects, as in [none, envoy]"},
		"no sitting":   {func(e *meshbench.Experiment) { e.Sittings = 0 }, "sittings: found 0, expected a whole number from 1 to 1000"},
		"no trial":     {func(e *meshbench.Experiment) { e.Load.Trial = meshbench.Duration(time.Millisecond) }, `load.trial: found "1ms", expected a duration from 100ms to 24h, as in 500ms, 4s or 10m`},
		"baseline":     {func(e *meshbench.Experiment) { e.Baseline = "nome" }, `baseline: found "nome", expected the id of a subject: none, envoy; did you mean none?`},
		"no field":     {func(e *meshbench.Experiment) { e.Axes = []meshbench.Axis{{Field: "load.x.y", Values: []any{1}}} }, `the experiment cannot be written as JSON: json: error calling MarshalJSON for type meshbench.Experiment: axis "load.x.y" names no field`},
		"no axis":      {func(e *meshbench.Experiment) { e.Axes = []meshbench.Axis{{Field: "sittings", Values: []any{1, 2}}} }, `sittings: found a list, expected a whole number from 1 to 1000; this field cannot be an axis`},
		"axis, twice":  {func(e *meshbench.Experiment) { e.Axes = []meshbench.Axis{{Field: "load.rate", Values: []any{1, 1}}} }, `load.rate: 1 is in the list already`},
		"two mistakes": {func(e *meshbench.Experiment) { e.Blocks, e.Profile = 0, "x" }, "blocks: found 0, expected a whole number from 1 to 100\nprofile: found \"x\", expected parity or shipped"},
	} {
		t.Run(name, func(t *testing.T) {
			e := Defaults()
			c.change(&e)
			err := Validate(e)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if _, err := Cells(e); err == nil {
				t.Error("has cells")
			}
		})
	}
}

func TestTextIsAFlagValue(t *testing.T) {
	var v Text
	if v.IsGiven() || v.String() != "" {
		t.Error("the zero Text is given")
	}
	if err := v.Set(""); err != nil || !v.IsGiven() {
		t.Error("an empty text that was set is given")
	}
}
