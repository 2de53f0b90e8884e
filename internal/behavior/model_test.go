package behavior

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// model is a mesh in this process that does what the probes expect, and one
// thing wrong where it is a mutant: a subject of the tests of this package,
// and of nothing else. It is an infrastructure and a driver at once.
type model struct {
	flaw  string // what it does wrong; see is
	names bool   // it tells the application who calls

	// hooks of mutants
	request  func(*wire.Message)
	answer   func(*wire.Message)
	policies func([]meshbench.Policy) []meshbench.Policy
}

func (m *model) is(flaw string) bool { return m.flaw == flaw }

var (
	_ mesh.Driver          = (*model)(nil)
	_ mesh.Stranger        = (*model)(nil)
	_ mesh.Rotator         = (*model)(nil)
	_ infra.Infrastructure = (*model)(nil)
	_ infra.Deployment     = (*proxy)(nil)
)

func (m *model) Describe() mesh.Description {
	d := mesh.Description{Name: "model", Title: "Model", HasProxy: true, NamesPeer: m.names, Profiles: []meshbench.Profile{meshbench.Parity}}
	for _, k := range meshbench.PolicyKinds() {
		d.Capabilities = append(d.Capabilities, mesh.Capability{Policy: k, Supported: true})
	}
	return d
}

func (m *model) Render(mesh.Request) (meshbench.Spec, error) {
	return meshbench.Spec{
		Processes: []meshbench.Process{
			{Name: "control-plane", Role: meshbench.ControlPlane, Runtime: meshbench.Self, Ports: []string{"x"}},
			{Name: "echo-proxy", Role: meshbench.ServerProxy, Service: Echo, Runtime: meshbench.Self, Ports: []string{"mtls"}},
			{Name: "client-proxy", Role: meshbench.ClientProxy, Runtime: meshbench.Self, Ports: []string{"http"}},
		},
		Entry: meshbench.PortRef{Process: "client-proxy", Port: "http"},
	}, nil
}

func (m *model) Prepare(context.Context, mesh.Access, mesh.Request, string) error { return nil }

func (m *model) Configure(_ context.Context, access mesh.Access, r mesh.Request) error {
	p := access.(*proxy)
	if p.dead(meshbench.ControlPlane) {
		return errors.New("the control plane is gone")
	}
	if m.policies != nil {
		r.Policies = m.policies(r.Policies)
	}
	combined, err := mesh.Combine(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy = &combined[0]
	p.state = newState()
	return nil
}

func (m *model) Show(mesh.Request) ([]mesh.Document, error) { return nil, nil }
func (m *model) Counters(context.Context, mesh.Access, mesh.Request) ([]mesh.Hop, error) {
	return nil, nil
}
func (m *model) Settings(context.Context, mesh.Access, mesh.Request) ([]meshbench.Setting, error) {
	return nil, nil
}

func (m *model) NoStranger(mesh.Request) string { return "" }
func (m *model) Inbound(mesh.Request) meshbench.PortRef {
	return meshbench.PortRef{Process: "echo-proxy", Port: "mtls"}
}
func (m *model) Identity(_ context.Context, _ mesh.Access, service string) (string, error) {
	return pki.ServiceAccount(service), nil
}
func (m *model) Sign(_ context.Context, access mesh.Access, name string, from, until time.Time) (pki.Identity, string, error) {
	p := access.(*proxy)
	i, err := p.authority.IssueBetween(name, from, until)
	return i, p.authority.Bundle(), err
}
func (m *model) Rotate(_ context.Context, access mesh.Access, _ mesh.Request) error {
	p := access.(*proxy)
	if m.is("drops on rotation") {
		p.mu.Lock()
		p.refuse = 5
		p.mu.Unlock()
	}
	time.Sleep(50 * time.Millisecond)
	return nil
}

func (m *model) Path() meshbench.NetworkPath                  { return "" }
func (m *model) Deploys() bool                                { return true }
func (m *model) Placement() infra.Placement                   { return infra.Placement{} }
func (m *model) Worker(context.Context) (infra.Worker, error) { return nil, errors.New("none") }
func (m *model) Close() error                                 { return nil }

// Deploy starts the applications for real, in this process, and one proxy
// that is client's and server's at once.
func (m *model) Deploy(_ context.Context, _ string, spec meshbench.Spec, _ infra.Prepare) (infra.Deployment, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proxy{model: m, cancel: cancel, addresses: map[meshbench.PortRef]string{}, gone: map[meshbench.Role]bool{}, connections: map[net.Conn]bool{}, state: newState()}
	p.resumed = sync.NewCond(&p.mu)
	for _, a := range spec.Processes {
		if a.Role != meshbench.Application {
			continue
		}
		ready := make(chan [2]string, 1)
		failed := make(chan error, 1)
		p.group.Go(func() {
			failed <- origin.Serve(ctx, origin.Options{Listen: "127.0.0.1:0", Control: "127.0.0.1:0", Service: a.Service, Instance: a.Instance,
				Ready: func(l, c string) { ready <- [2]string{l, c} }})
		})
		select {
		case at := <-ready:
			p.addresses[meshbench.PortRef{Process: a.Name, Port: httpPort}] = at[0]
			p.addresses[meshbench.PortRef{Process: a.Name, Port: controlPort}] = at[1]
		case err := <-failed:
			cancel()
			return nil, err
		}
	}
	var err error
	if p.authority, err = pki.NewAuthority(time.Now()); err != nil {
		return nil, err
	}
	for ref, serve := range map[meshbench.PortRef]func(net.Conn){
		{Process: "client-proxy", Port: "http"}: func(c net.Conn) { p.serve(c, mesh.Client, true) },
		{Process: "echo-proxy", Port: "mtls"}:   p.inbound,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		p.addresses[ref] = l.Addr().String()
		p.listeners = append(p.listeners, l)
		p.group.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				p.mu.Lock()
				p.connections[c] = true
				refuse := p.gone[meshbench.ControlPlane] && m.is("no new connections without control plane")
				p.mu.Unlock()
				p.group.Go(func() {
					if !refuse {
						serve(c)
					}
					c.Close()
					p.mu.Lock()
					delete(p.connections, c)
					p.mu.Unlock()
				})
			}
		})
	}
	return p, nil
}

// state is what a proxy remembers while its configuration is the same.
type state struct {
	mu     sync.Mutex
	active int
	full   bool // it was, once
	began  time.Time
	passed int
	turn   int
	errors map[string]int
	out    map[string]time.Time
}

func newState() *state { return &state{errors: map[string]int{}, out: map[string]time.Time{}} }

type proxy struct {
	model     *model
	cancel    func()
	group     sync.WaitGroup
	addresses map[meshbench.PortRef]string
	listeners []net.Listener
	authority *pki.Authority

	mu          sync.Mutex
	connections map[net.Conn]bool
	policy      *mesh.ServicePolicy
	state       *state
	gone        map[meshbench.Role]bool
	goneAt      time.Time
	stopped     bool
	resumed     *sync.Cond
	refuse      int
	closing     int
	broken      bool
}

func (p *proxy) dead(r meshbench.Role) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone[r]
}

func (p *proxy) Address(process, port string) (string, error) {
	a, ok := p.addresses[meshbench.PortRef{Process: process, Port: port}]
	if !ok {
		return "", fmt.Errorf("no port %s of %s", port, process)
	}
	return a, nil
}
func (p *proxy) Dir(string) (string, error)     { return "", errors.New("none") }
func (p *proxy) Program(string) (string, error) { return "", errors.New("none") }
func (p *proxy) Target() meshbench.Target {
	a, _ := p.Address("client-proxy", "http")
	return meshbench.Target{URL: "http://" + a}
}
func (p *proxy) Usage(context.Context) ([]meshbench.UsageReading, error) { return nil, nil }
func (p *proxy) Seen(context.Context, string) (meshbench.Seen, error) {
	return meshbench.Seen{}, nil
}
func (p *proxy) Park(context.Context) error   { return nil }
func (p *proxy) Resume(context.Context) error { return nil }
func (p *proxy) Log(string, int) string       { return "" }

func (p *proxy) Signal(_ context.Context, r meshbench.Role, _ int, s infra.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s {
	case infra.Kill:
		p.gone[r], p.goneAt = true, time.Now()
		if r == meshbench.ControlPlane && p.model.is("connections end with control plane") {
			for c := range p.connections {
				c.Close()
			}
		}
		if r == meshbench.ControlPlane && p.model.is("policies end with control plane") {
			p.policy = nil
		}
	case infra.Stop:
		p.stopped = true
	case infra.Continue:
		p.stopped = false
		p.resumed.Broadcast()
	}
	return nil
}

func (p *proxy) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r, gone := range p.gone {
		if gone {
			return fmt.Errorf("the %s was killed", r)
		}
	}
	return nil
}

func (p *proxy) Close(context.Context) error {
	p.cancel()
	for _, l := range p.listeners {
		l.Close()
	}
	p.mu.Lock()
	for c := range p.connections {
		c.Close()
	}
	p.stopped = false
	p.resumed.Broadcast()
	p.mu.Unlock()
	p.group.Wait()
	return nil
}

// inbound takes what comes past the client's proxy.
func (p *proxy) inbound(c net.Conn) {
	m := p.model
	r := bufio.NewReader(c)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	p.mu.Lock()
	permissive := p.policy != nil && p.policy.MTLS == meshbench.MTLSPermissive
	p.mu.Unlock()
	buffered := &peeked{c, r}
	if first[0] != 0x16 { // no TLS handshake
		if permissive || m.is("plain text let in") {
			p.serve(buffered, "", false)
		}
		return
	}
	service := Echo
	if m.is("another server name") {
		service = Other
	}
	identity, err := p.authority.Issue(pki.ServiceAccount(service), time.Now())
	if err != nil {
		return
	}
	pair, err := tls.X509KeyPair([]byte(identity.Certificate), []byte(identity.Key))
	if err != nil {
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.authority.Bundle()))
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	if m.is("no certificate needed") {
		config.ClientAuth = tls.RequestClientCert
	}
	if m.is("old TLS") {
		config.MinVersion = tls.VersionTLS10
	}
	who := ""
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return nil // where none is needed
		}
		leaf := s.PeerCertificates[0]
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired && m.is("any time") || m.is("any authority") {
			err = nil
		}
		if err != nil {
			return err
		}
		name := leaf.URIs[0].String()
		if !strings.HasPrefix(name, "spiffe://"+pki.TrustDomain+"/") && !m.is("any trust domain") {
			return errors.New("another trust domain")
		}
		who = path.Base(name)
		if m.is("the client alone") && who != mesh.Client {
			return errors.New("not the client")
		}
		return nil
	}
	secured := tls.Server(buffered, config)
	if err := secured.Handshake(); err != nil {
		return
	}
	p.serve(secured, who, false)
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// serve answers the requests of one connection.
func (p *proxy) serve(c net.Conn, who string, entry bool) {
	r := bufio.NewReader(c)
	sticky := ""
	for {
		m, err := wire.ReadHead(r)
		if err != nil {
			return
		}
		if !p.exchange(c, r, m, who, entry, &sticky) {
			return
		}
	}
}

func own(status int, body string) wire.Message {
	m := wire.Message{Start: fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status)), Framing: wire.ByLength, Body: []byte(body)}
	m.Add("Content-Length", strconv.Itoa(len(body)))
	return m
}

// invalid is the status of a request that must be refused; 0 for others.
func (p *proxy) invalid(m wire.Message) int {
	f := p.model
	for _, x := range m.Fields {
		if strings.ContainsAny(x.Name, " \t") && !f.is("odd fields") {
			return 400
		}
		if strings.Contains(x.Value, "\x00") && !f.is("NUL") {
			return 400
		}
	}
	hosts := wire.Values(m.Fields, "Host")
	if len(hosts) == 0 && strings.HasSuffix(m.Start, "HTTP/1.1") && !f.is("no Host") || len(hosts) > 1 && !f.is("two Hosts") {
		return 400
	}
	lengths, codings := wire.Values(m.Fields, "Content-Length"), wire.Values(m.Fields, "Transfer-Encoding")
	if len(slices.Compact(slices.Clone(lengths))) > 1 && !f.is("two lengths") {
		return 400
	}
	if len(lengths) > 0 && len(codings) > 0 && !f.is("length and chunks") {
		return 400
	}
	if len(codings) > 0 && codings[0] != "chunked" && !f.is("any coding") {
		return 501
	}
	return 0
}

// exchange answers one request and tells whether another may follow.
func (p *proxy) exchange(c net.Conn, r *bufio.Reader, m wire.Message, who string, entry bool, sticky *string) bool {
	f := p.model
	p.mu.Lock()
	policy, state, gone, goneAt := p.policy, p.state, p.gone[meshbench.ServerProxy], p.goneAt
	orphan := p.gone[meshbench.ControlPlane]
	if p.refuse > 0 {
		p.refuse--
		p.mu.Unlock()
		c.Write(own(503, "rotating").Bytes())
		return true
	}
	p.mu.Unlock()
	if orphan && f.is("ends a while after control plane") && time.Since(goneAt) > 3*time.Second {
		return false
	}
	if status := p.invalid(m); status != 0 {
		c.Write(own(status, "").Bytes())
		return false
	}
	old := strings.HasSuffix(m.Start, "HTTP/1.0")
	if old && f.is("no HTTP/1.0") {
		c.Write(own(426, "").Bytes())
		return false
	}
	begin := time.Now()
	if rest, ok := strings.CutPrefix(m.Target(), "http://"); ok && !f.is("absolute form refused") {
		host, p, _ := strings.Cut(rest, "/")
		m.Start = m.Method() + " /" + p + " HTTP/1.1"
		for i := range m.Fields {
			if strings.EqualFold(m.Fields[i].Name, "Host") {
				m.Fields[i].Value = host
			}
		}
	} else if ok {
		c.Write(own(404, "").Bytes())
		return false
	}
	expects := m.Get("Expect") != ""
	if expects && !f.is("no 100") {
		c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	m.Remove("Expect")
	upgrade := m.Get("Upgrade") != "" && !f.is("no upgrade")
	if !f.is("named fields") {
		for _, v := range wire.Values(m.Fields, "Connection") {
			if v != "Upgrade" && v != "TE" && v != "close" {
				m.Remove(v)
			}
		}
	}
	last := old || m.Get("Connection") == "close"
	m.Remove("Connection")
	if upgrade {
		m.Add("Connection", "Upgrade")
	} else {
		m.Remove("Upgrade")
	}

	// The body is read beside what follows: an answer may come before its end.
	body := &body{head: m, message: m, read: make(chan struct{})}
	read := func() {
		body.err = body.message.ReadRequestBody(r)
		close(body.read)
	}
	if upgrade || m.Get("Content-Length") == "" && m.Get("Transfer-Encoding") == "" {
		read()
	} else {
		p.group.Go(read)
		select { // what is malformed is known soon
		case <-body.read:
			if body.err != nil && !errors.Is(body.err, wire.ErrCut) && !f.is("any chunk") {
				c.Write(own(400, "").Bytes())
				return false
			}
		case <-time.After(100 * time.Millisecond):
		}
	}

	answer, upstream := p.forward(c, body, who, entry, policy, state, gone, begin, sticky)
	if f.answer != nil {
		f.answer(&answer)
	}
	if answer.Start == "" { // nothing at all
		return false
	}
	complete := true
	select {
	case <-body.read:
	default:
		complete = false
	}
	switch {
	case answer.Status() == 101 && upstream != nil:
		c.Write(answer.Bytes())
		defer upstream.Close()
		done := make(chan struct{}, 2)
		go func() { io.Copy(upstream, r); done <- struct{}{} }()
		go func() { io.Copy(c, upstream.r); done <- struct{}{} }()
		<-done
		return false
	case answer.Framing == wire.UntilClose:
		c.Write(answer.Bytes())
		return false
	}
	c.Write(answer.Bytes())
	cut := answer.Framing == wire.ByLength && answer.Get("Content-Length") != strconv.Itoa(len(answer.Body)) && m.Method() != "HEAD"
	return complete && !last && !cut
}

// body is a request whose body may still be on its way.
type body struct {
	head    wire.Message
	message wire.Message // whole once read is closed
	read    chan struct{}
	err     error
}

type upstreamConn struct {
	net.Conn
	r *bufio.Reader
}

// forward carries out the policies and returns the answer, and the connection
// that it came over where it was an upgrade.
func (p *proxy) forward(c net.Conn, b *body, who string, entry bool, policy *mesh.ServicePolicy, s *state, gone bool, begin time.Time, sticky *string) (wire.Message, *upstreamConn) {
	f := p.model
	m := b.head
	m.Fields = slices.Clone(m.Fields)
	fails := func(status int, body string) wire.Message {
		if f.is("always 500") {
			status = 500
		}
		return own(status, body)
	}
	if policy == nil {
		policy = &mesh.ServicePolicy{Service: Echo, Rules: []mesh.Rule{{Backends: []meshbench.WeightedBackend{{Service: Echo, Weight: 1}}}}}
	}
	if !p.allowed(m, who, policy) {
		return own(403, "denied"), nil
	}
	if l := policy.RateLimit; l != nil {
		s.mu.Lock()
		if time.Since(s.began) > l.Per.Std() {
			s.began, s.passed = time.Now(), 0
		}
		s.passed++
		over := s.passed > l.Requests
		s.mu.Unlock()
		if over {
			return own(429, "slow down"), nil
		}
	}
	rule := p.rule(m, policy)
	if !f.is("keeps forged peer") {
		m.Remove("X-Forwarded-Client-Cert")
	}
	if f.names && !f.is("names nobody") {
		m.Add("X-Forwarded-Client-Cert", "By="+pki.ServiceAccount(Echo)+";URI="+pki.ServiceAccount(who))
	}
	if rule.Request != nil {
		change(&m, *rule.Request)
	}
	if f.request != nil {
		f.request(&m)
	}
	if rule.Fault != nil {
		if d := rule.Fault.Delay; d != nil && rand.Float64()*100 < d.Percent {
			time.Sleep(d.Duration.Std())
		}
		if a := rule.Fault.Abort; a != nil && rand.Float64()*100 < a.Percent {
			return own(a.Status, "fault"), nil
		}
	}
	if k := policy.CircuitBreaker; k != nil && k.MaxRequests > 0 {
		s.mu.Lock()
		over := s.active >= k.MaxRequests || s.full && f.is("stays full")
		if over {
			s.full = true
		} else {
			s.active++
		}
		s.mu.Unlock()
		if over {
			return own(503, "full"), nil
		}
		defer func() { s.mu.Lock(); s.active--; s.mu.Unlock() }()
	}
	var deadline time.Time
	if rule.Timeout > 0 {
		deadline = begin.Add(rule.Timeout.Std())
	}
	if gone {
		return fails(503, "no server"), nil
	}
	p.mu.Lock()
	if p.stopped {
		woken := time.AfterFunc(time.Until(deadline), func() { p.resumed.Broadcast() })
		if deadline.IsZero() {
			woken.Stop()
		}
		for p.stopped && (deadline.IsZero() || time.Now().Before(deadline)) {
			p.resumed.Wait()
		}
		woken.Stop()
		if p.stopped {
			p.mu.Unlock()
			return fails(504, "timeout"), nil
		}
	}
	p.mu.Unlock()
	if mirror := rule.Mirror; mirror != nil {
		copied := func() {
			<-b.read
			var at string
			for ref, a := range p.addresses {
				if ref.Process == mirror.Service && ref.Port == httpPort {
					at = a
				}
			}
			twin := m
			twin.Fields = slices.Clone(m.Fields)
			twin.Body, twin.Framing, twin.Trailers = b.message.Body, b.message.Framing, b.message.Trailers
			if f.is("empty copy") {
				twin.Body, twin.Framing = nil, wire.NoBody
				twin.Remove("Content-Length")
			}
			if f.is("shadow host") {
				host := twin.Get("Host")
				twin.Remove("Host")
				twin.Add("Host", host+"-shadow")
			}
			if conn, err := net.Dial("tcp", at); err == nil {
				conn.Write(twin.Bytes())
				wire.ReadHead(bufio.NewReader(conn))
				conn.Close()
			}
		}
		if f.is("waits for the mirror") {
			copied()
		} else {
			p.group.Go(copied)
		}
	}
	attempts := 1
	var on []meshbench.RetryOn
	perTry := time.Duration(0)
	idempotent := slices.Contains([]string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"}, m.Method())
	if rule.Retry != nil && (idempotent || f.is("retries POST")) {
		attempts += rule.Retry.Attempts
		on, perTry = rule.Retry.On, rule.Retry.PerTryTimeout.Std()
	}
	if f.is("retries by itself") {
		attempts, on = 3, []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnReset}
	}
	var answer wire.Message
	var upstream *upstreamConn
	tried := ""
	for i := range attempts {
		until := deadline
		if perTry > 0 && (until.IsZero() || time.Now().Add(perTry).Before(until)) {
			until = time.Now().Add(perTry)
		}
		at := p.pick(rule, s, sticky, tried)
		tried = at
		if i > 0 && f.is("empty retry") {
			m.Body, m.Framing = nil, wire.NoBody
			m.Remove("Content-Length")
			b.message.Body = nil
		}
		var why meshbench.RetryOn
		answer, upstream, why = p.attempt(c, m, b, at, until)
		p.health(policy, s, at, answer.Status())
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		status := answer.Status()
		again := slices.Contains(on, meshbench.RetryOn5xx) && status >= 500 || slices.Contains(on, meshbench.RetryOnGatewayError) && status >= 502 && status <= 504 && why == "" ||
			why != "" && slices.Contains(on, why) || f.is("retries 4xx") && status/100 == 4
		if !again {
			break
		}
		if i == attempts-1 && f.is("own words") {
			answer = own(503, "all attempts failed")
		}
	}
	if answer.Status() == 504 || answer.Status() == 503 {
		answer.Start = fails(answer.Status(), "").Start
	}
	if rule.Response != nil {
		change(&answer, *rule.Response)
	}
	return answer, upstream
}

// attempt sends a request to one instance. why tells what went wrong before
// an answer.
func (p *proxy) attempt(c net.Conn, m wire.Message, b *body, at string, until time.Time) (answer wire.Message, upstream *upstreamConn, why meshbench.RetryOn) {
	f := p.model
	conn, err := net.Dial("tcp", at)
	if err != nil {
		p.mu.Lock()
		p.broken = true
		p.mu.Unlock()
		return own(503, "connection failure"), nil, meshbench.RetryOnConnectFailure
	}
	p.mu.Lock()
	again := p.broken && f.is("remembers failures")
	p.broken = false
	p.mu.Unlock()
	if again {
		conn.Close()
		return own(503, "still afraid"), nil, ""
	}
	u := &upstreamConn{conn, bufio.NewReader(conn)}
	done := func() {
		if f.is("goes on after a timeout") {
			time.AfterFunc(10*time.Second, func() { conn.Close() })
			return
		}
		conn.Close()
	}
	if !until.IsZero() {
		conn.SetDeadline(until)
	}
	sent := func() {
		whole := m
		whole.Body, whole.Framing, whole.Trailers = b.message.Body, b.message.Framing, b.message.Trailers
		if f.is("drops request trailers") {
			whole.Trailers = nil
		}
		if f.is("cuts bodies") {
			whole.Body = whole.Body[:len(whole.Body)/2]
			if whole.Has("Content-Length") {
				whole.Remove("Content-Length")
				whole.Add("Content-Length", strconv.Itoa(len(whole.Body)))
			}
		}
		conn.Write(whole.Bytes())
	}
	select {
	case <-b.read:
		sent()
	default:
		head := m
		head.Body, head.Framing = nil, wire.NoBody
		if !f.is("waits for bodies") {
			conn.Write(head.Bytes())
		}
		p.group.Go(func() {
			<-b.read
			if f.is("waits for bodies") {
				sent()
				return
			}
			whole := b.message
			whole.Fields = nil
			_, rest, _ := strings.Cut(string(whole.Bytes()), "\r\n\r\n")
			conn.Write([]byte(rest))
		})
	}
	failed := func(err error) (wire.Message, *upstreamConn, meshbench.RetryOn) {
		var n net.Error
		if errors.As(err, &n) && n.Timeout() {
			done()
			return own(504, "timeout"), nil, ""
		}
		conn.Close()
		return own(503, "reset"), nil, meshbench.RetryOnReset
	}
	for {
		if answer, err = wire.ReadHead(u.r); err != nil {
			return failed(err)
		}
		if s := answer.Status(); s/100 == 1 && s != 101 {
			if s != 100 && !f.is("no early hints") {
				c.Write(answer.Bytes())
			}
			continue
		}
		break
	}
	if answer.Status() == 101 {
		if f.is("no upgrade") {
			conn.Close()
			return own(502, ""), nil, ""
		}
		return answer, u, ""
	}
	if f.is("timeouts end at the head") {
		conn.SetDeadline(time.Time{})
	}
	err = answer.ReadAnswerBody(u.r, m.Method())
	if err != nil && !errors.Is(err, wire.ErrCut) {
		return failed(err)
	}
	conn.Close()
	if strings.EqualFold(answer.Get("Connection"), "close") && f.is("loses closed connections") {
		p.mu.Lock()
		p.closing++
		lost := p.closing%10 == 0
		p.mu.Unlock()
		if lost {
			return own(502, "closed"), nil, ""
		}
	}
	answer.Remove("Connection")
	return answer, nil, ""
}

// pick chooses an instance, another one than was tried where there is one.
func (p *proxy) pick(rule mesh.Rule, s *state, sticky *string, tried string) string {
	service, sum := "", 0
	for _, b := range rule.Backends {
		sum += b.Weight
	}
	n := rand.IntN(sum)
	for _, b := range rule.Backends {
		if n < b.Weight {
			service = b.Service
			break
		}
		n -= b.Weight
	}
	if p.model.is("sticky") {
		if *sticky == "" {
			*sticky = service
		}
		service = *sticky
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var instances []string
	for i := range 2 {
		if a, ok := p.addresses[meshbench.PortRef{Process: processName(service, i), Port: httpPort}]; ok && time.Now().After(s.out[a]) {
			instances = append(instances, a)
		}
	}
	if len(instances) == 0 {
		return p.addresses[meshbench.PortRef{Process: service, Port: httpPort}]
	}
	s.turn++
	if at := instances[s.turn%len(instances)]; at != tried {
		return at
	}
	return instances[(s.turn+1)%len(instances)]
}

// health counts errors in a row, and ejects.
func (p *proxy) health(policy *mesh.ServicePolicy, s *state, at string, status int) {
	o := policy.OutlierDetection
	if o == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if status < 500 {
		s.errors[at] = 0
		return
	}
	if s.errors[at]++; s.errors[at] >= o.ConsecutiveErrors {
		s.errors[at] = 0
		s.out[at] = time.Now().Add(o.BaseEjection.Std())
	}
}

func change(m *wire.Message, c meshbench.HeaderChange) {
	for name, value := range c.Set {
		m.Remove(name)
		m.Add(name, value)
	}
	for name, value := range c.Add {
		m.Add(name, value)
	}
	for _, name := range c.Remove {
		m.Remove(name)
	}
}

// rule is the first that fits.
func (p *proxy) rule(m wire.Message, policy *mesh.ServicePolicy) mesh.Rule {
	for _, r := range policy.Rules {
		if r.Match == nil {
			return r
		}
		fits := r.Match.Method == "" || r.Match.Method == m.Method()
		if prefix := r.Match.PathPrefix; prefix != "" {
			fits = fits && p.below(m.Target(), prefix)
		}
		for name, value := range r.Match.Headers {
			fits = fits && m.Get(name) == value
		}
		if fits {
			return r
		}
	}
	return policy.Rules[len(policy.Rules)-1]
}

// below tells whether a path begins with a prefix, element by element.
func (p *proxy) below(target, prefix string) bool {
	if p.model.is("prefixes of text") {
		return strings.HasPrefix(target, prefix)
	}
	return target == prefix || strings.HasPrefix(target, strings.TrimSuffix(prefix, "/")+"/")
}

func (p *proxy) allowed(m wire.Message, who string, policy *mesh.ServicePolicy) bool {
	target, _, _ := strings.Cut(m.Target(), "?")
	if !p.model.is("paths as they come") {
		if decoded, err := url.PathUnescape(target); err == nil {
			target = path.Clean(decoded)
		}
	}
	fits := func(a meshbench.Authorization) bool {
		return (len(a.From) == 0 || slices.Contains(a.From, who)) && (len(a.Methods) == 0 || slices.Contains(a.Methods, m.Method())) &&
			(len(a.Paths) == 0 || slices.ContainsFunc(a.Paths, func(prefix string) bool { return strings.HasPrefix(target, prefix) }))
	}
	some, allow := false, false
	for _, a := range policy.Authorizations {
		if a.Action == meshbench.Deny && fits(a) {
			return false
		}
		if a.Action == meshbench.Allow {
			some = true
			allow = allow || fits(a)
		}
	}
	return !some || allow
}
