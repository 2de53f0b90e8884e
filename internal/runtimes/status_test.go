package runtimes

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

// line is what a test looks at in a Status.
type line struct {
	version string
	state   State
	detail  string // a part of it
}

func checkList(t *testing.T, b *bed, want ...line) []Status {
	t.Helper()
	list, err := b.cache().List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ok := len(list) == len(want)
	for i := range min(len(list), len(want)) {
		s := list[i]
		ok = ok && s.Name == "proxy" && s.Version == want[i].version && s.State == want[i].state && strings.Contains(s.Detail, want[i].detail)
	}
	if !ok {
		t.Errorf("the list is\n%+v\nwant\n%+v", list, want)
	}
	return list
}

func TestList(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	can := "can be had by pip wheel " + bedPackage + "=="
	list := checkList(t, b, line{"9.9.1", Available, can + "9.9.1"}, line{"9.8.3", Available, can + "9.8.3"})
	if list[0].DownloadBytes != b.pins["9.9.1"].Bytes {
		t.Errorf("the download is %d bytes", list[0].DownloadBytes)
	}

	r, _ := b.mustGet(t, b.cache(), "9.8", "9.8.3")
	list = checkList(t, b, line{"9.9.1", Available, can}, line{"9.8.3", Cached, "cached, from pip wheel"})
	if list[1].Path != r.Path || list[1].SizeBytes < int64(len(script("9.8.3"))) {
		t.Errorf("what is cached is %+v", list[1])
	}

	if err := os.Truncate(r.Path, 1); err != nil {
		t.Fatal(err)
	}
	checkList(t, b, line{"9.9.1", Available, can}, line{"9.8.3", Available, "damaged"})
	b.mustGet(t, b.cache(), "9.8", "9.8.3")

	online := slices.Clone(b.environ)
	b.offline()
	list = checkList(t, b, line{"9.9.1", Unavailable, "cannot be had: pip is missing"}, line{"9.8.3", Cached, "cached"})
	if !strings.Contains(list[0].Hint, "python3-pip") {
		t.Errorf("the hint is %q", list[0].Hint)
	}
	b.environ = online

	path := b.put(t, "proxy", script("9.9.1"))
	list = checkList(t, b, line{"9.9.1", OnPath, "on PATH"}, line{"9.8.3", Cached, "cached"})
	if list[0].Path != path {
		t.Errorf("what is on PATH is %+v", list[0])
	}
	b.put(t, "proxy", script("9.9.7"))
	checkList(t, b, line{"9.9.7", OnPath, "on PATH"}, line{"9.9.1", Available, can}, line{"9.8.3", Cached, "cached"})
	b.put(t, "proxy", script("9.7.0"))
	checkList(t, b, line{"9.7.0", Unavailable, "on PATH, not used: supported are 9.8 to 9.9"},
		line{"9.9.1", Available, can}, line{"9.8.3", Cached, "cached"})
	b.put(t, "proxy", "#!/bin/sh\n")
	checkList(t, b, line{"", Unavailable, "on PATH, not used: it does not tell its version"},
		line{"9.9.1", Available, can}, line{"9.8.3", Cached, "cached"})
}

func TestListForAnotherPlatform(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.platform = "plan9/mips"
	checkList(t, b, line{"9.9.1", Unavailable, "there is no wheel"}, line{"9.8.3", Unavailable, "there is no wheel"})
}

func TestRemove(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := context.Background()
	c := b.cache()
	b.mustGet(t, c, "9.9", "9.9.1")
	older, _ := b.mustGet(t, c, "9.8", "9.8.3")
	for _, wish := range []string{"9.7", "9.9.2"} {
		if removed, err := c.Remove(ctx, "proxy", wish); len(removed) > 0 || meshbench.AsError(err).Code != meshbench.NotFound {
			t.Errorf("removing %s: %v, %v", wish, removed, err)
		}
	}
	for name, version := range map[string]string{"proxy": "../..", "../proxy": ""} {
		if removed, err := c.Remove(ctx, name, version); len(removed) > 0 || err == nil {
			t.Errorf("removing %s %s: %v, %v", name, version, removed, err)
		}
	}
	if removed, err := c.Remove(ctx, "proxy", "9.9"); err != nil || !slices.Equal(removed, []string{"9.9.1"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := c.Find(ctx, "proxy", "9.9"); meshbench.AsError(err).Code != meshbench.NotFound {
		t.Errorf("after it was removed: %v", err)
	}
	if r, err := c.Find(ctx, "proxy", "9.8"); err != nil || r != older {
		t.Errorf("the other is %+v, %v", r, err)
	}
	// One that an earlier catalogue pinned is listed, and removed with the rest.
	stale := filepath.Join(b.dir, "proxy", "9.1.0", strings.Repeat("0", 64))
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	checkList(t, b, line{"9.9.1", Available, ""}, line{"9.8.3", Cached, ""}, line{"9.1.0", Stale, "no longer in the catalogue"})
	if removed, err := c.Remove(ctx, "proxy", ""); err != nil || !slices.Equal(removed, []string{"9.1.0", "9.8.3"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	b.checkNothingKept(t)
	b.mustGet(t, c, "9.9", "9.9.1")
}
