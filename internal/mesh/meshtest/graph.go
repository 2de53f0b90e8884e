package meshtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// graphRequest is a request with the services of Graph.
func (s Suite) graphRequest(policies ...meshbench.Policy) mesh.Request {
	r := s.request(meshbench.Parity, "")
	r.Services, r.Policies = s.Graph, policies
	return r
}

// graph: a proxy for each instance of each service and one for the
// generator, with names that tell which, and a way for each call.
func (s Suite) graph(t *testing.T) {
	r := s.graphRequest()
	spec, err := s.Driver.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(slices.Clone(s.GraphApplications), spec.Processes...)
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
	s.checkProcesses(t, r, spec)
	if !s.describe().HasProxy {
		return
	}
	for _, service := range s.Graph {
		for i := range service.Instances {
			name := service.Name + "-proxy"
			if i > 0 {
				name = fmt.Sprintf("%s-%d-proxy", service.Name, i+1)
			}
			at := slices.IndexFunc(spec.Processes, func(p meshbench.Process) bool { return p.Name == name })
			if at < 0 {
				t.Errorf("there is no process %s", name)
				continue
			}
			if p := spec.Processes[at]; p.Role != meshbench.ServerProxy || p.Service != service.Name || p.Instance != i {
				t.Errorf("%s has the role %s, service %q, instance %d", name, p.Role, p.Service, p.Instance)
			}
		}
	}
	clients := slices.DeleteFunc(slices.Clone(spec.Processes), func(p meshbench.Process) bool { return p.Role != meshbench.ClientProxy })
	if len(clients) != 1 || clients[0].Name != "client-proxy" {
		t.Errorf("%d client proxies, want one of the name client-proxy", len(clients))
	}
	for _, from := range s.Graph {
		for _, to := range from.Calls {
			way := route(spec, from.Name, to)
			if way == nil {
				t.Errorf("there is no way from %s to %s", from.Name, to)
			}
		}
	}
	for _, way := range spec.Routes {
		declared := slices.ContainsFunc(spec.Processes, func(p meshbench.Process) bool {
			return p.Name == way.At.Process && slices.Contains(p.Ports, way.At.Port)
		})
		if !declared {
			t.Errorf("the way from %s to %s is at port %q of %q, which is not declared", way.From, way.To, way.At.Port, way.At.Process)
		}
	}
}

// route is the way of a service's first instance; nil: there is none.
func route(spec meshbench.Spec, from, to string) *meshbench.Route {
	for _, r := range spec.Routes {
		if r.From == from && r.To == to && r.Instance == 0 {
			return &r
		}
	}
	return nil
}

// deployedGraph sends requests along every edge, plays the application that
// calls, and tries each policy on the running deployment.
func (s Suite) deployedGraph(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*timeout)
	defer cancel()
	r := s.graphRequest()
	spec, err := s.Driver.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	whole := spec
	whole.Processes = append(slices.Clone(s.GraphApplications), spec.Processes...)
	up := s.Deploy(t, whole, func(ctx context.Context, access mesh.Access, process string) error {
		return s.Driver.Prepare(ctx, access, r, process)
	})
	if err := s.Driver.Configure(ctx, up, r); err != nil {
		t.Fatal(err)
	}
	p := playground{s: s, up: up, front: up.Target()}
	if s.describe().HasProxy {
		if p.back, err = target(up, route(spec, s.Graph[0].Name, s.Graph[1].Name)); err != nil {
			t.Fatal(err)
		}
		t.Run("hops", func(t *testing.T) { p.hops(ctx, t, r) })
	}
	for _, policy := range s.examples(true, s.Graph[0].Name, s.Graph[2].Name) {
		kind, err := policy.Kind()
		if err != nil {
			t.Fatal(err)
		}
		t.Run(string(kind), func(t *testing.T) { p.policy(ctx, t, kind, policy) })
	}
	t.Run("all at once", func(t *testing.T) {
		// Those under which requests are still answered, for every service.
		var all []meshbench.Policy
		for _, policy := range s.examples(true, "", s.Graph[2].Name) {
			if policy.Authorization == nil && policy.Fault == nil && policy.RateLimit == nil && policy.Split == nil {
				all = append(all, policy)
			}
		}
		p.configure(ctx, t, all...)
		p.await(ctx, t, "answered", p.answered)
		p.configure(ctx, t)
		p.await(ctx, t, "answered", p.answered)
	})
	t.Run("unsupported", func(t *testing.T) {
		for _, c := range s.describe().Capabilities {
			if !c.Supported {
				policy := example(c.Policy, s.Graph[0].Name, s.Graph[2].Name)
				refused(t, policy.Name, s.Driver.Configure(ctx, up, s.graphRequest(policy)), c)
			}
		}
		p.await(ctx, t, "answered", p.answered)
	})
}

// target is where an application sends what goes to another service.
func target(up Deployment, way *meshbench.Route) (meshbench.Target, error) {
	if way == nil {
		return meshbench.Target{}, fmt.Errorf("there is no way")
	}
	address, err := up.Address(way.At.Process, way.At.Port)
	return meshbench.Target{URL: "http://" + address + "/", Host: way.Host}, err
}

// playground is a running graph.
type playground struct {
	s           Suite
	up          Deployment
	front, back meshbench.Target // from the generator to the first service, and from that to the second
}

// fresh opens a connection for each request, as those do that come anew after
// a change.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeout}

func (p playground) configure(ctx context.Context, t *testing.T, policies ...meshbench.Policy) {
	t.Helper()
	if err := p.s.Driver.Configure(ctx, p.up, p.s.graphRequest(policies...)); err != nil {
		t.Fatal(err)
	}
}

// await looks until something holds.
func (p playground) await(ctx context.Context, t *testing.T, what string, holds func(context.Context) error) {
	t.Helper()
	begun := time.Now()
	for {
		err := holds(ctx)
		if err == nil {
			t.Logf("%s after %v", what, time.Since(begun).Round(time.Millisecond))
			return
		}
		if time.Since(begun) > timeout || ctx.Err() != nil {
			t.Fatalf("not %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answered holds while requests go both ways as if there were no policy.
func (p playground) answered(ctx context.Context) error {
	targets := []meshbench.Target{p.front}
	if p.back.URL != "" {
		targets = append(targets, p.back)
	}
	for _, at := range targets {
		if err := get(ctx, fresh, at); err != nil {
			return err
		}
	}
	return nil
}

// policy applies one to the first service, sees what it does from outside,
// takes it back, and sees that it does so no more.
func (p playground) policy(ctx context.Context, t *testing.T, kind meshbench.PolicyKind, policy meshbench.Policy) {
	p.configure(ctx, t, policy)
	effect := p.effect(kind)
	p.await(ctx, t, "in effect", effect)
	p.configure(ctx, t, policy) // again: nothing changes
	p.await(ctx, t, "in effect again", effect)
	p.configure(ctx, t)
	p.await(ctx, t, "taken back", func(ctx context.Context) error {
		if err := p.answered(ctx); err != nil {
			return err
		}
		switch kind {
		case meshbench.PolicyMTLS, meshbench.PolicyTimeout, meshbench.PolicyRetry, meshbench.PolicyCircuitBreaker, meshbench.PolicyOutlierDetection:
			return nil // they let an ordinary request pass
		}
		if effect(ctx) == nil {
			return fmt.Errorf("the policy is still in effect")
		}
		return nil
	})
}

// effect is what a policy of this suite's examples does to a request.
func (p playground) effect(kind meshbench.PolicyKind) func(context.Context) error {
	other := p.s.Graph[2].Name
	switch kind {
	case meshbench.PolicyAuthorization:
		// 403, or no answer where proxies know connections alone.
		return func(ctx context.Context) error {
			response, err := p.send(ctx)
			if err == nil && response.StatusCode != http.StatusForbidden {
				return fmt.Errorf("answered with %s", response.Status)
			}
			return nil
		}
	case meshbench.PolicyFault:
		return func(ctx context.Context) error { return p.status(ctx, http.StatusTeapot) }
	case meshbench.PolicyRateLimit:
		return func(ctx context.Context) error { return p.status(ctx, http.StatusTooManyRequests) }
	case meshbench.PolicyHeaders:
		return func(ctx context.Context) error {
			response, err := p.send(ctx)
			if err == nil && response.Header.Get("x-meshtest") != "answer" {
				err = fmt.Errorf("the answer lacks the header: %v", response.Header)
			}
			return err
		}
	case meshbench.PolicySplit, meshbench.PolicyMirror:
		return func(ctx context.Context) error {
			before, err := p.up.Seen(ctx, other)
			if err != nil {
				return err
			}
			if err := get(ctx, fresh, p.front); err != nil {
				return err
			}
			// A copy is sent beside the request, and may come after its answer.
			var after meshbench.Seen
			for range 20 {
				if after, err = p.up.Seen(ctx, other); err != nil || after.Requests > before.Requests {
					return err
				}
				time.Sleep(10 * time.Millisecond)
			}
			return fmt.Errorf("%s received nothing", other)
		}
	}
	return p.answered
}

func (p playground) status(ctx context.Context, want int) error {
	response, err := p.send(ctx)
	if err == nil && response.StatusCode != want {
		err = fmt.Errorf("answered with %s", response.Status)
	}
	return err
}

// send sends a request to the first service, and drops the answer's body.
func (p playground) send(ctx context.Context) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.front.URL, nil)
	if err != nil {
		return nil, err
	}
	request.Host = p.front.Host
	response, err := fresh.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response, err
}

// hops: each hop counts its own requests and no other's.
func (p playground) hops(ctx context.Context, t *testing.T, r mesh.Request) {
	edges := mesh.Edges(r.Services)
	read := func() []mesh.Hop {
		t.Helper()
		hops, err := p.s.Driver.Counters(ctx, p.up, r)
		if err != nil {
			t.Fatal(err)
		}
		if len(hops) != len(edges) {
			t.Fatalf("the hops are %+v, want one for each of %+v", hops, edges)
		}
		for i, h := range hops {
			if h.From != edges[i].Name() || h.To != edges[i].To {
				t.Fatalf("hop %d is from %s to %s, want %+v", i, h.From, h.To, edges[i])
			}
		}
		return hops
	}
	// Proxies that know connections only tell of them a moment late.
	settled := func() []mesh.Hop {
		t.Helper()
		now := read()
		for now[0].Layer4 {
			time.Sleep(300 * time.Millisecond)
			next := read()
			if slices.Equal(next, now) {
				break
			}
			now = next
		}
		return now
	}
	for i, at := range []meshbench.Target{p.front, p.back} {
		p.await(ctx, t, "answered", func(ctx context.Context) error { return get(ctx, fresh, at) })
		before := settled()
		const sent = 10
		for range sent {
			if err := get(ctx, fresh, at); err != nil {
				t.Fatal(err)
			}
		}
		after := settled()
		for j := range after {
			want := uint64(0)
			if i == j {
				want = sent
			}
			h, b := after[j], before[j]
			counts := []uint64{h.ClientReceived - b.ClientReceived, h.ClientAttempts - b.ClientAttempts, h.ServerReceived - b.ServerReceived}
			if want == 0 && slices.Max(counts) > 0 || want > 0 && !h.Layer4 && slices.ContainsFunc(counts, func(n uint64) bool { return n != want }) || want > 0 && h.Layer4 && h.ServerReceived == 0 {
				t.Errorf("after %d requests to %s, the hop from %s to %s counted %v", sent, edges[i].To, h.From, h.To, counts)
			}
			if want > 0 && h.Secure && (h.Handshakes == 0 || h.Plaintext > 0) {
				t.Errorf("the hop from %s to %s: %d handshakes, %d plaintext connections", h.From, h.To, h.Handshakes, h.Plaintext)
			}
		}
	}
	if s := p.s.Strict; s != nil && p.s.describe().NamesPeer {
		seen, err := p.up.Seen(ctx, p.s.Graph[1].Name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(seen.PeerName, "/"+p.s.Graph[0].Name) {
			t.Errorf("%s saw the peer %q, want the name of %s", p.s.Graph[1].Name, seen.PeerName, p.s.Graph[0].Name)
		}
	}
}
