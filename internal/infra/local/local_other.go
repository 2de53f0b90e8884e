//go:build !linux

package local

import (
	"context"
	"io"
	"runtime"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
)

func unavailable() *meshbench.Error {
	return meshbench.Errorf(meshbench.Unavailable, "local measuring needs Linux; this is %s", runtime.GOOS).
		WithHint("measure what runs elsewhere with --infra endpoint --url NAME=URL, or use a Linux machine")
}

// Infrastructure cannot be had on this system.
type Infrastructure struct{ infra.Infrastructure }

// New returns an error of code Unavailable.
func New(context.Context, Options) (*Infrastructure, error) { return nil, unavailable() }

// Supervise returns an error of code Unavailable.
func Supervise(context.Context, io.Reader, io.Writer) error { return unavailable() }

// Recover has nothing to do: nothing was ever started here.
func Recover(context.Context, string) ([]Ended, error) { return nil, nil }

// CheckNamespaces returns an error of code Unavailable.
func CheckNamespaces() error { return unavailable() }
