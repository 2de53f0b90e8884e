package istio

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/istio/apiserver"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

// configureTimeout is for all proxies to have a configuration and be live.
const configureTimeout = 60 * time.Second

// Configure makes the objects in the API server those of the request, and
// returns when every proxy has what istiod made of them.
//
// Istio has no way to ask for that, so we leave a marker, which is the last
// thing that changes, and look for it in the proxies. istiod answers one proxy
// one push after the other, and within a push it sends clusters first and
// listeners and routes after them; so what came with the marker is there for
// certain when the marker of a further push is. Hence there are two.
func (d Driver) Configure(ctx context.Context, access mesh.Access, r mesh.Request) error {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return err
	}
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	server, err := connect(access)
	if err != nil {
		return err
	}
	defer server.Close()
	var all []envoyadmin.Client
	var before []uint64
	for _, p := range proxies(r) {
		a, err := d.admin(access, p.process)
		if err != nil {
			return err
		}
		n, err := rejections(ctx, a)
		if err != nil {
			return err
		}
		all, before = append(all, a), append(before, n)
	}
	if err := d.applyAll(ctx, access, server, r); err != nil {
		return err
	}
	for range 2 {
		name := "meshbench-" + strings.ToLower(rand.Text())
		if _, err := server.Apply(ctx, envoyFilters, marker(name).Object); err != nil {
			return err
		}
		for _, a := range all {
			if err := awaitCluster(ctx, a, name); err != nil {
				return err
			}
		}
	}
	for i, a := range all {
		if err := d.accepted(ctx, access, a, before[i]); err != nil {
			return err
		}
		if err := a.AwaitLive(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d Driver) admin(access mesh.Access, proxy string) (envoyadmin.Client, error) {
	address, err := local(access, proxy, "admin")
	return envoyadmin.Client{Proxy: proxy, Address: address, HTTP: d.http}, err
}

// applyAll makes the objects of workloads and policies what they shall be, and
// removes those of ours that are not asked for any more.
func (d Driver) applyAll(ctx context.Context, access mesh.Access, server *apiserver.Client, r mesh.Request) error {
	wanted, err := workloads(access, r)
	if err != nil {
		return err
	}
	asked, err := policies(r)
	if err != nil {
		return err
	}
	wanted = append(wanted, asked...)
	for _, o := range wanted {
		// Just after a kind was defined, the server does not know it yet.
		err := awaitFound(ctx, "the API server knows "+o.kind.Kind, func() error {
			_, err := server.Apply(ctx, o.kind, o.Object)
			return err
		})
		if err != nil {
			return err
		}
	}
	keep := marker("").key()
	for _, kind := range changing {
		there, err := server.List(ctx, kind, namespace, label())
		if err != nil {
			return err
		}
		for _, o := range there {
			known := object{kind: kind, Object: o}
			if known.key() == keep || slices.ContainsFunc(wanted, func(w object) bool { return w.key() == known.key() }) {
				continue
			}
			if err := server.Delete(ctx, kind, namespace, o.Metadata.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitFound is await for what fails at first because there is no such kind.
func awaitFound(ctx context.Context, what string, try func() error) error {
	var failed error
	err := await(ctx, what, func() error {
		failed = try()
		if failed != nil && meshbench.AsError(failed).Code == meshbench.NotFound {
			return failed
		}
		return nil
	})
	if err != nil {
		return err
	}
	return failed
}

// awaitCluster returns when a proxy has a cluster.
func awaitCluster(ctx context.Context, a envoyadmin.Client, name string) error {
	for {
		dump, err := a.Config(ctx, "dynamic_active_clusters", "^"+regexp.QuoteMeta(name)+"$")
		if err != nil {
			return err
		}
		if strings.Contains(string(dump), name) {
			return nil
		}
		select {
		case <-ctx.Done():
			return meshbench.Errorf(meshbench.Unavailable, "istiod has not given %s its configuration: %w", a.Proxy, ctx.Err()).
				WithHint("look at the log of istiod and of %s in the run's directory", a.Proxy)
		case <-time.After(poll):
		}
	}
}

// rejections is how often a proxy has refused what istiod sent it.
func rejections(ctx context.Context, a envoyadmin.Client) (uint64, error) {
	s, err := a.Stats(ctx, `\.update_rejected$`)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, v := range s {
		n += v
	}
	return n, nil
}

// accepted returns an error with the proxy's own words where it has refused
// something since it had refused that often. What it had before stays in
// force.
func (d Driver) accepted(ctx context.Context, access mesh.Access, a envoyadmin.Client, before uint64) error {
	now, err := rejections(ctx, a)
	if err != nil || now == before {
		return err
	}
	// istiod hears of it a moment after the proxy has counted it.
	waiting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	words := fmt.Sprintf("%d updates", now-before)
	err = await(waiting, "istiod tells what was refused", func() error {
		said, err := d.refusals(waiting, access, a.Proxy)
		if err == nil && said == "" {
			return meshbench.Errorf(meshbench.NotFound, "it tells nothing")
		}
		if err == nil {
			words = said
		}
		return err
	})
	if err != nil && ctx.Err() != nil {
		return err
	}
	return meshbench.Errorf(meshbench.Invalid, "%s refuses its configuration: %s", a.Proxy, words).
		WithHint("what it had before stays in force; the log of %s says more", a.Proxy)
}

// refusals is what a proxy told istiod when it refused something, and has not
// accepted since.
func (d Driver) refusals(ctx context.Context, access mesh.Access, proxy string) (string, error) {
	text, err := d.askIstiod(ctx, access, "http", "/debug/syncz")
	if err != nil {
		return "", err
	}
	return parseRefusals(text, proxy)
}

// parseRefusals reads what istiod knows of the proxies that are connected.
func parseRefusals(syncz []byte, proxy string) (string, error) {
	var list []struct {
		Proxy     string `json:"proxy"` // "sidecar~127.64.0.1~echo-proxy.default~default.svc.cluster.local", or its third part
		Resources map[string]struct {
			LastError string `json:"lastError"`
		} `json:"resources"`
	}
	if err := json.Unmarshal(syncz, &list); err != nil {
		return "", meshbench.Errorf(meshbench.Internal, "istiod's list of proxies cannot be read: %w", err)
	}
	var words []string
	for _, p := range list {
		if !slices.Contains(strings.Split(p.Proxy, "~"), proxy+"."+namespace) {
			continue
		}
		for _, kind := range slices.Sorted(maps.Keys(p.Resources)) {
			if e := p.Resources[kind].LastError; e != "" {
				words = append(words, essence(e))
			}
		}
	}
	return strings.Join(words, "; "), nil
}

// essence leaves the copy of the whole configuration out, which Envoy begins
// some refusals with.
func essence(words string) string {
	if i := strings.LastIndex(words, "Proto constraint validation failed"); i >= 0 {
		words = words[i:]
	}
	const longest = 1000
	if len(words) > longest {
		words = words[:longest] + " ..."
	}
	return words
}
