package runtimes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	goversion "go/version"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
)

// GoModule is a Source: a program that the machine's own Go builds out of the
// Go module proxy. Everything that goes into it is pinned by a go.mod and a
// complete go.sum, which Go verifies.
type GoModule struct {
	// Files has module.mod and module.sum, which are written out as go.mod and
	// go.sum, and the Go files of a program of our own, if it is one.
	Files   fs.FS
	Package string // import path of the program, or Own
	Module  string // for people, what it is built out of: "go.etcd.io/etcd/server/v3@v3.6.8"
	// Set gives string variables their values, as the linker's -X does:
	// "k8s.io/component-base/version.gitVersion=v1.36.3".
	Set    []string
	Beside []ModuleFile
	// CPU is about the processor time that the build takes when nothing of it
	// is in Go's build cache, on the machine that docs/runtimes.md names.
	CPU   time.Duration
	Bytes int64 // of the program and what is beside it, about
}

// Own is the Package of a program of our own: all Go files of the folder.
const Own = "."

// ModuleFile is a file of a module in the build, kept beside the program.
type ModuleFile struct {
	Name   string // beside the program: "crd-all.gen.yaml"
	Module string // "istio.io/istio"
	Path   string // in the module
}

// moduleNames are the names that a module's files have here and at the build.
// A folder with a go.mod is a module of its own, which neither a Go program
// can embed nor `go install` brings along.
var moduleNames = map[string]string{"module.mod": "go.mod", "module.sum": "go.sum"}

// buildFlags are those of all builds; they are part of the key.
var buildFlags = []string{"-trimpath", "-buildvcs=false"}

const (
	linkerFlags = "-s -w"
	goFlags     = "-mod=readonly"
)

// goNice is how much the builds give way to other programs.
const goNice = "10"

// buildTick is how often a build that says nothing is reported.
const buildTick = 5 * time.Second

func (g GoModule) how() string {
	if g.Package == Own {
		return "go build of a program on " + g.Module
	}
	return "go build of " + g.Module
}

// sources returns the module's files by the names that they get.
func (g GoModule) sources() (map[string][]byte, error) {
	entries, err := fs.ReadDir(g.Files, ".")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, e := range entries {
		name := cmp.Or(moduleNames[e.Name()], e.Name())
		isGo := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if e.IsDir() || name == e.Name() && !isGo {
			continue
		}
		if out[name], err = fs.ReadFile(g.Files, e.Name()); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if out[name] == nil {
			return nil, fmt.Errorf("the module of %s has no %s", g.Module, name)
		}
	}
	return out, nil
}

// Offer implements Source. The key covers all that is written down here; the
// version of the Go that builds is not part of it, so that a new one does not
// cost every build again (the entry's record and every result name it).
func (g GoModule) Offer(platform string) (Offer, error) {
	if system, _, _ := strings.Cut(platform, "/"); system != "linux" {
		return Offer{}, meshbench.Errorf(meshbench.Unavailable, "%s is not pinned for %s, only for Linux", g.Module, platform)
	}
	files, err := g.sources()
	if err != nil {
		return Offer{}, meshbench.Errorf(meshbench.Internal, "%w", err)
	}
	h := sha256.New()
	part := func(kind string, values ...string) { fmt.Fprintf(h, "%s %q\n", kind, values) }
	part("meshbench go module", "1")
	part("platform", platform)
	part("package", g.Package)
	part("flags", append(slices.Clone(buildFlags), linkerFlags, goFlags, "CGO_ENABLED=0")...)
	part("set", g.Set...)
	for _, f := range g.Beside {
		part("beside", f.Name, f.Module, f.Path)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		part("file", name, string(files[name]))
	}
	return Offer{
		How:        g.how(),
		Key:        hex.EncodeToString(h.Sum(nil)),
		Needs:      needed(files["go.mod"]),
		BuildTime:  g.CPU,
		SpaceBytes: g.Bytes,
	}, nil
}

// needed returns the Go version that a go.mod asks for: "go1.26.0".
func needed(gomod []byte) string {
	for line := range strings.Lines(string(gomod)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "go "); ok {
			return "go" + v
		}
	}
	return ""
}

// Ready implements Source: it needs Go.
func (g GoModule) Ready(ctx context.Context, host Host) error {
	files, err := g.sources()
	if err != nil {
		return meshbench.Errorf(meshbench.Internal, "%w", err)
	}
	_, err = findGo(ctx, host, needed(files["go.mod"]))
	return err
}

// findGo returns the path of the machine's Go, so that its proxy, caches and
// checks apply. It must be the version that is needed or a newer one, or be
// allowed to get that by itself (GOTOOLCHAIN). The error is of code
// unavailable.
func findGo(ctx context.Context, host Host, need string) (string, error) {
	// Its installer's folder is often on the PATH of people and not on that of
	// root.
	paths := lookPath(append(slices.Clone(host.Environ),
		"PATH="+variable(host.Environ, "PATH")+string(os.PathListSeparator)+"/usr/local/go/bin"), "go")
	var tried []string
	for _, path := range paths {
		out, err := run(ctx, host.Environ, path, "env", "GOVERSION", "GOTOOLCHAIN")
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		lines := strings.Split(out, "\n")
		lines[0], _, _ = strings.Cut(lines[0], " ") // experiments that are on
		if err != nil || len(lines) < 2 || !goversion.IsValid(lines[0]) {
			tried = append(tried, path+": "+cmp.Or(lastLines(out, 1), "does not tell its version"))
			continue
		}
		// Go gets a newer version of itself since 1.21, unless it is told not to.
		mayGrow := goversion.Compare(lines[0], "go1.21") >= 0 && !strings.HasPrefix(strings.TrimSpace(lines[1]), "local")
		if goversion.Compare(lines[0], need) >= 0 || mayGrow {
			return path, nil
		}
		tried = append(tried, path+" is "+lines[0])
	}
	said := ""
	if len(tried) > 0 {
		said = " (" + strings.Join(tried, "; ") + ")"
	}
	return "", meshbench.Errorf(meshbench.Unavailable, "Go %s or newer is missing%s", strings.TrimPrefix(need, "go"), said).
		WithHint("install Go (https://go.dev/dl/) and put it on PATH")
}

// GoVersion returns the version of the machine's Go, "go1.26.8", if the builds
// can be done with it. The error is that of Ready.
func GoVersion(ctx context.Context, environ []string) (string, error) {
	host := Host{Environ: environ}
	path, err := findGo(ctx, host, oldestGo)
	if err != nil {
		return "", err
	}
	out, err := run(ctx, environ, path, "env", "GOVERSION")
	if err != nil {
		return "", meshbench.Errorf(meshbench.Unavailable, "%s env: %w", path, err)
	}
	return strings.TrimSpace(out), nil
}

// oldestGo is what the newest of the modules under runtimes/ asks for.
const oldestGo = "go1.26.7"

// goCommand is how Go is called for one build.
type goCommand struct {
	program string   // go, or nice
	before  []string // arguments before those of go
	dir     string   // the module's
	environ []string
}

func (c goCommand) run(ctx context.Context, out io.Writer, args ...string) error {
	return runTo(ctx, c.environ, out, c.program, append(slices.Concat(c.before, []string{args[0], "-C", c.dir}), args[1:]...)...)
}

// Fetch implements Source.
func (g GoModule) Fetch(ctx context.Context, job Job) error {
	step := func(phase Phase, message string) { job.Progress(Progress{Phase: phase, Message: message}) }
	step(Downloading, "Go modules for "+g.Module)
	files, err := g.sources()
	if err != nil {
		return meshbench.Errorf(meshbench.Internal, "%w", err)
	}
	program, err := findGo(ctx, job.Host, needed(files["go.mod"]))
	if err != nil {
		return err
	}
	module, temp := filepath.Join(job.Dir, "module"), filepath.Join(job.Dir, "temp")
	for _, dir := range []string{module, temp} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	what := []string{g.Package}
	if g.Package == Own {
		what = nil
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(module, name), text, 0o644); err != nil {
			return err
		}
		if g.Package == Own && strings.HasSuffix(name, ".go") {
			// Named one by one, they are built although they tell `go build ./...`
			// of the main module to ignore them.
			what = append(what, name)
		}
	}
	slices.Sort(what)
	system, architecture, _ := strings.Cut(job.Platform, "/")
	command := goCommand{program: program, dir: module, environ: append(slices.Clone(job.Environ),
		"GOOS="+system, "GOARCH="+architecture, "CGO_ENABLED=0", "GO111MODULE=on", "GOWORK=off",
		"GOFLAGS="+goFlags, "GOTMPDIR="+temp)}
	if nice := lookPath(job.Environ, "nice"); len(nice) > 0 {
		command.program, command.before = nice[0], []string{"-n", goNice, program}
	}

	// First what is needed, which downloads it and counts it.
	watch := &goOutput{}
	watch.said = func(line string) { step(Downloading, line) }
	list := append([]string{"list", "-deps"}, what...)
	if err := command.run(ctx, watch, list...); err != nil {
		return g.failure(ctx, "list", watch, err)
	}
	packages := watch.packages

	// Then the build, which names each package that it compiles.
	watch = &goOutput{known: packages}
	about := fmt.Sprintf("about %s of CPU, once", FormatCPU(g.CPU))
	built := func() {
		step(Building, fmt.Sprintf("%d of %d Go packages; %s", watch.count(), len(packages), about))
	}
	watch.said = func(string) { built() }
	built()
	done := make(chan struct{})
	var reporting sync.WaitGroup
	reporting.Go(func() {
		tick := time.NewTicker(buildTick)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				watch.tick(built)
			case <-done:
				return
			}
		}
	})
	build := append([]string{"build", "-v", "-o", job.Program}, buildFlags...)
	flags := linkerFlags
	for _, s := range g.Set {
		flags += " -X " + s
	}
	build = append(append(build, "-ldflags="+flags), what...)
	err = command.run(ctx, watch, build...)
	close(done)
	reporting.Wait()
	if err != nil {
		return g.failure(ctx, "build", watch, err)
	}
	for _, f := range g.Beside {
		if err := g.copyBeside(ctx, command, f, filepath.Join(filepath.Dir(job.Program), f.Name)); err != nil {
			return err
		}
	}
	return syncFile(job.Program)
}

// copyBeside copies a file of a module that the build used.
func (g GoModule) copyBeside(ctx context.Context, command goCommand, f ModuleFile, to string) error {
	var out tail
	if err := command.run(ctx, &out, "list", "-m", "-f", "{{.Dir}}", f.Module); err != nil {
		return g.failure(ctx, "list -m "+f.Module, &goOutput{other: out}, err)
	}
	from, err := os.Open(filepath.Join(strings.TrimSpace(string(out.kept)), filepath.FromSlash(f.Path)))
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "%s has no %s: %w", f.Module, f.Path, err)
	}
	defer from.Close()
	in, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(in, &contextReader{ctx: ctx, from: from}); err != nil {
		return err
	}
	if err := in.Sync(); err != nil {
		return err
	}
	return in.Close()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// goOutput takes in what `go list -deps` or `go build -v` prints, line by
// line: import paths are counted, downloads are told, the rest is kept.
type goOutput struct {
	mu       sync.Mutex
	part     []byte              // of a line that is not whole yet
	known    map[string]struct{} // import paths; nil while they are being listed
	packages map[string]struct{} // those that were printed
	other    tail
	said     func(line string) // called for downloads and for packages that are built
}

// Write never fails.
func (o *goOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.part = append(o.part, p...)
	for {
		i := bytes.IndexByte(o.part, '\n')
		if i < 0 {
			// No line that matters is so long.
			if len(o.part) > maxOutput {
				o.other.Write(o.part)
				o.part = o.part[:0]
			}
			return len(p), nil
		}
		o.line(string(o.part[:i]))
		o.part = o.part[i+1:]
	}
}

func (o *goOutput) line(line string) {
	if o.packages == nil {
		o.packages = map[string]struct{}{}
	}
	_, known := o.known[line]
	switch module, download := strings.CutPrefix(line, "go: downloading "); {
	case download:
		o.said("Go module " + module)
	case known || o.known == nil && line != "" && !strings.ContainsAny(line, " :"):
		o.packages[line] = struct{}{}
		if known {
			o.said(line)
		}
	default:
		o.other.Write([]byte(line + "\n"))
	}
}

// count returns how many packages were printed. The lock is the caller's:
// said and tick are called with it held.
func (o *goOutput) count() int { return len(o.packages) }

func (o *goOutput) tick(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// text returns the last part of what was neither a package nor a download.
func (o *goOutput) text() string { return string(o.other.kept) + string(o.part) }

// failure says in Go's own words why it failed, and what to do.
func (g GoModule) failure(ctx context.Context, verb string, o *goOutput, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	known := new(meshbench.Error)
	if errors.As(err, &known) {
		return err
	}
	text := o.text()
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	if has("no space left on device") {
		return errDiskFull("Go found no space left to build " + g.Module)
	}
	failure := meshbench.Errorf(meshbench.Unavailable, "go %s for %s failed (%v): %s",
		verb, g.Module, err, cmp.Or(lastLines(text, 5), "it printed nothing"))
	switch {
	case has("signal: killed", "cannot allocate memory", "out of memory"):
		return failure.WithHint("the machine ran out of memory: end other programs, or build on a machine with 4 GB free and copy the cache")
	case has("checksum mismatch", "SECURITY ERROR"):
		return failure.WithHint("the Go module proxy serves other files than the pinned ones: see `go env GOPROXY GOMODCACHE`, and `go clean -modcache`")
	case has("dial tcp", "i/o timeout", "no such host", "connection refused", "TLS handshake", "server misbehaving", "404 Not Found", "410 Gone", "403 Forbidden", "disabled by GOPROXY"):
		return failure.WithHint("check the network and what `go env GOPROXY GONOSUMDB GOSUMDB` prints (once built, no network is needed)")
	case has("requires go >="):
		return failure.WithHint("install a newer Go (https://go.dev/dl/)")
	}
	return failure.WithHint("the lines above are Go's own; what was compiled so far is kept in Go's build cache, so another try goes on from there")
}

// FormatCPU writes processor time for people: "11 minutes", "70 s".
func FormatCPU(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", int(d.Round(5*time.Second).Seconds()))
	}
	return fmt.Sprintf("%d minutes", int(d.Round(time.Minute).Minutes()))
}
