package worker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
)

// memoryLimit is where the Go runtime collects garbage even though it is told
// not to: below the 64 MB that a worker may have.
const memoryLimit = 48 << 20

// Serve is a worker: it runs the jobs that come in, one after the other, until
// the input ends or ctx does. out gets its messages. The error tells that the
// streams broke or do not speak the protocol; that a job cannot be run is a
// message.
//
// It changes the settings of its whole process (threads, garbage collection):
// a worker is a process of its own.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), load.Threads))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))

	pipe, done, err := pipeTo(out)
	if err != nil {
		return err
	}
	s := &server{w: newWriter(pipe), pipe: pipe, messages: make(chan load.Message, 4), ended: make(chan struct{})}
	defer done()
	build := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		build = info.Main.Version
	}
	if err := s.w.write(load.Message{Type: load.TypeHello, Hello: &load.Hello{
		Protocol: load.ProtocolVersion, Build: build, Engine: load.EngineName, PID: os.Getpid(),
	}}); err != nil {
		return err
	}
	go s.read(newReader(in))
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-s.messages:
			if !ok {
				return s.err
			}
			switch m.Type {
			case load.TypeJob:
				if err := s.run(ctx, *m.Job); err != nil {
					return err
				}
			case load.TypeStart, load.TypeStop: // of a job that has ended by itself
			default:
				return meshbench.Errorf(meshbench.Invalid, "a worker was sent a message of type %s", m.Type)
			}
		}
	}
}

// server is the state of Serve.
type server struct {
	w        *writer
	pipe     *os.File
	messages chan load.Message // all but heartbeats; closed at the end of the input
	ended    chan struct{}     // closed with messages
	err      error             // why the input ended; read after ended

	mu     sync.Mutex
	engine *load.Engine // of the running job
}

// read passes messages on, renews the lease with each, and ends the load with
// the input.
func (s *server) read(r *reader) {
	defer close(s.messages)
	defer close(s.ended)
	for {
		m, err := r.read()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, fs.ErrClosed) {
				s.err = err
			}
			s.with(func(e *load.Engine) { e.Stop() })
			return
		}
		s.with(func(e *load.Engine) { e.Lease(time.Now().Add(LeaseTime)) })
		switch m.Type {
		case load.TypeHeartbeat:
			continue
		case load.TypeStop:
			s.with(func(e *load.Engine) { e.Stop() })
		}
		s.messages <- m
	}
}

func (s *server) with(do func(*load.Engine)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		do(s.engine)
	}
}

func (s *server) set(e *load.Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engine = e
}

// run runs one job. Its error is one of the streams.
func (s *server) run(ctx context.Context, job load.Job) error {
	e, err := load.NewEngine(ctx, job.WithDefaults(), s.pipe, s.w.next+1) // after ready
	if err != nil {
		return s.w.write(load.Message{Type: load.TypeError, Error: meshbench.AsError(err)})
	}
	e.Lease(time.Now().Add(LeaseTime))
	s.set(e)
	defer s.set(nil)
	select {
	case <-s.ended: // before the engine could be told
		e.Stop()
	default:
	}
	defer context.AfterFunc(ctx, e.Stop)()

	// Nothing is allocated while the loop runs: what is garbage goes now.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	told := false
	var broken error
	ready := func() (time.Time, bool) {
		if broken = s.w.write(load.Message{Type: load.TypeReady}); broken != nil {
			return time.Time{}, false
		}
		told = true
		for {
			select {
			case m, ok := <-s.messages:
				switch {
				case !ok || m.Type == load.TypeStop:
					return time.Time{}, false
				case m.Type == load.TypeStart && m.StartAt != 0:
					return time.Unix(0, m.StartAt), true
				case m.Type == load.TypeStart:
					return time.Time{}, true
				}
			case <-ctx.Done():
				return time.Time{}, false
			}
		}
	}
	summary, next, err := e.Run(ready)
	if broken != nil {
		return broken
	}
	if told { // else nothing at all has been written
		s.w.next = next
	}
	if err != nil {
		return s.w.write(load.Message{Type: load.TypeError, Error: meshbench.AsError(err)})
	}
	return s.w.write(load.Message{Type: load.TypeDone, Done: &summary})
}

// pipeTo returns a pipe or socket whose bytes go to out: out itself where it
// is one, else a new one. done returns when all has gone there.
func pipeTo(out io.Writer) (pipe *os.File, done func(), err error) {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
			return f, func() {}, nil
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, meshbench.Errorf(meshbench.Unavailable, "make a pipe: %w", err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer r.Close()
		_, _ = io.Copy(out, r) // a reader that is gone is seen by the next write
	}()
	return w, func() { w.Close(); <-copied }, nil
}
