package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linkerd/linkerd2-proxy-api/go/destination"
	"github.com/linkerd/linkerd2-proxy-api/go/identity"
	"github.com/linkerd/linkerd2-proxy-api/go/inbound"
	"github.com/linkerd/linkerd2-proxy-api/go/outbound"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// deadline is for what must happen; machines are slow at times.
const deadline = 60 * time.Second

const ownName = "control-plane.meshbench.serviceaccount.identity.linkerd.meshbench.local"

// bed is a control plane that ends with the test.
type bed struct {
	api, bundle string
	authority   *pki.Authority
	client      Client
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeCredentials(t *testing.T, authority *pki.Authority) string {
	t.Helper()
	own, err := authority.IssueDNS(ownName, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := authority.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(Credentials{Authority: text, Identity: own})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serve(t *testing.T) bed {
	t.Helper()
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Listen: freeAddress(t), Admin: freeAddress(t), Credentials: writeCredentials(t, authority)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Serve does not end")
		}
	})
	b := bed{
		api: o.Listen, bundle: authority.Bundle(), authority: authority,
		client: Client{Address: o.Admin, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}},
	}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		response, err := b.client.HTTP.Get("http://" + o.Admin + "/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return b
			}
		}
		if time.Since(begun) > deadline {
			t.Fatalf("not ready: %v", err)
		}
	}
}

// fakeProxy plays a proxy: a client of Linkerd's API that connects as the
// real one does (TLS 1.3 with the name of the control plane, verified by the
// trust anchor, no ALPN, no certificate of its own) and asks what it asks. It
// forwards nothing.
type fakeProxy struct {
	identity    identity.IdentityClient
	inbound     inbound.InboundServerPoliciesClient
	outbound    outbound.OutboundPoliciesClient
	destination destination.DestinationClient
}

func (b bed) connect(t *testing.T) fakeProxy {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(b.bundle)) {
		t.Fatal("the bundle holds no certificate")
	}
	connection, err := grpc.NewClient("passthrough:///"+b.api, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: ownName, MinVersion: tls.VersionTLS13}}
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return fakeProxy{
		identity:    identity.NewIdentityClient(connection),
		inbound:     inbound.NewInboundServerPoliciesClient(connection),
		outbound:    outbound.NewOutboundPoliciesClient(connection),
		destination: destination.NewDestinationClient(connection),
	}
}

func (b bed) put(t *testing.T, c Config) string {
	t.Helper()
	version, err := b.client.Put(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

const (
	clientName = "client.default.serviceaccount.identity.linkerd.meshbench.local"
	echoName   = "echo.default.serviceaccount.identity.linkerd.meshbench.local"
	echo       = "echo.default.svc.meshbench.local:80"
	other      = "other.default.svc.meshbench.local:80"
	entry      = "198.18.1.2:8080"
	instance   = "198.18.1.3:9090"
)

// example has everything in it.
func example() Config {
	return Config{
		Workloads: []Workload{
			{Name: "client-proxy", Identity: clientName, Token: "client's token"},
			{Name: "echo-proxy", Identity: echoName, Token: "echo's token", Servers: []Server{
				{Name: "echo", Port: 9090, Clients: Clients{Meshed: true}},
				{Name: "admin", Port: 4191, Clients: Clients{Unmeshed: true}},
			}},
		},
		Services: []Service{
			{
				Name: echo, Addresses: []string{entry},
				Routes: []Route{
					{
						Match:    &meshbench.Match{PathPrefix: "/slow", Method: "GET", Headers: map[string]string{"x-b": "2", "x-a": "1"}},
						Backends: []Backend{{echo, 1}}, Timeout: meshbench.Duration(300 * time.Millisecond),
						Retry:   &Retry{Max: 3, Statuses: []StatusRange{{500, 599}}, PerTryTimeout: meshbench.Duration(100 * time.Millisecond)},
						Request: []HeaderChange{{Set: map[string]string{"x-set": "1"}}, {Add: map[string]string{"x-add": "2"}, Remove: []string{"x-gone"}}},
					},
					{Backends: []Backend{{echo, 90}, {other, 10}}, Response: []HeaderChange{{Add: map[string]string{"x-answer": "1"}}}},
				},
				Endpoints: []Endpoint{{Address: instance, Identity: echoName, HTTP2: true}},
				Breaker:   &Breaker{Failures: 5, First: meshbench.Duration(time.Second), Longest: meshbench.Duration(10 * time.Second)},
			},
			{Name: other, Endpoints: []Endpoint{{Address: "198.18.1.4:9090"}}},
		},
	}
}

func TestCertifyWithARealRequest(t *testing.T) {
	b := serve(t)
	c := example()
	c.CertificateLife = meshbench.Duration(time.Minute)
	b.put(t, c)
	p := b.connect(t)
	csr, key, err := pki.NewRequest(clientName)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	got, err := p.identity.Certify(bounded(t), &identity.CertifyRequest{Identity: clientName, Token: []byte("client's token"), CertificateSigningRequest: csr})
	if err != nil {
		t.Fatal(err)
	}
	// The certificate and the key of the request make a TLS identity that the
	// trust anchor vouches for.
	pair, err := tls.X509KeyPair(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: got.GetLeafCertificate()}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.bundle))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: clientName, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
	if ends := got.GetValidUntil().AsTime(); ends.Before(begun.Add(time.Minute)) || ends.After(time.Now().Add(time.Minute)) || ends.Sub(pair.Leaf.NotAfter).Abs() > time.Second {
		t.Errorf("valid until %v, the certificate until %v", ends, pair.Leaf.NotAfter)
	}
	if state, err := b.client.State(bounded(t), "", 0); err != nil || state.Certificates != 1 {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestCertifyRefuses(t *testing.T) {
	b := serve(t)
	p := b.connect(t)
	request := func(asked, inside, token string) *identity.CertifyRequest {
		csr, _, err := pki.NewRequest(inside)
		if err != nil {
			t.Fatal(err)
		}
		return &identity.CertifyRequest{Identity: asked, Token: []byte(token), CertificateSigningRequest: csr}
	}
	if _, err := p.identity.Certify(bounded(t), request(clientName, clientName, "client's token")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("before any configuration: %v", err)
	}
	b.put(t, example())
	for _, tt := range []struct {
		name    string
		request *identity.CertifyRequest
		want    codes.Code
	}{
		{"no token", request(clientName, clientName, ""), codes.PermissionDenied},
		{"another's token", request(echoName, echoName, "client's token"), codes.PermissionDenied},
		{"an unknown identity", request("moon.meshbench.local", "moon.meshbench.local", "client's token"), codes.PermissionDenied},
		{"a request for another's name", request(clientName, echoName, "client's token"), codes.InvalidArgument},
		{"no request", &identity.CertifyRequest{Identity: clientName, Token: []byte("client's token")}, codes.InvalidArgument},
	} {
		if _, err := p.identity.Certify(bounded(t), tt.request); status.Code(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// recv returns the next message of a stream.
func recv[M any](t *testing.T, stream interface{ Recv() (M, error) }) M {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInboundPolicyIsPushedOnChange(t *testing.T) {
	b := serve(t)
	b.put(t, example())
	p := b.connect(t)
	watch, err := p.inbound.WatchPort(bounded(t), &inbound.PortSpec{Workload: "echo-proxy", Port: 9090})
	if err != nil {
		t.Fatal(err)
	}
	first := recv(t, watch)
	identities := first.GetAuthorizations()[0].GetAuthentication().GetMeshTLS().GetIdentities()
	if len(first.GetAuthorizations()) != 1 || len(identities.GetSuffixes()) != 1 || len(identities.GetSuffixes()[0].GetParts()) != 0 {
		t.Errorf("any identity should be let in: %v", first)
	}
	if len(first.GetAuthorizations()[0].GetNetworks()) != 1 || first.GetProtocol().GetDetect().GetTimeout() == nil || first.GetLabels()["name"] != "echo" {
		t.Errorf("a part that the proxy needs is missing: %v", first)
	}

	changed := example()
	changed.Workloads[1].Servers[0].Clients = Clients{Names: []string{"stranger.meshbench.local"}}
	changed.Workloads[1].Servers[0].RateLimit = 100
	version := b.put(t, changed)
	second := recv(t, watch)
	identities = second.GetAuthorizations()[0].GetAuthentication().GetMeshTLS().GetIdentities()
	if len(identities.GetSuffixes()) != 0 || len(identities.GetIdentities()) != 1 || identities.GetIdentities()[0].GetName() != "stranger.meshbench.local" {
		t.Errorf("only the stranger should be let in: %v", second)
	}
	if limit := second.GetProtocol().GetDetect().GetHttpLocalRateLimit().GetTotal().GetRequestsPerSecond(); limit != 100 {
		t.Errorf("the rate limit is %d", limit)
	}
	if err := b.client.Await(bounded(t), version); err != nil {
		t.Fatal(err)
	}
	// What does not concern this port is not sent on it.
	changed.Services[0].Endpoints = nil
	version = b.put(t, changed)
	if err := b.client.Await(bounded(t), version); err != nil {
		t.Fatal(err)
	}
	state, err := b.client.State(bounded(t), version, 0)
	want := []StreamState{{Method: "WatchPort", Workload: "echo-proxy", Target: "9090", Version: version, Sent: 2}}
	if difference := cmp.Diff(want, state.Streams); err != nil || difference != "" {
		t.Errorf("%v\n%s", err, difference)
	}
	// A port that nobody spoke of lets nobody in; the admin port anybody.
	unknown, err := p.inbound.GetPort(bounded(t), &inbound.PortSpec{Workload: "echo-proxy", Port: 1})
	if err != nil || len(unknown.GetAuthorizations()) != 0 {
		t.Errorf("%v, %v", unknown, err)
	}
	admin, err := p.inbound.GetPort(bounded(t), &inbound.PortSpec{Workload: "echo-proxy", Port: 4191})
	if err != nil || admin.GetAuthorizations()[0].GetAuthentication().GetUnauthenticated() == nil {
		t.Errorf("%v, %v", admin, err)
	}
}

func TestAccessByRequestBecomesRoutes(t *testing.T) {
	s := inboundServer(Server{
		Name: "echo", Port: 80, Clients: Clients{Meshed: true},
		Access: []Access{{PathPrefix: "/secret", Method: "POST", Clients: Clients{Names: []string{clientName}}}, {PathPrefix: "/closed"}},
	})
	// Else the routes' own authorizations would add to it.
	if len(s.GetAuthorizations()) != 0 {
		t.Errorf("the server itself lets in: %v", s.GetAuthorizations())
	}
	routes := s.GetProtocol().GetDetect().GetHttpRoutes()
	if len(routes) != 3 {
		t.Fatalf("%d routes", len(routes))
	}
	m := routes[0].GetRules()[0].GetMatches()[0]
	if m.GetPath().GetPrefix() != "/secret" || m.GetMethod().GetRegistered().String() != "POST" ||
		routes[0].GetAuthorizations()[0].GetAuthentication().GetMeshTLS().GetIdentities().GetIdentities()[0].GetName() != clientName {
		t.Errorf("the first is %v", routes[0])
	}
	if len(routes[1].GetAuthorizations()) != 0 || routes[1].GetRules()[0].GetMatches()[0].GetMethod() != nil {
		t.Errorf("the second is %v", routes[1])
	}
	if m := routes[2].GetRules()[0].GetMatches()[0]; m.GetPath().GetPrefix() != "/" || len(routes[2].GetAuthorizations()) != 1 {
		t.Errorf("the last is %v", routes[2])
	}
}

func TestOutboundPolicyHasAllThatAProxyNeeds(t *testing.T) {
	b := serve(t)
	b.put(t, example())
	p := b.connect(t)
	watch, err := p.outbound.Watch(bounded(t), &outbound.TrafficSpec{SourceWorkload: "client-proxy", Target: &outbound.TrafficSpec_Addr{Addr: tcpAddress(entry)}})
	if err != nil {
		t.Fatal(err)
	}
	got := recv(t, watch)
	detect := got.GetProtocol().GetDetect()
	if got.GetMetadata() == nil || detect.GetTimeout() == nil || detect.GetOpaque() == nil || detect.GetHttp1() == nil || detect.GetHttp2() == nil {
		t.Fatalf("a part is missing, which makes a proxy refuse all of it: %v", got)
	}
	for name, routes := range map[string][]*outbound.HttpRoute{"HTTP/1": detect.GetHttp1().GetRoutes(), "HTTP/2": detect.GetHttp2().GetRoutes()} {
		if len(routes) != 1 || len(routes[0].GetRules()) != 2 || routes[0].GetMetadata().GetResource().GetNamespace() == "" {
			t.Fatalf("%s: %v", name, routes)
		}
		first, second := routes[0].GetRules()[0], routes[0].GetRules()[1]
		if first.GetTimeouts().GetRequest().AsDuration() != 300*time.Millisecond || first.GetRetry().GetMaxRetries() != 3 ||
			first.GetRetry().GetTimeout().AsDuration() != 100*time.Millisecond {
			t.Errorf("%s: %v", name, first)
		}
		if r := first.GetRetry().GetConditions().GetStatusRanges(); len(r) != 1 || r[0].GetStart() != 500 || r[0].GetEnd() != 599 {
			t.Errorf("%s: it is sent again for %v", name, r)
		}
		m := first.GetMatches()[0]
		if m.GetPath().GetPrefix() != "/slow" || m.GetMethod().GetRegistered().String() != "GET" || len(m.GetHeaders()) != 2 || string(m.GetHeaders()[0].GetExact()) != "1" {
			t.Errorf("%s: it matches %v", name, m)
		}
		if f := first.GetFilters(); len(f) != 2 || f[0].GetRequestHeaderModifier().GetSet().GetHeaders()[0].GetName() != "x-set" || f[1].GetRequestHeaderModifier().GetRemove()[0] != "x-gone" {
			t.Errorf("%s: its filters are %v", name, f)
		}
		backend := first.GetBackends().GetFirstAvailable().GetBackends()[0].GetBackend()
		if backend.GetMetadata() == nil || backend.GetQueue().GetCapacity() == 0 || backend.GetQueue().GetFailfastTimeout() == nil ||
			backend.GetBalancer().GetDiscovery().GetDst().GetPath() != echo || backend.GetBalancer().GetPeakEwma().GetDecay() == nil {
			t.Errorf("%s: its backend is %v", name, backend)
		}
		random := second.GetBackends().GetRandomAvailable().GetBackends()
		if len(random) != 2 || random[0].GetWeight() != 90 || random[1].GetWeight() != 10 ||
			random[1].GetBackend().GetBackend().GetBalancer().GetDiscovery().GetDst().GetPath() != other {
			t.Errorf("%s: it is split so: %v", name, random)
		}
		if second.GetFilters()[0].GetResponseHeaderModifier() == nil {
			t.Errorf("%s: the answer's header stays as it is", name)
		}
	}
	accrual := detect.GetHttp1().GetFailureAccrual().GetConsecutiveFailures()
	if accrual.GetMaxFailures() != 5 || accrual.GetBackoff().GetMinBackoff().AsDuration() != time.Second || detect.GetHttp2().GetFailureAccrual() == nil {
		t.Errorf("the breaker is %v", accrual)
	}

	// A policy that changes is pushed, one of an unknown address is none.
	changed := example()
	changed.Services[0].Routes = changed.Services[0].Routes[1:]
	b.put(t, changed)
	if rules := recv(t, watch).GetProtocol().GetDetect().GetHttp1().GetRoutes()[0].GetRules(); len(rules) != 1 {
		t.Errorf("%d rules after the change", len(rules))
	}
	_, err = p.outbound.Get(bounded(t), &outbound.TrafficSpec{Target: &outbound.TrafficSpec_Addr{Addr: tcpAddress("203.0.113.9:80")}})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown address: %v", err)
	}
	changed.Services[0].Addresses = nil
	b.put(t, changed)
	if _, err := watch.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("after the service has lost its address: %v", err)
	}
}

func TestEndpointsAreAddedAndRemoved(t *testing.T) {
	b := serve(t)
	c := example()
	b.put(t, c)
	p := b.connect(t)
	get, err := p.destination.Get(bounded(t), &destination.GetDestination{Path: echo})
	if err != nil {
		t.Fatal(err)
	}
	first := recv(t, get).GetAdd()
	if len(first.GetAddrs()) != 1 || first.GetMetricLabels()["service"] != "echo" {
		t.Fatalf("%v", first)
	}
	a := first.GetAddrs()[0]
	if a.GetAddr().GetIp().GetIpv4() != 198<<24|18<<16|1<<8|3 || a.GetAddr().GetPort() != 9090 || a.GetWeight() == 0 ||
		a.GetTlsIdentity().GetDnsLikeIdentity().GetName() != echoName || a.GetTlsIdentity().GetServerName().GetName() != echoName || a.GetProtocolHint().GetH2() == nil {
		t.Errorf("the endpoint is %v", a)
	}

	second := Endpoint{Address: "198.18.1.5:9090"}
	c.Services[0].Endpoints = append(c.Services[0].Endpoints, second)
	b.put(t, c)
	if add := recv(t, get).GetAdd().GetAddrs(); len(add) != 1 || add[0].GetTlsIdentity() != nil || add[0].GetProtocolHint() != nil {
		t.Errorf("only the new one should come, in plain text: %v", add)
	}
	c.Services[0].Endpoints = []Endpoint{second}
	b.put(t, c)
	if gone := recv(t, get).GetRemove().GetAddrs(); len(gone) != 1 || gone[0].GetIp().GetIpv4() != 198<<24|18<<16|1<<8|3 {
		t.Errorf("removed: %v", gone)
	}
	c.Services[0].Endpoints = nil
	b.put(t, c)
	if none := recv(t, get).GetNoEndpoints(); none == nil || !none.GetExists() {
		t.Errorf("without endpoints: %v", none)
	}
	c.Services = nil
	b.put(t, c)
	if none := recv(t, get).GetNoEndpoints(); none == nil || none.GetExists() {
		t.Errorf("without the service: %v", none)
	}
	b.put(t, example())
	if add := recv(t, get).GetAdd().GetAddrs(); len(add) != 1 {
		t.Errorf("back again: %v", add)
	}
}

func TestProfiles(t *testing.T) {
	b := serve(t)
	b.put(t, example())
	p := b.connect(t)
	for path, check := range map[string]func(*destination.DestinationProfile) bool{
		entry: func(d *destination.DestinationProfile) bool {
			return d.GetFullyQualifiedName() == "echo.default.svc.meshbench.local"
		},
		instance: func(d *destination.DestinationProfile) bool { return d.GetEndpoint().GetTlsIdentity() != nil },
		"203.0.113.9:80": func(d *destination.DestinationProfile) bool {
			return d.GetEndpoint() == nil && d.GetFullyQualifiedName() == ""
		},
		"a.name:80": func(d *destination.DestinationProfile) bool {
			return d.GetEndpoint() == nil && d.GetFullyQualifiedName() == ""
		},
	} {
		stream, err := p.destination.GetProfile(bounded(t), &destination.GetDestination{Path: path, ContextToken: "client-proxy"})
		if err != nil {
			t.Fatal(err)
		}
		if got := recv(t, stream); !check(got) {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestSwarm lets a hundred fake proxies do what each real one does, all at
// once, and then changes the endpoint that all of them follow.
func TestSwarm(t *testing.T) {
	const size = 100
	b := serve(t)
	c := example()
	c.Workloads = nil
	name := func(i int) string { return fmt.Sprintf("proxy-%d", i) }
	for i := range size {
		c.Workloads = append(c.Workloads, Workload{Name: name(i), Identity: clientName, Token: pki.Secret("token " + name(i)), Servers: []Server{
			{Name: "admin", Port: 4191, Clients: Clients{Unmeshed: true}},
		}})
	}
	b.put(t, c)

	ctx := bounded(t)
	begun := time.Now()
	var ready, changed sync.WaitGroup
	ready.Add(size)
	failed := make(chan error, size)
	for i := range size {
		p := b.connect(t)
		changed.Go(func() {
			get, err := p.begin(ctx, name(i))
			if err != nil {
				failed <- fmt.Errorf("%s: %w", name(i), err)
			}
			ready.Done()
			if err != nil {
				return
			}
			update, err := get.Recv()
			if err == nil && len(update.GetAdd().GetAddrs()) != 1 {
				err = fmt.Errorf("an unexpected update: %v", update)
			}
			if err != nil {
				failed <- fmt.Errorf("%s: %w", name(i), err)
			}
		})
	}
	ready.Wait()
	t.Logf("%d fake proxies ready after %v", size, time.Since(begun))
	state, err := b.client.State(ctx, "", 0)
	if err != nil || state.Certificates != size || len(state.Streams) != 4*size {
		t.Errorf("%d certificates, %d streams, %v", state.Certificates, len(state.Streams), err)
	}
	c.Services[0].Endpoints = append(c.Services[0].Endpoints, Endpoint{Address: "198.18.1.5:9090", Identity: echoName, HTTP2: true})
	begun = time.Now()
	version := b.put(t, c)
	if err := b.client.Await(ctx, version); err != nil {
		t.Fatal(err)
	}
	t.Logf("sent to all after %v", time.Since(begun))
	changed.Wait()
	t.Logf("received by all after %v", time.Since(begun))
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// begin asks what a proxy asks at its start and with its first connection,
// and returns the stream of endpoints after its first message.
func (p fakeProxy) begin(ctx context.Context, workload string) (destination.Destination_GetClient, error) {
	csr, _, err := pki.NewRequest(clientName)
	if err != nil {
		return nil, err
	}
	port, err := p.inbound.WatchPort(ctx, &inbound.PortSpec{Workload: workload, Port: 4191})
	if err != nil {
		return nil, err
	}
	if server, err := port.Recv(); err != nil || len(server.GetAuthorizations()) != 1 {
		return nil, fmt.Errorf("WatchPort: %v, %w", server, err)
	}
	if _, err := p.identity.Certify(ctx, &identity.CertifyRequest{Identity: clientName, Token: []byte("token " + workload), CertificateSigningRequest: csr}); err != nil {
		return nil, err
	}
	watch, err := p.outbound.Watch(ctx, &outbound.TrafficSpec{SourceWorkload: workload, Target: &outbound.TrafficSpec_Addr{Addr: tcpAddress(entry)}})
	if err != nil {
		return nil, err
	}
	profile, err := p.destination.GetProfile(ctx, &destination.GetDestination{Path: entry, ContextToken: workload})
	if err != nil {
		return nil, err
	}
	policy, err := watch.Recv()
	if err != nil {
		return nil, err
	}
	if _, err := profile.Recv(); err != nil {
		return nil, err
	}
	rules := policy.GetProtocol().GetDetect().GetHttp1().GetRoutes()[0].GetRules()
	path := rules[0].GetBackends().GetFirstAvailable().GetBackends()[0].GetBackend().GetBalancer().GetDiscovery().GetDst().GetPath()
	get, err := p.destination.Get(ctx, &destination.GetDestination{Path: path, ContextToken: workload})
	if err != nil {
		return nil, err
	}
	if first, err := get.Recv(); err != nil || len(first.GetAdd().GetAddrs()) != 1 {
		return nil, fmt.Errorf("Get: %v, %w", first, err)
	}
	return get, nil
}

func TestManagementRefuses(t *testing.T) {
	b := serve(t)
	for _, tt := range []struct{ method, path, body string }{
		{http.MethodPut, "/config", "{"},
		{http.MethodPut, "/config", `{"services": [], "colour": "red"}`},
		{http.MethodPut, "/config", `{"services": [{"name": "` + strings.Repeat("a", maxConfigBytes) + `"}]}`},
		{http.MethodGet, "/state?wait=soon", ""},
	} {
		err := b.client.call(t.Context(), tt.method, tt.path, strings.NewReader(tt.body), &State{})
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid {
			t.Errorf("%s %s %.40s: %v", tt.method, tt.path, tt.body, err)
		}
	}
	first := b.put(t, example())
	changed := example()
	changed.Services = changed.Services[:0]
	second := b.put(t, changed)
	if err := b.client.Await(bounded(t), first); err == nil || meshbench.AsError(err).Code != meshbench.Conflict || !strings.Contains(err.Error(), second) {
		t.Errorf("a version that was replaced: %v", err)
	}
}

func TestServeFails(t *testing.T) {
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good, free := writeCredentials(t, authority), "127.0.0.1:0"
	for _, tt := range []struct {
		o    Options
		code meshbench.Code
	}{
		{Options{Listen: taken.Addr().String(), Admin: free, Credentials: good}, meshbench.Unavailable},
		{Options{Listen: free, Admin: taken.Addr().String(), Credentials: good}, meshbench.Unavailable},
		{Options{Listen: free, Admin: free, Credentials: good + "x"}, meshbench.Invalid},
	} {
		var e *meshbench.Error
		if err := Serve(t.Context(), tt.o); !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%+v: %v", tt.o, err)
		}
	}
}
