package behavior

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Config is what a matrix needs.
type Config struct {
	// Infra makes the infrastructure of one deployment: a control plane that
	// a probe kills must be nobody else's.
	Infra func(ctx context.Context) (infra.Infrastructure, error)
	// Driver returns the driver of a mesh.
	Driver      func(mesh string) (mesh.Driver, error)
	Profile     meshbench.Profile
	Fingerprint meshbench.Fingerprint
	Progress    func(Event)
	Logger      *slog.Logger
}

// Select returns the probes with a name or of a group; all where none is
// given. An unknown one is an error of code Invalid.
func Select(all []Probe, names []string) ([]Probe, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []Probe
	for _, p := range all {
		if slices.Contains(names, p.Name) || slices.Contains(names, p.Group()) {
			out = append(out, p)
		}
	}
	var known []string
	for _, p := range all {
		known = append(known, p.Name, p.Group())
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, meshbench.Errorf(meshbench.Invalid, "there is no probe and no group called %q", n).
				WithHint("%s", mesh.Suggest(n, slices.Compact(slices.Sorted(slices.Values(known)))))
		}
	}
	return out, nil
}

// Run tries every probe on every subject, one deployment at a time. A subject
// that does not come up has cells that failed; the error is of ctx alone.
func Run(ctx context.Context, c Config, subjects []meshbench.Subject, probes []Probe) (Matrix, error) {
	if c.Progress == nil {
		c.Progress = func(Event) {}
	}
	m := Matrix{SchemaVersion: meshbench.SchemaVersion, Fingerprint: c.Fingerprint, Profile: c.Profile, Subjects: []string{}, Probes: []ProbeInfo{}, Cells: []Cell{}}
	for _, p := range probes {
		m.Probes = append(m.Probes, ProbeInfo{p.Name, p.Group(), p.Question, p.Expected, p.Reference})
	}
	t := &turn{Config: c, probes: probes, total: len(subjects) * len(probes)}
	for _, s := range subjects {
		m.Subjects = append(m.Subjects, s.ID)
		cells, err := t.subject(ctx, s)
		m.Cells = append(m.Cells, cells...)
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// turn is one execution.
type turn struct {
	Config
	probes      []Probe
	done, total int
}

// subject tries all probes on one subject, ground by ground; the cells are in
// the order of the probes.
func (t *turn) subject(ctx context.Context, s meshbench.Subject) ([]Cell, error) {
	cells := make([]Cell, len(t.probes))
	for i, p := range t.probes {
		cells[i] = Cell{Probe: p.Name, Subject: s.ID, Expected: p.Expected, Reference: p.Reference, Result: Failed, Evidence: "not tried"}
	}
	set := func(i int, f Finding) {
		cells[i].Result, cells[i].Evidence = f.Result, f.Evidence
		t.done++
		t.Progress(Event{Subject: s.ID, Probe: cells[i].Probe, Done: t.done, Total: t.total, Cell: &cells[i]})
	}
	driver, err := t.Driver(s.Mesh)
	if err != nil {
		return cells, err
	}
	for _, g := range []Ground{Shared, Pair, Ruin, Orphan} {
		var bed *Bed
		var failed error
		for i, p := range t.probes {
			if p.ground() != g {
				continue
			}
			r := t.request(s, g)
			spec, err := driver.Render(r)
			if err != nil {
				set(i, Finding{Failed, said(err)})
				continue
			}
			if why := p.unsupported(driver, r, spec); why != "" {
				set(i, Finding{Unsupported, why})
				continue
			}
			if bed == nil && failed == nil {
				t.Progress(Event{Subject: s.ID, Done: t.done, Total: t.total})
				bed, failed = t.deploy(ctx, driver, r, g)
			}
			if failed != nil {
				if ctx.Err() != nil {
					return cells, ctx.Err()
				}
				set(i, Finding{Failed, "it did not come up: " + said(failed)})
				if g == Ruin {
					failed = nil
				}
				continue
			}
			f := bed.try(ctx, p)
			if ctx.Err() != nil {
				bed.close(t.Logger)
				return cells, ctx.Err()
			}
			set(i, f)
			if g == Ruin || bed.broken {
				bed.close(t.Logger)
				bed = nil
			}
		}
		if bed != nil {
			bed.close(t.Logger)
		}
	}
	return cells, nil
}

func (t *turn) request(s meshbench.Subject, g Ground) mesh.Request {
	return mesh.Request{
		Subject: s, Profile: t.Profile, Services: services(g), Threads: 1,
		Workload: meshbench.Workload{Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}},
	}
}

// deploy brings a subject up and waits for its first answer.
func (t *turn) deploy(ctx context.Context, driver mesh.Driver, r mesh.Request, g Ground) (_ *Bed, err error) {
	spec, err := driver.Render(r)
	if err != nil {
		return nil, err
	}
	spec.Processes = append(applications(r.Services), spec.Processes...)
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	on, err := t.Infra(ctx)
	if err != nil {
		return nil, err
	}
	b := &Bed{on: on, driver: driver, request: r, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	defer func() {
		if err != nil {
			b.close(t.Logger)
		}
	}()
	b.up, err = on.Deploy(ctx, r.Subject.ID, spec, func(ctx context.Context, access infra.Access, process string) error {
		return driver.Prepare(ctx, access, r, process)
	})
	if err != nil {
		return nil, err
	}
	if err := driver.Configure(ctx, b.up, r); err != nil {
		if died := b.up.Check(); died != nil {
			return nil, died
		}
		return nil, err
	}
	var a Answer
	for range 50 {
		if a = b.Do(ctx, Request{}); a.Status == 200 {
			break
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if a.Status != 200 {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s: a plain request is answered with %s", r.Subject.ID, a).
			WithHint("see the logs of its processes; run again with --verbose")
	}
	if g == Orphan {
		if err := b.orphan(ctx); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// try runs one probe, once more where it could not be decided, and takes back
// the policies that it put in force.
func (b *Bed) try(ctx context.Context, p Probe) Finding {
	var f Finding
	var err error
	for range 2 {
		f, err = b.once(ctx, p)
		if err == nil || ctx.Err() != nil || b.broken || p.ground() == Ruin {
			break
		}
	}
	if err != nil {
		f = Finding{Failed, said(err)}
	}
	if p.ground() != Ruin && p.ground() != Orphan {
		if died := b.up.Check(); died != nil {
			// A proxy that dies of a request is an answer, too.
			b.broken = true
			first, _, _ := strings.Cut(said(died), "\n")
			f = Finding{Differs, strings.TrimPrefix(f.Evidence+"; then "+first, "; ")}
		} else if wrong := b.unclean(ctx); wrong != "" {
			// What a probe left behind must not fall on the next one.
			b.broken = true
			f = Finding{Differs, strings.TrimPrefix(f.Evidence+"; afterwards: "+wrong, "; ")}
		}
	}
	return f
}

// unclean tells what is wrong with ordinary requests after a probe: each must
// get its own answer. Empty: nothing.
func (b *Bed) unclean(ctx context.Context) string {
	const n = 5
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for range n {
		key := b.Key()
		if err := b.Script(ctx, key, []origin.Answer{canned(200, key)}); err != nil {
			return said(err)
		}
		a, records, err := b.Ask(ctx, Request{Key: key})
		switch {
		case err != nil:
			return said(err)
		case a.Status != 200 || string(a.Body) != key || len(records) != 1:
			return "an ordinary request did not get its own answer, but " + a.String() + "; " + seen(records)
		}
	}
	return ""
}

func (b *Bed) once(ctx context.Context, p Probe) (f Finding, err error) {
	inner, cancel := context.WithTimeout(ctx, p.time())
	defer cancel()
	defer func() {
		if !b.applied || p.ground() == Ruin {
			return
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime)
		defer cancel()
		if failed := b.Apply(undo); failed != nil {
			b.broken = true
			if err == nil && f.Result == Passed {
				f = Finding{Differs, f.Evidence + "; but the policy could not be taken back: " + said(failed)}
			}
		}
	}()
	f, err = p.Run(inner, b)
	if err == nil && inner.Err() != nil {
		err = fmt.Errorf("not decided in %v: %s", p.time(), f.Evidence)
	}
	return f, err
}

// closeTime is what the end of a deployment may take.
const closeTime = 30 * time.Second

func (b *Bed) close(logger *slog.Logger) {
	if b.kept != nil {
		b.kept.Close()
	}
	b.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var err error
	if b.up != nil {
		err = b.up.Close(ctx)
	}
	if e := b.on.Close(); err == nil {
		err = e
	}
	if err != nil && logger != nil {
		logger.Warn("close", "subject", b.request.Subject.ID, "err", err)
	}
}
