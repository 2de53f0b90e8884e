package analysis_test

import (
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
)

func TestParseFailOn(t *testing.T) {
	for text, want := range map[string]analysis.FailOn{
		"response.p99>+5%":             {Metric: "response.p99", Threshold: 0.05, Relative: true},
		"response.p50>+100us":          {Metric: "response.p50", Threshold: 100},
		"response.p50 > 100µs":         {Metric: "response.p50", Threshold: 100},
		"response.p99.9>+1.5ms":        {Metric: "response.p99_9", Threshold: 1500},
		"response.p99_9>+1s":           {Metric: "response.p99_9", Threshold: 1e6},
		"response.p90>-10%":            {Metric: "response.p90", Threshold: -0.1, Relative: true},
		"cpu.total>+10%":               {Metric: "cpu.total", Threshold: 0.1, Relative: true},
		"cpu.client_proxy>+50ms":       {Metric: "cpu.client_proxy", Threshold: 50},
		"memory.server_proxy > +20MiB": {Metric: "memory.server_proxy", Threshold: 20 << 20},
	} {
		got, err := analysis.ParseFailOn(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got.Metric != want.Metric || got.Threshold != want.Threshold || got.Relative != want.Relative || got.String() != text {
			t.Errorf("%q: %+v", text, got)
		}
	}
	for _, text := range []string{
		"", "response.p99", "response.p99>", "response.p99>+5", "response.p99>+5MB", "response.p98>+5%", "response.p99<5%",
		"response.p99>+5%%", "speed.p99>+5%", "cpu.generator>+5%", "cpu.everything>+5%", "memory.total>+5us", "response.p99>+-5%",
		"response.p99>+5% and more", "cpu.total>+1e5%", "response.p50>+" + strings.Repeat("9", 400) + "us",
	} {
		_, err := analysis.ParseFailOn(text)
		if err == nil {
			t.Errorf("%q is accepted", text)
			continue
		}
		if e := meshbench.AsError(err); e.Code != meshbench.Invalid || e.Hint == "" {
			t.Errorf("%q: %s, hint %q", text, e.Code, e.Hint)
		}
	}
}

func FuzzParseFailOn(f *testing.F) {
	for _, s := range []string{"response.p99>+5%", "response.p50>+100us", "cpu.total>+10%", "memory.total > -2.5MB", "cpu.>1%", "response.p99.9>1µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := analysis.ParseFailOn(text)
		if err != nil {
			if meshbench.AsError(err).Code != meshbench.Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if c.String() != text {
			t.Errorf("%q became %q", text, c)
		}
		family, of, ok := strings.Cut(c.Metric, ".")
		if !ok || of == "" || family != "response" && family != "cpu" && family != "memory" {
			t.Errorf("%q: metric %q", text, c.Metric)
		}
		if c.Threshold != c.Threshold || c.Threshold-c.Threshold != 0 {
			t.Errorf("%q: threshold %v", text, c.Threshold)
		}
	})
}

func TestFailOnOutcomes(t *testing.T) {
	for _, c := range []struct {
		condition, outcome string
	}{
		{"response.p50>+100us", analysis.OutcomeRegression},
		{"response.p50>+340us", analysis.OutcomeInconclusive}, // inside the interval
		{"response.p50>+400us", analysis.OutcomePassed},
		{"response.p50>+150%", analysis.OutcomeRegression},
		{"response.p50>+300%", analysis.OutcomePassed},
		{"response.p99.9>+5%", analysis.OutcomeInconclusive}, // not asked
		{"cpu.total>+300ms", analysis.OutcomeRegression},
		{"cpu.total>+500ms", analysis.OutcomePassed},
		{"cpu.client_proxy>+5%", analysis.OutcomeInconclusive}, // none has no proxy
		{"cpu.client_proxy>+5ms", analysis.OutcomeRegression},
		{"memory.total>+100MB", analysis.OutcomePassed},
		{"memory.gateway>+1MB", analysis.OutcomeInconclusive},
	} {
		t.Run(c.condition, func(t *testing.T) {
			w := usual(t)
			w.exp.FailOn = []string{c.condition}
			r := w.analyse()
			if len(r.FailOn) != 1 || r.FailOn[0].Outcome != c.outcome || r.FailOn[0].Cell != "envoy" || r.FailOn[0].Message == "" {
				t.Errorf("%+v, want %s", r.FailOn, c.outcome)
			}
		})
	}
	t.Run("an invalid run decides nothing", func(t *testing.T) {
		w := usual(t)
		w.exp.FailOn = []string{"response.p50>+100us"}
		w.change = func(t *meshbench.Trial) {
			if t.Sitting > 7 {
				invalidate(t)
			}
		}
		if r := w.analyse(); r.FailOn[0].Outcome != analysis.OutcomeInconclusive {
			t.Errorf("%+v", r.FailOn)
		}
	})
	t.Run("a baseline alone", func(t *testing.T) {
		w := usual(t)
		w.cells = cells(500)
		w.exp.FailOn = []string{"response.p50>+100us"}
		if r := w.analyse(); len(r.FailOn) != 1 || r.FailOn[0].Outcome != analysis.OutcomeInconclusive {
			t.Errorf("%+v", r.FailOn)
		}
	})
}
