package sqlstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
	"github.com/meshbench/meshbench/internal/store/sqlstore"
	"github.com/meshbench/meshbench/internal/store/storetest"
)

// disk mounts a small file system (these tests run as root) and returns where.
func disk(t *testing.T, kilobytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("meshbench-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dk,mode=0700", kilobytes)); err != nil {
		t.Fatalf("mount a small disk (this needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space that is left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	for _, size := range []int{1 << 16, 1 << 12, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		err = nil
	}
}

// TestDiskFull adds trials until the disk is full.
func TestDiskFull(t *testing.T) {
	dir := disk(t, 1024)
	path := filepath.Join(dir, "meshbench.db")
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 384<<10), 0o600))
	s := open(t, path)
	ctx := t.Context()
	ended, run := storetest.RunAt(0), storetest.RunAt(1)
	must(t, s.Create(ctx, ended, hour()))
	must(t, s.AddTrial(ctx, ended.ID, storetest.TrialOf("none", 1, 9)))
	must(t, s.Finish(ctx, storetest.Ended(ended, meshbench.Finished)))
	must(t, s.Create(ctx, run, hour()))
	stored := 0
	var err error
	for stored < 10000 {
		if err = s.AddTrial(ctx, run.ID, storetest.TrialOf("none", stored+1, uint64(stored))); err != nil {
			break
		}
		stored++
	}
	wantError(t, err, meshbench.Unavailable, path, "full", run.ID)
	if stored < 5 {
		t.Errorf("only %d trials went into 1 MB", stored)
	}
	t.Logf("%d trials went into 1 MB, then: %v", stored, err)
	// It stays full, and nothing is half there.
	wantError(t, s.AddTrial(ctx, run.ID, storetest.TrialOf("none", stored+1, 1)), meshbench.Unavailable, path, "full")
	check := func(s *sqlstore.Store, trials int) {
		t.Helper()
		list, err := s.List(ctx, store.Page{})
		must(t, err)
		if len(list) != 2 || list[0].Trials != trials || list[1].Trials != 1 {
			t.Fatalf("%d trials were stored; the list says %+v", trials, list)
		}
		for _, x := range list {
			verify(t, s, x)
		}
	}
	check(s, stored)
	// So does another process that opens it now.
	other := open(t, path)
	check(other, stored)
	// What the hint says helps: the run goes on, another can be removed.
	must(t, os.Remove(ballast))
	must(t, s.Remove(ctx, ended.ID, time.Now()))
	must(t, s.AddTrial(ctx, run.ID, storetest.TrialOf("none", stored+1, 1)))
	must(t, s.Finish(ctx, storetest.Ended(run, meshbench.Partial)))
	list, err := other.List(ctx, store.Page{})
	must(t, err)
	if len(list) != 1 || list[0].State != meshbench.Partial || list[0].Trials != stored+1 {
		t.Errorf("in the end there are %+v", list)
	}
	verify(t, other, list[0])
	integrity(t, path)
}

// TestDiskFullAtOpen makes a store where there is no space at all, and opens
// one that was there before.
func TestDiskFullAtOpen(t *testing.T) {
	ctx := t.Context()
	dir := disk(t, 512)
	path := filepath.Join(dir, "meshbench.db")
	s, err := sqlstore.Open(ctx, path)
	must(t, err)
	run := storetest.RunAt(0)
	must(t, s.Create(ctx, run, hour()))
	must(t, s.Close())
	fill(t, filepath.Join(dir, "ballast"))

	fresh := filepath.Join(dir, "fresh.db")
	_, err = sqlstore.Open(ctx, fresh)
	wantError(t, err, meshbench.Unavailable, fresh, "full")
	if s, err = sqlstore.Open(ctx, path); err != nil {
		t.Fatalf("what was stored before cannot be read: %v", err)
	}
	if got, err := s.Run(ctx, "latest"); err != nil || got.ID != run.ID {
		t.Errorf("read %s: %v", got.ID, err)
	}
	wantError(t, s.AddTrial(ctx, run.ID, storetest.TrialOf("none", 1, 1)), meshbench.Unavailable, path, "full")
	must(t, s.Close())

	must(t, os.Remove(filepath.Join(dir, "ballast")))
	must(t, open(t, path).AddTrial(ctx, run.ID, storetest.TrialOf("none", 1, 1)))
	must(t, open(t, fresh).Create(ctx, run, hour()))
}

func TestNotWritable(t *testing.T) {
	ctx := t.Context()
	dir := disk(t, 1024)
	path := filepath.Join(dir, "meshbench.db")
	s, err := sqlstore.Open(ctx, path)
	must(t, err)
	run := storetest.RunAt(0)
	must(t, s.Create(ctx, run, hour()))
	must(t, s.Close())
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for _, p := range []string{path, filepath.Join(dir, "fresh.db"), filepath.Join(dir, "sub", "fresh.db")} {
		_, err := sqlstore.Open(ctx, p)
		wantError(t, err, meshbench.Unavailable, p)
		t.Log(err)
	}
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	must(t, open(t, path).AddTrial(ctx, run.ID, storetest.TrialOf("none", 1, 1)))
}
