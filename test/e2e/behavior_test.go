package e2e

import (
	"strings"
	"testing"
)

// TestBehavior tries every probe for real: without a mesh, where what is
// decided must pass, since nobody stands between the client and the
// application; and on Envoy, of which some answers are well known.
func TestBehavior(t *testing.T) {
	data := t.TempDir()
	r := run(t, data, "behavior", "--subjects", "none,envoy", "-o", "json")
	doc := r.document(t)
	decided := map[string]int{}
	results := map[string]string{}
	for _, c := range at(t, doc, "cells").([]any) {
		probe, subject, result := at(t, c, "probe").(string), at(t, c, "subject").(string), at(t, c, "result").(string)
		evidence := at(t, c, "evidence").(string)
		results[subject+" "+probe] = result
		if result == "passed" || result == "differs" {
			decided[subject]++
		}
		switch {
		case at(t, c, "expected") == "" || at(t, c, "reference") == "" || evidence == "":
			t.Errorf("%v lacks something", c)
		case result == "failed":
			t.Errorf("%s on %s could not be decided: %s", probe, subject, evidence)
		case result == "unsupported" && !strings.Contains(evidence, "source: "):
			t.Errorf("%s on %s: no source in %q", probe, subject, evidence)
		case subject == "none" && result == "differs":
			t.Errorf("%s differs without a mesh: %s", probe, evidence)
		case result == "differs":
			t.Logf("%s differs: %s", probe, evidence)
		}
	}
	if n := len(at(t, doc, "probes").([]any)); n < 40 {
		t.Errorf("%d probes", n)
	}
	if decided["envoy"] < 30 || decided["none"] < 25 {
		t.Errorf("decided: %v", decided)
	}
	for known, want := range map[string]string{
		"envoy identity.plain_text":          "passed",
		"envoy identity.foreign_authority":   "passed",
		"envoy identity.expired":             "passed",
		"envoy http.connection_named":        "passed",
		"envoy smuggling.two_lengths":        "passed",
		"envoy control_plane.new_connection": "passed",
		"envoy failure.proxy_killed":         "passed",
		"envoy http.header_case":             "differs", // it writes names in lower case
		"envoy http.server_field":            "differs", // it writes its own
		"none identity.plain_text":           "unsupported",
	} {
		if results[known] != want {
			t.Errorf("%s: %s, want %s", known, results[known], want)
		}
	}
	if r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	nothingLives(t, data)
}

func TestBehaviorRefusesWhatIsNotThere(t *testing.T) {
	for _, args := range [][]string{
		{"behavior", "--probe", "retry.pots"}, {"behavior", "--subjects", "nothing"},
		{"behavior", "--profile", "tuned"}, {"behavior", "-o", "yaml"}, {"behavior", "--subjects", "envoy:colour=red"},
	} {
		r := run(t, t.TempDir(), args...)
		if r.code != 2 || !strings.Contains(r.stderr, "meshbench: ") {
			t.Errorf("%v: exit code %d: %s", args, r.code, r.stderr)
		}
	}
}
