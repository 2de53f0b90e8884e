package local

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/telemetry"
	"github.com/meshbench/meshbench/internal/workload"
)

const (
	stopGrace = 2 * time.Second // between SIGTERM and SIGKILL
	tailLines = 12              // of a log, in an error
)

// deployment is a Spec whose processes run here.
type deployment struct {
	i          *Infrastructure
	supervisor *client
	name       string
	spec       meshbench.Spec
	control    *deployment // its control processes, which outlive it; nil: none
	key        string      // of a control plane: what it was made of
	dir, logs  string
	layout

	mu      sync.Mutex
	running []*running
	closed  bool
}

var _ infra.Deployment = (*deployment)(nil)

// running is a process that was started.
type running struct {
	spec    meshbench.Process
	id      telemetry.Identity
	meter   *telemetry.Meter
	log     string
	started time.Time
	ended   chan struct{}
	how     string        // it ended; set before ended closes
	lived   time.Duration // likewise
}

func (r *running) alive() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// start writes the files, starts the processes and waits for each.
func (d *deployment) start(ctx context.Context, prepare infra.Prepare) error {
	if err := os.MkdirAll(d.logs, 0o700); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "%s: the directory of logs cannot be made: %w", d.name, err)
	}
	for _, ref := range d.spec.NeededRuntimes() {
		if d.i.o.Runtime == nil {
			return meshbench.Errorf(meshbench.NotFound, "%s needs %s, and no runtimes are known here", d.name, ref)
		}
		path, err := d.i.o.Runtime(ctx, ref)
		if err != nil {
			return err
		}
		d.programs[ref] = path
	}
	own := d.spec.Processes
	if d.control != nil {
		d.layout.add(d.control.layout)
		d.running = d.control.processes()
		own = slices.DeleteFunc(slices.Clone(own), func(p meshbench.Process) bool { return p.Control })
	}
	for _, p := range own {
		d.dirs[p.Name] = filepath.Join(d.dir, p.Name)
		d.hosts[p.Name] = loopback
		if p.OwnHost {
			d.hosts[p.Name] = d.i.ownHost()
		}
		for _, port := range p.Ports {
			n, err := d.i.pickPort()
			if err != nil {
				return err
			}
			d.ports[meshbench.PortRef{Process: p.Name, Port: port}] = n
		}
	}
	if err := d.makeNamespaces(ctx); err != nil {
		return err
	}
	// All files first: a process may refer to another's.
	for _, p := range own {
		if err := d.writeFiles(p); err != nil {
			return err
		}
	}
	for _, p := range own {
		if err := ctx.Err(); err != nil {
			return meshbench.Errorf(meshbench.Unavailable, "%s: not deployed: %w", d.name, err)
		}
		if prepare != nil {
			if err := prepare(ctx, d, p.Name); err != nil {
				return err
			}
		}
		r, err := d.startProcess(p)
		if err != nil {
			return err
		}
		if err := d.awaitReady(ctx, r); err != nil {
			return err
		}
		d.i.o.Logger.Debug("a process is ready", "deployment", d.name, "process", p.Name, "pid", r.id.PID, "after", time.Since(r.started))
	}
	return d.Check()
}

// namespaceOf is the namespace of a process, or nil.
func (d *deployment) namespaceOf(process string) *meshbench.Namespace {
	for i, n := range d.spec.Namespaces {
		if slices.Contains(n.Processes, process) {
			return &d.spec.Namespaces[i]
		}
	}
	return nil
}

// makeNamespaces has the supervisor make them, and gives their processes
// their addresses.
func (d *deployment) makeNamespaces(ctx context.Context) error {
	if len(d.spec.Namespaces) == 0 {
		return nil
	}
	r := networkRequest{Name: d.dir}
	for _, n := range d.spec.Namespaces {
		made := namespaceRequest{Name: n.Name, Through: n.Through}
		if n.Redirect != nil {
			numbers, err := d.redirect(n)
			if err != nil {
				return err
			}
			made.Redirect = numbers
		}
		r.Namespaces = append(r.Namespaces, made)
	}
	answer, err := d.supervisor.call(ctx, request{Op: opNetwork, Network: &r})
	if err != nil {
		e := noNamespaces(err)
		e.Message = d.name + ": " + e.Message
		return e
	}
	for _, n := range d.spec.Namespaces {
		for _, p := range n.Processes {
			d.hosts[p] = answer.Addresses[n.Name]
		}
	}
	return nil
}

// redirect has the numbers of a namespace's rules. The ports by which
// Meshbench itself asks a workload are reached straight.
func (d *deployment) redirect(n meshbench.Namespace) (*redirectRequest, error) {
	out := &redirectRequest{Group: proxyGroup}
	number := func(process, port string) (uint16, error) {
		v, err := d.port(process, port)
		return uint16(v), err
	}
	var err error
	if out.Inbound, err = number(n.Redirect.Proxy, n.Redirect.Inbound); err != nil {
		return nil, err
	}
	if out.Outbound, err = number(n.Redirect.Proxy, n.Redirect.Outbound); err != nil {
		return nil, err
	}
	for _, s := range n.Redirect.Services {
		v, err := number(n.Redirect.Proxy, s)
		if err != nil {
			return nil, err
		}
		out.Services = append(out.Services, v)
	}
	for _, ref := range n.Redirect.Direct {
		v, err := number(ref.Process, ref.Port)
		if err != nil {
			return nil, err
		}
		out.Direct = append(out.Direct, v)
	}
	for _, p := range n.Processes {
		if v, err := number(p, workload.ControlPort); err == nil {
			out.Direct = append(out.Direct, v)
		}
	}
	return out, nil
}

func (d *deployment) writeFiles(p meshbench.Process) error {
	if err := os.MkdirAll(d.dirs[p.Name], 0o700); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "%s: the directory of %q cannot be made: %w", d.name, p.Name, err)
	}
	for _, f := range p.Files {
		text, err := d.render(p.Name, f.Name, f.Text)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if f.Secret {
			mode = 0o600
		}
		path := filepath.Join(d.dirs[p.Name], f.Name)
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, []byte(text), mode)
		}
		if err != nil {
			return meshbench.Errorf(meshbench.Unavailable, "%s: a file of %q cannot be written: %w", d.name, p.Name, err)
		}
	}
	return nil
}

func (d *deployment) startProcess(p meshbench.Process) (*running, error) {
	path := d.i.o.Executable
	if p.Runtime != meshbench.Self {
		path = d.programs[p.Runtime]
	}
	args, err := d.renderAll(p.Name, "args", p.Args)
	if err != nil {
		return nil, err
	}
	env, err := d.renderAll(p.Name, "env", p.Env)
	if err != nil {
		return nil, err
	}
	r := &running{
		spec: p, log: filepath.Join(d.logs, p.Name+".log"),
		started: time.Now(), ended: make(chan struct{}),
	}
	request := startRequest{
		Name: d.name + "/" + p.Name, Path: path, Args: args, Env: env,
		Dir: d.dirs[p.Name], Log: r.log, CPUs: d.i.placement.SystemCPUs,
	}
	if n := d.namespaceOf(p.Name); n != nil {
		request.Network, request.Namespace = d.dir, n.Name
		if n.Redirect != nil && n.Redirect.Proxy == p.Name {
			request.Group = proxyGroup
		}
	}
	id, exit, err := d.supervisor.start(request)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s: process %q cannot be started: %w", d.name, p.Name, err)
	}
	r.id, r.meter = id, telemetry.NewMeter(id)
	go func() {
		select {
		case r.how = <-exit:
		case <-d.supervisor.done:
			r.how = "the supervisor was killed, and it with it"
		}
		r.lived = time.Since(r.started)
		close(r.ended)
	}()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = append(d.running, r)
	return r, nil
}

// processes are those that were started, in order.
func (d *deployment) processes() []*running {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.running)
}

// Address returns host:port of a port of a process; NotFound if there is none.
func (d *deployment) Address(process, port string) (string, error) {
	return d.layout.address(process, port)
}

// Dir returns the directory in which a process runs; NotFound if there is none.
func (d *deployment) Dir(process string) (string, error) { return d.layout.dir(process) }

// Program returns the path of a runtime's program; NotFound if the Spec does
// not name it.
func (d *deployment) Program(runtime string) (string, error) { return d.layout.program(runtime) }

// Target is the entry of the Spec; its URL is empty where there is none.
func (d *deployment) Target() meshbench.Target {
	address, err := d.address(d.spec.Entry.Process, d.spec.Entry.Port)
	if err != nil {
		return meshbench.Target{}
	}
	return meshbench.Target{URL: "http://" + address, Host: d.spec.Host}
}

// Usage reads the processes in the Spec's order.
func (d *deployment) Usage(context.Context) ([]meshbench.UsageReading, error) {
	running := d.processes()
	out := make([]meshbench.UsageReading, len(running))
	for i, r := range running {
		u := r.meter.Read()
		out[i] = meshbench.UsageReading{
			Role: r.spec.Role, Service: r.spec.Service, Instance: r.spec.Instance, Process: r.spec.Name,
			Alive:     u.Alive && r.alive(),
			UserNanos: u.UserNanos, SystemNanos: u.SystemNanos,
			AnonBytes: u.AnonBytes, FileBytes: u.FileBytes,
		}
	}
	return out, nil
}

// Seen asks the service's applications on their port named "control" (see
// package workload), and sums over the instances.
func (d *deployment) Seen(ctx context.Context, service string) (meshbench.Seen, error) {
	var sum meshbench.Seen
	found := false
	for _, p := range d.spec.Processes {
		address, err := d.address(p.Name, workload.ControlPort)
		if p.Role != meshbench.Application || p.Service != service || err != nil {
			continue
		}
		found = true
		seen, err := workload.ReadSeen(ctx, d.i.http, address)
		if err != nil {
			return meshbench.Seen{}, meshbench.Errorf(meshbench.Unavailable, "%s: what %q has seen cannot be read: %w", d.name, p.Name, err)
		}
		sum.Requests += seen.Requests
		if seen.PeerName != "" {
			sum.PeerName = seen.PeerName
		}
	}
	if !found {
		return sum, meshbench.Errorf(meshbench.NotFound, "%s: no application of a service %q is deployed", d.name, service)
	}
	return sum, nil
}

// Park stops (SIGSTOP) every process that may be, with its descendants.
func (d *deployment) Park(ctx context.Context) error {
	return d.signal(ctx, infra.Stop, func(p meshbench.Process) bool { return p.MayPark })
}

// Resume lets them go on.
func (d *deployment) Resume(ctx context.Context) error {
	return d.signal(ctx, infra.Continue, func(p meshbench.Process) bool { return p.MayPark })
}

// Signal sends a signal to the processes of a role and instance; NotFound if
// there is none.
func (d *deployment) Signal(ctx context.Context, role meshbench.Role, instance int, s infra.Signal) error {
	is := func(p meshbench.Process) bool { return p.Role == role && p.Instance == instance }
	if !slices.ContainsFunc(d.spec.Processes, is) {
		return meshbench.Errorf(meshbench.NotFound, "%s: no process has the role %s and instance %d", d.name, role, instance)
	}
	return d.signal(ctx, s, is)
}

func (d *deployment) signal(ctx context.Context, s infra.Signal, to func(meshbench.Process) bool) error {
	for _, r := range d.processes() {
		if !to(r.spec) || !r.alive() {
			continue
		}
		if _, err := d.supervisor.call(ctx, request{Op: opSignal, PID: r.id.PID, Signal: string(s)}); err != nil && r.id.Alive() {
			return meshbench.Errorf(meshbench.Unavailable, "%s: %s does not reach %q: %w", d.name, s, r.spec.Name, err)
		}
	}
	return nil
}

// Check returns nil while everything lives.
func (d *deployment) Check() error {
	for _, r := range d.processes() {
		if !r.alive() {
			return d.died(r, "")
		}
	}
	return nil
}

// died tells how a process ended; when says in relation to what.
func (d *deployment) died(r *running, when string) *meshbench.Error {
	e := meshbench.Errorf(meshbench.Unavailable, "%s: process %q (%s) ended %s after its start%s: %s",
		d.name, r.spec.Name, r.spec.Runtime, r.lived.Round(time.Millisecond), when, r.how)
	return d.withLog(e, r)
}

// withLog adds the last lines of a process's log.
func (d *deployment) withLog(e *meshbench.Error, r *running) *meshbench.Error {
	if text := lastLines(r.log, tailLines); text != "" {
		e.Message += "\n" + text
	}
	return e.WithHint("its whole log: %s", r.log)
}

// Log returns the last lines of a process's log; empty where there is none.
func (d *deployment) Log(process string, lines int) string {
	for _, r := range d.processes() {
		if r.spec.Name == process {
			return lastLines(r.log, lines)
		}
	}
	return ""
}

// Close ends all processes and removes their directories; control processes
// are left to the next deployment that needs them. The logs stay. It does so
// even where ctx has ended: the time that it takes is bounded.
func (d *deployment) Close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	own := d.running
	if d.control != nil {
		own = own[len(d.control.running):]
	}
	errs := make(chan error, len(own))
	for _, r := range own {
		go func() {
			_, err := d.supervisor.call(ctx, request{Op: opStop, PID: r.id.PID, GraceMS: stopGrace.Milliseconds()})
			if err == errSupervisorEnded {
				<-d.supervisor.done
				err = nil
				if r.id.Alive() {
					err = fmt.Errorf("process %d lives", r.id.PID)
				}
			}
			errs <- err
		}()
	}
	var failed error
	for range own {
		if err := <-errs; err != nil && failed == nil {
			failed = meshbench.Errorf(meshbench.Unavailable, "%s: not all of its processes have ended: %w", d.name, err)
		}
	}
	if failed != nil {
		return failed
	}
	if len(d.spec.Namespaces) > 0 {
		// Where the supervisor has ended, they have ended with it.
		if _, err := d.supervisor.call(ctx, request{Op: opUnnetwork, Network: &networkRequest{Name: d.dir}}); err != nil && err != errSupervisorEnded {
			return meshbench.Errorf(meshbench.Unavailable, "%s: its namespaces cannot be removed: %w", d.name, err)
		}
	}
	d.closed = true
	ports := maps.Clone(d.ports)
	if d.control != nil {
		maps.DeleteFunc(ports, func(p meshbench.PortRef, _ int) bool { _, theirs := d.control.ports[p]; return theirs })
		d.i.leave(ctx, d.control)
	}
	d.i.ports.free(ports)
	if err := os.RemoveAll(d.dir); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "%s: its files cannot be removed: %w", d.name, err)
	}
	return nil
}
