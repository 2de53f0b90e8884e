package runtimes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/meshbench/meshbench"
)

// Image is a Source: a program inside an OCI image, pinned by the digest of
// the image, or of an index of images for several platforms. What comes is
// verified against it layer by layer.
type Image struct {
	Pins map[string]ImagePin // by platform: "linux/amd64"
}

// ImagePin is the image that a platform gets.
type ImagePin struct {
	Reference    string // with a digest: "cr.l5d.io/linkerd/proxy@sha256:..."
	File         string // in the image: "usr/lib/linkerd/linkerd2-proxy"
	Bytes        int64  // of the image's layers, packed; 0: not known
	ProgramBytes int64  // of the program in it; 0: not known
}

func (i Image) pin(platform string) (ImagePin, name.Digest, error) {
	pin, ok := i.Pins[platform]
	if !ok {
		return ImagePin{}, name.Digest{}, meshbench.Errorf(meshbench.Unavailable, "there is no image for %s", platform)
	}
	reference, err := name.NewDigest(pin.Reference, name.StrictValidation)
	if err != nil {
		return ImagePin{}, name.Digest{}, meshbench.Errorf(meshbench.Invalid, "image %q: %w", pin.Reference, err).
			WithHint("name it with its registry and its digest: cr.l5d.io/linkerd/proxy@sha256:...")
	}
	return pin, reference, nil
}

// Offer implements Source. The file is part of the key: an image has many.
func (i Image) Offer(platform string) (Offer, error) {
	pin, reference, err := i.pin(platform)
	if err != nil {
		return Offer{}, err
	}
	return Offer{
		How: "OCI image " + pin.Reference, Key: digestOf("OCI image", reference.DigestStr(), pin.File, platform), Needs: "the network",
		DownloadBytes: pin.Bytes, SpaceBytes: pin.ProgramBytes,
	}, nil
}

// Ready implements Source: it needs nothing but the network.
func (Image) Ready(context.Context, Host) error { return nil }

// Fetch implements Source. The machine's own configuration of registries
// (~/.docker/config.json) gives the credentials, if there are any.
func (i Image) Fetch(ctx context.Context, job Job) error {
	pin, reference, err := i.pin(job.Platform)
	if err != nil {
		return err
	}
	system, architecture, _ := strings.Cut(job.Platform, "/")
	job.Progress(Progress{Phase: Downloading, Message: pin.Reference, TotalBytes: pin.Bytes})
	image, err := remote.Image(reference, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: system, Architecture: architecture}))
	if err != nil {
		return imageFailure(ctx, pin, err)
	}
	layers, err := image.Layers()
	if err != nil {
		return imageFailure(ctx, pin, err)
	}
	return writeProgram(job.Program, func(w io.Writer) error {
		// What an upper layer has hides what is below it.
		for _, layer := range slices.Backward(layers) {
			found, hidden, err := fromLayer(ctx, job, pin, layer, w)
			if err != nil {
				return err
			}
			if found {
				return nil
			}
			if hidden {
				break
			}
		}
		return badArchive("image %s has no file %q", pin.Reference, pin.File)
	})
}

// fromLayer copies the file from a layer, if it is there, after all of the
// layer was read and verified. hidden tells that the layer removes the file
// from those below it (https://github.com/opencontainers/image-spec/blob/main/layer.md).
func fromLayer(ctx context.Context, job Job, pin ImagePin, layer v1.Layer, w io.Writer) (found, hidden bool, err error) {
	want, err := layer.DiffID()
	if err != nil {
		return false, false, imageFailure(ctx, pin, err)
	}
	content, err := layer.Uncompressed()
	if err != nil {
		return false, false, imageFailure(ctx, pin, err)
	}
	defer content.Close()
	h := sha256.New()
	from := &contextReader{ctx: ctx, from: io.TeeReader(content, h)}
	hides := whiteouts(pin.File)
	found, err = extractTar(ctx, from, pin.File, limitOf(pin.ProgramBytes), w, func(done int64) {
		job.Progress(Progress{Phase: Unpacking, Message: pin.File, DoneBytes: done, TotalBytes: pin.ProgramBytes})
	}, func(name string) { hidden = hidden || slices.Contains(hides, name) })
	if err == nil {
		_, err = io.Copy(io.Discard, from)
	}
	switch {
	case from.err != nil:
		return false, false, imageFailure(ctx, pin, from.err)
	case err != nil:
		return false, false, fmt.Errorf("unpacking %s: %w", pin.Reference, err)
	case hex.EncodeToString(h.Sum(nil)) != want.Hex:
		return false, false, meshbench.Errorf(meshbench.Unavailable, "a layer of %s has a wrong digest: SHA-256 %s was expected, %x came; nothing of it was kept or run",
			pin.Reference, want.Hex, h.Sum(nil)).WithHint("the registry serves another file than the pinned one")
	}
	return found, hidden, nil
}

// whiteouts returns the names by which a layer removes a file of those below
// it: of the file and of each folder that it is in, and what empties a folder.
func whiteouts(file string) []string {
	var names []string
	for at := inArchive(file); at != "." && at != ""; at = path.Dir(at) {
		names = append(names, path.Join(path.Dir(at), ".wh."+path.Base(at)), path.Join(path.Dir(at), ".wh..wh..opq"))
	}
	return names
}

// imageFailure says what a registry said, and what to do.
func imageFailure(ctx context.Context, pin ImagePin, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failure := meshbench.Errorf(meshbench.Unavailable, "image %s: %w", pin.Reference, err)
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return failure.WithHint("sign in to the registry (docker login), or use another one")
	case errors.As(err, &answer):
		return failure.WithHint("check the name and the digest of the image")
	}
	return failure.WithHint("check the network, and HTTPS_PROXY if there is a proxy")
}
