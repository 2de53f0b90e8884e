package local

import (
	"context"
	"log/slog"
	"time"
)

// Options are of the infrastructure.
type Options struct {
	// Executable is the absolute path of Meshbench itself: it is run as
	// `Executable supervisor`, `Executable worker`, and for a Spec's processes
	// whose Runtime is meshbench.Self.
	Executable string
	// Dir is the run's directory. Processes have their files under
	// Dir/deployments, which Close removes, and their logs under Dir/logs,
	// which stay for whoever owns Dir.
	Dir string
	// StateDir has the journals (see Recover). It outlives the run.
	StateDir string
	// Runtime returns the path of a real binary such as "envoy@1.40.0".
	Runtime func(ctx context.Context, nameAtVersion string) (path string, err error)
	// ReadyTimeout is how long one process may take to be ready; default 30 s.
	ReadyTimeout time.Duration
	Logger       *slog.Logger // default: nothing is logged

	pickPort func() (int, error) // in tests: another way to choose ports
}
