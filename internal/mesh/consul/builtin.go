package consul

import (
	"context"
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/statsd"
)

// metricsProcess receives what built-in proxies count: they have no endpoint
// to ask, but tell a StatsD server.
func metricsProcess() meshbench.Process {
	return meshbench.Process{
		Name: Metrics, Role: meshbench.OtherRole,
		Runtime: meshbench.Self,
		Args: []string{
			"statsd",
			"--listen", `{{address "metrics" "statsd"}}`,
			"--admin", `{{address "metrics" "admin"}}`,
		},
		Ports:    []string{"statsd", "admin"},
		ReadyURL: `http://{{address "metrics" "admin"}}` + statsd.ReadyPath,
		MayPark:  true,
	}
}

// runBuiltin makes a process a built-in proxy. It is ready when it lives:
// Configure waits until it serves, since a probe of its ports would count as a
// connection.
func runBuiltin(p *meshbench.Process, r mesh.Request, runtime string) {
	p.Runtime = runtime
	p.Args = []string{
		"connect", "proxy", "-proxy-id", p.Name, "-log-level", "warn",
		"-pprof-addr", `{{address "` + p.Name + `" "` + adminPort + `"}}`,
	}
	p.Env = []string{`CONSUL_HTTP_ADDR={{address "` + Agent + `" "http"}}`}
	if r.Profile == meshbench.Parity {
		p.Env = append(p.Env, "GOMAXPROCS="+strconv.Itoa(r.Threads))
	}
	p.ReadyURL = `http://{{address "` + p.Name + `" "` + adminPort + `"}}/debug/pprof/cmdline`
}

// telemetryConfig makes a built-in proxy tell the receiver of metrics what it
// counts, under its own name.
func telemetryConfig(access mesh.Access, proxy string) (object, error) {
	address, err := access.Address(Metrics, "statsd")
	if err != nil {
		return nil, err
	}
	return object{"telemetry": object{
		"statsd_address": address, "metrics_prefix": proxy, "disable_hostname": true,
		"filter_default": true, // without it nothing is told
	}}, nil
}

func (d Driver) metrics(ctx context.Context, access mesh.Access) (statsd.Metrics, error) {
	address, err := access.Address(Metrics, "admin")
	if err != nil {
		return statsd.Metrics{}, err
	}
	return statsd.Read(ctx, d.http, address)
}

// dialled is how many connections a proxy has made to a service.
func dialled(m statsd.Metrics, proxy, service string) uint64 {
	return rises(m, proxy+".upstream.conns.", "."+service)
}

// accepted is how many connections a service's proxy has led to its
// application.
func accepted(m statsd.Metrics, proxy, service string) uint64 {
	return rises(m, proxy+".inbound.conns.", service)
}

func rises(m statsd.Metrics, prefix, suffix string) uint64 {
	var sum float64
	for name, g := range m.Gauges {
		if rest, ok := strings.CutPrefix(name, prefix); ok && strings.HasSuffix("."+rest, "."+strings.TrimPrefix(suffix, ".")) {
			sum += g.Rises
		}
	}
	return uint64(math.Round(sum))
}

// countersBuiltin counts connections: built-in proxies know nothing else. They
// tell how many are open, whenever one begins or ends; the sum of the rises is
// how many there were (at least: two that begin in the same moment can be told
// out of order, which adds some). A caller's proxy counts a connection when its
// handshake with the server's has succeeded and the server's name is verified,
// so each is a handshake, too. There is no plaintext: a built-in proxy has no
// way to speak it (Settings tries whether the server's proxy lets it in).
func (d Driver) countersBuiltin(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	m, err := d.metrics(ctx, access)
	if err != nil {
		return nil, err
	}
	all := proxies(r)
	var out []mesh.Hop
	for _, edge := range mesh.Edges(r.Services) {
		hop := mesh.Hop{From: edge.Name(), To: edge.To, Secure: true, Layer4: true}
		for _, p := range all {
			if slices.Contains(edge.From, p.service) {
				hop.ClientReceived += dialled(m, p.name, edge.To)
			}
			if p.service == edge.To {
				hop.ServerReceived += accepted(m, p.name, edge.To)
			}
		}
		hop.ClientAttempts, hop.Handshakes = hop.ClientReceived, hop.ClientReceived
		out = append(out, hop)
	}
	return out, nil
}

// configureBuiltin writes the intentions and returns when the agent decides by
// them, since it is the agent that a built-in proxy asks for each connection,
// and when every way through the proxies is open. Connections that there are
// live on: they were decided when they began.
func (d Driver) configureBuiltin(ctx context.Context, access mesh.Access, a agent, r mesh.Request) error {
	steps, err := a.steps(ctx, r)
	if err != nil {
		return err
	}
	for _, s := range steps {
		for _, e := range s.write {
			if err := a.write(ctx, e); err != nil {
				return err
			}
		}
	}
	policies, err := mesh.Combine(r)
	if err != nil {
		return err
	}
	for _, edge := range mesh.Edges(r.Services) {
		for _, from := range edge.From {
			i := slices.IndexFunc(policies, func(p mesh.ServicePolicy) bool { return p.Service == edge.To })
			allowed := permissions(policies[i].Authorizations, from)[0]["Action"] == string(meshbench.Allow)
			if err := a.awaitDecision(ctx, from, edge.To, allowed); err != nil {
				return err
			}
			if !allowed {
				continue
			}
			for _, p := range of(proxies(r), from) {
				if err := d.awaitWay(ctx, access, p, edge.To); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// awaitDecision returns when the agent lets a service reach another, or not.
func (a agent) awaitDecision(ctx context.Context, from, to string, allowed bool) error {
	question := object{"Target": to, "ClientCertURI": Identity(from), "ClientCertSerial": "00"}
	for {
		var answer struct {
			Authorized bool
			Reason     string
		}
		if err := a.call(ctx, http.MethodPost, "/v1/agent/connect/authorize", question, &answer); err != nil {
			return err
		}
		if answer.Authorized == allowed {
			return nil
		}
		if !pause(ctx, look) {
			return meshbench.Errorf(meshbench.Unavailable, "Consul does not decide by the new intentions of %s: %s: %w", to, answer.Reason, ctx.Err())
		}
	}
}

// awaitWay returns when a connection through a proxy to a service has come
// about, if none has yet: one that carries nothing.
func (d Driver) awaitWay(ctx context.Context, access mesh.Access, p proxy, to string) error {
	i := slices.IndexFunc(p.calls, func(c call) bool { return c.to == to })
	if i < 0 {
		return meshbench.Errorf(meshbench.Internal, "%s has no way to %s", p.name, to)
	}
	address, err := access.Address(p.name, p.calls[i].port)
	if err != nil {
		return err
	}
	var last error
	for {
		m, err := d.metrics(ctx, access)
		if err != nil {
			return err
		}
		if dialled(m, p.name, to) > 0 {
			return nil
		}
		if last = d.tryWay(ctx, access, p.name, to, address); last == nil {
			return nil
		}
		if !pause(ctx, look) {
			return meshbench.Errorf(meshbench.Unavailable, "no connection comes about through %s to %s: %w", p.name, to, last).
				WithHint("look into the logs of %s and %s", p.name, to+"-proxy")
		}
	}
}

// tryWay holds a connection until the proxy has told of it, or closes it.
func (d Driver) tryWay(ctx context.Context, access mesh.Access, proxy, to, address string) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	closed := make(chan error, 1)
	go func() {
		_, err := connection.Read(make([]byte, 1))
		closed <- err
	}()
	for {
		m, err := d.metrics(ctx, access)
		if err != nil {
			return err
		}
		if dialled(m, proxy, to) > 0 {
			return nil
		}
		select {
		case err := <-closed:
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
}

// settingsBuiltin looks at a server's proxy from outside: a handshake as the
// client shows the versions, and knocks without TLS and without a certificate
// show whether it is strict. Proxies of this kind have neither access log nor
// tracing, and carry what the application speaks as it is.
func (d Driver) settingsBuiltin(ctx context.Context, access mesh.Access, a agent, r mesh.Request) ([]meshbench.Setting, error) {
	threads := "product"
	if r.Profile == meshbench.Parity {
		threads = strconv.Itoa(r.Threads)
	}
	service := r.Services[0].Name
	inbound := Inbound(service)
	address, err := access.Address(inbound.Process, inbound.Port)
	if err != nil {
		return nil, err
	}
	state, err := d.show(ctx, a, address)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s takes no handshake: %w", inbound.Process, err)
	}
	hops, err := d.countersBuiltin(ctx, access, r)
	if err != nil {
		return nil, err
	}
	strict := notSeen
	if hops[0].Handshakes > 0 {
		strict = "strict"
		for _, secured := range []bool{false, true} {
			let, err := letsIn(ctx, address, secured)
			if err != nil {
				return nil, err
			}
			if let {
				strict = "partly"
			}
		}
	}
	return []meshbench.Setting{
		{Name: "proxy", Value: "Consul's own"},
		{Name: "threads", Value: threads},
		{Name: "mtls", Value: strict},
		{Name: "tls_version", Value: strings.ReplaceAll(tls.VersionName(state.Version), "TLS ", "TLSv")},
		{Name: "tls_group", Value: state.CurveID.String()},
		{Name: "tls_group_choice", Value: "product"},
		{Name: "tls_cipher", Value: tls.CipherSuiteName(state.CipherSuite)},
		{Name: "upstream_http", Value: "as the application"},
		{Name: "access_log", Value: "off"},
		{Name: "tracing", Value: "off"},
	}, nil
}

// knockTimeout is for a knock to be answered or refused.
const knockTimeout = 20 * time.Second

// handshake makes a connection, with a certificate if there is one, and tells
// how it is secured.
func handshake(ctx context.Context, address string, own ...tls.Certificate) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, // looked at, not relied on
		Certificates:       own,
	}}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer connection.Close()
	return connection.(*tls.Conn).ConnectionState(), nil
}

// letsIn tells whether a request without a certificate is answered.
func letsIn(ctx context.Context, address string, secured bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false, meshbench.Errorf(meshbench.Unavailable, "nobody answers at %s: %w", address, err)
	}
	defer connection.Close()
	if deadline, ok := ctx.Deadline(); ok {
		connection.SetDeadline(deadline)
	}
	if secured {
		connection = tls.Client(connection, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n"); err != nil {
		return false, nil // refused already
	}
	text := make([]byte, 5)
	n, err := io.ReadFull(connection, text)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return false, meshbench.Errorf(meshbench.Unavailable, "%s neither answers nor refuses", address)
	}
	return n == len(text) && string(text) == "HTTP/", nil
}
