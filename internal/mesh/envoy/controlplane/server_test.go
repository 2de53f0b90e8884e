package controlplane

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	status "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshbench/meshbench"
)

// deadline is for what must happen; machines are slow at times.
const deadline = 30 * time.Second

// serve runs a control plane that ends with the test.
func serve(t *testing.T) (ads string, client Client) {
	t.Helper()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	o := Options{Listen: free(), Admin: free()}
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
	client = Client{Address: o.Admin, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		response, err := client.HTTP.Get("http://" + o.Admin + "/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return o.Listen, client
			}
		}
		if time.Since(begun) > deadline {
			t.Fatalf("not ready: %v", err)
		}
	}
}

// proxy is a client of ADS that answers as an Envoy does: it subscribes to
// everything, and accepts or refuses what it gets.
type proxy struct {
	t      *testing.T
	id     string
	stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	have   map[string]string // type -> accepted version
	got    map[string]int    // type -> responses
}

func connect(t *testing.T, ads, id string) *proxy {
	t.Helper()
	connection, err := grpc.NewClient(ads, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &proxy{t: t, id: id, stream: stream, have: map[string]string{}, got: map[string]int{}}
}

func (p *proxy) send(r *discovery.DiscoveryRequest) {
	p.t.Helper()
	// As Envoy does by default, only the first message says who it is.
	if p.id != "" {
		r.Node = &core.Node{Id: p.id}
		p.id = ""
	}
	if err := p.stream.Send(r); err != nil {
		p.t.Fatal(err)
	}
}

func (p *proxy) subscribe(typeURL string, names ...string) {
	p.t.Helper()
	p.send(&discovery.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names})
}

// answer receives a response and accepts it, or refuses it in the words given.
func (p *proxy) answer(names map[string][]string, refuse map[string]string) *discovery.DiscoveryResponse {
	p.t.Helper()
	response, err := p.stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	url := response.GetTypeUrl()
	p.got[url]++
	r := &discovery.DiscoveryRequest{TypeUrl: url, ResourceNames: names[url], ResponseNonce: response.GetNonce()}
	if words, ok := refuse[url]; ok {
		r.ErrorDetail = &status.Status{Message: words}
	} else {
		p.have[url] = response.GetVersionInfo()
	}
	r.VersionInfo = p.have[url]
	p.send(r)
	return response
}

var clientNames = map[string][]string{
	resource.EndpointType: {"service", "other"}, resource.RouteType: {"entry"}, resource.SecretType: {"identity", "trust"},
}

func (p *proxy) subscribeAll(names map[string][]string) {
	p.t.Helper()
	for _, url := range slices.Sorted(maps.Keys(typeWords)) {
		p.subscribe(url, names[url]...)
	}
}

// clientOnly is a configuration of one proxy.
func clientOnly() Config { return Config{Nodes: example().Nodes[:1]} }

func put(t *testing.T, client Client, c Config) string {
	t.Helper()
	version, err := client.Put(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func TestAcceptedVersion(t *testing.T) {
	ads, client := serve(t)
	version := put(t, client, clientOnly())
	if again := put(t, client, clientOnly()); again != version {
		t.Errorf("the same configuration has the versions %s and %s", version, again)
	}
	account, err := client.Account(t.Context(), version, 0)
	if err != nil || account.Outcome != Pending || account.Nodes["client"].Connected {
		t.Errorf("before anybody connected: %+v, %v", account, err)
	}
	p := connect(t, ads, "client")
	p.subscribeAll(clientNames)
	var listeners *discovery.DiscoveryResponse
	for range typeWords {
		if r := p.answer(clientNames, nil); r.GetTypeUrl() == resource.ListenerType {
			listeners = r
		}
	}
	if err := client.Await(bounded(t), version); err != nil {
		t.Fatal(err)
	}
	var l listener.Listener
	if err := listeners.GetResources()[0].UnmarshalTo(&l); err != nil || l.GetName() != "entry" {
		t.Errorf("listener %q, %v", l.GetName(), err)
	}
	account, err = client.Account(t.Context(), "", 0)
	if err != nil || account.Version != version || account.Outcome != Accepted || len(account.Nodes["client"].Types) != len(typeWords) {
		t.Errorf("%+v, %v", account, err)
	}
	if err := client.Await(t.Context(), "another"); meshbench.AsError(err).Code != meshbench.Conflict {
		t.Errorf("a version that nobody wants: %v", err)
	}
}

// TestRefusedVersionIsNotRepeated: a refusal is told in the proxy's words,
// the same response does not come again, and the version before it does.
func TestRefusedVersionIsNotRepeated(t *testing.T) {
	ads, client := serve(t)
	good := put(t, client, clientOnly())
	p := connect(t, ads, "client")
	p.subscribeAll(clientNames)
	for range typeWords {
		p.answer(clientNames, nil)
	}
	if err := client.Await(bounded(t), good); err != nil {
		t.Fatal(err)
	}
	bad := clientOnly()
	bad.Nodes[0].Listeners[0].Routes[0].Direct.Status = 599
	version := put(t, client, bad)
	for range typeWords {
		p.answer(clientNames, map[string]string{resource.RouteType: "no such status"})
	}
	for range 2 {
		err := client.Await(bounded(t), version)
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, "client does not take its routes: no such status") {
			t.Fatalf("got %v", err)
		}
		if again := put(t, client, bad); again != version {
			t.Fatalf("version %s, want %s", again, version)
		}
	}
	if back := put(t, client, clientOnly()); back != good {
		t.Fatalf("version %s, want %s", back, good)
	}
	for range typeWords {
		if r := p.answer(clientNames, nil); r.GetVersionInfo() != good {
			t.Errorf("%s came again in version %s", r.GetTypeUrl(), r.GetVersionInfo())
		}
	}
	if err := client.Await(bounded(t), good); err != nil {
		t.Fatal(err)
	}
	if p.got[resource.RouteType] != 3 {
		t.Errorf("routes came %d times, want 3", p.got[resource.RouteType])
	}
}

// TestProxyThatLeftHasAcceptedNothing: who lost its stream must say again
// what it has.
func TestProxyThatLeftHasAcceptedNothing(t *testing.T) {
	ads, client := serve(t)
	version := put(t, client, clientOnly())
	p := connect(t, ads, "client")
	p.subscribeAll(clientNames)
	for range typeWords {
		p.answer(clientNames, nil)
	}
	if err := client.Await(bounded(t), version); err != nil {
		t.Fatal(err)
	}
	if err := p.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for ctx := bounded(t); ; {
		account, err := client.Account(ctx, version, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !account.Nodes["client"].Connected {
			if account.Outcome != Pending {
				t.Errorf("outcome %s", account.Outcome)
			}
			break
		}
	}
	// It connects again and says which versions it has.
	again := connect(t, ads, "client")
	for _, url := range slices.Sorted(maps.Keys(typeWords)) {
		again.send(&discovery.DiscoveryRequest{TypeUrl: url, ResourceNames: clientNames[url], VersionInfo: version})
	}
	if err := client.Await(bounded(t), version); err != nil {
		t.Fatal(err)
	}
}

func TestRollback(t *testing.T) {
	ads, client := serve(t)
	if version, err := client.Rollback(t.Context()); version != "" || err != nil {
		t.Errorf("before anything was accepted: %q, %v", version, err)
	}
	good := put(t, client, clientOnly())
	p := connect(t, ads, "client")
	p.subscribeAll(clientNames)
	for range typeWords {
		p.answer(clientNames, nil)
	}
	if err := client.Await(bounded(t), good); err != nil {
		t.Fatal(err)
	}
	changed := clientOnly()
	changed.Nodes[0].Listeners[0].Routes[0].Direct.Status = 599
	bad := put(t, client, changed)
	for range typeWords {
		p.answer(clientNames, map[string]string{resource.RouteType: "no such status"})
	}
	if e := meshbench.AsError(client.Await(bounded(t), bad)); e == nil || !strings.Contains(e.Message, "no such status") {
		t.Fatalf("got %v", e)
	}
	back, err := client.Rollback(t.Context())
	if err != nil || back != good {
		t.Fatalf("rolled back to %q, %v, want %q", back, err, good)
	}
	for range typeWords {
		p.answer(clientNames, nil)
	}
	if err := client.Await(bounded(t), good); err != nil {
		t.Error(err)
	}
}

func TestAwaitNamesTheSilent(t *testing.T) {
	_, client := serve(t)
	version := put(t, client, example())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := client.Await(ctx, version)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "client and server did not accept") {
		t.Errorf("got %v", err)
	}
}

func TestManagementRefusesWhatItCannotRead(t *testing.T) {
	_, client := serve(t)
	for _, tt := range []struct{ method, path, body string }{
		{http.MethodPut, "/config", "{"},
		{http.MethodPut, "/config", `{"nodes": [], "colour": "red"}`},
		{http.MethodPut, "/config", `{"nodes": []}`},
		{http.MethodPut, "/config", `{"nodes": [{"id": "` + strings.Repeat("a", maxConfigBytes) + `"}]}`},
		{http.MethodGet, "/acks?wait=soon", ""},
	} {
		err := client.call(t.Context(), tt.method, tt.path, strings.NewReader(tt.body), &Account{})
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid {
			t.Errorf("%s %s %.40s: %v", tt.method, tt.path, tt.body, err)
		}
	}
	if err := client.call(t.Context(), http.MethodGet, "/moon", nil, &Account{}); meshbench.AsError(err).Code != meshbench.Internal {
		t.Errorf("a path that does not exist: %v", err)
	}
}

func TestServeFailsOnATakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, o := range []Options{
		{Listen: taken.Addr().String(), Admin: "127.0.0.1:0"},
		{Listen: "127.0.0.1:0", Admin: taken.Addr().String()},
	} {
		var e *meshbench.Error
		if err := Serve(t.Context(), o); !errors.As(err, &e) || e.Code != meshbench.Unavailable {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
