package runtimes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

// tarOf makes a tar archive; a text "-> PATH" makes a link.
func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o755, Size: int64(len(m.text)), Typeflag: tar.TypeReg}
		if target, isLink := strings.CutPrefix(m.text, "-> "); isLink {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
			m.text = ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shelf serves files over HTTP on loopback; a file "broken" breaks off.
func shelf(t *testing.T, files map[string][]byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/broken") {
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(data)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// from returns a cache whose runtime "proxy" 9.9.1 comes from one source.
func (b *bed) from(source Source) *Cache {
	return NewCache(b.dir, Catalogue{Entries: []Entry{{
		Name: "proxy", Program: "proxy", VersionArgs: []string{"--version"}, Oldest: "9.8", Newest: "9.9",
		Releases: []Release{{Version: "9.9.1", Sources: []Source{source}}},
	}}}, Options{Environ: slices.Clone(b.environ), Platform: b.platform})
}

func TestArchive(t *testing.T) {
	t.Parallel()
	const name = "proxy-v9.9.1/proxy"
	program := script("9.9.1")
	tgz := gzipped(t, tarOf(t, member{name: "proxy-v9.9.1/LICENSE", text: "words"}, member{name: "./" + name, text: program}))
	zip := archive(t, member{name: "proxy-v9.9.1/LICENSE"}, member{name: name, text: program})
	url := shelf(t, map[string][]byte{"/p.tar.gz": tgz, "/p.zip": zip, "/broken.tar.gz": tgz})
	for title, c := range map[string]struct {
		pin           ArchivePin
		message, hint string // empty message: it works
	}{
		"tar.gz":         {pin: ArchivePin{URL: url + "/p.tar.gz", Member: name, SHA256: sha(tgz), Bytes: int64(len(tgz)), ProgramBytes: int64(len(program))}},
		"sizes unknown":  {pin: ArchivePin{URL: url + "/p.tar.gz", Member: name, SHA256: sha(tgz)}},
		"zip":            {pin: ArchivePin{URL: url + "/p.zip", Member: name, SHA256: sha(zip)}},
		"wrong digest":   {ArchivePin{URL: url + "/p.zip", Member: name, SHA256: sha(tgz)}, "wrong digest: SHA-256 " + sha(tgz) + " was expected, " + sha(zip) + " came", "publishes"},
		"not there":      {ArchivePin{URL: url + "/q.zip", Member: name, SHA256: sha(zip)}, "answers 404 Not Found", "address"},
		"breaks off":     {ArchivePin{URL: url + "/broken.tar.gz", Member: name, SHA256: sha(tgz)}, "broke off", "try again"},
		"larger":         {ArchivePin{URL: url + "/p.tar.gz", Member: name, SHA256: sha(tgz), Bytes: 10}, "more than 10", ""},
		"program larger": {ArchivePin{URL: url + "/p.tar.gz", Member: name, SHA256: sha(tgz), ProgramBytes: 10}, "more than 10", ""},
		"no member":      {ArchivePin{URL: url + "/p.tar.gz", Member: "proxy", SHA256: sha(tgz)}, `no member "proxy"`, ""},
		"nobody there":   {ArchivePin{URL: "http://127.0.0.1:1/p.tar.gz", Member: name, SHA256: sha(tgz)}, "connection refused", "network"},
		"no address":     {ArchivePin{URL: "://", Member: name, SHA256: sha(tgz)}, "missing protocol scheme", "https://"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			c2 := b.from(Archive{Pins: map[string]ArchivePin{bedPlatform: c.pin}})
			if c.message == "" {
				r, seen := b.mustGet(t, c2, "", "9.9.1")
				if r.Source != "release archive "+c.pin.URL || len(seen) == 0 {
					t.Errorf("it is %+v", r)
				}
				b.checkNoPartial(t)
				return
			}
			_, err := c2.Get(context.Background(), "proxy", "", nil)
			e := meshbench.AsError(err)
			if e == nil || !strings.Contains(e.Message, c.message) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %+v", e)
			}
			b.checkNothingKept(t)
		})
	}
}

func TestArchiveForAnotherPlatform(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	_, err := b.from(Archive{}).Get(context.Background(), "proxy", "", nil)
	if err == nil || !strings.Contains(err.Error(), "no release archive for linux/amd64") {
		t.Errorf("got %v", err)
	}
}

// TestArchiveInterrupted ends a download in its middle.
func TestArchiveInterrupted(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	begun := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("begin"))
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-begun
		cancel()
	}()
	pin := ArchivePin{URL: s.URL + "/p.zip", Member: "p", SHA256: sha(nil)}
	if _, err := b.from(Archive{Pins: map[string]ArchivePin{bedPlatform: pin}}).Get(ctx, "proxy", "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.checkNothingKept(t)
}

func TestExtractTarGz(t *testing.T) {
	t.Parallel()
	good := gzipped(t, tarOf(t, member{name: "a/c", text: "other"}, member{name: "a/b", text: "program"}))
	for name, c := range map[string]struct {
		archive []byte
		want    string // what the error says; empty: it is unpacked
	}{
		"good":               {good, ""},
		"from the root":      {gzipped(t, tarOf(t, member{name: "/a/b", text: "program"})), ""},
		"empty":              {nil, "no gzip archive"},
		"no tar":             {gzipped(t, bytes.Repeat([]byte("x"), 600)), "no tar archive"},
		"cut off early":      {good[:40], "no tar archive"},
		"without the member": {gzipped(t, tarOf(t, member{name: "a/c"})), "no member"},
		"a link":             {gzipped(t, tarOf(t, member{name: "a/b", text: "-> /etc/passwd"})), "no regular file"},
		"too large":          {gzipped(t, tarOf(t, member{name: "a/b", text: "programme"})), "more than 7"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := extractTarGz(context.Background(), bytes.NewReader(c.archive), "a/b", 7, &out, func(int64) {})
			switch {
			case c.want == "" && (err != nil || out.String() != "program"):
				// What ends after the member is not read: the digest is what counts.
				t.Errorf("got %q, %v", out.String(), err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzExtractTarGz(f *testing.F) {
	f.Add(gzipped(f, tarOf(f, member{name: "x", text: "program"})))
	f.Add(gzipped(f, tarOf(f, member{name: "y"}, member{name: "x", text: "-> y"})))
	f.Add([]byte("\x1f\x8b"))
	f.Add([]byte(nil))
	const limit = 1 << 12
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		err := extractTarGz(context.Background(), bytes.NewReader(data), "x", limit, &out, nil)
		if out.Len() > limit {
			t.Errorf("%d bytes were unpacked, the limit is %d (%v)", out.Len(), limit, err)
		}
		if err != nil && meshbench.AsError(err).Code != meshbench.Unavailable {
			t.Errorf("an archive gave %v", err)
		}
	})
}
