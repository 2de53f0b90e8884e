package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

const (
	// configureTimeout is for all proxies to have a configuration and be live.
	configureTimeout = 60 * time.Second
	// noChange is how long a change is waited for that may be none: Consul can
	// render two different entries alike, and then no proxy hears of it. A
	// change that is one is there within a second.
	noChange = 5 * time.Second
	// look is between two looks at a proxy.
	look = 20 * time.Millisecond
)

// Configure makes the agent's configuration entries those of the request's
// services and policies, and returns when the proxies act by them: they have
// taken what changed, and no connection is left that began under what was
// before. What a proxy refuses is an error of code Invalid in its own words.
func (d Driver) Configure(ctx context.Context, access mesh.Access, r mesh.Request) error {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return err
	}
	if err := check(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	a, err := d.agent(access)
	if err != nil {
		return err
	}
	if dataPlane(r.Subject) == builtinProxy {
		return d.configureBuiltin(ctx, access, a, r)
	}
	// First of all the proxies must have what they were started with: a change
	// shows only against that.
	if err := d.awaitServing(ctx, access, r); err != nil {
		return err
	}
	steps, err := a.steps(ctx, r)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if err := d.apply(ctx, access, a, r, s); err != nil {
			return err
		}
	}
	return a.watchSidecars(ctx, access, r)
}

// step is one write whose effect is awaited before the next: where two changed
// the same part of a proxy, nobody could tell one from both.
type step struct {
	write  []entry
	remove []entry
	parts  []part // that must change
}

// part is a piece of a proxy's configuration.
type part struct {
	proxy     string
	resources []resource
}

// resource is a section of Envoy's /config_dump, and which of it.
type resource struct {
	section string
	names   string // regular expression of the whole name
}

func inboundPart(p proxy) part {
	return part{p.name, []resource{{"dynamic_listeners", "public_listener:.*"}}}
}

func routePart(p proxy, service string) part {
	return part{p.name, []resource{{"dynamic_listeners", service + ":.*"}, {"dynamic_route_configs", service}}}
}

func clusterPart(p proxy) part {
	return part{p.name, []resource{{"dynamic_active_clusters", `.*\.internal\..*`}}}
}

// steps compares what the agent has with what a request wants.
func (a agent) steps(ctx context.Context, r mesh.Request) ([]step, error) {
	wanted, err := entries(r)
	if err != nil {
		return nil, err
	}
	have, err := a.written(ctx)
	if err != nil {
		return nil, err
	}
	all := proxies(r)
	var out []step
	add := func(write, remove []entry, parts []part) {
		if len(write)+len(remove) > 0 {
			out = append(out, step{write, remove, parts})
		}
	}
	gone := maps.Clone(have)
	changed := func(kind string) (entries []entry) {
		for _, e := range wanted {
			if e.kind != kind {
				continue
			}
			delete(gone, e.key())
			if have[e.key()] != e.marks() {
				entries = append(entries, e)
			}
		}
		return entries
	}
	removed := func(kind string) (entries []entry) {
		for _, key := range slices.Sorted(maps.Keys(gone)) {
			if k, name, _ := strings.Cut(key, "/"); k == kind {
				entries = append(entries, entry{kind: kind, name: name})
			}
		}
		return entries
	}
	everywhere := slices.Concat(changed(kindMesh), changed(kindProxy))
	var parts []part
	if len(everywhere) > 0 {
		for _, p := range all {
			parts = append(parts, inboundPart(p))
		}
	}
	add(everywhere, slices.Concat(removed(kindMesh), removed(kindProxy)), parts)

	parts = nil
	services := changed(kindService)
	for _, e := range services {
		before, after := have[e.key()], e.marks()
		for _, p := range of(all, e.name) {
			if before.Inbound != after.Inbound {
				parts = append(parts, inboundPart(p))
			}
			if before.Outbound != after.Outbound && len(p.calls) > 0 {
				parts = append(parts, clusterPart(p))
			}
		}
	}
	add(services, removed(kindService), parts)

	splitters := changed(kindSplitter)
	add(splitters, nil, nil) // no router leads to them yet
	parts = nil
	routers := changed(kindRouter)
	oldRouters := removed(kindRouter)
	for _, e := range slices.Concat(routers, oldRouters) {
		for _, p := range all {
			if slices.ContainsFunc(p.calls, func(c call) bool { return c.to == e.name }) {
				parts = append(parts, routePart(p, e.name))
			}
		}
	}
	add(routers, oldRouters, parts)
	add(nil, removed(kindSplitter), nil) // no router leads to them any more

	parts = nil
	permissions := changed(kindIntentions)
	for _, e := range permissions {
		for _, p := range of(all, e.name) {
			parts = append(parts, inboundPart(p))
		}
	}
	add(permissions, removed(kindIntentions), parts)
	return out, nil
}

// apply takes one step.
func (d Driver) apply(ctx context.Context, access mesh.Access, a agent, r mesh.Request, s step) error {
	before := make([]string, len(s.parts))
	var err error
	for i, p := range s.parts {
		if before[i], err = d.inForce(ctx, access, p); err != nil {
			return err
		}
	}
	refused := map[string]uint64{}
	for _, p := range proxies(r) {
		if refused[p.name], err = d.refusals(ctx, access, p.name); err != nil {
			return err
		}
	}
	for _, e := range s.write {
		if err := a.write(ctx, e); err != nil {
			return err
		}
	}
	for _, e := range s.remove {
		if err := a.call(ctx, http.MethodDelete, "/v1/config/"+e.kind+"/"+url.PathEscape(e.name), nil, nil); err != nil {
			return err
		}
	}
	if len(s.parts) == 0 {
		return nil
	}
	begun := time.Now()
	for i, p := range s.parts {
		for {
			now, err := d.inForce(ctx, access, p)
			if err != nil {
				return err
			}
			if now != before[i] || time.Since(begun) > noChange {
				break
			}
			if n, err := d.refusals(ctx, access, p.proxy); err != nil || n > refused[p.proxy] {
				return errors.Join(err, d.refusal(ctx, access, p.proxy))
			}
			if !pause(ctx, look) {
				return meshbench.Errorf(meshbench.Unavailable, "%s did not take its new configuration: %w", p.proxy, ctx.Err())
			}
		}
	}
	return d.awaitServing(ctx, access, r)
}

// inForce is a digest of a part of a proxy's configuration.
func (d Driver) inForce(ctx context.Context, access mesh.Access, p part) (string, error) {
	admin, err := d.admin(access, p.proxy)
	if err != nil {
		return "", err
	}
	sum := object{}
	for _, r := range p.resources {
		elements, err := dump(ctx, admin, r)
		if err != nil {
			return "", err
		}
		for name, e := range elements {
			sum[r.section+"/"+name] = e
		}
	}
	return digest(sum), nil
}

// dump returns the elements of a section of a proxy's configuration that are
// in force, by name; those that it is still making ready are left out.
func dump(ctx context.Context, admin envoyadmin.Client, r resource) (map[string]json.RawMessage, error) {
	body, err := admin.Config(ctx, r.section, r.names)
	if err != nil {
		return nil, err
	}
	out, err := parseDump(body)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: the configuration in force cannot be read: %w", admin.Proxy, err)
	}
	return out, nil
}

// parseDump reads the sections of listeners, route configurations and clusters
// of /config_dump (Envoy's admin.v3 protocol buffers as JSON).
func parseDump(body []byte) (map[string]json.RawMessage, error) {
	type named struct {
		Name string `json:"name"`
	}
	var document struct {
		Configs []struct {
			Name        string `json:"name"`
			ActiveState *struct {
				Listener json.RawMessage `json:"listener"`
			} `json:"active_state"`
			RouteConfig json.RawMessage `json:"route_config"`
			Cluster     json.RawMessage `json:"cluster"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	for _, c := range document.Configs {
		for _, content := range []json.RawMessage{c.RouteConfig, c.Cluster} {
			var n named
			if content == nil {
				continue
			}
			if err := json.Unmarshal(content, &n); err != nil {
				return nil, err
			}
			out[n.Name] = content
		}
		if c.ActiveState != nil && c.ActiveState.Listener != nil {
			out[c.Name] = c.ActiveState.Listener
		}
	}
	return out, nil
}

// refusals is how many updates a proxy has refused since it started.
func (d Driver) refusals(ctx context.Context, access mesh.Access, proxy string) (uint64, error) {
	admin, err := d.admin(access, proxy)
	if err != nil {
		return 0, err
	}
	stats, err := admin.Stats(ctx, `\.update_rejected$`)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range stats {
		sum += n
	}
	return sum, nil
}

// refusal is why a proxy refused an update, in its own words.
func (d Driver) refusal(ctx context.Context, access mesh.Access, proxy string) error {
	var facts envoyadmin.Facts
	if admin, err := d.admin(access, proxy); err == nil {
		if body, err := admin.OK(ctx, "/config_dump"); err == nil {
			_ = facts.Read(body) // then it does not say why
		}
	}
	words := "it does not say why"
	if len(facts.Rejected) > 0 {
		words = strings.Join(facts.Rejected, "; ")
	}
	return meshbench.Errorf(meshbench.Invalid, "%s refuses what Consul tells it: %s", proxy, words).
		WithHint("look into the log of %s", proxy)
}

// awaitServing returns when every proxy serves by its whole configuration: all
// listeners are there, every cluster knows an instance, nothing is being made
// ready, and no connection is left from before a change.
func (d Driver) awaitServing(ctx context.Context, access mesh.Access, r mesh.Request) error {
	for _, p := range proxies(r) {
		admin, err := d.admin(access, p.name)
		if err != nil {
			return err
		}
		missing := ""
		for {
			if missing, err = unready(ctx, admin, 1+len(p.calls)); err != nil {
				return err
			}
			if missing == "" {
				break
			}
			if n, err := d.refusals(ctx, access, p.name); err != nil || n > 0 && missing == "a listener" {
				return errors.Join(err, d.refusal(ctx, access, p.name))
			}
			if !pause(ctx, look) {
				return meshbench.Errorf(meshbench.Unavailable, "%s did not become live, it lacks %s: %w", p.name, missing, ctx.Err()).
					WithHint("look into the logs of %s and %s", p.name, Agent)
			}
		}
	}
	return nil
}

// unready tells what a proxy lacks to serve; empty: nothing.
func unready(ctx context.Context, admin envoyadmin.Client, listeners int) (string, error) {
	status, _, err := admin.Get(ctx, "/ready")
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "its first configuration", nil
	}
	s, err := admin.Stats(ctx, `^(listener_manager\.(workers_started|total_listeners_(active|warming|draining)|total_filter_chains_draining)|cluster_manager\.warming_clusters|cluster\..*\.internal\..*\.membership_total)$`)
	if err != nil {
		return "", err
	}
	switch {
	case s["listener_manager.workers_started"] != 1:
		return "workers", nil
	case s["listener_manager.total_listeners_active"] < uint64(listeners):
		return "a listener", nil
	case s["listener_manager.total_listeners_warming"]+s["cluster_manager.warming_clusters"] > 0:
		return "a part of its configuration", nil
	case s["listener_manager.total_listeners_draining"]+s["listener_manager.total_filter_chains_draining"] > 0:
		return "the end of old connections", nil
	}
	clusters := 0
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if strings.HasSuffix(name, ".membership_total") {
			clusters++
			if s[name] == 0 {
				service, _, _ := strings.Cut(strings.TrimPrefix(name, "cluster."), ".")
				return "an instance of " + service, nil
			}
		}
	}
	if clusters < listeners-1 {
		return "a cluster", nil
	}
	return "", nil
}

// marks are what an entry says of itself in its Meta, so that it can be told
// from another one.
type marks struct {
	Inbound  string `json:"meshbench-inbound"`
	Outbound string `json:"meshbench-outbound"`
}

func (e entry) marks() marks { return marks{digest(e.inbound), digest(e.outbound)} }
func (e entry) key() string  { return e.kind + "/" + e.name }

// write gives the agent an entry.
func (a agent) write(ctx context.Context, e entry) error {
	body := e.body()
	body["Meta"] = e.marks()
	var done bool
	if err := a.call(ctx, http.MethodPut, "/v1/config", body, &done); err != nil {
		return fmt.Errorf("%s %s: %w", e.kind, e.name, err)
	}
	if !done {
		return meshbench.Errorf(meshbench.Unavailable, "Consul did not take %s %s", e.kind, e.name)
	}
	return nil
}

// written returns the marks of the entries that the agent has.
func (a agent) written(ctx context.Context) (map[string]marks, error) {
	out := map[string]marks{}
	for _, kind := range kinds {
		var list []struct {
			Name string
			Meta marks
		}
		if err := a.call(ctx, http.MethodGet, "/v1/config/"+kind, nil, &list); err != nil {
			return nil, err
		}
		for _, e := range list {
			if kind == kindMesh {
				e.Name = "mesh"
			}
			out[kind+"/"+e.Name] = e.Meta
		}
	}
	return out, nil
}

// watchSidecars has the agent look every 10 seconds whether each proxy can be
// reached, as it does by default with a sidecar that it is asked for. That
// begins when the proxies are up: a look that comes too early would leave an
// instance out for 10 seconds.
func (a agent) watchSidecars(ctx context.Context, access mesh.Access, r mesh.Request) error {
	var there map[string]any
	if err := a.call(ctx, http.MethodGet, "/v1/agent/checks", nil, &there); err != nil {
		return err
	}
	for _, p := range proxies(r) {
		if p.application == nil {
			continue // nobody looks for the generator
		}
		id := p.name + "-listening"
		if there[id] != nil {
			continue
		}
		address, err := access.Address(p.name, inboundPort)
		if err != nil {
			return err
		}
		err = a.call(ctx, http.MethodPut, "/v1/agent/check/register", object{
			"ID": id, "Name": "Connect Sidecar Listening", "ServiceID": p.name, "TCP": address, "Interval": "10s", "Status": "passing",
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d Driver) admin(access mesh.Access, proxy string) (envoyadmin.Client, error) {
	address, err := access.Address(proxy, adminPort)
	return envoyadmin.Client{Proxy: proxy, Address: address, HTTP: d.http}, err
}
