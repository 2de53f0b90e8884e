package experiment

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/meshbench/meshbench"
)

// TestParseMistakes is the table of what people get wrong and what they are
// told: position, finding, expectation, nearest word.
func TestParseMistakes(t *testing.T) {
	const topKeys = "api_version, kind, name, infrastructure, urls, subjects, baseline, profile, workload, load, metrics, sittings, blocks, max_time, seed, margin, fail_on, force"
	const rate = "expected a number of requests per second above 0 and at most 10000000, or max"
	for _, c := range []struct {
		name, text string
		want       []string // lines without the name of the file
	}{
		{"empty", "", []string{`1:1: the file is empty; the smallest experiment is  subjects: [none, envoy]`}},
		{"only a comment", "# nothing\n", []string{`1:1: the file is empty; the smallest experiment is  subjects: [none, envoy]`}},
		{"null", "null\n", []string{`1:1: the file is empty; the smallest experiment is  subjects: [none, envoy]`}},
		{"two documents", "name: a\n---\nname: b\n", []string{`2:1: a second document begins here; a file holds one experiment`}},
		{"a list", "- none\n", []string{`1:1: found a list, expected a mapping with keys of ` + topKeys}},
		{"tabs", "load:\n\trate: 5\n  \ttrial: 4s\n", []string{
			`2:1: found a tab in the indentation; YAML indents with spaces`,
			`3:3: found a tab in the indentation; YAML indents with spaces`}},
		{"not UTF-8", "name: a\nseed: \xff\n", []string{`2:7: found the byte 0xff, expected text in UTF-8`}},
		{"control character", "name: \x01\n", []string{`1:7: found the control character U+0001, expected text`}},
		{"open list", "name: a\nsubjects: [none, envoy\nload:\n  rate: 5\n", []string{
			`2:1: a list is not closed; expected , or ]:  subjects: [none, envoy`}},
		{"open quote", "seed: 1\nname: \"abc\n", []string{`2:1: a quote is not closed:  name: "abc`}},
		{"two colons", "name: a: b\n", []string{`1:8: found a second ": " in a line; put the text in quotes, or the key on a line of its own with the right indentation:  name: a: b`}},
		{"indentation", "load:\n   rate: 5\n  trial: 4s\n", []string{
			`3:3: this is no key of the mapping above it; expected key: value, indented as the other keys:  trial: 4s`}},
		{"unknown alias", "name: x\nseed: *a\n", []string{
			`2:1: unknown anchor 'a' referenced; an alias (*name) repeats a value that has an anchor (&name):  seed: *a`}},
		{"alias of itself", "subjects: &a [*a]\n", []string{
			`1:11: subjects: the document is nested too deeply or repeats too much; an experiment has at most 16 levels and 20000 values`}},
		{"merge key", "load: {<<: {rate: 5}}\n", []string{`1:8: load: found a merge key (<<); write the keys out`}},
		{"tag", "name: !secret x\n", []string{`1:7: name: found the tag "!secret"; an experiment has texts, numbers, truth values, lists and mappings`}},
		{"key that is no text", "? [a]\n: b\n", []string{`1:3: found a list or a mapping where a key was expected`}},
		{"duplicate key", "seed: 1\nload: {rate: 5}\nseed: 2\n", []string{`3:1: seed: given twice, first in line 1`}},
		{"unknown key", "load:\n  conections: 3\n", []string{`2:3: load: unknown key "conections"; did you mean connections?`}},
		{"unknown key, nothing near", "zzz: 3\n", []string{`1:1: unknown key "zzz" (keys here: ` + topKeys + `)`}},
		{"key in the wrong place", "rate: 200\nload: {sittings: 3}\n", []string{
			`1:1: unknown key "rate"; it belongs under load`,
			`2:8: load: unknown key "sittings"; it belongs at the top of the document`}},
		{"version", "api_version: meshbench/v2\n", []string{`1:14: api_version: found "meshbench/v2", expected meshbench/v1`}},
		{"enum", "profile: partiy\nload: {arrivals: uniform}\n", []string{
			`1:10: profile: found "partiy", expected parity or shipped; did you mean parity?`,
			`2:18: load.arrivals: found "uniform", expected constant or poisson`}},
		{"later versions", "infrastructure: kubernetes\nworkload: {protocol: http2, topology: {chain: 30}}\nload: {streams: 4}\nuntil: x\n", []string{
			`1:17: infrastructure: kubernetes is not built yet; this version has local and endpoint`,
			`2:22: workload.protocol: http2 is not built yet; this version has http1`,
			`2:47: workload.topology.chain: found 30, expected a whole number from 1 to 10`,
			`3:8: load: streams is not built yet (keys here: rate, arrivals, connections, keep_alive, timeout, warmup, settle, trial)`,
			`4:1: until is not built yet (keys here: ` + topKeys + `)`}},
		{"near a word of later versions", "infrastructure: kubernets\n", []string{
			`1:17: infrastructure: found "kubernets", expected local or endpoint; did you mean kubernetes? (not built yet)`}},
		{"kinds", "load: 3\nsittings: ten\nforce: yes\nname: [a]\nblocks: 1.5\nseed: {a: 1}\n", []string{
			`1:7: load: found 3, expected a mapping with keys of rate, arrivals, connections, keep_alive, timeout, warmup, settle, trial`,
			`2:11: sittings: found "ten", expected a whole number from 1 to 1000`,
			`3:8: force: found "yes", expected true or false; did you mean true?`,
			`4:7: name: found a list, expected one line of text, at most 100 characters; this field cannot be an axis`,
			`5:9: blocks: found 1.5, expected a whole number from 1 to 100`,
			`6:7: seed: found a mapping, expected a whole number from 0 to 18446744073709551615`}},
		{"null values", "load:\nsittings:\n", []string{
			`1:6: load: found nothing, expected a mapping with keys of rate, arrivals, connections, keep_alive, timeout, warmup, settle, trial (or leave the key out)`,
			`2:10: sittings: found nothing, expected a whole number from 1 to 1000 (or leave the key out)`}},
		{"no axis here", "sittings: [5, 10]\n", []string{`1:11: sittings: found a list, expected a whole number from 1 to 1000; this field cannot be an axis`}},
		{"axes", "load:\n  rate: []\n  connections: [8, 8]\n  trial: [1s, 1000ms, 4]\n", []string{
			`2:9: load.rate: found a list of 0, expected 1 to 32 values`,
			`3:20: load.connections: 8 is in the list already`,
			`4:15: load.trial: "1000ms" is in the list already`,
			`4:23: load.trial: found 4, expected a duration from 100ms to 24h, as in 500ms, 4s or 10m; did you mean 4s?`}},
		{"ranges", "sittings: 0\nload: {rate: 0, connections: 100000, timeout: 20m, warmup: -1s}\nseed: 18446744073709551616\n", []string{
			`1:11: sittings: found 0, expected a whole number from 1 to 1000`,
			`2:14: load.rate: found 0, ` + rate,
			`2:30: load.connections: found 100000, expected a whole number from 1 to 10000`,
			`2:47: load.timeout: found "20m", expected a duration from 1ms to 10m, as in 500ms, 4s or 10m`,
			`2:60: load.warmup: found "-1s", expected a duration from 0s to 1h, as in 500ms, 4s or 10m`,
			`3:7: seed: found 18446744073709551616, expected a whole number from 0 to 18446744073709551615`}},
		{"numbers", "load: {rate: \"200\", connections: 0x10}\nseed: 1e400\nmargin: {percent: .inf}\n", []string{
			`1:14: load.rate: found "200", ` + rate + `; did you mean 200 (without quotes)?`,
			`1:34: load.connections: found "0x10", expected a number in decimal digits`,
			`2:7: seed: found "1e400", expected a whole number from 0 to 18446744073709551615`,
			`3:19: margin.percent: found ".inf", expected a number in decimal digits`}},
		{"durations", "max_time: 10 m\nload: {trial: 4S, settle: soon}\n", []string{
			`1:11: max_time: found "10 m", expected a duration from 1s to 168h, as in 500ms, 4s or 10m; did you mean 10m?`,
			`2:15: load.trial: found "4S", expected a duration from 100ms to 24h, as in 500ms, 4s or 10m; did you mean 4s?`,
			`2:27: load.settle: found "soon", expected a duration from 0s to 1h, as in 500ms, 4s or 10m`}},
		{"subjects", "subjects: none,envoy\n", []string{`1:11: subjects: found "none,envoy", expected a list of subjects, as in [none, envoy]; did you mean [none, envoy]?`}},
		{"no subject", "subjects: []\n", []string{`1:11: subjects: found a list of 0, expected 1 to 32 values`}},
		{"bad subjects", "subjects:\n  - none\n  - envoy:mtls\n  - \"envoy:a=1:a=2\"\n  - endpoint\n", []string{
			`3:5: subjects: found "envoy:mtls", expected mesh[@version][:option=value]..., as in none, envoy, envoy@1.40`,
			`4:5: subjects: subject "envoy:a=1:a=2": option "a" is given twice`,
			`5:5: subjects: endpoint is an infrastructure, not a mesh; expected subjects such as none, envoy, or infrastructure endpoint with urls`}},
		{"baseline", "baseline: none#2\n", []string{`1:11: baseline: found "none#2", expected the id of a subject: none, envoy; did you mean none?`}},
		{"baseline, nearly", "subjects: [none, envoy]\nbaseline: evoy\n", []string{
			`2:11: baseline: found "evoy", expected the id of a subject: none, envoy; did you mean envoy?`}},
		{"endpoint without urls", "infrastructure: endpoint\n", []string{
			`1:17: infrastructure: found endpoint without urls, expected at least one name with its URL (--url base=http://127.0.0.1:8080)`}},
		{"urls without endpoint", "urls: {base: 'http://127.0.0.1:80'}\n", []string{
			`1:7: urls: found urls, which only the infrastructure endpoint has; expected infrastructure endpoint beside them (--infra endpoint)`}},
		{"urls", "infrastructure: endpoint\nurls:\n  a: https://x\n  b c: http://x\n  d: http://u:p@x\n", []string{
			`3:6: urls.a: found "https://x", expected a URL that begins with http://`,
			`4:3: urls: found the name "b c", expected a name of letters, digits and . _ + -`}},
		{"hosts", "infrastructure: endpoint\nurls:\n  a: http://u:p@x\n  b: http://x/?q\n  c: http://x#f\n  d: http://x:99999\n  e: http://:80\n", []string{
			`3:6: urls.a: found "http://u:p@x": a URL is kept in results, so it must not hold a user or password`,
			`4:6: urls.b: found "http://x/?q": expected no query here; put it into workload.request.path`,
			`5:6: urls.c: found "http://x#f": expected no fragment (#)`,
			`6:6: urls.d: found "http://x:99999": expected a port from 1 to 65535`,
			`7:6: urls.e: found "http://:80": expected http://HOST[:PORT][/PATH]`}},
		{"subject that is no URL's name", "infrastructure: endpoint\nurls: {base: 'http://x', next: 'http://y'}\nsubjects: [base, nxt]\n", []string{
			`3:18: subjects: found "nxt", expected the name of one of the urls: base, next; did you mean next?`}},
		{"request", "workload:\n  request:\n    method: get\n    path: foo\n    headers: {Host: x, X-N: 5, a: b, A: c}\n    body: hi\n    body_bytes: 3\n", []string{
			`3:13: workload.request.method: found "get", expected an HTTP method in capitals, as in GET; did you mean GET?`,
			`4:11: workload.request.path: found "foo", expected a path that begins with / and has neither blanks nor #`,
			`5:21: workload.request.headers.Host: found the header Host, by which a mesh finds the service; leave it out (an endpoint may have one)`,
			`5:29: workload.request.headers.X-N: found 5, expected text in ASCII on one line, without blanks around it; did you mean "5" (in quotes)?`,
			`5:35: workload.request.headers.a: found the header a beside A; names of headers are the same in capitals`,
			`7:17: workload.request.body_bytes: found body_bytes beside body, expected one of them`}},
		{"what the generator does itself", "workload: {request: {headers: {Upgrade: h2c}, method: [GET, CONNECT]}}\n", []string{
			`1:41: workload.request.headers.Upgrade: found the header Upgrade, which the generator sets itself, from load.keep_alive and the body; leave it out`,
			`1:55: workload.request.method: found CONNECT, which asks for a tunnel, not for an answer; expected a method such as GET or POST`}},
		{"assertions", "workload:\n  assertions: [{status: 200}, {status: 404}, {}, {status: 99}]\n", []string{
			`2:46: workload.assertions: the key status is missing; expected a whole number from 200 to 599`,
			`2:59: workload.assertions: found 99, expected a whole number from 200 to 599`}},
		{"contradiction", "workload:\n  assertions: [{status: 200}, {status: 404}]\n", []string{
			`2:31: workload.assertions: found the status 404 beside 200; no response has both`}},
		{"name of a workload", "workload: {name: echo@1, response: {body_bytes: 9}}\n", []string{
			`1:18: workload.name: found echo@1 beside fields that differ from it; leave the name out for a workload of your own, or the fields (echo@1 is GET / with an empty body, answered by 1024 bytes)`}},
		{"name of a shop", "workload: {name: shop@1, topology: {chain: 2}}\n", []string{
			`1:18: workload.name: found shop@1 beside fields that differ from it; leave the name out for a workload of your own, or the fields (shop@1 is GET / to six services in the shape of a small shop, each with its own time and size)`}},
		{"two shapes", "workload: {topology: {chain: 2, fan_out: 3}}\n", []string{`1:22: workload.topology: found chain beside fan_out, expected one of them`}},
		{"services", "workload:\n  topology:\n    services:\n" +
			"      - {name: a, calls: [b, x], latency: {law: constant, mean: 1ms, sigma: 1}}\n      - {name: b, instances: 2}\n      - {name: b}\n" +
			"      - {name: b-2}\n      - {name: client}\n      - {name: a-proxy}\n", []string{
			`4:30: workload.topology.services: found "x", expected a service: a, b, b-2, client, a-proxy; did you mean a?`,
			`4:43: workload.topology.services: found sigma beside the law constant; only lognormal has it`,
			`6:16: workload.topology.services: the service b is there already`,
			`7:16: workload.topology.services: b-2 would be the name of a process of b and of one of b-2; give one of them another name`,
			`8:16: workload.topology.services: found client, which is the name of something else; client is who sends the load, and -proxy ends the names of proxies`,
			`9:16: workload.topology.services: found a-proxy, which is the name of something else; client is who sends the load, and -proxy ends the names of proxies`}},
		{"round and round", "workload:\n  topology:\n    services:\n      - {name: a, calls: [b]}\n      - {name: b, calls: [c]}\n      - {name: c, calls: [b]}\n", []string{
			`5:26: workload.topology.services: a request would go round for ever: b calls c calls b`}},
		{"too many hops", "workload:\n  topology:\n    services:\n      - {name: a, calls: [b, c, d, e, f, g]}\n      - {name: b, calls: [c, d, e, f, g]}\n      - {name: c, calls: [d, e, f, g]}\n" +
			"      - {name: d, calls: [e, f, g]}\n      - {name: e, calls: [f, g]}\n      - {name: f, calls: [g]}\n      - {name: g}\n", []string{
			`4:7: workload.topology.services: one request would make 64 hops, expected at most 60`}},
		{"shape of a service", "workload: {topology: {services: [{name: A, calls: [], instances: 0, errors: {status: 200}}, {calls: [b]}]}}\n", []string{
			`1:41: workload.topology.services: found "A", expected a name of lower-case letters, digits and -, at most 40, a letter first`,
			`1:51: workload.topology.services: found a list of 0, expected 1 to 19 values`,
			`1:66: workload.topology.services: found 0, expected a whole number from 1 to 10`,
			`1:77: workload.topology.services: the key percent is missing; expected a number above 0 and at most 100`,
			`1:86: workload.topology.services: found 200, expected a whole number from 400 to 599`,
			`1:93: workload.topology.services: the key name is missing; expected a name of lower-case letters, digits and -, at most 40, a letter first`}},
		{"metrics", "metrics:\n  - {name: a b, url: x}\n  - {name: c}\n  - {name: d, url: 'http://x', series: [a*b], interval: 1ms}\n", []string{
			`2:12: metrics: found "a b", expected a name of letters, digits and . _ + -`,
			`2:22: metrics: found "x", expected a URL that begins with http:// or https://`,
			`3:5: metrics: the key url is missing; expected a URL that begins with http:// or https://`,
			`4:41: metrics: found "a*b", expected the name of a metric, which may end in *`,
			`4:57: metrics: found "1ms", expected a duration from 100ms to 10m, as in 500ms, 4s or 10m`}},
		{"metrics, twice", "metrics:\n  - {name: a, url: 'http://x', query: up, series: [b]}\n  - {name: a, url: 'http://u:p@x'}\n  - {name: c, url: 'http://:1'}\n", []string{
			`2:5: metrics: found series beside query, expected one of them: a query says itself what it wants`,
			`3:5: metrics: the name a is there already`,
			`3:5: metrics: found "http://u:p@x": a URL is kept in results, so it must not hold a user or password`,
			`4:5: metrics: found "http://:1", expected http://HOST[:PORT]/PATH`}},
		{"axes that change nothing", "infrastructure: endpoint\nurls: {a: 'http://x'}\nprofile: [parity, shipped]\nload: {rate: max, arrivals: [constant, poisson]}\n", []string{
			`3:10: profile: found a list, but nothing is set up at an endpoint: its cells would all be the same`,
			`4:29: load.arrivals: found a list, but with rate max there are no arrivals: its cells would all be the same`}},
		{"too many cells", "load:\n  rate: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n  connections: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n", []string{
			`1:1: the subjects and axes make more than 200 cells; measure fewer at a time`}},
		{"conditions", "fail_on: [\"response.p98>+5%\", x, \"cpu.total>+5%\", \"cpu.total>+5%\"]\n", []string{
			`1:11: fail_on: fail-on "response.p98>+5%": response has p50, p90, p99 and p99.9, not "p98"`,
			`1:31: fail_on: found "x", expected a condition such as response.p99>+5%`,
			`1:51: fail_on: "cpu.total>+5%" is in the list already`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("e.yaml", []byte(c.text))
			var e *meshbench.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Code != meshbench.Invalid || e.Hint == "" {
				t.Errorf("code %q, hint %q", e.Code, e.Hint)
			}
			var want []string
			for _, l := range c.want {
				want = append(want, "e.yaml:"+l)
			}
			if d := cmp.Diff(want, strings.Split(e.Message, "\n")); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestParseListsAtMostTwentyMistakes(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	_, err := Parse("e.yaml", []byte(b.String()))
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != 21 || lines[20] != "and 10 more" {
		t.Errorf("got %d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

// TestParseBombs: little text must not become much work or much output.
func TestParseBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	for name, data := range map[string]string{
		"aliases of aliases": laughs.String(),
		"deep":               strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"long":               "name: " + strings.Repeat("x", maxBytes),
		"exponent":           "margin: {percent: 1e-999999999}\nload: {rate: 1e999999999}\n",
		"long number":        "seed: " + strings.Repeat("9", 100_000),
		"broken far down":    strings.Repeat("# line\n", 30_000) + "a: [\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("e.yaml", []byte(data))
			if err == nil {
				t.Fatal("accepted")
			}
			if n := len(err.Error()); n > 10_000 {
				t.Errorf("a message of %d bytes", n)
			}
		})
	}
}

func TestParseDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want func(*meshbench.Experiment)
	}{
		"nothing said":      {"{}", func(*meshbench.Experiment) {}},
		"subjects alone":    {"subjects: [none, envoy]", func(*meshbench.Experiment) {}},
		"a list of one":     {"load: {rate: [500]}", func(*meshbench.Experiment) {}},
		"the name alone":    {"workload: {name: echo@1}", func(*meshbench.Experiment) {}},
		"a whole number":    {"load: {rate: 5.0e2, connections: 32.0}", func(*meshbench.Experiment) {}},
		"long durations":    {"max_time: 600s", func(*meshbench.Experiment) {}},
		"an alias":          {"margin: {floor: &d 5us}\nload: {rate: 500, settle: 500ms}", func(*meshbench.Experiment) {}},
		"a byte order mark": {"\ufeffsubjects: [none, envoy]\r\nseed: 0\r\n", func(*meshbench.Experiment) {}},
		"one field of load": {"load: {rate: max}", func(e *meshbench.Experiment) { e.Load.Rate = meshbench.RateMax }},
		"own workload":      {"workload: {response: {body_bytes: 9}}", func(e *meshbench.Experiment) { e.Workload.Response.BodyBytes, e.Workload.Name = 9, "" }},
		"own assertion": {"workload: {assertions: [{status: 200}]}", func(e *meshbench.Experiment) {
			e.Workload.Assertions, e.Workload.Name = []meshbench.Assertion{{Status: 200}}, ""
		}},
		"a date as a name":  {"name: 2026-11-22", func(e *meshbench.Experiment) { e.Name = "2026-11-22" }},
		"options in order":  {"subjects: [none, 'envoy:b=1:a=2']\nbaseline: 'envoy:b=1:a=2'", func(e *meshbench.Experiment) { e.Subjects[1], e.Baseline = "envoy:a=2:b=1", "envoy:a=2:b=1" }},
		"a seed of 64 bits": {"seed: 18446744073709551615", func(e *meshbench.Experiment) { e.Seed = 18446744073709551615 }},
		"empty lists":       {"fail_on: []\nworkload: {assertions: [], request: {headers: {}}}", func(*meshbench.Experiment) {}},
		"no keep-alive":     {"load: {keep_alive: False}", func(e *meshbench.Experiment) { e.Load.KeepAlive = false }},
		"order of endpoints": {"infrastructure: endpoint\nurls: {z: 'http://x', a: 'http://y'}", func(e *meshbench.Experiment) {
			e.Infrastructure, e.URLs = "endpoint", map[string]string{"z": "http://x", "a": "http://y"}
			e.Subjects, e.Workload.Name = []string{"z", "a"}, ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("e.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			want := Defaults()
			c.want(&want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
