package runner

import (
	"fmt"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Limits of the machine's part of a trial's verdict, in cores.
const (
	// parkedLimit is what all subjects that are not being measured may use.
	parkedLimit = 0.05
	// neighbourSuspect is a tenth of a core: chosen, not measured, as what a
	// quiet machine's own housekeeping stays well below.
	neighbourSuspect = 0.10
	// neighbourInvalid is half a core: what is measured then is the neighbour.
	neighbourInvalid = 0.50
)

// judge adds the machine's and the path's part to the generator's verdict.
func judge(t *meshbench.Trial) {
	if t.Verdict.Status == "" {
		t.Verdict.Status = meshbench.Valid
	}
	if t.Proof.Status == meshbench.ProofFailed {
		t.Verdict.Add(meshbench.InvalidTest, "path_not_proven", "the requests' path is not proven: %s", t.Proof.Reason)
	}
	if t.ParkedCPUCores > parkedLimit {
		t.Verdict.Add(meshbench.Suspect, "parked_subjects_busy", "subjects that were not being measured used %.2f cores (limit %.2f)", t.ParkedCPUCores, parkedLimit)
	}
	switch {
	case t.NeighbourCores > neighbourInvalid:
		t.Verdict.Add(meshbench.InvalidTest, "busy_neighbours", "other processes of this machine used %.2f cores (limit %.2f)", t.NeighbourCores, neighbourInvalid)
	case t.NeighbourCores > neighbourSuspect:
		t.Verdict.Add(meshbench.Suspect, "busy_neighbours", "other processes of this machine used %.2f cores (limit %.2f)", t.NeighbourCores, neighbourSuspect)
	}
}

// prove compares what each station counted with what was sent.
//
//	sent >= client proxy received >= completed
//	server proxy received = upstream attempts of the client proxy
//
// and, in a trial in which nothing failed, all of them are equal.
//
// Between services it is the same, hop by hop; each passes on at least as many
// requests as the walk through the topology makes of those sent.
func prove(driver mesh.Driver, walk meshbench.Walk, before, after snapshot, result meshbench.LoadResult) meshbench.Proof {
	if driver == nil {
		return meshbench.Proof{Status: meshbench.NotApplicable, Sent: result.Sent, Reason: "what runs behind the URL is not ours to look into"}
	}
	p := meshbench.Proof{
		Status:      meshbench.Proven,
		Sent:        result.Sent,
		Application: after.seen - before.seen,
		PeerName:    after.peer,
	}
	clean := result.Errored+result.TimedOut+result.Unfinished == 0
	fail := func(format string, args ...any) {
		if p.Status == meshbench.Proven {
			p.Status, p.Reason = meshbench.ProofFailed, fmt.Sprintf(format, args...)
		}
	}
	if clean && p.Application != p.Sent {
		fail("%d requests were sent, the application received %d", p.Sent, p.Application)
	}
	if p.Application < result.Completed {
		fail("%d requests completed, the application received only %d", result.Completed, p.Application)
	}
	if !driver.Describe().HasProxy {
		return p
	}
	if len(after.hops) == 0 || len(before.hops) != len(after.hops) {
		fail("the proxies could not be asked what they counted")
		return p
	}
	for i, hop := range after.hops[1:] {
		counted := hopProof(walk, before.hops[i+1], hop, p.Sent)
		p.Hops = append(p.Hops, counted)
		if reason := proveHop(hop, counted, clean); reason != "" {
			fail("%s", reason)
		}
	}
	first, start := after.hops[0], before.hops[0]
	p.ClientProxy = first.ClientReceived - start.ClientReceived
	p.ServerProxy = first.ServerReceived - start.ServerReceived
	attempts := first.ClientAttempts - start.ClientAttempts
	// Connections between proxies are kept, so these count from their start.
	p.Handshakes, p.Plaintext = first.Handshakes, first.Plaintext
	if first.Layer4 && (p.ClientProxy == 0 || p.ServerProxy == 0) {
		// A trial opens connections of its own, and these proxies count those.
		fail("no connection of this trial went through the proxies")
	}
	switch {
	case first.Layer4:
	case p.ClientProxy > p.Sent || p.ClientProxy < result.Completed:
		fail("%d requests were sent and %d completed, the client proxy received %d", p.Sent, result.Completed, p.ClientProxy)
	case clean && p.ClientProxy != p.Sent:
		fail("%d requests were sent, the client proxy received %d", p.Sent, p.ClientProxy)
	case p.ServerProxy != attempts:
		fail("the client proxy sent %d requests on, the server proxy received %d", attempts, p.ServerProxy)
	}
	if first.Secure {
		switch {
		case p.Handshakes == 0:
			fail("no mutual TLS handshake between the proxies was seen")
		case p.Plaintext > 0:
			fail("%d connections between the proxies were not encrypted", p.Plaintext)
		case p.PeerName == "" && driver.Describe().NamesPeer && !first.Layer4:
			fail("the application saw no peer name: the client's certificate was not asked for")
		}
	}
	return p
}

// hopProof is what was counted between two services in a trial.
func hopProof(walk meshbench.Walk, before, after mesh.Hop, sent uint64) meshbench.HopProof {
	times := 0
	for caller := range strings.SplitSeq(after.From, "+") { // see mesh.Edge
		times += walk.Requests[caller]
	}
	p := meshbench.HopProof{
		From: after.From, To: after.To, Expected: sent * uint64(times),
		ClientProxy: after.ClientAttempts - before.ClientAttempts, ServerProxy: after.ServerReceived - before.ServerReceived,
		Handshakes: after.Handshakes, Plaintext: after.Plaintext,
	}
	if after.Layer4 { // connections outlive a trial
		p.ClientProxy, p.ServerProxy = after.ClientReceived, after.ServerReceived
	}
	return p
}

// proveHop returns why a hop between services was not through the mesh, or "".
func proveHop(hop mesh.Hop, p meshbench.HopProof, clean bool) string {
	name := p.From + " to " + p.To
	switch {
	case !hop.Layer4 && p.ClientProxy != p.ServerProxy:
		return fmt.Sprintf("%s: the client's proxy sent %d requests on, the server's received %d", name, p.ClientProxy, p.ServerProxy)
	case p.ServerProxy == 0:
		return fmt.Sprintf("%s: nothing went through the proxies", name)
	case !hop.Layer4 && clean && p.ServerProxy < p.Expected:
		return fmt.Sprintf("%s: the requests sent make %d here, the proxies passed only %d", name, p.Expected, p.ServerProxy)
	case hop.Secure && hop.Handshakes == 0:
		return fmt.Sprintf("%s: no mutual TLS handshake was seen", name)
	case hop.Secure && hop.Plaintext > 0:
		return fmt.Sprintf("%s: %d connections were not encrypted", name, hop.Plaintext)
	}
	return ""
}

// usage is what each process used for this trial's requests. Clocks run from
// the look before the job to the look after it; calibration and draining cost
// the system nothing, so the time that counts is that of the requests.
func usage(before, after snapshot, idle map[string]float64, samples map[string]memorySample, result meshbench.LoadResult) []meshbench.Usage {
	start := map[string]meshbench.UsageReading{}
	for _, u := range before.usage {
		start[u.Process] = u
	}
	var out []meshbench.Usage
	for _, a := range after.usage {
		b, ok := start[a.Process]
		if !ok {
			continue
		}
		user, system := float64(a.UserNanos-b.UserNanos), float64(a.SystemNanos-b.SystemNanos)
		u := meshbench.Usage{Role: a.Role, Service: a.Service, Instance: a.Instance, Process: a.Process, IdleCPUCores: idle[a.Process]}
		if result.Completed > 0 && result.Sent > 0 {
			per := (user + system) / 1e6 / float64(result.Sent) * 1000
			u.CPUPer1000Requests = &per
			// Sent covers settling too; per counted second it is the rate.
			perSecond := float64(result.Planned-result.Skipped) / result.ElapsedSeconds
			u.UserCores = user / 1e9 / float64(result.Sent) * perSecond
			u.SystemCores = system / 1e9 / float64(result.Sent) * perSecond
			u.CPUCores = u.UserCores + u.SystemCores
		}
		u.MemoryMeanBytes, u.MemoryPeakBytes, u.MemoryFileBytes = a.AnonBytes, a.AnonBytes, a.FileBytes
		if s := samples[a.Process]; s.n > 0 {
			u.MemoryMeanBytes = s.sum / s.n
			u.MemoryPeakBytes = max(s.peak, a.AnonBytes)
			u.MemoryFileBytes = max(s.file, a.FileBytes)
		}
		out = append(out, u)
	}
	g := result.Generator
	per := float64(g.CPUPerRequest)
	out = append(out, meshbench.Usage{
		Role: meshbench.GeneratorRole, Process: "generator", CPUPer1000Requests: &per,
		CPUCores:        per * 1e-6 * result.ThroughputRPS,
		MemoryMeanBytes: g.PeakMemoryBytes, MemoryPeakBytes: g.PeakMemoryBytes,
	})
	return out
}

// elsewhere tells how many cores the parked subjects and the processes that
// are not ours used during a trial.
func elsewhere(before, after snapshot, result meshbench.LoadResult) (parked, neighbours float64) {
	elapsed := float64(after.at.Sub(before.at))
	if elapsed <= 0 {
		return 0, 0
	}
	difference := func(a, b uint64) float64 {
		if a < b { // a deployment was replaced in between
			return 0
		}
		return float64(a - b)
	}
	parked = difference(after.parked, before.parked)
	if after.busy == 0 {
		return parked / elapsed, 0
	}
	ours := parked + difference(after.own, before.own) + result.Generator.CPUSeconds*1e9
	start := map[string]uint64{}
	for _, u := range before.usage {
		start[u.Process] = u.UserNanos + u.SystemNanos
	}
	for _, u := range after.usage {
		ours += difference(u.UserNanos+u.SystemNanos, start[u.Process])
	}
	return parked / elapsed, max(0, difference(after.busy, before.busy)-ours) / elapsed
}
