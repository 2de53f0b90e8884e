package runtimes

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/meshbench/meshbench"
)

// dock is a registry in this process; a blob can be replaced by another one.
type dock struct {
	host    string // with its port
	replace map[string][]byte
	private bool
}

func newDock(t *testing.T) *dock {
	t.Helper()
	d := &dock{replace: map[string][]byte{}}
	real := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.private {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		for digest, data := range d.replace {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+digest) {
				// What was flushed has no length ahead that could give it away.
				_ = http.NewResponseController(w).Flush()
				_, _ = w.Write(data)
				return
			}
		}
		real.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	d.host = strings.TrimPrefix(s.URL, "http://")
	return d
}

// image makes an image of layers, the lowest first.
func image(t *testing.T, layers ...[]member) v1.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, members := range layers {
		data := tarOf(t, members...)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// push puts an image or an index into the dock and returns its reference.
func (d *dock) push(t *testing.T, what interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := what.Digest()
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.NewDigest(d.host + "/mesh/proxy@" + digest.String())
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(reference, what)
	case v1.ImageIndex:
		err = remote.WriteIndex(reference, what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return reference.String()
}

func TestImage(t *testing.T) {
	t.Parallel()
	const file = "usr/lib/proxy/proxy"
	program := func(text string) []member {
		return []member{{name: "etc/words", text: "words"}, {name: "./" + file, text: text}}
	}
	good := script("9.9.1")
	other := []member{{name: "usr/lib/other", text: "other"}}
	for title, c := range map[string]struct {
		layers  [][]member
		spoil   func(t *testing.T, d *dock, img v1.Image, pin *ImagePin)
		message string // empty: it works
		hint    string
	}{
		"one layer":             {layers: [][]member{program(good)}},
		"below another":         {layers: [][]member{program(good), other}},
		"above an older one":    {layers: [][]member{program(script("9.8.3")), program(good)}},
		"put back":              {layers: [][]member{program(good), {{name: "usr/lib/proxy/.wh..wh..opq"}, {name: file, text: good}}}},
		"removed":               {layers: [][]member{program(good), {{name: "usr/lib/proxy/.wh.proxy"}}}, message: "no file"},
		"folder removed":        {layers: [][]member{program(good), {{name: "usr/.wh.lib"}}}, message: "no file"},
		"folder emptied":        {layers: [][]member{program(good), {{name: "usr/lib/.wh..wh..opq"}}}, message: "no file"},
		"not there":             {layers: [][]member{other}, message: "no file"},
		"a link":                {layers: [][]member{{{name: file, text: "-> /etc/passwd"}}}, message: "no regular file"},
		"another version":       {layers: [][]member{program(script("9.9.2"))}, message: "calls itself 9.9.2"},
		"larger than it may be": {layers: [][]member{program(good)}, spoil: func(_ *testing.T, _ *dock, _ v1.Image, pin *ImagePin) { pin.ProgramBytes = 5 }, message: "more than 5"},
		"unknown digest": {
			layers: [][]member{program(good)},
			spoil: func(_ *testing.T, _ *dock, _ v1.Image, pin *ImagePin) {
				pin.Reference = pin.Reference[:len(pin.Reference)-64] + sha([]byte("x"))
			},
			message: "MANIFEST_UNKNOWN", hint: "check the name and the digest",
		},
		"without a digest": {
			layers: [][]member{program(good)},
			spoil: func(_ *testing.T, _ *dock, _ v1.Image, pin *ImagePin) {
				pin.Reference = "cr.l5d.io/linkerd/proxy:latest"
			},
			message: "latest", hint: "its digest",
		},
		"private": {
			layers:  [][]member{program(good)},
			spoil:   func(_ *testing.T, d *dock, _ v1.Image, _ *ImagePin) { d.private = true },
			message: "401", hint: "docker login",
		},
		"a layer is another one": {
			layers: [][]member{program(good)},
			spoil: func(t *testing.T, d *dock, img v1.Image, _ *ImagePin) {
				t.Helper()
				layers, err := img.Layers()
				if err != nil {
					t.Fatal(err)
				}
				digest, err := layers[0].Digest()
				if err != nil {
					t.Fatal(err)
				}
				d.replace[digest.String()] = gzipped(t, tarOf(t, program(strings.Replace(good, "proxy", "prooy", 1))...))
			},
			message: "error verifying",
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			b, d := newBed(t), newDock(t)
			img := image(t, c.layers...)
			pin := ImagePin{Reference: d.push(t, img), File: file}
			if c.spoil != nil {
				c.spoil(t, d, img, &pin)
			}
			cache := b.from(Image{Pins: map[string]ImagePin{bedPlatform: pin}})
			if c.message == "" {
				if r, _ := b.mustGet(t, cache, "", "9.9.1"); r.Source != "OCI image "+pin.Reference {
					t.Errorf("it is %+v", r)
				}
				b.checkNoPartial(t)
				return
			}
			_, err := cache.Get(context.Background(), "proxy", "", nil)
			e := meshbench.AsError(err)
			if e == nil || !strings.Contains(e.Message, c.message) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %+v", e)
			}
			b.checkNothingKept(t)
		})
	}
}

// TestImageIndex takes the image of the right platform.
func TestImageIndex(t *testing.T) {
	t.Parallel()
	b, d := newBed(t), newDock(t)
	index := v1.ImageIndex(empty.Index)
	for architecture, version := range map[string]string{"amd64": "9.9.1", "arm64": "9.8.3"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image(t, []member{{name: "proxy", text: script(version)}}),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	pin := ImagePin{Reference: d.push(t, index), File: "/proxy"}
	b.mustGet(t, b.from(Image{Pins: map[string]ImagePin{bedPlatform: pin}}), "", "9.9.1")
}

// TestAdd gives the cache a runtime that the catalogue has no release of.
func TestAdd(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, d := newBed(t), newDock(t)
	cache := func() *Cache {
		c := b.from(nil)
		e := &c.catalogue.Entries[0]
		// As linkerd2-proxy does: the version is in the log of a start that fails.
		e.Releases, e.VersionArgs, e.VersionEnviron, e.VersionStatus, e.Hint = nil, nil, []string{"TELL=yes"}, 64, "take it from its image"
		return c
	}
	quiet := func(version string) string {
		return "#!/bin/sh\n[ \"$TELL\" = yes ] && echo \"INFO proxy: release " + version + " (abc) by somebody on 2026-01-01T00:00:00Z\"\necho 'Invalid configuration' >&2\nexit 64\n"
	}
	source := func(version string) Source {
		return Image{Pins: map[string]ImagePin{bedPlatform: {
			Reference: d.push(t, image(t, []member{{name: "bin/proxy", text: quiet(version)}})), File: "bin/proxy",
		}}}
	}
	_, err := cache().Get(ctx, "proxy", "", nil)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.NotFound || e.Hint != "take it from its image" {
		t.Errorf("before: %+v", e)
	}
	if list, err := cache().List(ctx); err != nil || len(list) != 1 || list[0].State != Unavailable || list[0].Hint != "take it from its image" {
		t.Errorf("before: %+v, %v", list, err)
	}
	for _, version := range []string{"9.9.1", "9.8.3"} {
		r, err := cache().Add(ctx, "proxy", source(version), nil)
		if err != nil || r.Version != version {
			t.Fatalf("got %+v, %v", r, err)
		}
		again, err := cache().Add(ctx, "proxy", source(version), nil)
		if err != nil || again != r {
			t.Errorf("the second time it is %+v, %v", again, err)
		}
	}
	if _, err := cache().Add(ctx, "proxy", source("7.0.0"), nil); err == nil || !strings.Contains(err.Error(), "supported are 9.8 to 9.9") {
		t.Errorf("one that is too old: %v", err)
	}
	for wish, want := range map[string]string{"": "9.9.1", "9.8": "9.8.3", "9.9.1": "9.9.1"} {
		if r, err := cache().Get(ctx, "proxy", wish, nil); err != nil || r.Version != want || !strings.HasPrefix(r.Source, "OCI image ") {
			t.Errorf("proxy %s is %+v, %v", wish, r, err)
		}
		if r, err := cache().Find(ctx, "proxy", wish); err != nil || r.Version != want {
			t.Errorf("Find: proxy %s is %+v, %v", wish, r, err)
		}
	}
	if list, err := cache().List(ctx); err != nil || len(list) != 2 || list[0].State != Cached || list[1].State != Cached {
		t.Errorf("the list is %+v, %v", list, err)
	}
	if removed, err := cache().Remove(ctx, "proxy", "9.9"); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if r, err := cache().Get(ctx, "proxy", "", nil); err != nil || r.Version != "9.8.3" {
		t.Errorf("then it is %+v, %v", r, err)
	}
	// What the catalogue pins comes from there alone.
	if _, err := b.cache().Add(ctx, "proxy", source("9.9.1"), nil); meshbench.AsError(err).Code != meshbench.Conflict {
		t.Errorf("one with releases: %v", err)
	}
}
