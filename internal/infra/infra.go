// Package infra is where subjects run: the Infrastructure interface and the
// suite of tests that every one of them passes (package infratest). Each
// infrastructure is a folder below it.
package infra

import (
	"context"
	"io"

	"github.com/meshbench/meshbench"
)

// Infrastructure deploys what a Spec says and starts load where it can be
// measured. Close removes everything that it made.
type Infrastructure interface {
	// Path is the network path of what is deployed here, where its Spec has no
	// namespaces.
	Path() meshbench.NetworkPath
	// Deploys is false where subjects already run (endpoint): each block is
	// then a sitting of its own.
	Deploys() bool
	// Placement tells which CPUs generator and system have.
	Placement() Placement
	// Deploy starts a Spec and returns when all of it is ready. On error
	// nothing of it is left; the error tells the last lines of the log of the
	// process that failed. prepare, where it is not nil, is called before each
	// process starts, when all before it are ready.
	Deploy(ctx context.Context, name string, spec meshbench.Spec, prepare Prepare) (Deployment, error)
	// Worker starts a generator process and returns the two ends of its
	// protocol. Closing them ends it.
	Worker(ctx context.Context) (Worker, error)
	io.Closer
}

// Placement is which CPUs do what; empty lists mean: not placed.
type Placement struct {
	GeneratorCPUs, SystemCPUs []int
}

// Worker is the transport to a generator process (package load/worker speaks
// its protocol).
type Worker interface {
	io.Reader
	io.Writer
	io.Closer
}

// Access is the narrow way in which a driver reaches what it deployed.
type Access interface {
	// Address returns host:port of a port of a process.
	Address(process, port string) (string, error)
	// Dir returns a directory in which the driver may keep files for a process.
	Dir(process string) (string, error)
	// Program returns the path of a runtime's program, of one that the Spec
	// names.
	Program(runtime string) (string, error)
}

// Prepare makes ready what a process needs before it starts, with the help of
// those that run already.
type Prepare func(ctx context.Context, access Access, process string) error

// Deployment is a Spec that is up.
type Deployment interface {
	Access
	// Target is where load enters.
	Target() meshbench.Target
	// Usage reads every process's clocks and memory. It is cheap enough to be
	// called a few times a second during a trial.
	Usage(ctx context.Context) ([]meshbench.UsageReading, error)
	// Seen tells what a service's application has received.
	Seen(ctx context.Context, service string) (meshbench.Seen, error)
	// Park stops what may be stopped while others are measured; Resume ends it.
	Park(ctx context.Context) error
	Resume(ctx context.Context) error
	// Signal sends a signal to the processes of a role and instance.
	Signal(ctx context.Context, role meshbench.Role, instance int, s Signal) error
	// Check returns nil while everything lives, else what died and the last
	// lines of its log.
	Check() error
	// Log returns the last lines that a process wrote.
	Log(process string, lines int) string
	// Close stops and removes all of it. It may be called twice.
	Close(ctx context.Context) error
}

// Signal is what can be done to a process from outside.
type Signal string

// The signals.
const (
	Kill     Signal = "kill"
	Stop     Signal = "stop"
	Continue Signal = "continue"
)
