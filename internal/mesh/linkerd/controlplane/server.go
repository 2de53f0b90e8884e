package controlplane

import (
	"cmp"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/linkerd/linkerd2-proxy-api/go/destination"
	"github.com/linkerd/linkerd2-proxy-api/go/identity"
	"github.com/linkerd/linkerd2-proxy-api/go/inbound"
	l5dnet "github.com/linkerd/linkerd2-proxy-api/go/net"
	"github.com/linkerd/linkerd2-proxy-api/go/outbound"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

const (
	maxConfigBytes = 4 << 20
	maxWait        = 30 * time.Second // of one GET /state
)

// Credentials are who the control plane is, and the authority that signs the
// proxies' certificates.
type Credentials struct {
	Authority pki.Secret   `json:"authority"` // PEM, for pki.ParseAuthority
	Identity  pki.Identity `json:"identity"`  // of a DNS name
}

// Options is where a control plane listens.
type Options struct {
	Listen      string // host:port of Linkerd's API (gRPC over TLS), for the proxies
	Admin       string // host:port of the management protocol (HTTP), for the driver
	Credentials string // path of a file with Credentials as JSON
	Logger      *slog.Logger
}

// Serve runs a control plane until ctx ends, and then returns nil. Linkerd's
// proxies offer TLS without any application protocol (ALPN), which gRPC's own
// TLS would refuse: so TLS is below it.
//
// Management protocol:
//
//	PUT /config                      a Config; answers {"version": "..."}, at once
//	GET /state?version=V&wait=10s    a State, when V was sent on every open stream or the time is over
//	GET /ready                       200
//
// An error is answered with a meshbench.Error as JSON.
func Serve(ctx context.Context, o Options) error {
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	authority, certificate, err := load(o.Credentials)
	if err != nil {
		return err
	}
	var listening net.ListenConfig
	api, err := listening.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane cannot listen for proxies: %w", err)
	}
	defer api.Close()
	admin, err := listening.Listen(ctx, "tcp", o.Admin)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane cannot listen for its driver: %w", err)
	}
	defer admin.Close()

	s := newServer(authority, logger)
	g := grpc.NewServer()
	identity.RegisterIdentityServer(g, identityServer{server: s})
	inbound.RegisterInboundServerPoliciesServer(g, inboundPolicies{server: s})
	outbound.RegisterOutboundPoliciesServer(g, outboundPolicies{server: s})
	destination.RegisterDestinationServer(g, destinations{server: s})
	group, ctx := errgroup.WithContext(ctx)
	management := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		return g.Serve(tls.NewListener(api, &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, NextProtos: nil,
		}))
	})
	group.Go(func() error {
		if err := management.Serve(admin); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		g.Stop() // streams have no end of their own to wait for
		return management.Close()
	})
	logger.Info("control plane is up", "api", api.Addr().String(), "management", admin.Addr().String())
	return group.Wait()
}

func load(path string) (*pki.Authority, tls.Certificate, error) {
	fail := func(err error) (*pki.Authority, tls.Certificate, error) {
		return nil, tls.Certificate{}, meshbench.Errorf(meshbench.Invalid, "the control plane's credentials (%s) cannot be used: %w", path, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fail(err)
	}
	var c Credentials
	if err := json.Unmarshal(data, &c); err != nil {
		return fail(err)
	}
	authority, err := pki.ParseAuthority(c.Authority)
	if err != nil {
		return fail(err)
	}
	certificate, err := tls.X509KeyPair([]byte(c.Identity.Certificate), []byte(c.Identity.Key))
	if err != nil {
		return fail(err)
	}
	return authority, certificate, nil
}

// server is the state behind both ports.
type server struct {
	authority *pki.Authority
	logger    *slog.Logger

	mu      sync.Mutex
	config  *Config // replaced as a whole, never changed; nil: none yet
	version string
	changed chan struct{} // closed when the configuration has changed
	news    chan struct{} // closed when something has happened on a stream
	streams map[*stream]struct{}
	certs   uint64 // certificates signed
}

func newServer(authority *pki.Authority, logger *slog.Logger) *server {
	return &server{
		authority: authority, logger: logger,
		changed: make(chan struct{}), news: make(chan struct{}), streams: map[*stream]struct{}{},
	}
}

// stream is one that a proxy holds open.
type stream struct {
	method, workload, target string
	version                  string // what it has been sent, or needs nothing new for
	sent                     uint64 // messages
}

// State is what the control plane knows of its proxies.
type State struct {
	Version      string        `json:"version"`
	Sent         bool          `json:"sent"` // every open stream has been sent what Version says
	Certificates uint64        `json:"certificates"`
	Streams      []StreamState `json:"streams"`
}

// StreamState is of one open stream.
type StreamState struct {
	Method   string `json:"method"`             // "WatchPort", "Watch", "GetProfile", "Get"
	Workload string `json:"workload,omitempty"` // where the question names it
	Target   string `json:"target"`             // a port, an address or an authority
	Version  string `json:"version"`
	Sent     uint64 `json:"sent"` // messages
}

func (s *server) set(c Config) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	version, err := c.Version()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil || s.version != version {
		s.config, s.version = &c, version
		close(s.changed)
		s.changed = make(chan struct{})
		s.tell()
		s.logger.Info("configuration", "version", version, "services", len(c.Services))
	}
	return version, nil
}

// tell wakes those who wait for what happens on streams; mu is held. The
// streams themselves wait for the configuration alone.
func (s *server) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// current never returns a nil Config.
func (s *server) current() (*Config, string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil {
		return &Config{}, s.version, s.changed
	}
	return s.config, s.version, s.changed
}

func (s *server) state() (State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := State{Version: s.version, Sent: true, Certificates: s.certs, Streams: []StreamState{}}
	for st := range s.streams {
		out.Streams = append(out.Streams, StreamState{Method: st.method, Workload: st.workload, Target: st.target, Version: st.version, Sent: st.sent})
		out.Sent = out.Sent && st.version == s.version
	}
	slices.SortFunc(out.Streams, func(a, b StreamState) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Target, b.Target))
	})
	return out, s.news
}

// follow keeps a stream up to date until it or the server ends: send gets
// each configuration, sends what is new in it, and tells how many messages.
func (s *server) follow(ctx context.Context, st *stream, send func(*Config) (int, error)) error {
	s.mu.Lock()
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, st)
		s.tell()
	}()
	last := ""
	for first := true; ; {
		config, version, changed := s.current()
		if first || version != last {
			n, err := send(config)
			if err != nil {
				return err
			}
			s.mu.Lock()
			st.version, st.sent = version, st.sent+uint64(n)
			s.tell() // whoever waits for this version
			s.mu.Unlock()
			first, last = false, version
			continue // it may have changed meanwhile
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// latest sends a message where it differs from the one before.
func latest[M proto.Message](send func(M) error) func(M) (int, error) {
	var before M
	some := false
	return func(m M) (int, error) {
		if some && proto.Equal(before, m) {
			return 0, nil
		}
		before, some = m, true
		return 1, send(m)
	}
}

type identityServer struct {
	identity.UnimplementedIdentityServer
	*server
}

// Certify signs a proxy's request: of an identity that a workload may have,
// with that workload's token.
func (s identityServer) Certify(_ context.Context, r *identity.CertifyRequest) (*identity.CertifyResponse, error) {
	config, _, _ := s.current()
	known := slices.ContainsFunc(config.Workloads, func(w Workload) bool {
		return w.Identity == r.GetIdentity() && subtle.ConstantTimeCompare([]byte(w.Token), r.GetToken()) == 1
	})
	if !known {
		s.logger.Warn("certificate refused", "identity", r.GetIdentity())
		return nil, status.Errorf(codes.PermissionDenied, "the token does not prove the identity %s", r.GetIdentity())
	}
	life := time.Duration(config.CertificateLife)
	if life == 0 {
		life = pki.Life
	}
	certificate, ends, err := s.authority.SignRequest(r.GetCertificateSigningRequest(), r.GetIdentity(), life, time.Now())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	s.certs++
	s.tell()
	s.mu.Unlock()
	return &identity.CertifyResponse{LeafCertificate: certificate, ValidUntil: timestamppb.New(ends)}, nil
}

type inboundPolicies struct {
	inbound.UnimplementedInboundServerPoliciesServer
	*server
}

// inboundOf answers for ports that are not configured that nobody is let in.
func (c *Config) inboundOf(p *inbound.PortSpec) *inbound.Server {
	for _, w := range c.Workloads {
		if w.Name != p.GetWorkload() {
			continue
		}
		for _, s := range w.Servers {
			if uint32(s.Port) == p.GetPort() {
				return inboundServer(s)
			}
		}
	}
	return inboundServer(Server{Name: "unknown"})
}

// GetPort answers once.
func (s inboundPolicies) GetPort(_ context.Context, p *inbound.PortSpec) (*inbound.Server, error) {
	config, _, _ := s.current()
	return config.inboundOf(p), nil
}

// WatchPort goes on telling.
func (s inboundPolicies) WatchPort(p *inbound.PortSpec, g inbound.InboundServerPolicies_WatchPortServer) error {
	send := latest(g.Send)
	return s.follow(g.Context(), &stream{method: "WatchPort", workload: p.GetWorkload(), target: portText(p.GetPort())},
		func(c *Config) (int, error) { return send(c.inboundOf(p)) })
}

type outboundPolicies struct {
	outbound.UnimplementedOutboundPoliciesServer
	*server
}

// outboundOf returns an error of code NotFound where there is no such
// service: the proxy then passes connections through.
func (c *Config) outboundOf(t *outbound.TrafficSpec) (*outbound.OutboundPolicy, error) {
	var found *Service
	if t.GetAuthority() != "" {
		found = c.named(t.GetAuthority())
	} else if a, ok := addrPort(t.GetAddr()); ok {
		found = c.at(a)
	}
	if found == nil || len(found.Routes) == 0 {
		return nil, status.Errorf(codes.NotFound, "there is no service at %s", targetText(t))
	}
	return c.outboundPolicy(*found), nil
}

// Get answers once.
func (s outboundPolicies) Get(_ context.Context, t *outbound.TrafficSpec) (*outbound.OutboundPolicy, error) {
	config, _, _ := s.current()
	return config.outboundOf(t)
}

// Watch goes on telling; it ends with NotFound when there is no such service
// any more.
func (s outboundPolicies) Watch(t *outbound.TrafficSpec, g outbound.OutboundPolicies_WatchServer) error {
	send := latest(g.Send)
	return s.follow(g.Context(), &stream{method: "Watch", workload: t.GetSourceWorkload(), target: targetText(t)},
		func(c *Config) (int, error) {
			policy, err := c.outboundOf(t)
			if err != nil {
				return 0, err
			}
			return send(policy)
		})
}

type destinations struct {
	destination.UnimplementedDestinationServer
	*server
}

// GetProfile tells what an address is. An authority has no profile here:
// policies say all of it.
func (s destinations) GetProfile(d *destination.GetDestination, g destination.Destination_GetProfileServer) error {
	send := latest(g.Send)
	return s.follow(g.Context(), &stream{method: "GetProfile", workload: d.GetContextToken(), target: d.GetPath()},
		func(c *Config) (int, error) {
			address, err := netip.ParseAddrPort(d.GetPath())
			if err != nil {
				return send(&destination.DestinationProfile{})
			}
			return send(c.profile(address))
		})
}

// Get tells the endpoints of an authority, and then what is added and
// removed.
func (s destinations) Get(d *destination.GetDestination, g destination.Destination_GetServer) error {
	known := map[string]Endpoint{}
	answered, existed := false, false
	return s.follow(g.Context(), &stream{method: "Get", workload: d.GetContextToken(), target: d.GetPath()},
		func(c *Config) (int, error) {
			service := c.named(d.GetPath())
			var endpoints []Endpoint
			if service != nil {
				endpoints = service.Endpoints
			}
			messages := updates(service, known, endpoints)
			if len(endpoints) == 0 && (!answered || len(known) > 0 || existed != (service != nil)) {
				// Nothing is left: this says it all, and whether there is
				// such a service.
				messages = []*destination.Update{{Update: &destination.Update_NoEndpoints{NoEndpoints: &destination.NoEndpoints{Exists: service != nil}}}}
			}
			for i, m := range messages {
				if err := g.Send(m); err != nil {
					return i, err
				}
			}
			clear(known)
			for _, e := range endpoints {
				known[e.Address] = e
			}
			answered, existed = true, service != nil
			return len(messages), nil
		})
}

// updates makes known endpoints the wanted ones. What has changed is added
// again: an address is known once.
func updates(s *Service, known map[string]Endpoint, wanted []Endpoint) []*destination.Update {
	var out []*destination.Update
	add := &destination.WeightedAddrSet{}
	for _, e := range wanted {
		if old, ok := known[e.Address]; !ok || old != e {
			add.Addrs = append(add.Addrs, weighted(*s, e))
		}
	}
	remove := &destination.AddrSet{}
	for address := range known {
		if !slices.ContainsFunc(wanted, func(e Endpoint) bool { return e.Address == address }) {
			remove.Addrs = append(remove.Addrs, tcpAddress(address))
		}
	}
	if len(add.Addrs) > 0 {
		add.MetricLabels = map[string]string{"service": s.short(), "namespace": namespace}
		out = append(out, &destination.Update{Update: &destination.Update_Add{Add: add}})
	}
	if len(remove.Addrs) > 0 {
		slices.SortFunc(remove.Addrs, func(a, b *l5dnet.TcpAddress) int {
			return cmp.Or(cmp.Compare(a.GetIp().GetIpv4(), b.GetIp().GetIpv4()), cmp.Compare(a.GetPort(), b.GetPort()))
		})
		out = append(out, &destination.Update{Update: &destination.Update_Remove{Remove: remove}})
	}
	return out
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ready\n") })
	mux.HandleFunc("PUT /config", func(w http.ResponseWriter, r *http.Request) {
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxConfigBytes))
		d.DisallowUnknownFields()
		var c Config
		if err := d.Decode(&c); err != nil {
			refuse(w, meshbench.Errorf(meshbench.Invalid, "the configuration cannot be read: %w", err))
			return
		}
		version, err := s.set(c)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, versionAnswer{version})
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		var wait time.Duration
		if text := r.FormValue("wait"); text != "" {
			var err error
			if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
				refuse(w, meshbench.Errorf(meshbench.Invalid, "wait %q is not a duration", text))
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), min(wait, maxWait))
		defer cancel()
		for {
			state, news := s.state()
			done := state.Sent || state.Version != r.FormValue("version")
			if done || ctx.Err() != nil {
				answer(w, http.StatusOK, state)
				return
			}
			select {
			case <-news:
			case <-ctx.Done():
			}
		}
	})
	return mux
}

type versionAnswer struct {
	Version string `json:"version"`
}

func refuse(w http.ResponseWriter, err error) {
	e := meshbench.AsError(err)
	code := http.StatusInternalServerError
	if e.Code == meshbench.Invalid {
		code = http.StatusBadRequest
	}
	answer(w, code, e)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The one who asked is gone if this fails: nobody is left to be told.
	_ = json.NewEncoder(w).Encode(body)
}
