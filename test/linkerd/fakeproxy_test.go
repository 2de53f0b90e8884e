//go:build linux

package linkerd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linkerd/linkerd2-proxy-api/go/destination"
	"github.com/linkerd/linkerd2-proxy-api/go/http_route"
	"github.com/linkerd/linkerd2-proxy-api/go/identity"
	"github.com/linkerd/linkerd2-proxy-api/go/inbound"
	l5dnet "github.com/linkerd/linkerd2-proxy-api/go/net"
	"github.com/linkerd/linkerd2-proxy-api/go/outbound"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// fakeProxy stands in for linkerd2-proxy where that cannot be had: it reads
// the same environment, asks the same questions, takes redirected connections
// and speaks mutual TLS with its like, so that everything around it can be
// tried. It is no measure of Linkerd: it knows HTTP/1 alone, and of the
// policies those that the tests use. Its figures are never reported.
type fakeProxy struct {
	env         map[string]string
	roots       *x509.CertPool
	certificate tls.Certificate
	inbound     inbound.InboundServerPoliciesClient
	outbound    outbound.OutboundPoliciesClient
	destination destination.DestinationClient

	mu       sync.Mutex
	ready    bool
	servers  map[uint32]*inbound.Server
	policies map[string]*outbound.OutboundPolicy
	places   map[string]map[string]*destination.WeightedAddr // authority -> address -> endpoint
	counts   map[string]uint64                               // a metric with its labels
	clients  map[string]*http.Transport
	second   int64  // of the clock
	taken    uint32 // requests in it
}

// runFakeProxy is what a process of a deployment runs.
func runFakeProxy() error {
	if os.Getenv("LINKERD2_PROXY_POLICY_WORKLOAD") == "" {
		// Asked for its version, as package runtimes asks the real one.
		fmt.Println("[     0.001s]  INFO ThreadId(01) linkerd2_proxy: release 2.999.0 (fake) by meshbench on 2026-01-01T00:00:00Z")
		os.Exit(64)
	}
	p := &fakeProxy{
		env: map[string]string{}, roots: x509.NewCertPool(),
		servers: map[uint32]*inbound.Server{}, policies: map[string]*outbound.OutboundPolicy{},
		places: map[string]map[string]*destination.WeightedAddr{}, counts: map[string]uint64{}, clients: map[string]*http.Transport{},
	}
	for _, e := range os.Environ() {
		name, value, _ := strings.Cut(e, "=")
		p.env[strings.TrimPrefix(name, "LINKERD2_PROXY_")] = value
	}
	if !p.roots.AppendCertsFromPEM([]byte(p.env["IDENTITY_TRUST_ANCHORS"])) {
		return errors.New("no trust anchor")
	}
	connection, err := p.connect("POLICY")
	if err != nil {
		return err
	}
	p.inbound = inbound.NewInboundServerPoliciesClient(connection)
	p.outbound = outbound.NewOutboundPoliciesClient(connection)
	p.destination = destination.NewDestinationClient(connection)
	ctx := context.Background()
	if err := p.certify(ctx); err != nil {
		return err
	}
	_, admin, err := net.SplitHostPort(p.env["ADMIN_LISTEN_ADDR"])
	if err != nil {
		return err
	}
	for _, text := range append([]string{admin}, strings.Split(p.env["INBOUND_PORTS"], ",")...) {
		if text == "" {
			continue
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return err
		}
		if err := p.watchPort(ctx, uint32(port)); err != nil {
			return err
		}
	}
	failed := make(chan error, 3)
	go func() { failed <- p.serveInbound(p.env["INBOUND_LISTEN_ADDR"]) }()
	go func() { failed <- p.serveOutbound(p.env["OUTBOUND_LISTEN_ADDR"]) }()
	go func() { failed <- http.ListenAndServe(p.env["ADMIN_LISTEN_ADDR"], p.admin()) }()
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	return <-failed
}

// connect dials the control plane as the real proxy does: TLS by its name,
// without ALPN.
func (p *fakeProxy) connect(service string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+p.env[service+"_SVC_ADDR"], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialer := tls.Dialer{Config: &tls.Config{RootCAs: p.roots, ServerName: p.env[service+"_SVC_NAME"], MinVersion: tls.VersionTLS13}}
			return dialer.DialContext(ctx, "tcp", address)
		}))
}

func (p *fakeProxy) certify(ctx context.Context) error {
	connection, err := p.connect("IDENTITY")
	if err != nil {
		return err
	}
	defer connection.Close()
	token, err := os.ReadFile(p.env["IDENTITY_TOKEN_FILE"])
	if err != nil {
		return err
	}
	request, err := os.ReadFile(filepath.Join(p.env["IDENTITY_DIR"], "csr.der"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(p.env["IDENTITY_DIR"], "key.p8"))
	if err != nil {
		return err
	}
	answer, err := identity.NewIdentityClient(connection).Certify(ctx, &identity.CertifyRequest{
		Identity: p.env["IDENTITY_LOCAL_NAME"], Token: token, CertificateSigningRequest: request,
	})
	if err != nil {
		return err
	}
	p.certificate, err = tls.X509KeyPair(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: answer.GetLeafCertificate()}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	return err
}

func (p *fakeProxy) watchPort(ctx context.Context, port uint32) error {
	stream, err := p.inbound.WatchPort(ctx, &inbound.PortSpec{Workload: p.env["POLICY_WORKLOAD"], Port: port})
	if err != nil {
		return err
	}
	return follow(stream.Recv, func(s *inbound.Server) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.servers[port] = s
	})
}

// follow takes the first message now and the others as they come.
func follow[M any](recv func() (M, error), take func(M)) error {
	first, err := recv()
	if err != nil {
		return err
	}
	take(first)
	go func() {
		for {
			m, err := recv()
			if err != nil {
				return
			}
			take(m)
		}
	}()
	return nil
}

func (p *fakeProxy) count(name string, labels map[string]string) {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, fmt.Sprintf("%s=%q", k, labels[k]))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[name+"{"+strings.Join(words, ",")+"}"]++
}

func (p *fakeProxy) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprintln(w, `proxy_build_info{version="2.0.0"} 1`)
		for _, k := range slices.Sorted(maps.Keys(p.counts)) {
			fmt.Fprintln(w, k, p.counts[k])
		}
	})
	mux.HandleFunc("/env.json", func(w http.ResponseWriter, _ *http.Request) {
		all := map[string]string{}
		for _, e := range os.Environ() {
			name, value, _ := strings.Cut(e, "=")
			all[name] = value
		}
		json.NewEncoder(w).Encode(all)
	})
	return mux
}

// accepted is a connection with what is known of it.
type accepted struct {
	net.Conn
	to     string // where it was bound to
	client string // the identity that it came with; empty: plain text
}

type acceptedKey struct{}

// serve serves HTTP on connections after they were made ready.
func serve(address string, prepare func(net.Conn) (net.Conn, error), handler http.HandlerFunc) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	queue := &connections{Listener: l, ready: make(chan net.Conn)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				ready, err := prepare(c)
				if err != nil {
					c.Close()
					return
				}
				queue.ready <- ready
			}()
		}
	}()
	server := &http.Server{Handler: handler, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, acceptedKey{}, c.(*accepted))
	}}
	return server.Serve(queue)
}

type connections struct {
	net.Listener
	ready chan net.Conn
}

// Accept returns the next that is ready.
func (c *connections) Accept() (net.Conn, error) { return <-c.ready, nil }

func of(r *http.Request) *accepted { return r.Context().Value(acceptedKey{}).(*accepted) }

// serveInbound takes mutual TLS, and plain text too: whether that is let in is
// judged by the request, as the real proxy does.
func (p *fakeProxy) serveInbound(address string) error {
	return serve(address, func(c net.Conn) (net.Conn, error) {
		to, err := originalDestination(c)
		if err != nil {
			return nil, err
		}
		peeked := &peekedConn{Conn: c, reader: bufio.NewReader(c)}
		first, err := peeked.reader.Peek(1)
		if err != nil {
			return nil, err
		}
		name := p.serverName(to)
		if first[0] != 0x16 { // no TLS handshake
			p.count("tcp_open_total", map[string]string{"direction": "inbound", "peer": "src", "srv_name": name, "tls": "no_identity"})
			return &accepted{Conn: peeked, to: to}, nil
		}
		secured := tls.Server(peeked, &tls.Config{
			Certificates: []tls.Certificate{p.certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.roots, MinVersion: tls.VersionTLS13,
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		client := strings.Join(secured.ConnectionState().PeerCertificates[0].DNSNames, ",")
		p.count("tcp_open_total", map[string]string{"direction": "inbound", "peer": "src", "srv_name": name, "tls": "true", "client_id": client})
		return &accepted{Conn: secured, to: to, client: client}, nil
	}, p.takeIn)
}

type peekedConn struct {
	net.Conn
	reader *bufio.Reader
}

// Read gives what was peeked at, too.
func (c *peekedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

func (p *fakeProxy) server(to string) *inbound.Server {
	_, text, _ := net.SplitHostPort(to)
	port, _ := strconv.ParseUint(text, 10, 16)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.servers[uint32(port)]
}

func (p *fakeProxy) serverName(to string) string { return p.server(to).GetLabels()["name"] }

func (p *fakeProxy) takeIn(w http.ResponseWriter, r *http.Request) {
	c := of(r)
	server := p.server(c.to)
	labels := map[string]string{"srv_name": server.GetLabels()["name"], "tls": "no_identity"}
	if c.client != "" {
		labels["tls"], labels["client_id"] = "true", c.client
	}
	if !allowed(server, r, c.client) {
		p.count("inbound_http_authz_deny_total", labels)
		w.Header().Set("l5d-proxy-error", "unauthorized")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	p.count("inbound_http_authz_allow_total", labels)
	if !p.within(server) {
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	forward := &httputil.ReverseProxy{Transport: p.transport(c.to, nil), Rewrite: func(out *httputil.ProxyRequest) {
		out.SetURL(&url.URL{Scheme: "http", Host: c.to})
		out.Out.Host = out.In.Host
		if c.client != "" {
			out.Out.Header.Set("l5d-client-id", c.client)
		}
	}}
	forward.ServeHTTP(w, r)
}

// within takes one from the second's allowance.
func (p *fakeProxy) within(s *inbound.Server) bool {
	limit := s.GetProtocol().GetDetect().GetHttpLocalRateLimit().GetTotal().GetRequestsPerSecond()
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now().Unix(); now != p.second {
		p.second, p.taken = now, 0
	}
	p.taken++
	return limit == 0 || p.taken <= limit
}

func allowed(s *inbound.Server, r *http.Request, client string) bool {
	all := s.GetAuthorizations()
	best := -1
	for _, route := range s.GetProtocol().GetDetect().GetHttpRoutes() {
		for _, m := range route.GetRules()[0].GetMatches() {
			if n := fits(m, r); n > best {
				best = n
				all = append(slices.Clone(s.GetAuthorizations()), route.GetAuthorizations()...)
			}
		}
	}
	return slices.ContainsFunc(all, func(a *inbound.Authz) bool {
		if a.GetAuthentication().GetUnauthenticated() != nil {
			return true
		}
		ids := a.GetAuthentication().GetMeshTLS().GetIdentities()
		return client != "" && (len(ids.GetSuffixes()) > 0 ||
			slices.ContainsFunc(ids.GetIdentities(), func(i *inbound.Identity) bool { return i.GetName() == client }))
	})
}

// fits returns how narrow a match is, -1 where the request is not one of it.
func fits(m *http_route.HttpRouteMatch, r *http.Request) int {
	prefix := strings.TrimSuffix(m.GetPath().GetPrefix(), "/")
	if prefix != "" && r.URL.Path != prefix && !strings.HasPrefix(r.URL.Path, prefix+"/") {
		return -1
	}
	n := len(prefix) << 8
	for _, h := range m.GetHeaders() {
		if r.Header.Get(h.GetName()) != string(h.GetExact()) {
			return -1
		}
		n += 2
	}
	if m.GetMethod() != nil {
		if m.GetMethod().GetRegistered().String() != r.Method {
			return -1
		}
		n++
	}
	return n
}

// serveOutbound takes what processes beside it send, and what comes for the
// addresses of services.
func (p *fakeProxy) serveOutbound(address string) error {
	return serve(address, func(c net.Conn) (net.Conn, error) {
		to, err := originalDestination(c)
		if err != nil {
			return nil, err
		}
		return &accepted{Conn: c, to: to}, p.discover(to)
	}, p.sendOut)
}

// discover learns what to do with connections to an address.
func (p *fakeProxy) discover(to string) error {
	p.mu.Lock()
	known := p.policies[to] != nil
	p.mu.Unlock()
	if known {
		return nil
	}
	a, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	four := a.Addr().As4()
	stream, err := p.outbound.Watch(context.Background(), &outbound.TrafficSpec{
		SourceWorkload: p.env["POLICY_WORKLOAD"],
		Target: &outbound.TrafficSpec_Addr{Addr: &l5dnet.TcpAddress{
			Ip: &l5dnet.IPAddress{Ip: &l5dnet.IPAddress_Ipv4{Ipv4: binary.BigEndian.Uint32(four[:])}}, Port: uint32(a.Port()),
		}},
	})
	if err != nil {
		return err
	}
	return follow(stream.Recv, func(m *outbound.OutboundPolicy) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.policies[to] = m
	})
}

// endpoints learns where the instances of a service are.
func (p *fakeProxy) endpoints(authority string) ([]*destination.WeightedAddr, error) {
	list := func() []*destination.WeightedAddr {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.places[authority] == nil {
			return nil
		}
		return slices.Collect(maps.Values(p.places[authority]))
	}
	if known := list(); known != nil {
		return known, nil
	}
	stream, err := p.destination.Get(context.Background(), &destination.GetDestination{Path: authority})
	if err != nil {
		return nil, err
	}
	err = follow(stream.Recv, func(u *destination.Update) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.places[authority] == nil || u.GetNoEndpoints() != nil {
			p.places[authority] = map[string]*destination.WeightedAddr{}
		}
		for _, a := range u.GetAdd().GetAddrs() {
			p.places[authority][addressText(a.GetAddr())] = a
		}
		for _, a := range u.GetRemove().GetAddrs() {
			delete(p.places[authority], addressText(a))
		}
	})
	return list(), err
}

func addressText(a *l5dnet.TcpAddress) string {
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], a.GetIp().GetIpv4())
	return netip.AddrPortFrom(netip.AddrFrom4(four), uint16(a.GetPort())).String()
}

func (p *fakeProxy) sendOut(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	policy := p.policies[of(r).to]
	p.mu.Unlock()
	var rule *outbound.HttpRoute_Rule
	best := -1
	for _, candidate := range policy.GetProtocol().GetDetect().GetHttp1().GetRoutes()[0].GetRules() {
		for _, m := range candidate.GetMatches() {
			if n := fits(m, r); n > best {
				rule, best = candidate, n
			}
		}
	}
	fail := func(status int, why error) {
		w.Header().Set("l5d-proxy-error", why.Error())
		w.WriteHeader(status)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(http.StatusBadGateway, err)
		return
	}
	ctx := r.Context()
	if t := rule.GetTimeouts().GetRequest(); t != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.AsDuration())
		defer cancel()
	}
	for try := uint32(0); ; try++ {
		answer, err := p.try(ctx, r, rule, body)
		if err != nil {
			fail(http.StatusGatewayTimeout, err)
			return
		}
		again := slices.ContainsFunc(rule.GetRetry().GetConditions().GetStatusRanges(), func(s *outbound.HttpRoute_Retry_Conditions_StatusRange) bool {
			return uint32(answer.StatusCode) >= s.GetStart() && uint32(answer.StatusCode) <= s.GetEnd()
		})
		if again && try < rule.GetRetry().GetMaxRetries() {
			answer.Body.Close()
			p.count("outbound_http_route_retry_requests_total", map[string]string{"parent_name": policy.GetMetadata().GetResource().GetName()})
			continue
		}
		defer answer.Body.Close()
		maps.Copy(w.Header(), answer.Header)
		for _, f := range rule.GetFilters() {
			for _, h := range f.GetResponseHeaderModifier().GetSet().GetHeaders() {
				w.Header().Set(h.GetName(), string(h.GetValue()))
			}
		}
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
		return
	}
}

func (p *fakeProxy) try(ctx context.Context, r *http.Request, rule *outbound.HttpRoute_Rule, body []byte) (*http.Response, error) {
	endpoints, err := p.endpoints(pick(rule.GetBackends()))
	if err != nil {
		return nil, err
	}
	if len(endpoints) == 0 {
		return nil, errors.New("no endpoint")
	}
	e := endpoints[rand.IntN(len(endpoints))]
	to := addressText(e.GetAddr())
	labels := map[string]string{"direction": "outbound", "dst_service": e.GetMetricLabels()["service"], "tls": "no_identity"}
	scheme := "http"
	if e.GetTlsIdentity() != nil {
		scheme, labels["tls"] = "https", "true"
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, scheme+"://"+to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header = r.Header.Clone()
	out.Host = r.Host
	for _, f := range rule.GetFilters() {
		for _, h := range f.GetRequestHeaderModifier().GetSet().GetHeaders() {
			out.Header.Set(h.GetName(), string(h.GetValue()))
		}
		for _, name := range f.GetRequestHeaderModifier().GetRemove() {
			out.Header.Del(name)
		}
	}
	p.count("request_total", labels)
	return p.transport(to, e.GetTlsIdentity()).RoundTrip(out)
}

// pick chooses a backend by the weights.
func pick(d *outbound.HttpRoute_Distribution) string {
	path := func(b *outbound.HttpRoute_RouteBackend) string {
		return b.GetBackend().GetBalancer().GetDiscovery().GetDst().GetPath()
	}
	if first := d.GetFirstAvailable().GetBackends(); len(first) > 0 {
		return path(first[0])
	}
	sum := 0
	for _, b := range d.GetRandomAvailable().GetBackends() {
		sum += int(b.GetWeight())
	}
	n := rand.IntN(sum)
	for _, b := range d.GetRandomAvailable().GetBackends() {
		if n -= int(b.GetWeight()); n < 0 {
			return path(b.GetBackend())
		}
	}
	return ""
}

func (p *fakeProxy) transport(to string, who *destination.TlsIdentity) *http.Transport {
	key := cmp.Or(who.GetServerName().GetName(), "plain") + " " + to
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients[key] == nil {
		p.clients[key] = &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{
			RootCAs: p.roots, ServerName: who.GetServerName().GetName(), Certificates: []tls.Certificate{p.certificate}, MinVersion: tls.VersionTLS13,
		}}
	}
	return p.clients[key]
}

// originalDestination is where a redirected connection was bound to.
func originalDestination(c net.Conn) (string, error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return "", err
	}
	var to netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) {
		// A sockaddr_in fits into the structure that this call fills.
		m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			failed = err
			return
		}
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), binary.BigEndian.Uint16(m.Multiaddr[2:4]))
	})
	return to.String(), errors.Join(err, failed)
}
