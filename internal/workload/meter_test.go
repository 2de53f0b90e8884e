package workload

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/meshbench/meshbench"
)

func TestMetrics(t *testing.T) {
	base, control := startService(t, Options{BodyBytes: 1, Service: "shop", Instance: 2})
	for range 31 { // the 16th is timed
		get(t, base)
	}
	get(t, base, meshbench.StatusHeader, "503")
	get(t, base, meshbench.DelayHeader, "30ms")
	if response, err := http.Get("http://" + base + "/?meshbench-cut=close"); err == nil {
		response.Body.Close()
		t.Error("a cut connection was answered")
	}
	// The last one is counted when its handler has ended.
	var text string
	for range 1000 {
		response, err := http.Get("http://" + control + MetricsPath)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if text = string(data); strings.Contains(text, `code="0"`) && strings.Contains(text, "in_flight{instance=\"2\",service=\"shop\"} 0\n") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, m := range families["meshbench_requests_total"].Metric {
		labels := map[string]string{}
		for _, l := range m.Label {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["service"] != "shop" || labels["instance"] != "2" {
			t.Errorf("labels %v", labels)
		}
		got[labels["code"]] = m.Counter.GetValue()
	}
	// The client sends a request again whose kept connection ended without an
	// answer, so the cut ones are one or two.
	if got["200"] != 32 || got["503"] != 1 || got["0"] < 1 || got["0"] > 2 || len(got) != 3 {
		t.Errorf("requests by code: %v", got)
	}
	h := families["meshbench_request_duration_seconds"].Metric[0].Histogram
	all := uint64(1 + 1 + got["503"] + got["0"])
	if h.GetSampleCount() != all || h.GetSampleSum() < 0.03 {
		t.Errorf("%d durations of %d, sum %v", h.GetSampleCount(), all, h.GetSampleSum())
	}
	for _, b := range h.Bucket {
		if b.GetUpperBound() < 0.03 && b.GetCumulativeCount() > all-1 {
			t.Errorf("%d requests took less than %v s, and one of them waited for 30 ms", b.GetCumulativeCount(), b.GetUpperBound())
		}
	}
}

func TestDurationsFallIntoTheirBuckets(t *testing.T) {
	for nanos, want := range map[uint64]int{0: 0, 1: 0, 25_000: 0, 25_001: 1, 50_000: 1, 50_001: 2, 100_000: 2, 13_107_200_000: 19, 13_107_200_001: 20, 1 << 62: 20} {
		if got := bucketOf(nanos); got != want {
			t.Errorf("%d ns are in bucket %d, want %d", nanos, got, want)
		}
	}
}
