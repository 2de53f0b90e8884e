// Package endpoint is the infrastructure of URLs that someone else runs:
// nothing is deployed, load goes to what is there.
package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/process"
)

// Options are of the infrastructure.
type Options struct {
	// Executable is the path of Meshbench itself, run as `Executable worker`.
	Executable string
	// DialTimeout is how long Deploy tries to connect; default 5 s.
	DialTimeout time.Duration
	Logger      *slog.Logger // default: nothing is logged
}

// Infrastructure is a set of named URLs.
type Infrastructure struct {
	o         Options
	urls      map[string]*url.URL
	placement infra.Placement
	starter   *process.Starter

	mu      sync.Mutex
	workers []*process.Worker
	closed  bool
}

var _ infra.Infrastructure = (*Infrastructure)(nil)

// New checks the URLs (name -> http or https URL); an error is of code
// Invalid and names the one that is wrong.
func New(urls map[string]string, o Options) (*Infrastructure, error) {
	if len(urls) == 0 {
		return nil, meshbench.Errorf(meshbench.Invalid, "there is no URL to measure").WithHint("name one: --url base=http://127.0.0.1:8080")
	}
	executable, err := filepath.Abs(o.Executable)
	if err != nil || o.Executable == "" {
		return nil, meshbench.Errorf(meshbench.Internal, "endpoint: no path of the executable is given")
	}
	o.Executable = executable
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	i := &Infrastructure{o: o, urls: map[string]*url.URL{}}
	for _, name := range slices.Sorted(maps.Keys(urls)) {
		u, err := url.Parse(urls[name])
		if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
			err = errors.New("it is not of the form http://host[:port][/path]")
		}
		if err != nil {
			return nil, meshbench.Errorf(meshbench.Invalid, "the URL %q of %q cannot be measured: %w", urls[name], name, err).
				WithHint("for example: --url %s=http://127.0.0.1:8080", name)
		}
		i.urls[name] = u
	}
	// The generator has a core of its own; where the others' processes run is
	// not ours to say.
	i.placement.GeneratorCPUs = process.Place().GeneratorCPUs
	i.starter = process.NewStarter()
	return i, nil
}

// Path is endpoint: nothing is known of it.
func (i *Infrastructure) Path() meshbench.NetworkPath { return meshbench.PathEndpoint }

// Deploys is false.
func (i *Infrastructure) Deploys() bool { return false }

// Placement has CPUs for the generator alone.
func (i *Infrastructure) Placement() infra.Placement { return i.placement }

// Deploy finds the URL of that name and connects once: an error of code
// Unavailable if nobody answers, NotFound if there is no such name. Of the
// Spec only Host is heeded.
func (i *Infrastructure) Deploy(ctx context.Context, name string, spec meshbench.Spec, _ infra.Prepare) (infra.Deployment, error) {
	u, ok := i.urls[name]
	if !ok {
		return nil, meshbench.Errorf(meshbench.NotFound, "no URL is called %q", name).
			WithHint("there are: %s", strings.Join(slices.Sorted(maps.Keys(i.urls)), ", "))
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	dialer := net.Dialer{Timeout: i.o.DialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%q does not answer at %s: %w", name, u.Redacted(), err).
			WithHint("start it, or correct the address: --url %s=URL", name)
	}
	i.o.Logger.Debug("somebody answers", "name", name, "url", u.Redacted(), "address", conn.RemoteAddr().String())
	conn.Close()
	return &deployment{name: name, target: meshbench.Target{URL: u.String(), Host: spec.Host}}, nil
}

// Worker starts a generator process on the generator's CPUs.
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

// Close ends the workers. It may be called twice.
func (i *Infrastructure) Close() error {
	i.mu.Lock()
	i.closed = true
	workers := i.workers
	i.workers = nil
	i.mu.Unlock()
	for _, w := range workers {
		w.Close()
	}
	i.starter.Close()
	return nil
}

// deployment is a URL.
type deployment struct {
	name   string
	target meshbench.Target
}

// notOurs is the answer to what only a deployment of ours could do.
func (d *deployment) notOurs(what string) error {
	return meshbench.Errorf(meshbench.NotFound, "%q: %s: someone else runs it", d.name, what)
}

// Address knows no process.
func (d *deployment) Address(process, port string) (string, error) {
	return "", d.notOurs("no address of port " + port + " of process " + process)
}

// Dir knows no process.
func (d *deployment) Dir(process string) (string, error) {
	return "", d.notOurs("no directory of process " + process)
}

// Program knows no runtime.
func (d *deployment) Program(runtime string) (string, error) {
	return "", d.notOurs("no program " + runtime)
}

// Target is the URL.
func (d *deployment) Target() meshbench.Target { return d.target }

// Usage knows no process: it is empty.
func (d *deployment) Usage(context.Context) ([]meshbench.UsageReading, error) { return nil, nil }

// Seen knows nothing: it is empty.
func (d *deployment) Seen(context.Context, string) (meshbench.Seen, error) {
	return meshbench.Seen{}, nil
}

// Park has nothing that could be stopped.
func (d *deployment) Park(context.Context) error { return nil }

// Resume has nothing to let go on.
func (d *deployment) Resume(context.Context) error { return nil }

// Signal reaches nobody.
func (d *deployment) Signal(_ context.Context, role meshbench.Role, instance int, _ infra.Signal) error {
	return d.notOurs("no process of role " + string(role))
}

// Check returns nil: whether it answers is what the measurement shows.
func (d *deployment) Check() error { return nil }

// Log knows no process.
func (d *deployment) Log(string, int) string { return "" }

// Close has nothing to end.
func (d *deployment) Close(context.Context) error { return nil }
