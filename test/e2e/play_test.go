package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPlay brings a playground up, sends, applies a policy, sees its effect,
// takes it back, and ends it.
func TestPlay(t *testing.T) {
	data := t.TempDir()
	must := func(args ...string) result {
		t.Helper()
		r := run(t, data, args...)
		if r.code != 0 {
			t.Fatalf("%v: exit code %d: %s%s", args, r.code, r.stdout, r.stderr)
		}
		return r
	}
	if r := run(t, data, "play", "status"); r.code != 1 || !strings.Contains(r.stderr, "meshbench play up") {
		t.Errorf("without a playground: exit code %d, %s", r.code, r.stderr)
	}
	up := must("play", "up", "envoy", "--topology", "chain=2", "-o", "json").document(t)
	if at(t, up, "subject.mesh") != "envoy" || len(at(t, up, "services").([]any)) != 2 {
		t.Errorf("up: %v", up)
	}
	t.Cleanup(func() { run(t, data, "play", "down") })
	if r := run(t, data, "play", "up", "envoy"); r.code != 1 || !strings.Contains(r.stderr, "up already") {
		t.Errorf("a second one: exit code %d, %s", r.code, r.stderr)
	}
	statuses := func(r result) map[string]any { return at(t, r.document(t), "statuses").(map[string]any) }
	if got := statuses(must("play", "send", "--count", "5", "-o", "json")); got["200 OK"] != 5.0 {
		t.Errorf("sent 5: %v", got)
	}
	file := filepath.Join(data, "policies.yaml")
	text := "api_version: meshbench/v1\nkind: Policies\npolicies:\n- fault: {abort: {status: 418, percent: 100}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	applied := must("play", "apply", file, "-o", "json").document(t)
	if at(t, applied, "policies.0.fault.abort.status") != 418.0 || !strings.Contains(at(t, applied, "documents.0.text").(string), "418") {
		t.Errorf("applied: %v", applied)
	}
	if got := statuses(must("play", "send", "--count", "5", "-o", "json")); got["418 Unknown"] != 5.0 {
		t.Errorf("with a fault: %v", got)
	}
	status := must("play", "status", "-o", "json").document(t)
	if at(t, status, "services.0.requests") != 5.0 || at(t, status, "policies.0.fault.abort.status") != 418.0 || at(t, status, "hops.0.handshakes").(float64) < 1 {
		t.Errorf("status: %v", status)
	}
	must("play", "apply", "--none")
	if got := statuses(must("play", "send", "-o", "json")); got["200 OK"] != 1.0 {
		t.Errorf("taken back: %v", got)
	}
	if r := run(t, data, "play", "send", "--count", "1000000"); r.code != 2 || !strings.Contains(r.stderr, "10000") {
		t.Errorf("too many: exit code %d, %s", r.code, r.stderr)
	}
	must("play", "down")
	nothingLives(t, data)
}

// TestPlayEndsByItself: after a while of no use, and when it is killed.
func TestPlayEndsByItself(t *testing.T) {
	for _, how := range []string{"idle", "killed"} {
		t.Run(how, func(t *testing.T) {
			data := t.TempDir()
			idle := "1h"
			if how == "idle" {
				idle = "1s"
			}
			if r := run(t, data, "play", "up", "none", "--topology", "chain=1", "--idle", idle); r.code != 0 {
				t.Fatalf("exit code %d: %s", r.code, r.stderr)
			}
			if how == "killed" {
				for _, p := range processes(t, data) {
					if pid, line, _ := strings.Cut(p, " "); strings.Contains(line, "play serve") {
						n, err := strconv.Atoi(pid)
						if err == nil {
							err = syscall.Kill(n, syscall.SIGKILL)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			for end := time.Now().Add(30 * time.Second); len(processes(t, data)) > 0 && time.Now().Before(end); {
				time.Sleep(50 * time.Millisecond)
			}
			nothingLives(t, data)
			if r := run(t, data, "play", "status"); r.code != 1 {
				t.Errorf("exit code %d: %s", r.code, r.stdout)
			}
		})
	}
}
