package worker

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
)

const (
	// helloTime is how long a worker may take to introduce itself.
	helloTime = 30 * time.Second
	// stopTime is how long a worker may take to end a load that is stopped.
	stopTime = 15 * time.Second
	// startDelay is how long before the first moment several workers are told
	// of it.
	startDelay = 100 * time.Millisecond
)

// Client drives one worker. It runs one job at a time.
type Client struct {
	transport io.ReadWriteCloser
	w         *writer
	hello     load.Hello
	messages  chan load.Message // closed when the worker's stream ends
	err       error             // why it ended; read after messages is closed
	closing   sync.Once
	quit      chan struct{} // closed by Close: ends the heartbeat and the reader
}

// Connect greets the worker at the other end of transport, which the Client
// owns from now on. The error's code is unavailable where nobody answers, and
// invalid where the worker speaks another version of the protocol.
func Connect(ctx context.Context, transport io.ReadWriteCloser) (*Client, error) {
	c := &Client{
		transport: transport, w: newWriter(transport),
		messages: make(chan load.Message, 16), quit: make(chan struct{}),
	}
	go c.read(newReader(transport))
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	m, err := c.next(ctx)
	if err != nil {
		_ = c.Close()
		return nil, meshbench.Errorf(meshbench.Unavailable, "the worker did not say hello: %w", err)
	}
	if m.Type != load.TypeHello {
		_ = c.Close()
		return nil, meshbench.Errorf(meshbench.Invalid, "the worker began with a message of type %s", m.Type)
	}
	if m.Hello.Protocol != load.ProtocolVersion {
		_ = c.Close()
		return nil, meshbench.Errorf(meshbench.Invalid, "the worker speaks version %d of the protocol, and not %d", m.Hello.Protocol, load.ProtocolVersion).
			WithHint("start the worker with the same version of meshbench (it is %s)", m.Hello.Build)
	}
	c.hello = *m.Hello
	go c.heartbeat()
	return c, nil
}

// Hello returns how the worker introduced itself.
func (c *Client) Hello() load.Hello { return c.hello }

// Close ends the worker's input, which ends the worker, and closes the
// transport.
func (c *Client) Close() error {
	var err error
	c.closing.Do(func() {
		close(c.quit)
		err = c.transport.Close()
	})
	return err
}

func (c *Client) heartbeat() {
	t := time.NewTicker(heartbeatTime)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if c.w.write(load.Message{Type: load.TypeHeartbeat}) != nil {
				return
			}
		case <-c.quit:
			return
		}
	}
}

func (c *Client) read(r *reader) {
	defer close(c.messages)
	for {
		m, err := r.read()
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.messages <- m:
		case <-c.quit:
			c.err = io.ErrClosedPipe
			return
		}
	}
}

// next returns the worker's next message. A message of type error is an error.
func (c *Client) next(ctx context.Context) (load.Message, error) {
	select {
	case m, ok := <-c.messages:
		switch {
		case !ok && errors.Is(c.err, io.EOF):
			return m, meshbench.Errorf(meshbench.Unavailable, "the worker has ended").
				WithHint("its log tells why; a worker also ends when it is killed or out of memory")
		case !ok:
			return m, meshbench.Errorf(meshbench.Unavailable, "the worker is lost: %w", c.err)
		case m.Type == load.TypeError:
			return m, m.Error
		}
		return m, nil
	case <-ctx.Done():
		return load.Message{}, ctx.Err()
	}
}

// Run runs a job and calls tick, where it is not nil, every 100 ms. Zero
// fields of the job have their defaults (load.Job.WithDefaults).
//
// Where ctx ends before the load, the result has what there is and the error
// is ctx's. An error of the worker about the job has its code and hint; where
// the worker itself is lost the code is unavailable.
func (c *Client) Run(ctx context.Context, job load.Job, tick func(load.Tick)) (meshbench.LoadResult, error) {
	return RunAll(ctx, []*Client{c}, job, tick)
}

// RunAll runs a job on several workers that share its rate and connections,
// and begin at one moment. tick gets the ticks of each.
func RunAll(ctx context.Context, clients []*Client, job load.Job, tick func(load.Tick)) (meshbench.LoadResult, error) {
	if len(clients) == 0 {
		return meshbench.LoadResult{}, meshbench.Errorf(meshbench.Invalid, "a load needs a worker")
	}
	job = job.WithDefaults()
	job.WorkerCount = len(clients)
	if err := job.Validate(); err != nil {
		return meshbench.LoadResult{}, err
	}
	if job.Connections < len(clients) {
		return meshbench.LoadResult{}, meshbench.Errorf(meshbench.Invalid, "%d connections cannot be shared by %d workers", job.Connections, len(clients)).
			WithHint("use at least one connection per worker")
	}
	r := &running{clients: clients, aggregate: load.NewAggregate(job), tick: tick, summaries: make([]load.Summary, len(clients))}
	stop := context.AfterFunc(ctx, func() { r.tell(load.Message{Type: load.TypeStop}) })
	defer stop()
	// After a stop the workers have a while to tell what there is.
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTime, cancel) })()

	for i, c := range clients {
		part := job
		part.WorkerIndex = i
		part.Connections = (job.Connections + i) / len(clients)
		if err := c.w.write(load.Message{Type: load.TypeJob, Job: &part}); err != nil {
			return meshbench.LoadResult{}, r.giveUp(ctx, err)
		}
	}
	if err := r.each(patient, r.ready); err != nil {
		return meshbench.LoadResult{}, r.giveUp(ctx, err)
	}
	start := load.Message{Type: load.TypeStart}
	if len(clients) > 1 {
		start.StartAt = time.Now().Add(startDelay).UnixNano()
	}
	if err := r.tell(start); err != nil {
		return meshbench.LoadResult{}, r.giveUp(ctx, err)
	}
	if err := r.each(patient, r.follow); err != nil {
		return meshbench.LoadResult{}, r.giveUp(ctx, err)
	}
	result, err := r.aggregate.Result(r.summaries...)
	if err == nil {
		err = ctx.Err()
	}
	return result, err
}

// running is one job on its workers.
type running struct {
	clients   []*Client
	mu        sync.Mutex // of all below
	aggregate *load.Aggregate
	tick      func(load.Tick)
	summaries []load.Summary
}

// tell sends a message to every worker.
func (r *running) tell(m load.Message) error {
	var errs []error
	for _, c := range r.clients {
		errs = append(errs, c.w.write(m))
	}
	return errors.Join(errs...)
}

// giveUp ends what is left of the load.
func (r *running) giveUp(ctx context.Context, err error) error {
	_ = r.tell(load.Message{Type: load.TypeStop})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// each does something with every worker at the same time, and returns the
// first error.
func (r *running) each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(r.clients))
	for i := range r.clients {
		go func() {
			err := do(ctx, i)
			if err != nil {
				cancel()
			}
			failed <- err
		}()
	}
	var first error
	for range r.clients {
		if err := <-failed; err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	return first
}

// ready waits until a worker is.
func (r *running) ready(ctx context.Context, i int) error {
	for {
		m, err := r.clients[i].next(ctx)
		switch {
		case err != nil:
			return err
		case m.Type == load.TypeReady:
			return nil
		}
		// What is left of an earlier job that was given up.
	}
}

// follow takes a worker's ticks until it is done.
func (r *running) follow(ctx context.Context, i int) error {
	for {
		m, err := r.clients[i].next(ctx)
		if err != nil {
			return err
		}
		switch m.Type {
		case load.TypeTick:
			if err := r.add(*m.Tick); err != nil {
				return err
			}
		case load.TypeDone:
			r.summaries[i] = *m.Done
			return nil
		default:
			return meshbench.Errorf(meshbench.Invalid, "a worker under load sent a message of type %s", m.Type)
		}
	}
}

func (r *running) add(report load.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.aggregate.Add(report)
	if err == nil && r.tick != nil {
		r.tick(t)
	}
	return err
}
