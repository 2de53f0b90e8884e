package runtimes

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/meshbench/meshbench"
)

// Archive is a Source: a program inside a release archive (.tar.gz, .tgz or
// .zip) at a URL, pinned by digest.
type Archive struct {
	Pins map[string]ArchivePin // by platform: "linux/amd64"
}

// ArchivePin is the archive that a platform gets.
type ArchivePin struct {
	URL          string
	Member       string // of the archive: "linkerd2-proxy-v2.278.0-linux-amd64/linkerd2-proxy"
	Bytes        int64  // of the archive; 0: not known
	ProgramBytes int64  // of the program in it; 0: not known
	SHA256       string // of the archive, hexadecimal
}

// maxFetched bounds what an archive or an image, and a program in it, may have
// where the pin does not tell: no proxy is as large.
const maxFetched = 2 << 30

func limitOf(pinned int64) int64 {
	if pinned > 0 {
		return pinned
	}
	return maxFetched
}

func (a Archive) pin(platform string) (ArchivePin, error) {
	pin, ok := a.Pins[platform]
	if !ok {
		return ArchivePin{}, meshbench.Errorf(meshbench.Unavailable, "there is no release archive for %s", platform)
	}
	return pin, nil
}

func (p ArchivePin) name() string { return path.Base(p.URL) }

// Offer implements Source. The member is part of the key: an archive may have
// more than one program.
func (a Archive) Offer(platform string) (Offer, error) {
	pin, err := a.pin(platform)
	if err != nil {
		return Offer{}, err
	}
	return Offer{
		How: "release archive " + pin.URL, Key: digestOf("archive", pin.SHA256, pin.Member), Needs: "the network",
		DownloadBytes: pin.Bytes, SpaceBytes: pin.Bytes + pin.ProgramBytes,
	}, nil
}

// Ready implements Source: it needs nothing but the network.
func (Archive) Ready(context.Context, Host) error { return nil }

// Fetch implements Source.
func (a Archive) Fetch(ctx context.Context, job Job) error {
	pin, err := a.pin(job.Platform)
	if err != nil {
		return err
	}
	step := func(phase Phase, done, total int64) {
		job.Progress(Progress{Phase: phase, Message: pin.name(), DoneBytes: done, TotalBytes: total})
	}
	step(Downloading, 0, pin.Bytes)
	f, err := os.Create(filepath.Join(job.Dir, "archive"))
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := download(ctx, pin.URL, limitOf(pin.Bytes), f, func(done, total int64) { step(Downloading, done, total) })
	if err != nil {
		return err
	}
	step(Verifying, 0, 0)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	digest, _, err := hash(ctx, f)
	if err != nil {
		return err
	}
	if digest != pin.SHA256 {
		return meshbench.Errorf(meshbench.Unavailable,
			"%s has a wrong digest: SHA-256 %s was expected, %s came; nothing of it was kept or run", pin.URL, pin.SHA256, digest).
			WithHint("compare the digest with what the project publishes")
	}
	step(Unpacking, 0, pin.ProgramBytes)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeProgram(job.Program, func(w io.Writer) error {
		limit, told := limitOf(pin.ProgramBytes), func(done int64) { step(Unpacking, done, pin.ProgramBytes) }
		if strings.HasSuffix(pin.URL, ".zip") {
			err = extract(ctx, f, size, pin.Member, limit, w, told)
		} else {
			err = extractTarGz(ctx, f, pin.Member, limit, w, told)
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", pin.name(), err)
		}
		return nil
	})
}

// writeProgram makes the file of a program, with what write writes.
func writeProgram(name string, write func(io.Writer) error) error {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := write(out); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// download writes what is at a URL to w, and returns its size. The error is of
// code unavailable, or w's.
func download(ctx context.Context, url string, limit int64, w io.Writer, progress func(done, total int64)) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, meshbench.Errorf(meshbench.Invalid, "%w", err).WithHint("an archive's address begins with https://")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, meshbench.Errorf(meshbench.Unavailable, "%w", err).WithHint("check the network, and HTTPS_PROXY if there is a proxy")
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, meshbench.Errorf(meshbench.Unavailable, "%s answers %s", url, response.Status).WithHint("check the address")
	}
	total := max(0, response.ContentLength)
	if total > limit {
		return 0, meshbench.Errorf(meshbench.Unavailable, "%s has %d bytes, more than %d", url, total, limit)
	}
	from := &contextReader{ctx: ctx, from: io.LimitReader(response.Body, limit+1), progress: func(done int64) { progress(done, total) }}
	n, err := io.CopyBuffer(w, from, make([]byte, 256<<10))
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, syscall.ENOSPC):
		return 0, errDiskFull("no space left for " + url)
	case from.err != nil:
		return 0, meshbench.Errorf(meshbench.Unavailable, "%s broke off: %w", url, from.err).WithHint("try again")
	case err != nil:
		return 0, err
	case n > limit:
		return 0, meshbench.Errorf(meshbench.Unavailable, "%s has more than %d bytes", url, limit)
	}
	return n, nil
}

// extractTarGz is extract for a .tar.gz.
func extractTarGz(ctx context.Context, r io.Reader, member string, limit int64, w io.Writer, progress func(doneBytes int64)) error {
	packed := &contextReader{ctx: ctx, from: r}
	z, err := gzip.NewReader(packed)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return badArchive("it is no gzip archive: %w", err)
	}
	found, err := extractTar(ctx, z, member, limit, w, progress, func(string) {})
	if err == nil && !found {
		return badArchive("it has no member %q", member)
	}
	return err
}

// extractTar copies one member of a tar archive to w, under the conditions of
// extract, and tells whether it was there; others are named to passed. Links
// elsewhere in the archive do no harm: nothing else is unpacked.
func extractTar(ctx context.Context, r io.Reader, member string, limit int64, w io.Writer, progress func(doneBytes int64), passed func(name string)) (bool, error) {
	archive := tar.NewReader(&contextReader{ctx: ctx, from: r})
	for members := 0; ; members++ {
		h, err := archive.Next()
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, badArchive("it is no tar archive: %w", err)
		case members >= maxTarMembers:
			return false, badArchive("it has more than %d members before %q", maxTarMembers, member)
		}
		if name := inArchive(h.Name); name != inArchive(member) {
			passed(name)
			continue
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return false, badArchive("its member %q is no regular file", member)
		case h.Size > limit:
			return false, badArchive("its member %q has %d bytes, more than %d", member, h.Size, limit)
		}
		from := &contextReader{ctx: ctx, from: archive, progress: progress}
		_, err = io.CopyBuffer(w, from, make([]byte, 1<<20))
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, syscall.ENOSPC):
			return false, errDiskFull("no space left to unpack " + member)
		case from.err != nil:
			return false, badArchive("its member %q: %w", member, from.err)
		}
		return err == nil, err
	}
}

// inArchive writes a member's name in the one way: images have "usr/bin/x",
// "./usr/bin/x" and "/usr/bin/x".
func inArchive(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// maxTarMembers bounds how many members are passed over: an image may be a
// whole system.
const maxTarMembers = 1_000_000
