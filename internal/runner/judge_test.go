package runner

import (
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// described is a driver of which only the description is asked.
type described struct {
	mesh.Driver
	proxy bool
}

func (d described) Describe() mesh.Description {
	return mesh.Description{HasProxy: d.proxy, NamesPeer: d.proxy}
}

func TestProve(t *testing.T) {
	counted := func(client, attempts, server, handshakes, plaintext uint64) mesh.Counters {
		return mesh.Counters{ClientReceived: client, ClientAttempts: attempts, ServerReceived: server, Handshakes: handshakes, Plaintext: plaintext}
	}
	const peer = "spiffe://meshbench.local/ns/default/sa/client"
	for name, c := range map[string]struct {
		proxy      bool
		counters   mesh.Counters
		seen       uint64
		peer       string
		completed  uint64
		errored    uint64
		want       meshbench.ProofStatus
		wantReason string
	}{
		"all equal":                {true, counted(100, 100, 100, 2, 0), 100, peer, 100, 0, meshbench.Proven, ""},
		"none":                     {false, mesh.Counters{}, 100, "", 100, 0, meshbench.Proven, ""},
		"past the application":     {false, mesh.Counters{}, 99, "", 100, 0, meshbench.ProofFailed, "application"},
		"past the client proxy":    {true, counted(50, 50, 50, 2, 0), 100, peer, 100, 0, meshbench.ProofFailed, "client proxy"},
		"past the server proxy":    {true, counted(100, 100, 0, 2, 0), 100, peer, 100, 0, meshbench.ProofFailed, "server proxy"},
		"no handshake":             {true, counted(100, 100, 100, 0, 0), 100, peer, 100, 0, meshbench.ProofFailed, "handshake"},
		"plain text":               {true, counted(100, 100, 100, 2, 1), 100, peer, 100, 0, meshbench.ProofFailed, "not encrypted"},
		"nameless":                 {true, counted(100, 100, 100, 2, 0), 100, "", 100, 0, meshbench.ProofFailed, "peer name"},
		"errors at the proxy":      {true, counted(100, 90, 90, 2, 0), 90, peer, 90, 10, meshbench.Proven, ""},
		"somebody else's requests": {true, counted(120, 120, 120, 2, 0), 120, peer, 100, 0, meshbench.ProofFailed, "application"},
	} {
		t.Run(name, func(t *testing.T) {
			after := snapshot{hops: []mesh.Hop{{Secure: true, Counters: c.counters}}, seen: c.seen, peer: c.peer}
			got := prove(described{proxy: c.proxy}, meshbench.Walk{}, snapshot{hops: []mesh.Hop{{}}}, after, meshbench.LoadResult{Sent: 100, Completed: c.completed, Errored: c.errored})
			if got.Status != c.want || !strings.Contains(got.Reason, c.wantReason) {
				t.Errorf("%s (%s), want %s (%s)", got.Status, got.Reason, c.want, c.wantReason)
			}
		})
	}
	if got := prove(nil, meshbench.Walk{}, snapshot{}, snapshot{}, meshbench.LoadResult{Sent: 5}); got.Status != meshbench.NotApplicable {
		t.Errorf("an endpoint: %s", got.Status)
	}
}

func TestProveLooksAtEveryHop(t *testing.T) {
	walk := meshbench.Walk{Requests: map[string]int{"front": 1, "back": 1}}
	good := mesh.Counters{ClientReceived: 100, ClientAttempts: 100, ServerReceived: 100, Handshakes: 2}
	for name, c := range map[string]struct {
		hop  mesh.Hop
		want string
	}{
		"whole":              {mesh.Hop{Secure: true, Counters: good}, ""},
		"sent again":         {mesh.Hop{Counters: mesh.Counters{ClientAttempts: 101, ServerReceived: 101}}, ""},
		"partly past":        {mesh.Hop{Counters: mesh.Counters{ClientAttempts: 99, ServerReceived: 99}}, "make 100 here, the proxies passed only 99"},
		"lost":               {mesh.Hop{Counters: mesh.Counters{ClientAttempts: 9, ServerReceived: 8}}, "sent 9 requests on, the server's received 8"},
		"past the mesh":      {mesh.Hop{}, "nothing went through"},
		"no handshake":       {mesh.Hop{Secure: true, Counters: mesh.Counters{ClientAttempts: 100, ServerReceived: 100}}, "no mutual TLS"},
		"plain text":         {mesh.Hop{Secure: true, Counters: mesh.Counters{ClientAttempts: 100, ServerReceived: 100, Handshakes: 1, Plaintext: 1}}, "not encrypted"},
		"connections":        {mesh.Hop{Layer4: true, Counters: mesh.Counters{ClientReceived: 1, ServerReceived: 1}}, ""},
		"without connection": {mesh.Hop{Layer4: true}, "nothing went through"},
	} {
		c.hop.From, c.hop.To = "front", "back"
		after := snapshot{hops: []mesh.Hop{{Secure: true, Counters: good}, c.hop}, seen: 100, peer: "spiffe://a/b"}
		got := prove(described{proxy: true}, walk, snapshot{hops: make([]mesh.Hop, 2)}, after, meshbench.LoadResult{Sent: 100, Completed: 100})
		if (got.Status == meshbench.Proven) != (c.want == "") || !strings.Contains(got.Reason, c.want) {
			t.Errorf("%s: %s (%s)", name, got.Status, got.Reason)
		}
		if len(got.Hops) != 1 || got.Hops[0].From != "front" || got.Hops[0].Expected != 100 {
			t.Errorf("%s: hops %+v", name, got.Hops)
		}
	}
	// Callers that a server cannot tell apart are one hop.
	joined := snapshot{hops: []mesh.Hop{{Counters: good}, {From: "front+back", To: "end", Counters: mesh.Counters{ClientAttempts: 199, ServerReceived: 199}}}, seen: 100}
	if got := prove(described{proxy: true}, walk, snapshot{hops: make([]mesh.Hop, 2)}, joined, meshbench.LoadResult{Sent: 100, Completed: 100}); got.Hops[0].Expected != 200 || got.Status != meshbench.ProofFailed {
		t.Errorf("joined callers: %s, %+v", got.Status, got.Hops)
	}
	// What fails on the way makes fewer requests behind it.
	after := snapshot{hops: []mesh.Hop{{Counters: good}, {From: "front", To: "back", Counters: mesh.Counters{ClientAttempts: 90, ServerReceived: 90}}}, seen: 100}
	got := prove(described{proxy: true}, walk, snapshot{hops: make([]mesh.Hop, 2)}, after, meshbench.LoadResult{Sent: 100, Completed: 90, Errored: 10})
	if got.Status != meshbench.Proven {
		t.Errorf("with errors: %s (%s)", got.Status, got.Reason)
	}
}

// TestProveCountsConnections: where proxies know nothing else, a trial's own
// ones must be among them.
func TestProveCountsConnections(t *testing.T) {
	hop := func(n uint64) snapshot {
		return snapshot{seen: 100 * n, hops: []mesh.Hop{{Secure: true, Layer4: true, Counters: mesh.Counters{ClientReceived: 4 * n, ClientAttempts: 4 * n, ServerReceived: 5 * n, Handshakes: 4 * n}}}}
	}
	sent := meshbench.LoadResult{Sent: 100, Completed: 100}
	if got := prove(described{proxy: true}, meshbench.Walk{}, hop(1), hop(2), sent); got.Status != meshbench.Proven || got.ClientProxy != 4 || got.ServerProxy != 5 {
		t.Errorf("%+v", got)
	}
	still := hop(1)
	still.seen = 200
	if got := prove(described{proxy: true}, meshbench.Walk{}, hop(1), still, sent); got.Status != meshbench.ProofFailed || !strings.Contains(got.Reason, "no connection of this trial") {
		t.Errorf("%+v", got)
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		trial meshbench.Trial
		want  meshbench.Status
		code  string
	}{
		"quiet":            {meshbench.Trial{}, meshbench.Valid, ""},
		"parked and quiet": {meshbench.Trial{ParkedCPUCores: 0.04}, meshbench.Valid, ""},
		"parked and busy":  {meshbench.Trial{ParkedCPUCores: 0.06}, meshbench.Suspect, "parked_subjects_busy"},
		"neighbour":        {meshbench.Trial{NeighbourCores: 0.2}, meshbench.Suspect, "busy_neighbours"},
		"loud neighbour":   {meshbench.Trial{NeighbourCores: 0.7}, meshbench.InvalidTest, "busy_neighbours"},
		"no path":          {meshbench.Trial{Proof: meshbench.Proof{Status: meshbench.ProofFailed}}, meshbench.InvalidTest, "path_not_proven"},
	} {
		judge(&c.trial)
		v := c.trial.Verdict
		if v.Status != c.want || (len(v.Reasons) > 0) != (c.code != "") || c.code != "" && v.Reasons[0].Code != c.code {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestUsage(t *testing.T) {
	before := snapshot{usage: []meshbench.UsageReading{{Process: "client-proxy", UserNanos: 10e6, SystemNanos: 5e6}}}
	after := snapshot{usage: []meshbench.UsageReading{{Process: "client-proxy", Role: meshbench.ClientProxy, UserNanos: 310e6, SystemNanos: 105e6, AnonBytes: 70}}}
	got := usage(before, after, map[string]float64{"client-proxy": 0.01}, map[string]memorySample{"client-proxy": {sum: 120, n: 2, peak: 80}},
		meshbench.LoadResult{Planned: 1000, Sent: 2000, Completed: 1000, ElapsedSeconds: 2})
	u := got[0]
	if *u.CPUPer1000Requests != 200 || u.CPUCores != 0.1 || u.UserCores != 0.075 || u.IdleCPUCores != 0.01 || u.MemoryMeanBytes != 60 || u.MemoryPeakBytes != 80 {
		t.Errorf("%+v, %v ms per 1,000 requests", u, *u.CPUPer1000Requests)
	}
	if got := usage(before, after, nil, nil, meshbench.LoadResult{}); got[0].CPUPer1000Requests != nil {
		t.Error("cost per request without a request")
	}
}

func TestElsewhere(t *testing.T) {
	begin := time.Unix(0, 0)
	before := snapshot{at: begin, busy: 1e9, parked: 10, own: 0}
	after := snapshot{at: begin.Add(time.Second), busy: 2e9, parked: 10 + 1e7, own: 1e8,
		usage: []meshbench.UsageReading{{Process: "echo", UserNanos: 2e8}}}
	parked, neighbours := elsewhere(before, after, meshbench.LoadResult{Generator: meshbench.Generator{CPUSeconds: 0.5}})
	if parked != 0.01 || neighbours < 0.189 || neighbours > 0.191 {
		t.Errorf("parked %v, neighbours %v; want 0.01 and 0.19", parked, neighbours)
	}
}
