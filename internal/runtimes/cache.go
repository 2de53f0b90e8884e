package runtimes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/meshbench/meshbench"
)

// Runtime is a binary that is on this machine and was verified in this run.
type Runtime struct {
	Name    string `json:"name"`    // "envoy"
	Version string `json:"version"` // as the program reports it: "1.40.0"
	Path    string `json:"path"`    // absolute
	SHA256  string `json:"sha256"`  // of the file at Path, hexadecimal
	Source  string `json:"source"`  // "PATH", "PATH (a script)" or an Offer's How, and which Go built it, if one did
}

// Options are what a Cache may be told about its machine. The zero value is
// this machine.
type Options struct {
	Environ  []string // for pip and for the look at PATH; nil: os.Environ()
	Platform string   // GOOS/GOARCH; empty: this program's
}

// Cache finds runtimes on PATH and keeps those that were fetched in a folder:
//
//	NAME/VERSION/KEY/PROGRAM      the binary; KEY is the digest that its source is pinned by
//	NAME/VERSION/KEY/...          files that belong to it, if there are any
//	NAME/VERSION/KEY/entry.json   what it is, with the digests of all files
//	locks/KEY.lock                held while KEY is fetched or removed
//	partial/KEY-*                 a fetch at work, or what is left of one that was killed
//
// An entry appears as a whole, by a rename, or not at all. A Cache may be used
// by several goroutines, and a folder by several processes.
type Cache struct {
	dir       string
	catalogue Catalogue
	host      Host

	mu       sync.Mutex
	digests  map[string]digested // by path
	reported map[string]reported // by path
}

// stamp tells whether a file is still the one that was looked at.
type stamp struct {
	size     int64
	modified time.Time
}

type digested struct {
	stamp
	sha256 string
}

type reported struct {
	stamp
	version version
	err     error
}

// NewCache returns a cache in dir, which is made when something is fetched.
func NewCache(dir string, catalogue Catalogue, options Options) *Cache {
	host := Host{
		Platform: cmp.Or(options.Platform, runtime.GOOS+"/"+runtime.GOARCH),
		Environ:  options.Environ,
	}
	if host.Environ == nil {
		host.Environ = os.Environ()
	}
	return &Cache{
		dir: dir, catalogue: catalogue, host: host,
		digests: map[string]digested{}, reported: map[string]reported{},
	}
}

// Get returns a runtime: from PATH if the version there is what was asked for
// (or, when none was asked for, one that is supported), else from the cache,
// else from the first of its sources that has it. progress may be nil; it is
// called by one goroutine at a time.
//
// Errors are of code not_found for a name or version that is not in the
// catalogue (it names the nearest), and of code unavailable when the runtime
// cannot be had; they wrap ctx's error when ctx ended.
func (c *Cache) Get(ctx context.Context, name, version string, progress func(Progress)) (Runtime, error) {
	e, err := c.catalogue.entry(name)
	if err != nil {
		return Runtime{}, err
	}
	report := reporter(name, version, progress)
	found, refused, err := c.onPath(ctx, e, version)
	if err != nil {
		return Runtime{}, interrupted(e, version, err)
	}
	for _, r := range refused {
		report(Progress{Phase: Notice, Message: r.reason})
	}
	if found != nil {
		return *found, nil
	}
	if r, err := c.added(ctx, e, version); err == nil || ctx.Err() != nil {
		return r, err
	}
	release, err := e.resolve(version)
	if err != nil {
		return Runtime{}, err
	}
	report = reporter(name, release.Version, progress)
	for _, source := range release.Sources {
		offer, err := source.Offer(c.host.Platform)
		if err != nil {
			continue // it is asked again below, where its error counts
		}
		r, err := c.load(ctx, e, release, offer)
		var broken *damage
		switch {
		case err == nil:
			return r, nil
		case errors.As(err, &broken):
			report(Progress{Phase: Notice, Message: fmt.Sprintf("the cached binary is damaged (%s); fetching it again", broken.reason)})
		case !errors.Is(err, os.ErrNotExist):
			return Runtime{}, c.failure(ctx, e, release, []error{err})
		}
	}
	var failures []error
	for _, source := range release.Sources {
		r, err := c.fetch(ctx, e, release, source, report)
		if err == nil {
			return r, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Runtime{}, c.failure(ctx, e, release, failures)
}

// Find returns a runtime that is on PATH or in the cache, and fetches nothing.
// The error is of code not_found if there is none; it says why a version on
// PATH was not used.
func (c *Cache) Find(ctx context.Context, name, version string) (Runtime, error) {
	e, err := c.catalogue.entry(name)
	if err != nil {
		return Runtime{}, err
	}
	found, refused, err := c.onPath(ctx, e, version)
	if err != nil {
		return Runtime{}, interrupted(e, version, err)
	}
	if found != nil {
		return *found, nil
	}
	if r, err := c.added(ctx, e, version); err == nil || ctx.Err() != nil {
		return r, err
	}
	release, err := e.resolve(version)
	if err != nil {
		return Runtime{}, err
	}
	var reasons []string
	for _, r := range refused {
		reasons = append(reasons, r.reason)
	}
	for _, source := range release.Sources {
		offer, err := source.Offer(c.host.Platform)
		if err != nil {
			continue // what it does not have, it has not put into the cache
		}
		r, err := c.load(ctx, e, release, offer)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			reasons = append(reasons, err.Error())
		}
	}
	message := fmt.Sprintf("%s %s is not on this machine", e.Name, release.Version)
	if len(reasons) > 0 {
		message += " (" + strings.Join(reasons, "; ") + ")"
	}
	return Runtime{}, meshbench.Errorf(meshbench.NotFound, "%s", message).
		WithHint("get it with: meshbench runtime get %s@%s", e.Name, release.Version)
}

// Add fetches a runtime that has no releases in the catalogue from a source
// that the user names and vouches for; Get and Find then return it. The errors
// are those of Get, and of code conflict for a runtime that has releases.
func (c *Cache) Add(ctx context.Context, name string, source Source, progress func(Progress)) (Runtime, error) {
	e, err := c.catalogue.entry(name)
	if err != nil {
		return Runtime{}, err
	}
	if len(e.Releases) > 0 {
		return Runtime{}, meshbench.Errorf(meshbench.Conflict, "%s is pinned in the catalogue and comes from there alone", name).
			WithHint("meshbench runtime get %s; or put another %s on PATH", name, e.Program)
	}
	r, err := c.fetch(ctx, e, Release{}, source, reporter(name, "", progress))
	if err != nil {
		return Runtime{}, c.failure(ctx, e, Release{}, []error{err})
	}
	return r, nil
}

// added returns the newest runtime that Add has fetched and that is what is
// wished for. The error is os.ErrNotExist if there is none, or ctx's.
func (c *Cache) added(ctx context.Context, e Entry, wish string) (Runtime, error) {
	if len(e.Releases) > 0 {
		return Runtime{}, os.ErrNotExist
	}
	all := c.entries(e.Name)
	slices.SortFunc(all, func(a, b cached) int {
		va, _ := parseVersion(a.version)
		vb, _ := parseVersion(b.version)
		return compareVersions(vb, va)
	})
	for _, found := range all {
		rec, err := readRecord(found.dir)
		v, ok := parseVersion(found.version)
		if err != nil || !ok || e.refuses(v, wish) != "" {
			continue
		}
		r, err := c.load(ctx, e, Release{Version: found.version}, Offer{Key: found.key, How: rec.Source})
		if err == nil || ctx.Err() != nil {
			return r, err
		}
	}
	return Runtime{}, os.ErrNotExist
}

// Path returns where a runtime is that is on PATH or in the cache, like Find.
func (c *Cache) Path(ctx context.Context, name, version string) (string, error) {
	r, err := c.Find(ctx, name, version)
	return r.Path, err
}

// refusal is a program on PATH that is not used.
type refusal struct {
	path    string
	version string // empty if it told none
	reason  string
}

// onPath looks for a runtime on PATH: the first that is what was asked for,
// and those before it that are not. The error is ctx's.
func (c *Cache) onPath(ctx context.Context, e Entry, wish string) (*Runtime, []refusal, error) {
	var refused []refusal
	for _, path := range lookPath(c.host.Environ, e.Program) {
		v, err := c.ask(ctx, e, path)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			refused = append(refused, refusal{path: path, reason: fmt.Sprintf(
				"PATH has %s, which is not used: it does not tell its version (%v)", path, err)})
			continue
		}
		if why := e.refusesAt(path, v, wish); why != "" {
			refused = append(refused, refusal{path: path, version: v.String(), reason: fmt.Sprintf(
				"PATH has %s %s (%s), which is not used: %s", e.Name, v, path, why)})
			continue
		}
		digest, script, err := c.digest(ctx, path)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			refused = append(refused, refusal{path: path, version: v.String(), reason: fmt.Sprintf(
				"PATH has %s %s, which is not used: it cannot be read (%v)", e.Name, v, err)})
			continue
		}
		source := "PATH"
		if script {
			// The digest is then not that of what runs in the end.
			source = "PATH (a script)"
		}
		return &Runtime{Name: e.Name, Version: v.String(), Path: path, SHA256: digest, Source: source}, refused, nil
	}
	return nil, refused, nil
}

// refusesAt says why a program on PATH is not used for a wish; empty if it is.
func (e Entry) refusesAt(path string, v version, wish string) string {
	if why := e.refuses(v, wish); why != "" {
		return why
	}
	if name := e.lacks(path); name != "" {
		return name + " is not beside it"
	}
	return ""
}

// refuses says why a version on PATH is not used for a wish; empty if it is.
func (e Entry) refuses(v version, wish string) string {
	if wish == "" {
		if !e.supports(v) {
			return fmt.Sprintf("supported are %s to %s", e.Oldest, e.Newest)
		}
		return ""
	}
	w, ok := parseVersion(wish)
	if !ok || !v.matches(w) {
		return wish + " was asked for"
	}
	v.suffix = "" // an unreleased build that was asked for by its whole name
	if !e.supports(v) {
		return fmt.Sprintf("supported are %s to %s", e.Oldest, e.Newest)
	}
	return ""
}

// version runs a program of an entry to learn its version.
func (c *Cache) version(ctx context.Context, e Entry, path string) (version, string, error) {
	return askVersion(ctx, append(slices.Clone(c.host.Environ), e.VersionEnviron...), path, e.VersionArgs, e.VersionStatus)
}

// lacks names the first of the files that must be beside a program and is not
// there; empty if all are.
func (e Entry) lacks(program string) string {
	for _, name := range e.Files {
		if info, err := os.Stat(filepath.Join(filepath.Dir(program), name)); err != nil || !info.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// ask returns the version that a program reports. It is asked once as long as
// its file stays the same.
func (c *Cache) ask(ctx context.Context, e Entry, path string) (version, error) {
	now, err := stampOf(path)
	if err != nil {
		return version{}, err
	}
	c.mu.Lock()
	known, ok := c.reported[path]
	c.mu.Unlock()
	if ok && known.stamp == now {
		return known.version, known.err
	}
	v, out, err := c.version(ctx, e, path)
	if ctx.Err() != nil {
		return version{}, ctx.Err()
	}
	if err != nil && lastLines(out, 1) != "" {
		err = fmt.Errorf("%w: %s", err, lastLines(out, 1))
	}
	c.mu.Lock()
	c.reported[path] = reported{stamp: now, version: v, err: err}
	c.mu.Unlock()
	return v, err
}

// digest returns the SHA-256 of a file, and whether it is a script. It is read
// once as long as the file stays the same.
func (c *Cache) digest(ctx context.Context, path string) (sum string, script bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	var head [2]byte
	n, _ := f.ReadAt(head[:], 0)
	script = string(head[:n]) == "#!"
	now, err := stampOf(path)
	if err != nil {
		return "", false, err
	}
	c.mu.Lock()
	known, ok := c.digests[path]
	c.mu.Unlock()
	if ok && known.stamp == now {
		return known.sha256, script, nil
	}
	sum, _, err = hash(ctx, f)
	if err != nil {
		return "", false, err
	}
	c.mu.Lock()
	c.digests[path] = digested{stamp: now, sha256: sum}
	c.mu.Unlock()
	return sum, script, nil
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{size: info.Size(), modified: info.ModTime()}, nil
}

// failure makes one error of those of all sources.
func (c *Cache) failure(ctx context.Context, e Entry, r Release, failures []error) error {
	if ctx.Err() != nil {
		return interrupted(e, r.Version, ctx.Err())
	}
	var messages, hints []string
	for _, err := range failures {
		known := new(meshbench.Error)
		switch {
		case errors.As(err, &known):
			known = meshbench.AsError(err)
		case errors.Is(err, syscall.ENOSPC):
			known = errDiskFull(err.Error())
		default:
			known = meshbench.Errorf(meshbench.Unavailable, "%w", err).
				WithHint("check that %s can be read and written", c.dir)
		}
		messages = append(messages, known.Message)
		if known.Hint != "" {
			hints = append(hints, known.Hint)
		}
	}
	w, _ := parseVersion(r.Version)
	w.parts = min(w.parts, 2)
	hints = append(hints, strings.Join(strings.Fields(fmt.Sprintf("put %s %s on PATH", e.Program, w)), " "))
	failure := meshbench.Errorf(meshbench.Unavailable, "%s cannot be had: %s", strings.TrimSpace(e.Name+" "+r.Version), strings.Join(messages, "; "))
	failure.Err = errors.Join(failures...)
	return failure.WithHint("%s", strings.Join(hints, "; or "))
}

func interrupted(e Entry, version string, err error) error {
	return meshbench.Errorf(meshbench.Unavailable, "getting %s was interrupted: %w", strings.TrimSpace(e.Name+" "+version), err)
}

// reporter returns a progress function that names the runtime and that spares
// the listener what comes too often to be seen.
func reporter(name, version string, progress func(Progress)) func(Progress) {
	const often = 100 * time.Millisecond
	var last Progress
	var at time.Time
	return func(p Progress) {
		if progress == nil {
			return
		}
		p.Name, p.Version = name, version
		if p.Phase == last.Phase && p.Phase != Notice && p.DoneBytes != p.TotalBytes && time.Since(at) < often {
			return
		}
		last, at = p, time.Now()
		progress(p)
	}
}
