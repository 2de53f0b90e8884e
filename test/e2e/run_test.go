package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// whole runs a command again, four times at most, where blocks stayed out
// because the machine was too disturbed: that is a verdict on the machine, not
// a failed test.
func whole(t *testing.T, data string, args ...string) result {
	t.Helper()
	for try := 0; ; try++ {
		r := run(t, data, args...)
		if r.code == 1 || r.code == 2 || try == 4 {
			return r
		}
		lost := 0
		for _, l := range at(t, r.document(t), "left_out").([]any) {
			if at(t, l, "repeated") == false {
				lost++
			}
		}
		if lost == 0 {
			return r
		}
		t.Logf("%d blocks were lost, measured again: %v", lost, at(t, r.document(t), "verdict"))
	}
}

// TestRunComparesNoneWithEnvoy is the main job, short: real Envoys, mutual
// TLS, the whole contract of `run -o json`.
func TestRunComparesNoneWithEnvoy(t *testing.T) {
	data := t.TempDir()
	r := whole(t, data, "run", "-o", "json", "--sittings", "7", "--trial", "500ms", "--warmup", "200ms", "--rate", "300")
	doc := r.document(t)
	if state := at(t, doc, "state"); state != "finished" {
		t.Fatalf("state %v: %s", state, r.stderr)
	}
	for _, key := range []string{
		"schema_version", "id", "headline", "experiment.subjects", "fingerprint.kernel", "fingerprint.runtimes.0.sha256", "verdict.status",
		"cells.0.subject.mesh", "cells.0.axes.rate_rps", "cells.0.path", "cells.0.load_state", "cells.0.trials", "cells.0.response.p50_us",
		"cells.0.throughput_rps", "cells.0.errors", "cells.0.proof.status", "cells.0.roles.0.cpu_ms_per_1000_requests", "cells.0.roles.0.memory_peak_bytes",
		"comparisons.0.difference.estimate", "comparisons.0.ratio.estimate", "comparisons.0.p_adjusted", "comparisons.0.significance", "comparisons.0.margin",
		"comparisons.0.level", "comparisons.0.n", "comparisons.0.family_size", "comparisons.0.estimator",
		"trials.0.cell", "trials.0.sitting", "trials.0.block", "trials.0.response", "trials.0.load_state", "trials.0.verdict.status",
	} {
		at(t, doc, key)
	}
	for i, id := range []string{"none", "envoy"} {
		cell := at(t, doc, "cells").([]any)[i]
		if got := at(t, cell, "id"); got != id {
			t.Errorf("cell %d is %v, want %s", i, got, id)
		}
		if got := at(t, cell, "proof.status"); got != "proven" {
			t.Errorf("%s: proof %v: %v", id, got, at(t, cell, "proof"))
		}
		sent, application := at(t, cell, "proof.sent").(float64), at(t, cell, "proof.application").(float64)
		if sent == 0 || sent != application {
			t.Errorf("%s: %v sent, %v at the application", id, sent, application)
		}
	}
	envoy := at(t, doc, "cells.1")
	if got := at(t, envoy, "proof.peer_name").(string); !strings.HasPrefix(got, "spiffe://") {
		t.Errorf("the application saw the peer %q", got)
	}
	if at(t, envoy, "proof.handshakes").(float64) == 0 || at(t, envoy, "proof.plaintext").(float64) != 0 {
		t.Errorf("mutual TLS: %v", at(t, envoy, "proof"))
	}
	roles := map[string]bool{}
	for _, role := range at(t, envoy, "roles").([]any) {
		roles[at(t, role, "role").(string)] = true
	}
	for _, role := range []string{"application", "client_proxy", "server_proxy", "control_plane"} {
		if !roles[role] {
			t.Errorf("envoy has no role %s: %v", role, roles)
		}
	}
	if at(t, doc, "comparisons.0.difference.estimate").(float64) <= 0 {
		t.Errorf("two proxies made it faster: %v", at(t, doc, "comparisons.0.difference"))
	}
	nothingLives(t, data)

	// The same run is in the store, and every report can be made of it.
	id := at(t, doc, "id").(string)
	list := run(t, data, "results", "list", "-o", "json").document(t)
	if got := at(t, list, "runs.0.id"); got != id {
		t.Errorf("the list has %v, want %s", got, id)
	}
	again := run(t, data, "results", "show", "latest", "-o", "json").document(t)
	if at(t, again, "headline") != at(t, doc, "headline") {
		t.Errorf("shown again, the headline is %q, was %q", at(t, again, "headline"), at(t, doc, "headline"))
	}
	headline := at(t, doc, "headline").(string)
	for _, format := range []string{"table", "markdown", "html", "junit", "ndjson"} {
		file := filepath.Join(data, "report."+format)
		if r := run(t, data, "results", "show", id[:20], "-o", format, "--out", file); r.code != 0 {
			t.Errorf("%s: exit code %d: %s", format, r.code, r.stderr)
		}
		text, err := os.ReadFile(file)
		if err != nil || len(text) < 200 {
			t.Errorf("%s: %d bytes, %v", format, len(text), err)
		}
		if format == "table" && !strings.HasPrefix(strings.Join(strings.Fields(string(text)), " "), strings.Join(strings.Fields(headline), " ")) {
			t.Errorf("the table does not begin with the headline %q:\n%.300s", headline, text)
		}
		if format == "html" && (strings.Contains(string(text), "src=\"http") || strings.Contains(string(text), "href=\"http")) {
			t.Error("the HTML file refers to something outside")
		}
	}
	for range at(t, list, "runs").([]any) {
		if r := run(t, data, "results", "remove", "latest"); r.code != 0 {
			t.Errorf("remove: %s", r.stderr)
		}
	}
	if r := run(t, data, "results", "list"); !strings.Contains(r.stdout, "meshbench run") {
		t.Errorf("an empty list does not say what to do: %s", r.stdout)
	}
}

// TestRunTwoReleases compares two releases of Envoy in one run.
func TestRunTwoReleases(t *testing.T) {
	data := t.TempDir()
	doc := run(t, data, quick("--subjects", "envoy@1.39,envoy@1.40")...).document(t)
	versions := map[string]bool{}
	for _, u := range at(t, doc, "fingerprint.runtimes").([]any) {
		versions[at(t, u, "version").(string)[:4]] = true
	}
	if !versions["1.39"] || !versions["1.40"] {
		t.Errorf("runtimes: %v", versions)
	}
	for _, c := range at(t, doc, "cells").([]any) {
		if at(t, c, "proof.status") != "proven" {
			t.Errorf("%v: %v", at(t, c, "id"), at(t, c, "proof"))
		}
	}
	nothingLives(t, data)
}

// TestRunAA compares none with itself.
func TestRunAA(t *testing.T) {
	doc := run(t, t.TempDir(), quick("--subjects", "none,none")...).document(t)
	if at(t, doc, "cells.1.id") != "none#2" {
		t.Errorf("the second cell is %v", at(t, doc, "cells.1.id"))
	}
	if at(t, doc, "comparisons.0.difference.low") != nil {
		t.Error("one sitting has an interval")
	}
}

// TestRunEndpoints compares two URLs that already run.
func TestRunEndpoints(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) })
	doc := run(t, t.TempDir(), quick("--infra", "endpoint", "--url", "base="+server(t, h), "--url", "next="+server(t, h))...).document(t)
	if at(t, doc, "cells.0.id") != "base" || at(t, doc, "cells.1.id") != "next" || at(t, doc, "cells.1.proof.status") != "not_applicable" {
		t.Errorf("cells: %v", at(t, doc, "cells"))
	}
	if at(t, doc, "comparisons.0.baseline_cell") != "base" {
		t.Errorf("compared with %v", at(t, doc, "comparisons.0.baseline_cell"))
	}
}

// TestFailOn gives exit codes 10 and 11 only when asked.
func TestFailOn(t *testing.T) {
	data := t.TempDir()
	r := whole(t, data, "run", "-o", "json", "--sittings", "7", "--trial", "400ms", "--warmup", "200ms", "--rate", "300", "--fail-on", "response.p50>+1us")
	if r.code != 10 {
		t.Errorf("exit code %d, want 10: %s\n%v", r.code, r.stderr, at(t, r.document(t), "fail_on"))
	}
	r = whole(t, data, quick("--subjects", "none,none", "--fail-on", "response.p50>+1us")...)
	if r.code != 11 {
		t.Errorf("exit code %d, want 11: %s\n%v", r.code, r.stderr, at(t, r.document(t), "fail_on"))
	}
}

// TestLoad is `meshbench load` against a plain server.
func TestLoad(t *testing.T) {
	url := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		w.Write([]byte("ok"))
	}))
	data := t.TempDir()
	doc := run(t, data, "load", url, "--rate", "500", "--duration", "1s", "--warmup", "100ms", "-o", "json").document(t)
	sum := 0.0
	for _, k := range []string{"completed", "errored", "timed_out", "skipped", "unfinished"} {
		sum += at(t, doc, k).(float64)
	}
	if planned := at(t, doc, "planned").(float64); planned != sum || planned < 300 {
		t.Errorf("planned %v, accounted for %v", planned, sum)
	}
	for _, key := range []string{"schema_version", "target", "errors", "elapsed_seconds", "throughput_rps", "response.p99_us", "connection_wait.p50_us", "service.p50_us",
		"lateness.p99_us", "response.histogram", "load_state", "gaps.share", "gaps.predicted_lateness.p99_9_us", "generator.engine", "generator.cpu_seconds",
		"generator.spin_seconds", "generator.cpu_us_per_request", "generator.peak_memory_bytes", "verdict.reasons"} {
		at(t, doc, key)
	}
	closed := run(t, data, "load", url, "--rate", "max", "--duration", "500ms", "-o", "json").document(t)
	if at(t, closed, "lateness") != nil || at(t, closed, "load_state") != "closed_loop" {
		t.Errorf("closed loop: lateness %v, state %v", at(t, closed, "lateness"), at(t, closed, "load_state"))
	}
	failing := run(t, data, "load", url+"bad", "--duration", "300ms", "-o", "json")
	if failing.code != 1 || at(t, failing.document(t), "completed").(float64) != 0 {
		t.Errorf("nothing but 503: exit code %d, %v", failing.code, failing.stdout)
	}
}
