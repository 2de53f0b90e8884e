package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
)

// WorkerOptions say how to start a generator process.
type WorkerOptions struct {
	Executable string   // run as "Executable worker"
	CPUs       []int    // it may run on these only; empty: anywhere
	Env        []string // whole environment
	// Grace is how long it may take to end after its input has closed before
	// it is killed; default 2 s.
	Grace time.Duration
}

// Worker is a running generator process: what is written goes to its standard
// input, what is read comes from its standard output. Its standard error is
// kept for the error that tells of its end.
type Worker struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tail
	grace  time.Duration
	ended  chan struct{}
	err    error // of its end; set before ended closes
	stop   sync.Once
}

// StartWorker starts a generator process on the starter's thread. It ends
// when it is closed, when ctx ends, and with the thread.
func StartWorker(ctx context.Context, s *Starter, o WorkerOptions) (*Worker, error) {
	if err := ctx.Err(); err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the generator was not started: %w", err)
	}
	if o.Grace == 0 {
		o.Grace = 2 * time.Second
	}
	w := &Worker{cmd: exec.Command(o.Executable, "worker"), stderr: &tail{limit: 16 << 10}, grace: o.Grace, ended: make(chan struct{})}
	w.cmd.Env = append([]string{}, o.Env...) // never nil: that would inherit ours
	w.cmd.Stderr = w.stderr
	// What it leaves behind with our pipe in hand must not hold up its end.
	w.cmd.WaitDelay = time.Second
	bind(w.cmd)
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "the generator cannot be started: %w", err)
	}
	reader, writer := io.Pipe()
	w.out, w.cmd.Stdout = reader, writer
	if err := s.Run(o.CPUs, w.cmd.Start); err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the generator %s cannot be started: %w", o.Executable, err)
	}
	go func() {
		err := w.cmd.Wait()
		w.err = w.describe(err)
		if w.err != nil {
			writer.CloseWithError(w.err)
		} else {
			writer.Close()
		}
		close(w.ended)
	}()
	stopWatching := context.AfterFunc(ctx, func() { w.Close() })
	go func() { <-w.ended; stopWatching() }()
	return w, nil
}

func (w *Worker) describe(err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	e := meshbench.Errorf(meshbench.Unavailable, "the generator's process ended: %w", err)
	if text := w.stderr.String(); text != "" {
		e.Message += "\n" + text
	}
	return e
}

// PID is its process id.
func (w *Worker) PID() int { return w.cmd.Process.Pid }

// Read reads from its standard output. After its end the error is io.EOF if
// it ended well, else it says how it ended, with the last lines of its
// standard error.
func (w *Worker) Read(p []byte) (int, error) { return w.out.Read(p) }

// Write writes to its standard input.
func (w *Worker) Write(p []byte) (int, error) { return w.in.Write(p) }

// Close closes its input, waits for its end, and kills it if it takes too
// long. It may be called twice.
func (w *Worker) Close() error {
	w.stop.Do(func() {
		w.in.Close()
		// What nobody reads any more must not keep it from ending.
		go func() { _, _ = io.Copy(io.Discard, w.out) }()
		select {
		case <-w.ended:
		case <-time.After(w.grace):
			_ = w.cmd.Process.Kill() // an error means that it has ended
		}
	})
	<-w.ended
	return nil
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu    sync.Mutex
	limit int
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - t.limit; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
