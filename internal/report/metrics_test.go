package report_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/report"
)

// withHopsAndMetrics is the sample with a chain of three and what programs told.
func withHopsAndMetrics(t *testing.T) meshbench.Result {
	r := sample(t)
	r.Experiment.Metrics = []meshbench.MetricSource{{Name: "node", URL: "http://x", Series: []string{"node_load1"}}, {Name: "all", URL: "http://y"}}
	for i := range r.Cells {
		c := &r.Cells[i]
		c.Hops = &meshbench.HopCost{Hops: 3, Depth: 2}
		of := func(source, series string, kind meshbench.MetricKind, v float64) meshbench.MetricSummary {
			return meshbench.MetricSummary{Source: source, Series: series, Kind: kind, Sittings: values(uint64(i), 5, v, v/100), Median: v, Min: v / 2, Max: 2 * v, Resets: i}
		}
		c.Metrics = []meshbench.MetricSummary{
			of("echo", `meshbench_requests_total{code="200"}`, meshbench.CounterMetric, 499.5),
			of("echo", "meshbench_request_duration_seconds_mean", meshbench.GaugeMetric, 0.0000071),
			of("echo", "meshbench_requests_in_flight", meshbench.GaugeMetric, 1),
			of("node", "node_load1", meshbench.GaugeMetric, 2.5), of("all", "go_threads", meshbench.GaugeMetric, 7),
		}
	}
	r.Cells[1].Hops.ProxyCPU = ptr(144.7)
	r.Cells[1].Hops.AddedP50 = &meshbench.Estimate{Estimate: 171, Low: ptr(165.5), High: ptr(176.5), Unit: "us"}
	r.Cells[1].Proof.Hops = []meshbench.HopProof{{From: "echo", To: "hop2", Expected: 31012, ClientProxy: 31012, ServerProxy: 31011, Handshakes: 4}}
	return r
}

func TestHopsAndMetricsAreShown(t *testing.T) {
	r := withHopsAndMetrics(t)
	for format, write := range map[string]func(*bytes.Buffer) error{
		"table":    func(b *bytes.Buffer) error { return report.Table(b, r, report.TableOptions{Width: 300}) },
		"markdown": func(b *bytes.Buffer) error { return report.Markdown(b, r) },
		"html":     func(b *bytes.Buffer) error { return report.HTML(b, r) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		for _, want := range []string{"Cost per hop", "145 ms", "171", "echo to hop2", "31,011", "meshbench_requests_total", "500/s", "7.1e-06", "node_load1", "2.50",
			"6 more series are in the JSON", "Counters began anew"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q", format, want)
			}
		}
		for _, unwanted := range []string{"go_threads", "in_flight"} {
			if strings.Contains(text, unwanted) {
				t.Errorf("%s: %q, which nobody asked for", format, unwanted)
			}
		}
		if format == "html" && strings.Count(text, "sitting 5: 2.") < 3 {
			t.Errorf("html: node_load1 is not drawn for each cell, sitting by sitting")
		}
	}
	// Where every request makes one hop there is nothing to divide.
	for i := range r.Cells {
		r.Cells[i].Hops.Hops, r.Cells[i].Metrics = 1, nil
	}
	var b bytes.Buffer
	if err := report.Table(&b, r, report.TableOptions{Width: 300}); err != nil || strings.Contains(b.String(), "Cost per hop") || strings.Contains(b.String(), "Metrics") {
		t.Errorf("%v: one hop, and no metrics:\n%s", err, b.String())
	}
}
