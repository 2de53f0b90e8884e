package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/workload"
)

// MeshState is whether a mesh can be run on this machine.
type MeshState string

// The states of a mesh.
const (
	MeshReady       MeshState = "ready"       // all that it needs is here
	MeshAvailable   MeshState = "available"   // the first run gets what is missing
	MeshUnavailable MeshState = "unavailable" // something cannot be had here
)

// MeshStatus is a mesh as it stands on this machine.
type MeshStatus struct {
	Name    string    `json:"name"`
	Title   string    `json:"title"`
	Summary string    `json:"summary"`
	State   MeshState `json:"state"`
	// Detail says it in words: "can be had by meshbench runtime get istio: about
	// 22 minutes of CPU, 36.9 MB to download; once".
	Detail       string            `json:"detail"`
	Hint         string            `json:"hint,omitempty"`
	Versions     []string          `json:"versions"` // the first is the default
	Options      []MeshOption      `json:"options"`
	Profiles     []string          `json:"profiles"`
	Capabilities []MeshCapability  `json:"capabilities"`
	Runtimes     []runtimes.Status `json:"runtimes"` // that the default subject needs
}

// MeshOption is a setting of a subject; the first value is the default.
type MeshOption struct {
	Name    string   `json:"name"`
	Values  []string `json:"values"`
	Summary string   `json:"summary"`
}

// MeshCapability tells whether a mesh can do what a kind of policy asks.
type MeshCapability struct {
	Policy    string `json:"policy"`
	Supported bool   `json:"supported"`
	Note      string `json:"note,omitempty"`
	Source    string `json:"source,omitempty"`
}

// Meshes tells how every mesh stands on this machine. Nothing is fetched.
func (a *App) Meshes(ctx context.Context) ([]MeshStatus, error) {
	all, err := a.Runtimes().List(ctx)
	if err != nil {
		return nil, err
	}
	var out []MeshStatus
	for _, driver := range builtin.Drivers() {
		out = append(out, meshStatus(driver, all))
	}
	return out, nil
}

func meshStatus(driver mesh.Driver, all []runtimes.Status) MeshStatus {
	d := driver.Describe()
	s := MeshStatus{
		Name: d.Name, Title: d.Title, Summary: d.Summary, State: MeshReady,
		Versions: append([]string{}, d.Versions...), Options: []MeshOption{}, Profiles: []string{},
		Capabilities: []MeshCapability{}, Runtimes: []runtimes.Status{},
	}
	for _, o := range d.Options {
		s.Options = append(s.Options, MeshOption(o))
	}
	for _, p := range d.Profiles {
		s.Profiles = append(s.Profiles, string(p))
	}
	for _, c := range d.Capabilities {
		s.Capabilities = append(s.Capabilities, MeshCapability{string(c.Policy), c.Supported, c.Note, c.Source})
	}
	var ready, missing, hints []string
	var build time.Duration
	var bytes int64
	refs, namespaces := needs(driver, meshbench.Subject{Mesh: d.Name})
	for _, ref := range refs {
		r := standing(all, ref)
		s.Runtimes = append(s.Runtimes, r)
		words := strings.TrimSpace(r.Name + " " + r.Version)
		switch r.State {
		case runtimes.OnPath, runtimes.Cached:
			ready = append(ready, words)
		case runtimes.Available:
			build += time.Duration(r.BuildSeconds * float64(time.Second))
			bytes += r.DownloadBytes
			if s.State == MeshReady {
				s.State = MeshAvailable
			}
		default:
			s.State = MeshUnavailable
			missing = append(missing, words+" "+r.Detail)
			if r.Hint != "" {
				hints = append(hints, r.Hint)
			}
		}
	}
	if namespaces {
		if err := local.CheckNamespaces(); err != nil {
			s.State = MeshUnavailable
			known := meshbench.AsError(err)
			missing = append(missing, known.Message)
			hints = append(hints, known.Hint)
		}
	}
	switch s.State {
	case MeshReady:
		s.Detail = "nothing is needed"
		if len(ready) > 0 {
			s.Detail = strings.Join(ready, ", ")
		}
	case MeshAvailable:
		var cost []string
		if build > 0 {
			cost = append(cost, "about "+runtimes.FormatCPU(build)+" of CPU")
		}
		if bytes > 0 {
			cost = append(cost, runtimes.FormatBytes(bytes)+" to download")
		}
		s.Detail = fmt.Sprintf("the first run gets it, or: meshbench runtime get %s (%s; once)", d.Name, strings.Join(cost, ", "))
	case MeshUnavailable:
		s.Detail, s.Hint = strings.Join(missing, "; "), strings.Join(hints, "; ")
	}
	return s
}

// standing returns how a runtime such as envoy@1.40.0 or linkerd2-proxy
// stands: ready if one of its rows is.
func standing(all []runtimes.Status, ref string) runtimes.Status {
	name, version, _ := strings.Cut(ref, "@")
	var rows []runtimes.Status
	for _, s := range all {
		matches := version == "" || s.Version == "" || s.Version == version || strings.HasPrefix(s.Version, version+".")
		if s.Name == name && matches && s.State != runtimes.Stale {
			rows = append(rows, s)
		}
	}
	for _, wanted := range []runtimes.State{runtimes.OnPath, runtimes.Cached, runtimes.Available} {
		if i := slices.IndexFunc(rows, func(s runtimes.Status) bool { return s.State == wanted }); i >= 0 {
			return rows[i]
		}
	}
	if len(rows) > 0 {
		return rows[0]
	}
	return runtimes.Status{Name: name, Version: version, State: runtimes.Unavailable, Detail: "is not in the catalogue"}
}

// needs returns the runtimes of a subject, as its driver renders it for the
// simplest workload, and those that the mesh names besides; and whether it
// needs network namespaces.
func needs(driver mesh.Driver, subject meshbench.Subject) (refs []string, namespaces bool) {
	d := driver.Describe()
	w := experiment.Defaults().Workload
	var names []string
	spec, err := driver.Render(mesh.Request{
		Subject: subject, Profile: d.Profiles[0], Workload: w, Threads: 1, Services: workload.Services{}.Services(w),
	})
	if err == nil {
		refs = spec.NeededRuntimes()
	}
	for _, ref := range refs {
		name, _, _ := strings.Cut(ref, "@")
		names = append(names, name)
	}
	for _, name := range d.Runtimes {
		if !slices.Contains(names, name) {
			refs = append(refs, name)
		}
	}
	return refs, len(spec.Namespaces) > 0
}

// Wanted returns the runtimes that a reference names: those of a mesh at a
// version ("istio", "consul@1.22"), or the one runtime ("envoy@1.39"). The
// error is of code invalid for what is no reference, and not_found for a name
// that is neither.
func (a *App) Wanted(ref string) ([]string, error) {
	name, version, err := runtimes.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	driver, err := builtin.Find(name)
	known := slices.Contains(runtimes.Builtin().Names(), name)
	if err != nil {
		if known {
			return []string{ref}, nil
		}
		failure := meshbench.AsError(err)
		return nil, meshbench.Errorf(meshbench.NotFound, "there is no mesh and no runtime called %q", name).
			WithHint("%s; runtimes: %s", failure.Hint, strings.Join(runtimes.Builtin().Names(), ", "))
	}
	d := driver.Describe()
	if known && slices.Equal(d.Runtimes, []string{name}) {
		return []string{ref}, nil // the mesh is the runtime
	}
	if _, err := mesh.Version(d, version); err != nil {
		return nil, err
	}
	refs, _ := needs(driver, meshbench.Subject{Mesh: name, Version: version})
	return refs, nil
}
