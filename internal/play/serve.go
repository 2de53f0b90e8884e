package play

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
)

// The protocol between the process that holds a playground and the commands
// is HTTP with JSON over a Unix socket that only its user can open:
//
//	GET  /status                   Status
//	PUT  /policies  []Policy    -> Applied
//	POST /requests  Sending     -> Sent
//	POST /down                     answered when nothing is left
//
// A failure is the project's Error with its code as the HTTP status's reason.

// ServeOptions are of a process that holds a playground.
type ServeOptions struct {
	Socket string
	// Idle is after how long without a command it ends by itself; 0: never.
	Idle time.Duration
	// Ready is called once when commands are answered.
	Ready func()
}

// Serve answers commands until one says down, ctx ends, or nobody has asked
// for anything in a while; then it closes the playground. A socket that
// somebody answers on is an error of code Conflict.
func Serve(ctx context.Context, p *Playground, o ServeOptions) error {
	l, err := listen(o.Socket)
	if err != nil {
		return err
	}
	ctx, down := context.WithCancel(ctx)
	defer down()
	idle := newIdle(o.Idle, down)
	defer idle.stop()
	closed := sync.OnceValue(func() error {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return p.Close(closing)
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { answer(w, p.Status(r.Context()), nil) })
	mux.HandleFunc("PUT /policies", func(w http.ResponseWriter, r *http.Request) {
		var policies []meshbench.Policy
		if err := read(r, &policies); err != nil {
			answer(w, nil, err)
			return
		}
		applied, err := p.Apply(r.Context(), policies)
		answer(w, applied, err)
	})
	mux.HandleFunc("POST /requests", func(w http.ResponseWriter, r *http.Request) {
		var s Sending
		if err := read(r, &s); err != nil {
			answer(w, nil, err)
			return
		}
		sent, err := p.Send(r.Context(), s)
		answer(w, sent, err)
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, closed())
		time.AfterFunc(10*time.Millisecond, down) // after the answer has left
	})
	server := &http.Server{Handler: idle.around(mux), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	if o.Ready != nil {
		o.Ready()
	}
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = server.Shutdown(stopping) // what is still under way is cut below
	server.Close()
	return errors.Join(err, closed())
}

// listen takes the socket over from a process that does not live any more.
func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the playground's directory cannot be made: %w", err)
	}
	if c, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		c.Close()
		return nil, meshbench.Errorf(meshbench.Conflict, "a playground is up already").WithHint("look at it with meshbench play status, end it with meshbench play down")
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the socket of an earlier playground cannot be removed: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the playground cannot listen: %w", err).WithHint("a socket's path can have about 100 bytes: choose a shorter --data-dir")
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, meshbench.Errorf(meshbench.Unavailable, "the playground's socket cannot be kept private: %w", err)
	}
	return l, nil
}

// maxCommand bounds what a command may send.
const maxCommand = 1 << 20

func read(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxCommand))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return meshbench.Errorf(meshbench.Invalid, "the command cannot be read: %w", err)
	}
	return nil
}

// failure is an error on its way.
type failure struct {
	Code    meshbench.Code `json:"code"`
	Message string         `json:"message"`
	Hint    string         `json:"hint"`
}

func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		e := meshbench.AsError(err)
		w.WriteHeader(http.StatusUnprocessableEntity)
		value = failure{e.Code, e.Message, e.Hint}
	}
	_ = json.NewEncoder(w).Encode(value) // an error means that the command is gone
}

// idle calls down when no command was under way for a while.
type idle struct {
	after time.Duration
	timer *time.Timer
	mu    sync.Mutex
	busy  int
}

func newIdle(after time.Duration, down func()) *idle {
	i := &idle{after: after}
	if after > 0 {
		i.timer = time.AfterFunc(after, down)
	}
	return i
}

func (i *idle) stop() {
	if i.timer != nil {
		i.timer.Stop()
	}
}

func (i *idle) around(h http.Handler) http.Handler {
	if i.timer == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.count(1)
		defer i.count(-1)
		h.ServeHTTP(w, r)
	})
}

func (i *idle) count(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy += n
	i.timer.Stop()
	if i.busy == 0 {
		i.timer.Reset(i.after)
	}
}
