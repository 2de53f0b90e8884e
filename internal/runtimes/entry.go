package runtimes

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// recordName is the file beside a cached binary that says what it is.
const recordName = "entry.json"

// maxRecord bounds what is read of it, in bytes.
const maxRecord = 64 << 10

// record is the content of entry.json.
type record struct {
	SchemaVersion int    `json:"schema_version"`
	Name          string `json:"name"`
	Version       string `json:"version"`
	Source        string `json:"source"`
	SHA256        string `json:"sha256"` // of the binary
	Bytes         int64  `json:"size_bytes"`
	Added         bool   `json:"added,omitempty"`     // by Add: the source is not in the catalogue
	Toolchain     string `json:"toolchain,omitempty"` // the Go that built it, as it says itself: "go1.26.8"
	Files         []kept `json:"files,omitempty"`     // beside the binary, in order of their names
}

// kept is a file that belongs to a cached binary.
type kept struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"size_bytes"`
}

// check tells whether a file in dir is the one that was put there; else the
// error is a *damage, or ctx's.
func (c *Cache) check(ctx context.Context, dir string, k kept) error {
	if filepath.Base(k.Name) != k.Name {
		return &damage{fmt.Sprintf("its record names a file %q", k.Name)}
	}
	path := filepath.Join(dir, k.Name)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return &damage{err.Error()}
	case !info.Mode().IsRegular():
		return &damage{k.Name + " is no regular file"}
	case info.Size() != k.Bytes:
		return &damage{fmt.Sprintf("%s has %d bytes instead of %d", k.Name, info.Size(), k.Bytes)}
	}
	digest, _, err := c.digest(ctx, path)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return &damage{err.Error()}
	case digest != k.SHA256:
		return &damage{fmt.Sprintf("the SHA-256 of %s is %s instead of %s", k.Name, digest, k.SHA256)}
	}
	return nil
}

// source is an offer's How, and the Go that built what came of it.
func (r record) source(how string) string {
	if r.Toolchain == "" {
		return how
	}
	return how + " with " + r.Toolchain
}

// damage is a cached entry that is not what was put there.
type damage struct{ reason string }

// Error says that it is damaged, and how.
func (d *damage) Error() string { return "the cached binary is damaged: " + d.reason }

func (c *Cache) entryDir(name, version, key string) string {
	return filepath.Join(c.dir, name, version, key)
}

// load returns a cached runtime after its digests were verified. The error is
// a *damage, or os.ErrNotExist if it is not in the cache. A release without a
// version is that which came from the offer.
func (c *Cache) load(ctx context.Context, e Entry, r Release, offer Offer) (Runtime, error) {
	if r.Version == "" {
		all := c.entries(e.Name)
		i := slices.IndexFunc(all, func(found cached) bool { return found.key == offer.Key })
		if i < 0 {
			return Runtime{}, os.ErrNotExist
		}
		r.Version = all[i].version
	}
	dir := c.entryDir(e.Name, r.Version, offer.Key)
	if _, err := os.Stat(dir); err != nil {
		return Runtime{}, err
	}
	rec, err := readRecord(dir)
	if err != nil {
		return Runtime{}, &damage{err.Error()}
	}
	program := filepath.Join(dir, e.Program)
	if rec.Name != e.Name || rec.Version != r.Version {
		return Runtime{}, &damage{fmt.Sprintf("its record is that of %s %s", rec.Name, rec.Version)}
	}
	for _, k := range append([]kept{{Name: e.Program, SHA256: rec.SHA256, Bytes: rec.Bytes}}, rec.Files...) {
		if err := c.check(ctx, dir, k); err != nil {
			return Runtime{}, err
		}
	}
	if info, err := os.Stat(program); err != nil || info.Mode()&0o100 == 0 {
		return Runtime{}, &damage{"it may not be run"}
	}
	return Runtime{Name: e.Name, Version: r.Version, Path: program, SHA256: rec.SHA256, Source: rec.source(offer.How)}, nil
}

func readRecord(dir string) (record, error) {
	f, err := os.Open(filepath.Join(dir, recordName))
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return record{}, err
	}
	if info.Size() > maxRecord {
		return record{}, fmt.Errorf("%s has %d bytes", recordName, info.Size())
	}
	var rec record
	if err := json.NewDecoder(f).Decode(&rec); err != nil {
		return record{}, fmt.Errorf("%s: %w", recordName, err)
	}
	return rec, nil
}

// fetch brings a release from a source into the cache, unless another process
// does so first.
func (c *Cache) fetch(ctx context.Context, e Entry, r Release, source Source, report func(Progress)) (Runtime, error) {
	offer, err := source.Offer(c.host.Platform)
	if err != nil {
		return Runtime{}, err
	}
	if !isKey(offer.Key) {
		return Runtime{}, meshbench.Errorf(meshbench.Internal, "%s has no digest", offer.How)
	}
	unlock, err := c.lock(ctx, offer.Key, func() {
		report(Progress{Phase: Waiting, Message: "another process is fetching it"})
	})
	if err != nil {
		return Runtime{}, err
	}
	defer unlock()
	found, err := c.load(ctx, e, r, offer)
	var broken *damage
	if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.As(err, &broken) {
		return found, err
	}

	partial := filepath.Join(c.dir, "partial")
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return Runtime{}, err
	}
	c.sweep(offer.Key)
	if free, known := freeBytes(partial); known && free < offer.SpaceBytes {
		return Runtime{}, errDiskFull(fmt.Sprintf("%s needs %s in %s, which has %s left",
			offer.How, FormatBytes(offer.SpaceBytes), c.dir, FormatBytes(free)))
	}
	work, err := os.MkdirTemp(partial, offer.Key+"-*")
	if err != nil {
		return Runtime{}, err
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, "entry")
	job := Job{
		Host: c.host, Progress: report,
		Dir:     filepath.Join(work, "source"),
		Program: filepath.Join(made, e.Program),
	}
	for _, dir := range []string{job.Dir, made} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return Runtime{}, err
		}
	}
	if err := source.Fetch(ctx, job); err != nil {
		return Runtime{}, err
	}
	report(Progress{Phase: Trying, Message: offer.How})
	if r.Version, err = c.try(ctx, e, r, job.Program); err != nil {
		return Runtime{}, err
	}
	if name := e.lacks(job.Program); name != "" {
		return Runtime{}, meshbench.Errorf(meshbench.Internal, "%s has no %s", offer.How, name)
	}
	if err := writeRecord(ctx, made, job.Program, record{Name: e.Name, Version: r.Version, Source: offer.How, Added: len(e.Releases) == 0}); err != nil {
		return Runtime{}, err
	}
	final := c.entryDir(e.Name, r.Version, offer.Key)
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return Runtime{}, err
	}
	if broken != nil {
		if err := os.Rename(final, filepath.Join(work, "damaged")); err != nil {
			return Runtime{}, err
		}
	}
	if err := os.Rename(made, final); err != nil {
		return Runtime{}, err
	}
	if err := syncDir(filepath.Dir(final)); err != nil {
		return Runtime{}, err
	}
	return c.load(ctx, e, r, offer)
}

// try runs what was fetched: it must run here and be what it is taken for. It
// returns the version.
func (c *Cache) try(ctx context.Context, e Entry, r Release, program string) (string, error) {
	if err := os.Chmod(program, 0o755); err != nil {
		return "", err
	}
	v, out, err := c.version(ctx, e, program)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		words := lastLines(out, 2)
		if words != "" {
			words = ": " + words
		}
		return "", meshbench.Errorf(meshbench.Unavailable, "it was fetched, but does not run on this machine (%w)%s", err, words)
	case r.Version == "" && !e.supports(v):
		return "", meshbench.Errorf(meshbench.Unavailable, "what was fetched is %s; supported are %s to %s", v, e.Oldest, e.Newest)
	case r.Version != "" && v.String() != r.Version:
		return "", meshbench.Errorf(meshbench.Unavailable, "what was fetched calls itself %s", v)
	}
	return v.String(), nil
}

// writeRecord completes an entry with the digests of its files and makes sure
// that all of it is on the disk.
func writeRecord(ctx context.Context, dir, program string, rec record) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	rec.SchemaVersion = 1
	for _, d := range files {
		k := kept{Name: d.Name()}
		if k.SHA256, k.Bytes, err = hashFile(ctx, filepath.Join(dir, k.Name)); err != nil {
			return err
		}
		if k.Name == filepath.Base(program) {
			rec.SHA256, rec.Bytes = k.SHA256, k.Bytes
		} else {
			rec.Files = append(rec.Files, k)
		}
	}
	if info, err := buildinfo.ReadFile(program); err == nil {
		rec.Toolchain, _, _ = strings.Cut(info.GoVersion, " ")
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(dir, recordName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := out.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return syncDir(dir)
}

func hashFile(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return hash(ctx, f)
}

// lock takes the lock of a key, and calls waiting once if another process or
// goroutine has it. The function that it returns gives the lock back.
func (c *Cache) lock(ctx context.Context, key string, waiting func()) (func(), error) {
	f, err := c.openLock(key)
	if err != nil {
		return nil, err
	}
	const pause = 100 * time.Millisecond
	for first := true; ; first = false {
		ok, err := tryLock(f)
		if ok {
			return func() { f.Close() }, nil
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if first {
			waiting()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}

func (c *Cache) openLock(key string) (*os.File, error) {
	dir := filepath.Join(c.dir, "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, key+".lock"), os.O_RDWR|os.O_CREATE, 0o644)
}

// sweep removes what fetches left that were killed: all that nobody holds the
// lock of. The caller holds the lock of one key.
func (c *Cache) sweep(held string) {
	partial := filepath.Join(c.dir, "partial")
	left, err := os.ReadDir(partial)
	if err != nil {
		return // there is nothing to be swept
	}
	for _, d := range left {
		key, _, _ := strings.Cut(d.Name(), "-")
		if key == held {
			os.RemoveAll(filepath.Join(partial, d.Name()))
			continue
		}
		f, err := c.openLock(key)
		if err != nil {
			continue
		}
		if ok, _ := tryLock(f); ok {
			os.RemoveAll(filepath.Join(partial, d.Name()))
		}
		f.Close()
	}
}

// isKey tells whether a text is 64 hexadecimal digits; it becomes a file name.
func isKey(text string) bool {
	return len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}
