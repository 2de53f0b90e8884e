package runtimes

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/sumdb/dirhash"

	"github.com/meshbench/meshbench"
)

// mill is what a test of builds works on: a module proxy in a folder, Go's
// caches and a cache of runtimes.
type mill struct {
	dir     string
	environ []string
	sums    []string // lines of a go.sum
	source  GoModule
}

const (
	millModule = "example.com/proxy"
	// println needs no package but the runtime, so that its build is short.
	millProgram = "package main\n\nvar version = \"v0.0.0\"\n\nfunc main() { println(\"proxy version \" + version) }\n"
)

// newMill makes a mill whose proxy has one module, with a program that says
// what the linker tells it, and a file.
func newMill(t *testing.T, program string) *mill {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		// Go makes its module cache read-only.
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o755)
			}
			return nil
		})
	})
	m := &mill{dir: dir, environ: append(os.Environ(),
		"GOPROXY=file://"+filepath.Join(dir, "proxy"), "GOMODCACHE="+filepath.Join(dir, "modules"), "GOSUMDB=off", "GOFLAGS=-mod=vendor")}
	m.putModule(t, millModule, "v1.2.3", map[string]string{"cmd/proxy/main.go": program, "files/words.txt": "words\n"})
	m.source = GoModule{
		Files: fstest.MapFS{
			"module.mod": {Data: []byte("module example.com/build\n\ngo 1.26.0\n\nrequire " + millModule + " v1.2.3\n")},
			"module.sum": {Data: []byte(strings.Join(m.sums, ""))},
			"README":     {Data: []byte("not written out")},
		},
		Package: millModule + "/cmd/proxy", Module: millModule + "@v1.2.3",
		Set:    []string{"main.version=v1.2.3"},
		Beside: []ModuleFile{{Name: "words", Module: millModule, Path: "files/words.txt"}},
	}
	return m
}

// putModule adds a module to the proxy (https://go.dev/ref/mod#goproxy-protocol).
func (m *mill) putModule(t *testing.T, path, version string, files map[string]string) {
	t.Helper()
	dir := filepath.Join(m.dir, "proxy", path, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gomod := "module " + path + "\n\ngo 1.26.0\n"
	members := []member{{name: path + "@" + version + "/go.mod", text: gomod}}
	for name, text := range files {
		members = append(members, member{name: path + "@" + version + "/" + name, text: text})
	}
	zip := filepath.Join(dir, version+".zip")
	for name, data := range map[string][]byte{
		zip:                                 archive(t, members...),
		filepath.Join(dir, version+".mod"):  []byte(gomod),
		filepath.Join(dir, version+".info"): []byte(`{"Version": "` + version + `"}`),
	} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := dirhash.HashZip(zip, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	modSum, err := dirhash.HashDir(putGoMod(t, gomod), "", dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	m.sums = append(m.sums, fmt.Sprintf("%[1]s %[2]s %[3]s\n%[1]s %[2]s/go.mod %[4]s\n", path, version, sum, modSum))
}

func putGoMod(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (m *mill) cache(environ ...string) *Cache {
	return NewCache(filepath.Join(m.dir, "cache"), Catalogue{Entries: []Entry{{
		Name: "proxy", Program: "proxy", Oldest: "1.2", Newest: "1.2", Files: []string{"words"},
		Releases: []Release{{Version: "1.2.3", Sources: []Source{m.source}}},
	}}}, Options{Environ: append(slices.Clone(m.environ), environ...)})
}

func (m *mill) checkNothingKept(t *testing.T) {
	t.Helper()
	if kept := m.cache().entries("proxy"); len(kept) > 0 {
		t.Errorf("the cache has %v", kept)
	}
	if left, _ := os.ReadDir(filepath.Join(m.dir, "cache", "partial")); len(left) > 0 {
		t.Errorf("left in partial: %v", left)
	}
}

// TestGoModule builds a real program with the real Go, from a proxy of the
// test's own.
func TestGoModule(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	m := newMill(t, millProgram)
	if list, err := m.cache().List(ctx); err != nil || len(list) != 1 || list[0].State != Available ||
		!strings.Contains(list[0].Detail, "can be had by go build of example.com/proxy@v1.2.3") {
		t.Errorf("the list is %+v, %v", list, err)
	}
	var phases []Phase
	r, err := m.cache().Get(ctx, "proxy", "", func(p Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	})
	if err != nil {
		t.Fatalf("%v (%s)", err, meshbench.AsError(err).Hint)
	}
	if want := []Phase{Downloading, Building, Trying}; !slices.Equal(phases, want) {
		t.Errorf("the phases were %v, want %v", phases, want)
	}
	if r.Version != "1.2.3" || !strings.HasPrefix(r.Source, "go build of example.com/proxy@v1.2.3 with go1.") {
		t.Errorf("it is %+v", r)
	}
	beside := filepath.Join(filepath.Dir(r.Path), "words")
	if text, err := os.ReadFile(beside); err != nil || string(text) != "words\n" {
		t.Errorf("beside it is %q, %v", text, err)
	}
	// Without Go, it is still there.
	if again, err := m.cache("PATH=").Get(ctx, "proxy", "1.2", nil); err != nil || again != r {
		t.Errorf("without Go it is %+v, %v", again, err)
	}
	// A file beside it counts as much as the program.
	for name, damage := range map[string]func() error{
		"changed": func() error { return os.WriteFile(beside, []byte("sword\n"), 0o644) },
		"gone":    func() error { return os.Remove(beside) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.cache().Find(ctx, "proxy", ""); err == nil || !strings.Contains(err.Error(), "words") {
			t.Errorf("%s: Find: %v", name, err)
		}
		if again, err := m.cache().Get(ctx, "proxy", "", nil); err != nil || again.Version != r.Version {
			t.Errorf("%s: got %+v, %v", name, again, err)
		}
		if text, err := os.ReadFile(beside); err != nil || string(text) != "words\n" {
			t.Errorf("%s: then beside it is %q, %v", name, text, err)
		}
	}
}

// TestOwnProgram builds a program whose files are here, and which the builds
// of the module that they are kept in leave alone.
func TestOwnProgram(t *testing.T) {
	t.Parallel()
	m := newMill(t, millProgram)
	files := fstest.MapFS{
		"module.mod":   {Data: []byte("module example.com/build\n\ngo 1.26.0\n")},
		"module.sum":   {Data: []byte{}},
		"main.go":      {Data: []byte("//go:build ignore\n\npackage main\n\nfunc main() { println(told()) }\n")},
		"told.go":      {Data: []byte("//go:build ignore\n\npackage main\n\nfunc told() string { return \"1.2.3\" }\n")},
		"main_test.go": {Data: []byte("rubbish")},
	}
	m.source = GoModule{Files: files, Package: Own, Module: millModule + "@v1.2.3"}
	c := m.cache()
	c.catalogue.Entries[0].Files = nil
	r, err := c.Get(context.Background(), "proxy", "", nil)
	if err != nil || !strings.HasPrefix(r.Source, "go build of a program on "+millModule) {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestGoModuleFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program string
		prepare func(t *testing.T, m *mill)
		environ func(m *mill) []string
		message []string
		hint    string
	}{
		"no Go": {
			prepare: func(t *testing.T, m *mill) {
				m.putGo(t, "#!/bin/sh\nprintf 'go1.19.8\\n\\n'\n")
			},
			environ: func(m *mill) []string { return []string{"PATH=" + m.dir} },
			message: []string{"Go 99.0.0 or newer is missing", "/go is go1.19.8"},
			hint:    "https://go.dev/dl/",
		},
		"does not compile": {
			program: "package main\n\nfunc main() { undefinedThing() }\n",
			message: []string{"go build for example.com/proxy@v1.2.3 failed", "undefined: undefinedThing"},
			hint:    "Go's own",
		},
		"the proxy serves something else": {
			prepare: func(t *testing.T, m *mill) {
				sums := m.source.Files.(fstest.MapFS)["module.sum"].Data
				m.putModule(t, millModule, "v1.2.3", map[string]string{"cmd/proxy/main.go": "package main\n\nfunc main() { println(\"evil 1.2.3\") }\n"})
				m.source.Files.(fstest.MapFS)["module.sum"] = &fstest.MapFile{Data: sums}
			},
			message: []string{"SECURITY ERROR", "does NOT match"},
			hint:    "other files than the pinned ones",
		},
		"offline": {
			environ: func(*mill) []string { return []string{"GOPROXY=http://127.0.0.1:1"} },
			message: []string{"connection refused"},
			hint:    "check the network",
		},
		"a file that the module has not": {
			prepare: func(_ *testing.T, m *mill) { m.source.Beside[0].Path = "files/none.txt" },
			message: []string{"example.com/proxy has no files/none.txt"},
		},
		"a sum is missing": {
			prepare: func(_ *testing.T, m *mill) {
				m.source.Files.(fstest.MapFS)["module.sum"] = &fstest.MapFile{Data: []byte{}}
			},
			message: []string{"missing go.sum entry"},
		},
		"another platform": {
			prepare: func(_ *testing.T, m *mill) { m.environ = append(m.environ, "PLATFORM=plan9/mips") },
			message: []string{"not pinned for plan9/mips"},
			hint:    "put proxy 1.2 on PATH",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := c.program
			if program == "" {
				program = millProgram
			}
			m := newMill(t, program)
			if name == "no Go" {
				m.source.Files.(fstest.MapFS)["module.mod"].Data = []byte("module example.com/build\n\ngo 99.0.0\n")
			}
			if c.prepare != nil {
				c.prepare(t, m)
			}
			var environ []string
			if c.environ != nil {
				environ = c.environ(m)
			}
			cache := m.cache(environ...)
			if platform := variable(m.environ, "PLATFORM"); platform != "" {
				cache.host.Platform = platform
			}
			_, err := cache.Get(context.Background(), "proxy", "", nil)
			e := meshbench.AsError(err)
			if e == nil || e.Code != meshbench.Unavailable {
				t.Fatalf("got %+v", e)
			}
			for _, want := range c.message {
				if !strings.Contains(e.Message, want) {
					t.Errorf("the message is %q, want %q", e.Message, want)
				}
			}
			if !strings.Contains(e.Hint, c.hint) {
				t.Errorf("the hint is %q, want %q", e.Hint, c.hint)
			}
			m.checkNothingKept(t)
		})
	}
}

// putGo puts a program called go into the mill's folder.
func (m *mill) putGo(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "go"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestGoModuleKey holds that the key changes with everything that the program
// depends on.
func TestGoModuleKey(t *testing.T) {
	t.Parallel()
	made := func(change func(g *GoModule, files fstest.MapFS)) string {
		files := fstest.MapFS{"module.mod": {Data: []byte("module a\n\ngo 1.26.0\n")}, "module.sum": {Data: []byte("sum")}, "main.go": {Data: []byte("package main")}}
		g := GoModule{Files: files, Package: "p", Module: "m", Set: []string{"a=b"}, Beside: []ModuleFile{{"n", "m", "p"}}}
		if change != nil {
			change(&g, files)
		}
		offer, err := g.Offer("linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		return offer.Key
	}
	seen := map[string]string{made(nil): "nothing"}
	if made(nil) != made(func(_ *GoModule, f fstest.MapFS) { f["README"] = &fstest.MapFile{Data: []byte("x")} }) {
		t.Error("a file that is not written out changes the key")
	}
	for name, change := range map[string]func(g *GoModule, files fstest.MapFS){
		"go.mod":  func(_ *GoModule, f fstest.MapFS) { f["module.mod"].Data = []byte("module b\n\ngo 1.26.0\n") },
		"go.sum":  func(_ *GoModule, f fstest.MapFS) { f["module.sum"].Data = []byte("mus") },
		"main.go": func(_ *GoModule, f fstest.MapFS) { f["main.go"].Data = []byte("package main // 2") },
		"a file":  func(_ *GoModule, f fstest.MapFS) { f["more.go"] = &fstest.MapFile{Data: []byte("package main")} },
		"package": func(g *GoModule, _ fstest.MapFS) { g.Package = "q" },
		"set":     func(g *GoModule, _ fstest.MapFS) { g.Set = nil },
		"beside":  func(g *GoModule, _ fstest.MapFS) { g.Beside[0].Path = "q" },
	} {
		key := made(change)
		if other, twice := seen[key]; twice || !isKey(key) {
			t.Errorf("changing %s gives the key %s of %s", name, key, other)
		}
		seen[key] = name
	}
}

// TestFilesMustBeBeside holds that a program on PATH is used only with the
// files that belong to it.
func TestFilesMustBeBeside(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.put(t, "proxy", script("9.9.1"))
	c := b.cache()
	c.catalogue.Entries[0].Files = []string{"words"}
	if _, err := c.Find(context.Background(), "proxy", ""); err == nil || !strings.Contains(err.Error(), "words is not beside it") {
		t.Errorf("Find: %v", err)
	}
	b.put(t, "words", "")
	if r, err := c.Find(context.Background(), "proxy", ""); err != nil || filepath.Dir(r.Path) != b.bin {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestGoOutput(t *testing.T) {
	t.Parallel()
	var said []string
	o := &goOutput{said: func(line string) { said = append(said, line) }}
	for _, part := range []string{"go: downloading example.com/a v1.0.0\nexample.c", "om/a\nexample.com/a/b\n\ngo: example.com/a@v1.0.0: some", "thing\n"} {
		fmt.Fprint(o, part)
	}
	if len(o.packages) != 2 || !slices.Equal(said, []string{"Go module example.com/a v1.0.0"}) || lastLines(o.text(), 5) != "go: example.com/a@v1.0.0: something" {
		t.Errorf("packages %v, said %q, text %q", o.packages, said, o.text())
	}
	built := &goOutput{known: o.packages, said: func(string) {}}
	fmt.Fprint(built, "example.com/a\n# example.com/a/b\n./x.go:1:1: undefined: y\nnot ended")
	if built.count() != 1 || lastLines(built.text(), 5) != "# example.com/a/b | ./x.go:1:1: undefined: y | not ended" {
		t.Errorf("%d packages, text %q", built.count(), built.text())
	}
}
