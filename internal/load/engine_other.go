//go:build !linux

package load

import (
	"context"
	"os"
	"time"

	"github.com/meshbench/meshbench"
)

// Engine runs one Job once. It exists on Linux alone.
type Engine struct{}

// NewEngine returns an error of code unavailable: there is no engine for this
// system.
func NewEngine(_ context.Context, job Job, _ *os.File, _ uint64) (*Engine, error) {
	if err := job.Validate(); err != nil {
		return nil, err
	}
	return nil, meshbench.Errorf(meshbench.Unavailable, "the generator measures on Linux only").
		WithHint("run it on a Linux machine, in a virtual machine or container, or use the infrastructure kubernetes")
}

// Stop does nothing.
func (*Engine) Stop() {}

// Lease does nothing.
func (*Engine) Lease(time.Time) {}

// Run returns an error of code unavailable.
func (*Engine) Run(func() (time.Time, bool)) (Summary, uint64, error) {
	return Summary{}, 0, meshbench.Errorf(meshbench.Unavailable, "the generator measures on Linux only")
}
