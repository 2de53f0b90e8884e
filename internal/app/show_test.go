package app

import (
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// TestShowLeavesOutWhatCannotBeDone: of four policies, Consul lacks one kind
// altogether and a part of another; the rest is shown.
func TestShowLeavesOutWhatCannotBeDone(t *testing.T) {
	second := meshbench.Duration(time.Second)
	shown, err := (&App{}).Show(ShowRequest{Subject: "consul", Profile: meshbench.Parity, Policies: []meshbench.Policy{
		{To: "echo", Timeout: &meshbench.TimeoutPolicy{Request: second}},
		{To: "echo", Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 10}}},
		{To: "echo", Retry: &meshbench.RetryPolicy{Attempts: 1, On: []meshbench.RetryOn{meshbench.RetryOn5xx}, PerTryTimeout: second}},
		{To: "echo", Headers: &meshbench.HeadersPolicy{Response: &meshbench.HeaderChange{Set: map[string]string{"x-a": "b"}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []meshbench.PolicyKind
	for _, c := range shown.Unsupported {
		kinds = append(kinds, c.Policy)
		if c.Note == "" || c.Source == "" {
			t.Errorf("no reason or no source: %+v", c)
		}
	}
	if len(kinds) != 2 || kinds[0] != meshbench.PolicyFault || kinds[1] != meshbench.PolicyRetry {
		t.Errorf("left out: %v, want fault and retry", kinds)
	}
	if len(shown.Documents) == 0 {
		t.Error("nothing of the rest is shown")
	}
}
