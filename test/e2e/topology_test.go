package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// trials are those of the latest run, as they were kept: also what a busy
// machine made unfit to be compared was counted by every proxy.
func trials(t *testing.T, data string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(run(t, data, "results", "show", "latest", "-o", "ndjson").stdout) {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if doc["load"] != nil && doc["proof"] != nil {
			out = append(out, doc)
		}
	}
	return out
}

// proveTopologies runs subjects on a chain of one and of three services and
// checks what was counted on each hop.
func proveTopologies(t *testing.T, subjects string) {
	data := t.TempDir()
	doc := run(t, data, quick("--subjects", subjects, "--topology", "chain=1,3")...).document(t)
	if state := at(t, doc, "state"); state != "finished" {
		t.Fatalf("state %v: %v", state, at(t, doc, "failures"))
	}
	chains := map[string]float64{}
	for _, cell := range at(t, doc, "cells").([]any) {
		id, chain := at(t, cell, "id").(string), at(t, cell, "axes.chain").(float64)
		chains[id] = chain
		if at(t, cell, "hops.hops") != chain || at(t, cell, "hops.depth") != chain {
			t.Errorf("%s: hops %v", id, at(t, cell, "hops"))
		}
	}
	measured := map[string]bool{}
	for _, trial := range trials(t, data) {
		id := at(t, trial, "cell").(string)
		measured[id] = true
		proof := at(t, trial, "proof").(map[string]any)
		if proof["status"] != "proven" || proof["sent"] == 0.0 || proof["sent"] != proof["application"] {
			t.Errorf("%s: proof %v", id, proof)
		}
		applications := 0.0
		for _, u := range at(t, trial, "usage").([]any) {
			if at(t, u, "role") == "application" {
				applications++
			}
		}
		if applications != chains[id] {
			t.Errorf("%s: %v applications", id, applications)
		}
		if strings.HasPrefix(id, "none") {
			continue
		}
		hops, _ := proof["hops"].([]any)
		if float64(len(hops)) != chains[id]-1 {
			t.Errorf("%s: hops %v", id, hops)
		}
		for _, h := range hops {
			if at(t, h, "expected") != proof["sent"] || at(t, h, "server_proxy") != proof["sent"] || at(t, h, "client_proxy") != proof["sent"] ||
				at(t, h, "handshakes") == 0.0 || at(t, h, "plaintext") != 0.0 {
				t.Errorf("%s: %v of %v sent", id, h, proof["sent"])
			}
		}
	}
	if len(measured) != len(chains) {
		t.Errorf("cells measured: %v, want %v", measured, chains)
	}
	if text := run(t, data, "results", "show", "latest"); !strings.Contains(text.stdout, "Cost per hop") {
		t.Errorf("the report has no cost per hop:\n%s", text.stdout)
	}
	nothingLives(t, data)
}

func TestTopologiesWithoutAMesh(t *testing.T) { proveTopologies(t, "none") }

func TestTopologiesWithEnvoy(t *testing.T) { proveTopologies(t, "none,envoy") }

func TestRunShop(t *testing.T) {
	data := t.TempDir()
	doc := run(t, data, quick("--subjects", "none", "--topology", "shop@1")...).document(t)
	if cell := at(t, doc, "cells.0"); at(t, cell, "workload.name") != "shop@1" || at(t, cell, "hops.hops") != 7.0 {
		t.Errorf("workload %v, hops %v", at(t, cell, "workload"), at(t, cell, "hops"))
	}
	all := trials(t, data)
	if len(all) == 0 {
		t.Fatalf("nothing was measured: %v", at(t, doc, "failures"))
	}
	for _, trial := range all {
		if at(t, trial, "proof.status") != "proven" || at(t, trial, "load.completed") == 0.0 {
			t.Errorf("%v, %v", at(t, trial, "proof"), at(t, trial, "load.errors"))
		}
		// One page takes at least the times of its services, one after the other.
		if p50, ok := at(t, trial, "load.response.p50_us").(float64); !ok || p50 < 3000 {
			t.Errorf("p50 %v us: the services take no time", at(t, trial, "load.response.p50_us"))
		}
	}
	nothingLives(t, data)
}

// TestMetricsAreKept reads the application's metrics and another program's
// during trials.
func TestMetricsAreKept(t *testing.T) {
	data := t.TempDir()
	var readings atomic.Int64
	url := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE readings_total counter\nreadings_total %d\n", readings.Add(1))
	}))
	doc := run(t, data, quick("--subjects", "none", "--metrics", "mine="+url, "--metrics", "gone=http://127.0.0.1:1/metrics")...).document(t)
	if failures := fmt.Sprint(at(t, doc, "failures")); strings.Count(failures, "the metrics of gone at") != 1 || strings.Contains(failures, "mine") {
		t.Errorf("failures: %s", failures)
	}
	all := trials(t, data)
	if len(all) == 0 {
		t.Fatal("nothing was measured")
	}
	for _, trial := range all {
		grown := map[string]float64{}
		for _, m := range at(t, trial, "metrics").([]any) {
			if at(t, m, "kind") == "counter" {
				increase, _ := m.(map[string]any)["increase"].(float64)
				grown[at(t, m, "source").(string)+" "+at(t, m, "series").(string)] = increase
			}
		}
		if sent := at(t, trial, "proof.sent").(float64); grown[`echo meshbench_requests_total{code="200", instance="0", service="echo"}`] != sent {
			t.Errorf("%v requests were sent, the application counted %v", sent, grown)
		}
		if grown["mine readings_total"] < 1 {
			t.Errorf("another program's counter: %v", grown)
		}
	}
}
