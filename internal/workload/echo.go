// Package workload is the services behind the mesh. This version has one: an
// echo service that answers every request with the same number of bytes.
//
// A service listens on two ports. What arrives on the first is the workload:
// every request counts, whatever its method and path. The second is for
// Meshbench alone (readiness, and what the service has received); it never
// counts itself.
package workload

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/meshbench/meshbench"
)

// The paths of the control port.
const (
	ReadyPath = "/ready" // 200 once the workload's port accepts connections
	SeenPath  = "/seen"  // meshbench.Seen as JSON
)

// Options are of an echo service.
type Options struct {
	Listen    string // address of the workload's port, host:port; port 0 chooses one
	Control   string // address of the control port; empty: there is none
	BodyBytes int    // length of every answer's body
	// Ready, if set, is called once with the addresses (control empty if there
	// is none) when both ports accept connections.
	Ready func(listen, control string)
}

// Serve runs an echo service until ctx ends, which is no error. It reads each
// request's body to its end and answers 200 with BodyBytes bytes and their
// Content-Length. A port that cannot be had is an error of code Unavailable.
func Serve(ctx context.Context, o Options) error {
	if o.BodyBytes < 0 {
		return meshbench.Errorf(meshbench.Invalid, "a body of %d bytes cannot be sent", o.BodyBytes)
	}
	listener, err := listen(o.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	e := newEcho(o.BodyBytes)
	servers := []*http.Server{{Handler: e}}
	listeners := []net.Listener{listener}
	control := ""
	if o.Control != "" {
		l, err := listen(o.Control)
		if err != nil {
			return err
		}
		defer l.Close()
		control = l.Addr().String()
		listeners = append(listeners, l)
		servers = append(servers, &http.Server{Handler: e.control(), ReadHeaderTimeout: 10 * time.Second})
	}
	ended := make(chan error, len(servers))
	for i, s := range servers {
		go func() { ended <- s.Serve(listeners[i]) }()
	}
	if o.Ready != nil {
		o.Ready(listener.Addr().String(), control)
	}
	var failed error
	select {
	case <-ctx.Done():
	case err := <-ended:
		failed = meshbench.Errorf(meshbench.Internal, "the echo service ended: %w", err)
	}
	// Nobody waits for an answer any more: connections are cut.
	for _, s := range servers {
		s.Close()
	}
	return failed
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the echo service cannot listen: %w", err).
			WithHint("choose another address: somebody else listens there, or it is not this machine's")
	}
	return l, nil
}

// echo is the handler of the workload's port. Its path is short on purpose:
// its cost is in every latency that is measured.
type echo struct {
	body     []byte
	length   []string // the header's value, made once
	kind     []string
	requests atomic.Uint64
	peer     atomic.Pointer[string] // the last X-Forwarded-Client-Cert
}

func newEcho(bodyBytes int) *echo {
	e := &echo{
		body:   make([]byte, bodyBytes),
		length: []string{strconv.Itoa(bodyBytes)},
		kind:   []string{"application/octet-stream"},
	}
	for i := range e.body {
		e.body[i] = 'a' + byte(i%26)
	}
	return e
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Counted before it is answered: once the client has the answer, it counts.
	e.requests.Add(1)
	if values := r.Header["X-Forwarded-Client-Cert"]; len(values) > 0 {
		value := values[len(values)-1]
		if last := e.peer.Load(); last == nil || *last != value {
			e.peer.Store(&value)
		}
	} else if e.peer.Load() != nil {
		e.peer.Store(nil)
	}
	if r.ContentLength != 0 {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone
		}
	}
	h := w.Header()
	h["Content-Length"] = e.length
	h["Content-Type"] = e.kind
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(e.body) // an error means that the client is gone
}

func (e *echo) seen() meshbench.Seen {
	s := meshbench.Seen{Requests: e.requests.Load()}
	if header := e.peer.Load(); header != nil {
		s.PeerName = PeerName(*header)
	}
	return s
}

func (e *echo) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ReadyPath, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.HandleFunc("GET "+SeenPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e.seen())
	})
	return mux
}

// ReadSeen asks a service's control port, at host:port, what it has received.
func ReadSeen(ctx context.Context, client *http.Client, address string) (meshbench.Seen, error) {
	var seen meshbench.Seen
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+SeenPath, nil)
	if err != nil {
		return seen, err
	}
	response, err := client.Do(request)
	if err != nil {
		return seen, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return seen, errors.New(response.Status)
	}
	return seen, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&seen)
}
