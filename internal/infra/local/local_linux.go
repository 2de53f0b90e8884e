package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/process"
)

// Infrastructure is this machine.
type Infrastructure struct {
	o         Options
	placement infra.Placement
	starter   *process.Starter // of workers
	http      *http.Client
	pickPort  func() (int, error)
	ports     *portPicker

	mu         sync.Mutex
	supervisor *client
	workers    []*process.Worker
	count      int // of deployments ever made
	hosts      int // own addresses ever given
	// controls are control planes that no deployment uses at the moment, by
	// what they were made of.
	controls map[string][]*deployment
	closed   bool
}

var _ infra.Infrastructure = (*Infrastructure)(nil)

// New makes the directories and starts the supervisor. Errors are of code
// Unavailable. Close ends everything.
func New(ctx context.Context, o Options) (*Infrastructure, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = 30 * time.Second
	}
	for _, p := range []*string{&o.Executable, &o.Dir, &o.StateDir} {
		abs, err := filepath.Abs(*p)
		if err != nil || *p == "" {
			return nil, meshbench.Errorf(meshbench.Internal, "local: executable %q, directory %q and state directory %q must be given", o.Executable, o.Dir, o.StateDir)
		}
		*p = abs
	}
	i := &Infrastructure{
		o:         o,
		placement: process.Place(),
		http: &http.Client{
			// No proxy of the environment, no redirects, nothing kept open.
			Transport:     &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       5 * time.Second,
		},
		ports: newPortPicker(),
	}
	i.pickPort = i.ports.pick
	if o.pickPort != nil {
		i.pickPort = o.pickPort
	}
	if err := os.MkdirAll(i.logs(), 0o700); err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the run's directory cannot be made: %w", err)
	}
	if _, err := i.supervise(ctx); err != nil {
		return nil, err
	}
	i.starter = process.NewStarter()
	return i, nil
}

func (i *Infrastructure) root() string { return filepath.Join(i.o.Dir, "deployments") }
func (i *Infrastructure) logs() string { return filepath.Join(i.o.Dir, "logs") }

// supervise returns a supervisor that lives: a run goes on after its
// supervisor was killed, with the next deployment.
func (i *Infrastructure) supervise(ctx context.Context) (*client, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, meshbench.Errorf(meshbench.Internal, "local: closed already")
	}
	if i.supervisor != nil && !i.supervisor.ended() {
		return i.supervisor, nil
	}
	c, err := startSupervisor(ctx, i.o.Executable, i.o.StateDir, i.root(), filepath.Join(i.logs(), "supervisor.log"), i.o.Logger)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(i.root(), 0o700); err != nil {
		c.close()
		return nil, meshbench.Errorf(meshbench.Unavailable, "the directory of deployments cannot be made: %w", err)
	}
	i.supervisor = c
	return c, nil
}

// Path is loopback.
func (i *Infrastructure) Path() meshbench.NetworkPath { return meshbench.PathLoopback }

// Deploys is true.
func (i *Infrastructure) Deploys() bool { return true }

// Placement tells the CPUs; on a machine with one CPU nothing is placed.
func (i *Infrastructure) Placement() infra.Placement { return i.placement }

// Worker starts a generator process on the generator's CPUs. It ends when it
// is closed, when ctx or the infrastructure ends, and when this process does,
// however that comes.
func (i *Infrastructure) Worker(ctx context.Context) (infra.Worker, error) {
	w, err := process.StartWorker(ctx, i.starter, process.WorkerOptions{
		Executable: i.o.Executable,
		CPUs:       i.placement.GeneratorCPUs,
	})
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	closed := i.closed
	i.workers = append(i.workers, w)
	i.mu.Unlock()
	if closed {
		w.Close()
	}
	return w, nil
}

// Deploy starts the processes of a Spec in order, each when the one before is
// ready. Ports are chosen anew, up to three times, where somebody else takes
// one before its process does.
func (i *Infrastructure) Deploy(ctx context.Context, name string, spec meshbench.Spec, prepare infra.Prepare) (infra.Deployment, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	const tries = 4
	for try := 1; ; try++ {
		d, err := i.deploy(ctx, name, spec, prepare)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, errPortTaken) || try == tries || ctx.Err() != nil {
			return nil, err
		}
		i.o.Logger.Warn("a port was taken by somebody else, choosing others", "deployment", name, "error", err)
	}
}

// deploy starts the control processes of a Spec, or takes them over from a
// deployment that has ended, and then the others.
func (i *Infrastructure) deploy(ctx context.Context, name string, spec meshbench.Spec, prepare infra.Prepare) (*deployment, error) {
	control, err := i.control(ctx, name, spec, prepare)
	if err != nil {
		return nil, err
	}
	d, err := i.deployOwn(ctx, name, spec, control, prepare)
	if err != nil && control != nil {
		i.leave(ctx, control)
	}
	return d, err
}

func (i *Infrastructure) deployOwn(ctx context.Context, name string, spec meshbench.Spec, control *deployment, prepare infra.Prepare) (*deployment, error) {
	supervisor, err := i.supervise(ctx)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	i.count++
	unique := fmt.Sprintf("%03d-%s", i.count, fileName(name))
	i.mu.Unlock()
	d := &deployment{
		i: i, supervisor: supervisor, name: name, spec: spec, control: control,
		dir:    filepath.Join(i.root(), unique),
		logs:   filepath.Join(i.logs(), unique),
		layout: layout{ports: map[meshbench.PortRef]int{}, dirs: map[string]string{}, hosts: map[string]string{}, programs: map[string]string{}},
	}
	if err := d.start(ctx, prepare); err != nil {
		// Even where ctx has ended: nothing of it may be left.
		if errClose := d.Close(ctx); errClose != nil {
			i.o.Logger.Error("a deployment that failed could not be removed", "deployment", name, "error", errClose)
		}
		return nil, err
	}
	return d, nil
}

// Close ends the workers, removes the deployments and ends the supervisor.
// Logs stay. It may be called twice.
func (i *Infrastructure) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	workers, supervisor := i.workers, i.supervisor
	i.mu.Unlock()
	for _, w := range workers {
		w.Close()
	}
	i.starter.Close()
	supervisor.close() // ends all processes and removes their directories
	if err := os.RemoveAll(i.root()); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the files of the deployments cannot be removed: %w", err)
	}
	return nil
}

// ownHost returns an address of the loopback network that no other process of
// this machine's deployments has: one of the odd ones of 127.64.0.0/10, in
// order, from a place that differs between runs.
func (i *Infrastructure) ownHost() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hosts == 0 {
		i.hosts = os.Getpid() << 6
	}
	i.hosts++
	n := i.hosts<<1 | 1
	return net.IPv4(127, 64|byte(n>>16)&63, byte(n>>8), byte(n)).String()
}
