package behavior

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/wire"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

// on tries one probe on a subject as Run does.
func on(t *testing.T, m *model, probe string) Cell {
	t.Helper()
	probes, err := Select(Probes(), []string{probe})
	if err != nil {
		t.Fatal(err)
	}
	matrix, err := Run(t.Context(), Config{
		Infra:   func(context.Context) (infra.Infrastructure, error) { return m, nil },
		Driver:  func(string) (mesh.Driver, error) { return m, nil },
		Profile: meshbench.Parity,
	}, []meshbench.Subject{{ID: "model", Mesh: "model"}}, probes)
	if err != nil {
		t.Fatal(err)
	}
	return matrix.Cells[0]
}

// nothing is what a mutant makes of policies that it ignores.
func nothing([]meshbench.Policy) []meshbench.Policy { return nil }

// each changes policies of a copy one by one.
func each(change func(*meshbench.Policy)) func([]meshbench.Policy) []meshbench.Policy {
	return func(in []meshbench.Policy) []meshbench.Policy {
		out := slices.Clone(in)
		for i := range out {
			change(&out[i])
		}
		return out
	}
}

func flawed(word string) *model                   { return &model{flaw: word} }
func ignoring() *model                            { return &model{policies: nothing} }
func sending(change func(*wire.Message)) *model   { return &model{request: change} }
func answering(change func(*wire.Message)) *model { return &model{answer: change} }

// target changes the target of requests.
func target(change func(string) string) *model {
	return sending(func(m *wire.Message) { m.Start = m.Method() + " " + change(m.Target()) + " HTTP/1.1" })
}

// without drops a field of requests.
func without(name string) *model { return sending(func(m *wire.Message) { m.Remove(name) }) }

// mutants has a subject for every probe that does one thing wrong, so that the
// probe must not pass on it.
func mutants() map[string]*model {
	out := map[string]*model{
		"identity.plain_text":               flawed("plain text let in"),
		"identity.no_certificate":           flawed("no certificate needed"),
		"identity.foreign_authority":        flawed("any authority"),
		"identity.expired":                  flawed("any time"),
		"identity.not_yet_valid":            flawed("any time"),
		"identity.foreign_trust_domain":     flawed("any trust domain"),
		"identity.old_tls":                  flawed("old TLS"),
		"identity.other_workload":           flawed("the client alone"),
		"identity.server_name":              flawed("another server name"),
		"identity.peer_reaches_application": {flaw: "names nobody", names: true},
		"identity.forged_peer":              {flaw: "keeps forged peer", names: true},
		"identity.permissive":               ignoring(),

		"authorization.deny":          ignoring(),
		"authorization.allow":         {policies: each(func(p *meshbench.Policy) { p.Authorization = &meshbench.Authorization{Action: meshbench.Deny} })},
		"authorization.allow_another": ignoring(),
		"authorization.deny_wins": {policies: func(in []meshbench.Policy) []meshbench.Policy {
			return slices.DeleteFunc(slices.Clone(in), func(p meshbench.Policy) bool { return p.Authorization.Action == meshbench.Deny })
		}},
		"authorization.path":         ignoring(),
		"authorization.method":       ignoring(),
		"authorization.path_encoded": flawed("paths as they come"),
		"authorization.path_slashes": flawed("paths as they come"),
		"authorization.path_dots":    flawed("paths as they come"),

		"timeout.code": flawed("always 500"),
		"timeout.time": ignoring(),
		"timeout.in_time": {policies: each(func(p *meshbench.Policy) {
			p.Timeout, p.Fault = nil, &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 504, Percent: 100}}
		})},
		"timeout.slow_body": flawed("timeouts end at the head"),
		"timeout.abandons":  flawed("goes on after a timeout"),

		"retry.happens":                  ignoring(),
		"retry.attempts":                 {policies: retrying(func(r *meshbench.RetryPolicy) { r.Attempts++ })},
		"retry.exhausted":                flawed("own words"),
		"retry.post":                     flawed("retries POST"),
		"retry.body":                     flawed("empty retry"),
		"retry.not_on_4xx":               flawed("retries 4xx"),
		"retry.only_named":               {policies: retrying(func(r *meshbench.RetryPolicy) { r.On = []meshbench.RetryOn{meshbench.RetryOn5xx} })},
		"retry.reset":                    {policies: retrying(func(r *meshbench.RetryPolicy) { r.On = []meshbench.RetryOn{meshbench.RetryOnConnectFailure} })},
		"retry.per_try_timeout":          {policies: retrying(func(r *meshbench.RetryPolicy) { r.PerTryTimeout = 0 })},
		"retry.within_timeout":           {policies: func(in []meshbench.Policy) []meshbench.Policy { return in[:min(len(in), 1)] }},
		"retry.none_by_default":          flawed("retries by itself"),
		"retry.none_on_reset_by_default": flawed("retries by itself"),

		"fault.abort": ignoring(),
		"fault.abort_percent": {policies: each(func(p *meshbench.Policy) {
			p.Fault = &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 60}}
		})},
		"fault.delay": ignoring(),
		"fault.match": {policies: each(func(p *meshbench.Policy) { p.Match = nil })},

		"split.weights":     {policies: weights(1, 1)},
		"split.zero_weight": {policies: weights(1, 1)},
		"split.by_request":  flawed("sticky"),

		"mirror.copy":              ignoring(),
		"mirror.answer_unaffected": flawed("waits for the mirror"),
		"mirror.body":              flawed("empty copy"),
		"mirror.host":              flawed("shadow host"),

		"match.header":       {policies: each(func(p *meshbench.Policy) { p.Match = nil })},
		"match.path":         {policies: each(func(p *meshbench.Policy) { p.Match = nil })},
		"match.path_element": flawed("prefixes of text"),
		"match.method":       {policies: each(func(p *meshbench.Policy) { p.Match = nil })},

		"headers.set": {policies: each(func(p *meshbench.Policy) {
			p.Headers = &meshbench.HeadersPolicy{Request: &meshbench.HeaderChange{Add: map[string]string{"x-set": "new"}}}
		})},
		"headers.add": {policies: each(func(p *meshbench.Policy) {
			p.Headers = &meshbench.HeadersPolicy{Request: &meshbench.HeaderChange{Set: map[string]string{"x-add": "two"}}}
		})},
		"headers.remove": ignoring(),
		"headers.answer": ignoring(),

		"rate_limit.code":    {policies: each(func(p *meshbench.Policy) { p.RateLimit = &meshbench.RateLimitPolicy{Requests: 8, Per: ms(60000)} })},
		"rate_limit.refills": {policies: each(func(p *meshbench.Policy) { p.RateLimit = &meshbench.RateLimitPolicy{Requests: 3, Per: ms(3600000)} })},
		"circuit.full":       ignoring(),
		"circuit.recovers":   flawed("stays full"),
		"outlier.ejects":     ignoring(),
		"outlier.returns": {policies: each(func(p *meshbench.Policy) {
			p.OutlierDetection = &meshbench.OutlierDetection{ConsecutiveErrors: 3, BaseEjection: ms(3600000)}
		})},

		"http.host":               sending(func(m *wire.Message) { m.Remove("Host"); m.Add("Host", "backend.internal") }),
		"http.trailers_request":   flawed("drops request trailers"),
		"http.trailers_answer":    answering(func(m *wire.Message) { m.Trailers = nil }),
		"http.header_8k":          shortening(4 << 10),
		"http.header_50k":         shortening(32 << 10),
		"http.header_many":        sending(func(m *wire.Message) { m.Fields = m.Fields[:min(len(m.Fields), 100)] }),
		"http.expect_continue":    flawed("no 100"),
		"http.websocket":          flawed("no upgrade"),
		"http.http10":             flawed("no HTTP/1.0"),
		"http.chunked_upload":     flawed("cuts bodies"),
		"http.large_upload":       flawed("cuts bodies"),
		"http.absolute_form":      flawed("absolute form refused"),
		"http.header_case":        sending(func(m *wire.Message) { renameAll(m, strings.ToLower) }),
		"http.added_request":      sending(func(m *wire.Message) { m.Add("X-Request-Id", "1") }),
		"http.added_answer":       answering(func(m *wire.Message) { m.Add("Server", "model") }),
		"http.duplicate_fields":   sending(lastAlone("X-Dup")),
		"http.set_cookie":         answering(joined("Set-Cookie")),
		"http.path_double_slash":  target(func(s string) string { return strings.ReplaceAll(s, "//", "/") }),
		"http.path_dot_segments":  target(func(s string) string { return strings.ReplaceAll(s, "/x/..", "") }),
		"http.path_encoded_slash": target(func(s string) string { return strings.ReplaceAll(s, "%2F", "/") }),
		"http.query":              target(func(s string) string { before, _, _ := strings.Cut(s, "?"); return before }),
		"http.long_path":          target(func(s string) string { return s[:min(len(s), 8000)] }),
		"http.head":               answering(func(m *wire.Message) { m.Remove("Content-Length"); m.Add("Content-Length", "0") }),
		"http.options_star":       target(func(s string) string { return strings.ReplaceAll(s, "*", "/") }),
		"http.trace":              sending(renamed("TRACE", "GET")),
		"http.unknown_method":     sending(renamed("BREW", "GET")),
		"http.connection_named":   flawed("named fields"),
		"http.early_hints":        flawed("no early hints"),
		"http.early_answer":       flawed("waits for bodies"),
		"http.empty_value":        without("X-Empty"),
		"http.underscore":         without("x_under_score"),
		"http.value_bytes": sending(func(m *wire.Message) {
			for i := range m.Fields {
				m.Fields[i].Value = strings.Map(func(r rune) rune { return min(r, '~') }, m.Fields[i].Value)
			}
		}),
		"http.get_body":         flawed("cuts bodies"),
		"http.pipelining":       answering(func(m *wire.Message) { m.Body = nil; m.Remove("Content-Length"); m.Add("Content-Length", "0") }),
		"http.reason_phrase":    answering(func(m *wire.Message) { m.Start = "HTTP/1.1 200 OK" }),
		"http.unknown_status":   answering(func(m *wire.Message) { m.Start = "HTTP/1.1 200 OK" }),
		"http.until_close":      answering(func(m *wire.Message) { m.Body = m.Body[:len(m.Body)/2] }),
		"http.cut_answer":       answering(func(m *wire.Message) { m.Remove("Content-Length"); m.Framing = wire.UntilClose }),
		"http.not_modified":     answering(func(m *wire.Message) { m.Start = strings.Replace(m.Start, "304 ", "502 ", 1) }),
		"http.accept_encoding":  without("Accept-Encoding"),
		"http.user_agent":       without("User-Agent"),
		"http.server_field":     answering(func(m *wire.Message) { m.Remove("Server"); m.Add("Server", "model") }),
		"http.trace_context":    without("traceparent"),
		"http.connection_close": flawed("loses closed connections"),

		"smuggling.length_and_chunks":  flawed("length and chunks"),
		"smuggling.two_lengths":        flawed("two lengths"),
		"smuggling.unknown_coding":     flawed("any coding"),
		"smuggling.space_before_colon": flawed("odd fields"),
		"smuggling.nul":                flawed("NUL"),
		"smuggling.chunk_length":       flawed("any chunk"),
		"smuggling.no_host":            flawed("no Host"),
		"smuggling.two_hosts":          flawed("two Hosts"),
		"smuggling.folded_field":       flawed("odd fields"),

		"failure.application_gone": flawed("always 500"),
		"failure.application_back": flawed("remembers failures"),
		"failure.rolling_restart":  {policies: func([]meshbench.Policy) []meshbench.Policy { return nil }},
		"failure.proxy_killed":     flawed("always 500"),
		"failure.proxy_hangs":      flawed("always 500"),
		"certificates.rotation":    flawed("drops on rotation"),

		"control_plane.connection":     flawed("connections end with control plane"),
		"control_plane.new_connection": flawed("no new connections without control plane"),
		"control_plane.policies":       flawed("policies end with control plane"),
		"control_plane.for_a_while":    flawed("ends a while after control plane"),
	}
	return out
}

func retrying(change func(*meshbench.RetryPolicy)) func([]meshbench.Policy) []meshbench.Policy {
	return each(func(p *meshbench.Policy) {
		if p.Retry != nil {
			r := *p.Retry
			change(&r)
			p.Retry = &r
		}
	})
}

func weights(a, b int) func([]meshbench.Policy) []meshbench.Policy {
	return each(func(p *meshbench.Policy) {
		p.Split = &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: Echo, Weight: a}, {Service: Other, Weight: b}}}
	})
}

func shortening(n int) *model {
	return sending(func(m *wire.Message) {
		for i := range m.Fields {
			m.Fields[i].Value = m.Fields[i].Value[:min(len(m.Fields[i].Value), n)]
		}
	})
}

func renameAll(m *wire.Message, change func(string) string) {
	for i := range m.Fields {
		m.Fields[i].Name = change(m.Fields[i].Name)
	}
}

func renamed(from, to string) func(*wire.Message) {
	return func(m *wire.Message) {
		if rest, ok := strings.CutPrefix(m.Start, from+" "); ok {
			m.Start = to + " " + rest
		}
	}
}

func lastAlone(name string) func(*wire.Message) {
	return func(m *wire.Message) {
		v := wire.Values(m.Fields, name)
		if len(v) > 1 {
			m.Remove(name)
			m.Add(name, v[len(v)-1])
		}
	}
}

func joined(name string) func(*wire.Message) {
	return func(m *wire.Message) {
		v := wire.Values(m.Fields, name)
		m.Remove(name)
		m.Add(name, strings.Join(v, ", "))
	}
}

// TestProbes proves of each probe that it can pass and that it can fail: it
// passes on the model, and does not on the model with one thing wrong.
func TestProbes(t *testing.T) {
	all := mutants()
	for _, p := range Probes() {
		mutant, ok := all[p.Name]
		if !ok {
			t.Errorf("%s has no mutant", p.Name)
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			good := &model{names: p.Needs&PeerName != 0}
			if c := on(t, good, p.Name); c.Result != Passed {
				t.Errorf("on the model: %s: %s", c.Result, c.Evidence)
			}
			if c := on(t, mutant, p.Name); c.Result != Differs {
				t.Errorf("on its mutant: %s: %s", c.Result, c.Evidence)
			}
		})
	}
	for name := range all {
		if _, err := Select(Probes(), []string{name}); err != nil {
			t.Errorf("a mutant for %s, which is no probe", name)
		}
	}
}

func TestProbesAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Probes() {
		if seen[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		seen[p.Name] = true
		if !strings.Contains(p.Name, ".") || !strings.HasSuffix(p.Question, "?") || p.Expected == "" || !strings.Contains(p.Reference, ": https://") {
			t.Errorf("%s lacks something: question %q, expected %q, reference %q", p.Name, p.Question, p.Expected, p.Reference)
		}
	}
	if len(seen) < 40 {
		t.Errorf("%d probes: at least 40 are wanted", len(seen))
	}
}

// bare is a mesh that has nothing: every probe that needs something is
// unsupported, with a source.
type bare struct{ mesh.Driver }

func (bare) Describe() mesh.Description {
	d := mesh.Description{Name: "bare", HasProxy: true}
	for _, k := range meshbench.PolicyKinds() {
		d.Capabilities = append(d.Capabilities, mesh.Capability{Policy: k, Note: "it has none", Source: "https://example.org/" + string(k)})
	}
	return d
}

func TestUnsupportedHasASource(t *testing.T) {
	n := 0
	for _, p := range Probes() {
		why := p.unsupported(bare{}, mesh.Request{}, meshbench.Spec{})
		if needs := len(p.Policies) > 0 || p.Needs&^Proxy != 0; needs != (why != "") {
			t.Errorf("%s: unsupported %q, needs %v and %d", p.Name, why, p.Policies, p.Needs)
		}
		if why != "" {
			n++
			if !strings.Contains(why, "source: ") {
				t.Errorf("%s: %q has no source", p.Name, why)
			}
		}
	}
	if n == 0 {
		t.Error("nothing is unsupported")
	}
}

func TestSelect(t *testing.T) {
	probes, err := Select(Probes(), []string{"split", "retry.post"})
	if err != nil || len(probes) != 4 {
		t.Errorf("%d probes, %v", len(probes), err)
	}
	_, err = Select(Probes(), []string{"retry.pots"})
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Hint, "retry.post") {
		t.Errorf("error %+v", e)
	}
}

// TestInterval compares with quantiles that are known: of 400 with 1/5, the
// normal approximation is 80 +- 3.29 * 8.
func TestInterval(t *testing.T) {
	for _, tt := range []struct {
		n         int
		p         float64
		low, high int
	}{{400, 0.2, 80 - 26, 80 + 27}, {200, 0.3, 60 - 21, 60 + 22}, {1, 0.5, 0, 1}} {
		low, high := interval(tt.n, tt.p)
		if math.Abs(float64(low-tt.low)) > 2 || math.Abs(float64(high-tt.high)) > 2 {
			t.Errorf("interval(%d, %g) = %d..%d, want about %d..%d", tt.n, tt.p, low, high, tt.low, tt.high)
		}
	}
}

func sample() Matrix {
	return Matrix{
		SchemaVersion: 1, Subjects: []string{"none", "envoy"},
		Probes: []ProbeInfo{{"a.one", "a", "Does it?", "it does", "RFC 1, section 2: https://example.org/1"}},
		Cells: []Cell{
			{Probe: "a.one", Subject: "none", Expected: "it does", Result: Unsupported, Evidence: "no (source: docs)"},
			{Probe: "a.one", Subject: "envoy", Expected: "it does", Result: Differs, Evidence: "sent: a|b\x00; seen: <nothing>"},
		},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, sample()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PROBE  NONE         ENVOY\n", "a.one  unsupported  differs\n", "a.one differs on envoy\n  expected: it does\n", "envoy: 1 probes, 1 decided: 0 passed, 1 differ, 0 unsupported, 0 failed\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x00") {
		t.Error("a byte went through that no terminal should get")
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := Markdown(&b, sample(), "meshbench behavior --subjects none,envoy"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Made by `meshbench behavior --subjects none,envoy -o markdown`", "| [a.one](#aone) | Does it? | unsupported | **differs** |\n",
		"[RFC 1, section 2](https://example.org/1)", "- `envoy` differs: sent: a\\|b ; seen: &lt;nothing>\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

// TestJSON holds the shape that scripts rely on.
func TestJSON(t *testing.T) {
	data, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"schema_version", "fingerprint", "profile", "subjects", "probes", "cells"} {
		if _, ok := doc[key]; !ok {
			t.Errorf("no %s in %s", key, data)
		}
	}
	cell := doc["cells"].([]any)[0].(map[string]any)
	for _, key := range []string{"probe", "subject", "expected", "reference", "result", "evidence"} {
		if _, ok := cell[key]; !ok {
			t.Errorf("no %s in a cell of %s", key, data)
		}
	}
}

// TestWhatAProbeLeavesBehind poisons a deployment: the probe that did it says
// so, and the next one gets a deployment of its own.
func TestWhatAProbeLeavesBehind(t *testing.T) {
	var mu sync.Mutex
	var late *wire.Message
	m := &model{answer: func(m *wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		if m.Status() == 299 || late != nil {
			now := *m
			if late != nil {
				*m = *late
			}
			late = &now
		}
	}}
	deployed := 0
	probes, err := Select(Probes(), []string{"http.unknown_status", "http.until_close"})
	if err != nil || len(probes) != 2 {
		t.Fatal(probes, err)
	}
	matrix, err := Run(t.Context(), Config{
		Infra: func(context.Context) (infra.Infrastructure, error) {
			mu.Lock()
			defer mu.Unlock()
			late = nil
			deployed++
			return m, nil
		},
		Driver:  func(string) (mesh.Driver, error) { return m, nil },
		Profile: meshbench.Parity,
	}, []meshbench.Subject{{ID: "model", Mesh: "model"}}, probes)
	if err != nil {
		t.Fatal(err)
	}
	if c := matrix.Cells[0]; c.Result != Differs || !strings.Contains(c.Evidence, "did not get its own answer") {
		t.Errorf("%s: %s", c.Result, c.Evidence)
	}
	if c := matrix.Cells[1]; c.Result != Passed || deployed != 2 {
		t.Errorf("%d deployments; %s: %s", deployed, c.Result, c.Evidence)
	}
}
