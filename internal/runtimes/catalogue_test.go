package runtimes

import (
	goversion "go/version"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

// TestBuiltin holds what the rest of the package relies on: whole versions,
// newest first, whole pins, no pin twice.
func TestBuiltin(t *testing.T) {
	seen := map[string]string{}
	for _, e := range Builtin().Entries {
		if (len(e.Releases) == 0) != (e.Hint != "") || len(e.VersionArgs)+len(e.VersionEnviron) == 0 || e.Program == "" || filepath.Base(e.Program) != e.Program {
			t.Errorf("%s is not whole: %+v", e.Name, e)
		}
		var last version
		for i, r := range e.Releases {
			v, ok := parseVersion(r.Version)
			if !ok || v.parts != 3 || v.suffix != "" || v.String() != r.Version {
				t.Errorf("%s %q is not a whole version", e.Name, r.Version)
			}
			if i > 0 && compareVersions(v, last) >= 0 {
				t.Errorf("%s %s comes after the older %s", e.Name, v, last)
			}
			last = v
			if !e.supports(v) {
				t.Errorf("%s %s is outside of what is supported", e.Name, v)
			}
			for _, s := range r.Sources {
				if g, ok := s.(GoModule); ok {
					checkGoModule(t, e, r, g)
					offer, err := g.Offer("linux/amd64")
					if err != nil || seen[offer.Key] != "" {
						t.Errorf("%s %s: %v, or the key of %s", e.Name, r.Version, err, seen[offer.Key])
					}
					seen[offer.Key] = e.Name
					continue
				}
				w, ok := s.(Wheel)
				if !ok {
					t.Errorf("%s %s comes from a %T", e.Name, r.Version, s)
					continue
				}
				if w.Version != r.Version || len(w.Pins) == 0 {
					t.Errorf("%s %s comes from %s with %d pins", e.Name, r.Version, w.requirement(), len(w.Pins))
				}
				for platform, pin := range w.Pins {
					if !isKey(pin.SHA256) || pin.Tag == "" || pin.Bytes <= 0 || pin.ProgramBytes < pin.Bytes {
						t.Errorf("%s %s on %s: %+v is not a whole pin", e.Name, r.Version, platform, pin)
					}
					what := r.Version + " on " + platform
					if other := seen[pin.SHA256]; other != "" {
						t.Errorf("%s and %s have the same digest", what, other)
					}
					seen[pin.SHA256] = what
				}
			}
		}
	}
}

// checkGoModule checks that a build is pinned: what it is built out of is in
// its go.mod and go.sum, and the files beside it are those that the entry has.
func checkGoModule(t *testing.T, e Entry, r Release, g GoModule) {
	t.Helper()
	files, err := g.sources()
	if err != nil {
		t.Errorf("%s: %v", e.Name, err)
		return
	}
	path, version, _ := strings.Cut(g.Module, "@")
	if !strings.Contains(string(files["go.mod"]), path+" "+version+"\n") {
		t.Errorf("%s: go.mod does not require %s", e.Name, g.Module)
	}
	for _, line := range []string{path + " " + version + " h1:", path + " " + version + "/go.mod h1:"} {
		if !strings.Contains(string(files["go.sum"]), line) {
			t.Errorf("%s: go.sum has no line %q", e.Name, line)
		}
	}
	if need := needed(files["go.mod"]); goversion.Compare(oldestGo, need) < 0 {
		t.Errorf("%s needs %s, oldestGo is %s", e.Name, need, oldestGo)
	}
	if (g.Package == Own) != (files["main.go"] != nil) {
		t.Errorf("%s: its package is %s, and main.go has %d bytes", e.Name, g.Package, len(files["main.go"]))
	}
	for name, text := range files {
		if strings.HasSuffix(name, ".go") && !strings.HasPrefix(string(text), "//go:build ignore\n") {
			t.Errorf("%s: %s is no file that the main module ignores", e.Name, name)
		}
	}
	var beside []string
	for _, f := range g.Beside {
		beside = append(beside, f.Name)
	}
	if !slices.Equal(beside, e.Files) || g.CPU <= 0 || g.Bytes <= 0 {
		t.Errorf("%s %s is not whole: %v beside it, %+v", e.Name, r.Version, e.Files, g)
	}
}

func TestResolve(t *testing.T) {
	c := Builtin()
	for _, r := range []struct {
		name, wish, want string
		hints            []string
	}{
		{name: "envoy", wish: "", want: "1.40.0"},
		{name: "envoy", wish: "1", want: "1.40.0"},
		{name: "envoy", wish: "1.40", want: "1.40.0"},
		{name: "envoy", wish: "1.39", want: "1.39.3"},
		{name: "envoy", wish: "1.36.4", want: "1.36.4"},
		{name: "envoy", wish: "1.35", hints: []string{"nearest is 1.36.4", "1.40.0, 1.39.3, 1.38.3, 1.37.0, 1.36.4"}},
		{name: "envoy", wish: "1.39.1", hints: []string{"nearest is 1.39.3"}},
		{name: "envoy", wish: "2", hints: []string{"nearest is 1.36.4"}},
		{name: "envoy", wish: "1.41", hints: []string{"nearest is 1.40.0"}},
		{name: "envoy", wish: "newest", hints: []string{"these exist: 1.40.0"}},
		{name: "envoi", wish: "1.40", hints: []string{"these exist: envoy"}},
	} {
		got, err := c.Resolve(r.name, r.wish)
		if got != r.want || (err == nil) != (r.hints == nil) {
			t.Errorf("%s@%s is %q, %v, want %q", r.name, r.wish, got, err, r.want)
		}
		for _, hint := range r.hints {
			if e := meshbench.AsError(err); e == nil || e.Code != meshbench.NotFound || !strings.Contains(e.Hint, hint) {
				t.Errorf("%s@%s: %+v, want a hint with %q", r.name, r.wish, e, hint)
			}
		}
	}
	if got := c.Versions("envoy"); len(got) < 5 || got[0] != "1.40.0" {
		t.Errorf("the versions are %v", got)
	}
	if got := c.Versions("envoi"); got != nil {
		t.Errorf("a name that is not there has the versions %v", got)
	}
}
