// Package workload is the services behind the mesh: the applications that
// requests go to, and the topologies that they make.
//
// A service listens on two ports. What arrives on the first is the workload:
// every request counts, whatever its method and path. The second is for
// Meshbench alone (readiness, what the service has received, metrics); it
// never counts itself.
package workload

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/meshbench/meshbench"
)

// Options are of a service.
type Options struct {
	Listen    string // address of the workload's port, host:port; port 0 chooses one
	Control   string // address of the control port; empty: there is none
	BodyBytes int    // length of every answer's body
	Service   string // its name; empty: echo
	Instance  int    // its number, from 0
	Node      Node   // what it does besides; the zero Node answers at once
	// Ready, if set, is called once with the addresses (control empty if there
	// is none) when both ports accept connections.
	Ready func(listen, control string)
}

// Serve runs a service until ctx ends, which is no error. It reads each
// request's body to its end, does what its Node says, and answers 200 with
// BodyBytes bytes and their Content-Length; a request can ask for something
// else (see meshbench.ReflectHeader). A port that cannot be had is an error
// of code Unavailable.
func Serve(ctx context.Context, o Options) error {
	n, err := newService(o)
	if err != nil {
		return err
	}
	defer n.close()
	l, err := listen(o.Listen)
	if err != nil {
		return err
	}
	defer l.Close()
	servers := []*http.Server{{Handler: n, ConnContext: withWire, DisableGeneralOptionsHandler: true}}
	listeners := []net.Listener{wireListener{l}}
	control := ""
	if o.Control != "" {
		l, err := listen(o.Control)
		if err != nil {
			return err
		}
		defer l.Close()
		control = l.Addr().String()
		listeners = append(listeners, l)
		servers = append(servers, &http.Server{Handler: n.control(), ReadHeaderTimeout: 10 * time.Second})
	}
	ended := make(chan error, len(servers))
	for i, s := range servers {
		go func() { ended <- s.Serve(listeners[i]) }()
	}
	if o.Ready != nil {
		o.Ready(l.Addr().String(), control)
	}
	var failed error
	select {
	case <-ctx.Done():
	case err := <-ended:
		failed = meshbench.Errorf(meshbench.Internal, "the service %s ended: %w", n.name, err)
	}
	// Nobody waits for an answer any more: connections are cut.
	for _, s := range servers {
		s.Close()
	}
	return failed
}

func listen(address string) (*net.TCPListener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the service cannot listen: %w", err).
			WithHint("choose another address: somebody else listens there, or it is not this machine's")
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, errors.New("a TCP listener is none")
	}
	return tcp, nil
}
