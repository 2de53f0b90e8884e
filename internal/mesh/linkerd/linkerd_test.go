package linkerd

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
)

var echo = meshbench.Service{Name: "echo", Instances: []meshbench.PortRef{{Process: "echo", Port: "http"}}}

// TestConformance tries what needs no proxy; package test has the rest behind
// the build tag "linkerd", for machines that have one.
func TestConformance(t *testing.T) {
	meshtest.Run(t, meshtest.Suite{
		Driver: New(), Examples: Examples(),
		Applications: []meshbench.Process{{Name: "echo", Role: meshbench.Application, Service: "echo", Runtime: meshbench.Self, Ports: []string{"http"}}},
		Service:      echo,
	})
}

// shop is three services: front calls cart (two instances), which calls
// stock.
func shop() []meshbench.Service {
	at := func(names ...string) []meshbench.PortRef {
		var out []meshbench.PortRef
		for _, n := range names {
			out = append(out, meshbench.PortRef{Process: n, Port: "http"})
		}
		return out
	}
	return []meshbench.Service{
		{Name: "front", Instances: at("front"), Calls: []string{"cart"}},
		{Name: "cart", Instances: at("cart", "cart-2"), Calls: []string{"stock"}},
		{Name: "stock", Instances: at("stock")},
	}
}

func request(services []meshbench.Service, policies ...meshbench.Policy) mesh.Request {
	return mesh.Request{
		Subject: meshbench.Subject{Mesh: "linkerd"}, Profile: meshbench.Parity, Services: services, Threads: 1, Policies: policies,
	}
}

func TestRenderOfAGraph(t *testing.T) {
	spec, err := New().Render(request(shop()))
	if err != nil {
		t.Fatal(err)
	}
	var proxies, namespaces []string
	for _, p := range spec.Processes {
		if p.Role != meshbench.ControlPlane {
			proxies = append(proxies, p.Name)
		}
	}
	for _, n := range spec.Namespaces {
		namespaces = append(namespaces, n.Name+": "+strings.Join(n.Processes, " "))
	}
	if want := []string{"front-proxy", "cart-proxy", "cart-2-proxy", "stock-proxy", "client-proxy"}; !slices.Equal(proxies, want) {
		t.Errorf("proxies %v, want %v", proxies, want)
	}
	want := []string{
		"control-plane: control-plane", "front: front-proxy front", "cart: cart-proxy cart", "cart-2: cart-2-proxy cart-2",
		"stock: stock-proxy stock", "client: client-proxy",
	}
	if difference := cmp.Diff(want, namespaces); difference != "" {
		t.Error(difference)
	}
	routes := []meshbench.Route{
		{From: "front", To: "cart", At: meshbench.PortRef{Process: "front-proxy", Port: "to-cart"}, Host: "cart.default.svc.meshbench.local"},
		{From: "cart", To: "stock", At: meshbench.PortRef{Process: "cart-proxy", Port: "to-stock"}, Host: "stock.default.svc.meshbench.local"},
		{From: "cart", To: "stock", Instance: 1, At: meshbench.PortRef{Process: "cart-2-proxy", Port: "to-stock"}, Host: "stock.default.svc.meshbench.local"},
	}
	if difference := cmp.Diff(routes, spec.Routes); difference != "" {
		t.Error(difference)
	}
}

// TestEnvironmentIsWhole holds the environment against what the proxy ends
// without (exit code 64, each tried with the real one).
func TestEnvironmentIsWhole(t *testing.T) {
	for _, profile := range []meshbench.Profile{meshbench.Parity, meshbench.Shipped} {
		r := request([]meshbench.Service{echo})
		r.Profile, r.Threads = profile, 3
		spec, err := New().Render(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range spec.Processes {
			if p.Role == meshbench.ControlPlane {
				continue
			}
			env := map[string]string{}
			for _, e := range p.Env {
				name, value, _ := strings.Cut(strings.TrimPrefix(e, "LINKERD2_PROXY_"), "=")
				if _, twice := env[name]; twice {
					t.Errorf("%s: %s is there twice", p.Name, name)
				}
				env[name] = value
			}
			for _, name := range []string{
				"DESTINATION_SVC_ADDR", "POLICY_SVC_ADDR", "IDENTITY_SVC_ADDR", "DESTINATION_SVC_NAME", "POLICY_SVC_NAME", "IDENTITY_SVC_NAME",
				"POLICY_WORKLOAD", "IDENTITY_DIR", "IDENTITY_TOKEN_FILE", "IDENTITY_TRUST_ANCHORS", "IDENTITY_LOCAL_NAME",
			} {
				if env[name] == "" {
					t.Errorf("%s %s: %s is missing", profile, p.Name, name)
				}
			}
			if (env["CORES"] == "3") != (profile == meshbench.Parity) {
				t.Errorf("%s %s: %q cores", profile, p.Name, env["CORES"])
			}
			if (env["INBOUND_PORTS"] != "") != (p.Role == meshbench.ServerProxy) {
				t.Errorf("%s %s: inbound ports %q", profile, p.Name, env["INBOUND_PORTS"])
			}
		}
	}
}

// site is an Access to a deployment without proxies.
type site struct {
	dir       string
	addresses map[meshbench.PortRef]string
}

func newSite(t *testing.T, spec meshbench.Spec) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), addresses: map[meshbench.PortRef]string{}}
	n := 0
	for i, p := range spec.Processes {
		if err := os.MkdirAll(filepath.Join(s.dir, p.Name), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, port := range p.Ports {
			n++
			s.addresses[meshbench.PortRef{Process: p.Name, Port: port}] = fmt.Sprintf("198.18.0.%d:%d", i+2, 1000+n)
		}
	}
	return s
}

func (s *site) Address(process, port string) (string, error) {
	a, ok := s.addresses[meshbench.PortRef{Process: process, Port: port}]
	if !ok {
		return "", meshbench.Errorf(meshbench.NotFound, "no port %s of %s", port, process)
	}
	return a, nil
}

func (s *site) Dir(process string) (string, error) { return filepath.Join(s.dir, process), nil }
func (s *site) Program(string) (string, error)     { return "/bin/true", nil }

func application(names ...string) (out []meshbench.Process) {
	for _, n := range names {
		out = append(out, meshbench.Process{Name: n, Ports: []string{"http"}})
	}
	return out
}

// configured is the configuration for a request.
func configured(t *testing.T, r mesh.Request, apps ...string) controlplane.Config {
	t.Helper()
	spec, err := New().Render(r)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(application(apps...), spec.Processes...)
	access := newSite(t, spec)
	c, err := loadCredentials(access, proxies(r))
	if err != nil {
		t.Fatal(err)
	}
	config, err := New().config(access, r, c.tokens)
	if err != nil {
		t.Fatal(err)
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestConfigOfAGraph(t *testing.T) {
	config := configured(t, request(shop()), "front", "cart", "cart-2", "stock")
	var got []string
	for _, s := range config.Services {
		got = append(got, fmt.Sprintf("%s at %d instances %d", s.Name, len(s.Addresses), len(s.Endpoints)))
	}
	// The generator calls front, front calls cart, both instances of cart
	// call stock.
	want := []string{
		"front.default.svc.meshbench.local:80 at 1 instances 1", "cart.default.svc.meshbench.local:80 at 1 instances 2",
		"stock.default.svc.meshbench.local:80 at 2 instances 1",
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
	for _, s := range config.Services {
		for _, e := range s.Endpoints {
			if e.Identity == "" || !e.HTTP2 {
				t.Errorf("%s: %+v", s.Name, e)
			}
		}
	}
	for _, w := range config.Workloads {
		wantServers := 2
		if w.Name == ClientProxy {
			wantServers = 1
		}
		if w.Token == "" || len(w.Servers) != wantServers {
			t.Errorf("%s: %d servers, token %d bytes", w.Name, len(w.Servers), len(w.Token))
		}
	}
}

func TestModesOfMutualTLS(t *testing.T) {
	for _, tt := range []struct {
		option  string
		policy  meshbench.MTLSMode
		clients controlplane.Clients
		secured bool
	}{
		{"", "", controlplane.Clients{Meshed: true}, true},
		{"strict", "", controlplane.Clients{Meshed: true}, true},
		{"permissive", "", controlplane.Clients{Unmeshed: true}, true},
		{"off", "", controlplane.Clients{Unmeshed: true}, false},
		{"off", meshbench.MTLSStrict, controlplane.Clients{Meshed: true}, true},
		{"", meshbench.MTLSOff, controlplane.Clients{Unmeshed: true}, false},
	} {
		r := request([]meshbench.Service{echo})
		if tt.option != "" {
			r.Subject.Options = map[string]string{"mtls": tt.option}
		}
		if tt.policy != "" {
			r.Policies = []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: tt.policy}}}
		}
		config := configured(t, r, "echo")
		server := config.Workloads[0].Servers[1]
		if difference := cmp.Diff(tt.clients, server.Clients); difference != "" {
			t.Errorf("option %q, policy %q:\n%s", tt.option, tt.policy, difference)
		}
		if e := config.Services[0].Endpoints[0]; (e.Identity != "") != tt.secured || e.HTTP2 != tt.secured {
			t.Errorf("option %q, policy %q: %+v", tt.option, tt.policy, e)
		}
	}
}

func TestPrepareWritesWhatAProxyNeeds(t *testing.T) {
	r := request([]meshbench.Service{echo})
	spec, err := New().Render(r)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(application("echo"), spec.Processes...)
	access := newSite(t, spec)
	prepare := func(process string) {
		t.Helper()
		if err := New().Prepare(t.Context(), access, r, process); err != nil {
			t.Fatal(err)
		}
	}
	prepare("echo")
	prepare(ControlPlane)
	client := run(t, access)
	prepare("echo-proxy")
	prepare(ClientProxy)

	for _, name := range []string{"token", "trust-anchors.pem", "identity/csr.der", "identity/key.p8"} {
		info, err := os.Stat(filepath.Join(access.dir, ClientProxy, name))
		if err != nil || info.Size() == 0 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	key := filepath.Join(access.dir, ClientProxy, "identity/key.p8")
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	prepare(ClientProxy)
	if after, err := os.ReadFile(key); err != nil || string(after) != string(before) {
		t.Errorf("prepared again, the key is another (%v)", err)
	}
	first, err := client.State(t.Context(), "", 0)
	if err != nil || first.Version == "" {
		t.Fatalf("the control plane was told nothing: %+v, %v", first, err)
	}
	// Configuring what is prepared already changes nothing; a policy does, and
	// is taken back.
	if err := New().Configure(t.Context(), access, r); err != nil {
		t.Fatal(err)
	}
	version := func() string {
		state, err := client.State(t.Context(), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return state.Version
	}
	if v := version(); v != first.Version {
		t.Errorf("configuring made version %s of %s", v, first.Version)
	}
	with := r
	with.Policies = []meshbench.Policy{{Timeout: &meshbench.TimeoutPolicy{Request: meshbench.Duration(time.Second)}}}
	if err := New().Configure(t.Context(), access, with); err != nil {
		t.Fatal(err)
	}
	if v := version(); v == first.Version {
		t.Error("a policy changed nothing")
	}
	if err := New().Configure(t.Context(), access, r); err != nil {
		t.Fatal(err)
	}
	if v := version(); v != first.Version {
		t.Error("the policy was not taken back")
	}
}

// run starts the control plane with what was prepared for it.
func run(t *testing.T, access *site) controlplane.Client {
	t.Helper()
	free := func(port string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		access.addresses[meshbench.PortRef{Process: ControlPlane, Port: port}] = l.Addr().String()
		return l.Addr().String()
	}
	o := controlplane.Options{Listen: free(apiPort), Admin: free(adminPort), Credentials: filepath.Join(access.dir, ControlPlane, credentialsFile)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- controlplane.Serve(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client := controlplane.Client{Address: o.Admin, HTTP: http.DefaultClient}
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		_, err := client.State(t.Context(), "", 0)
		if err == nil {
			return client
		}
		if time.Since(begun) > time.Minute {
			t.Fatal(err)
		}
	}
}

func TestShow(t *testing.T) {
	r := request([]meshbench.Service{echo},
		meshbench.Policy{Timeout: &meshbench.TimeoutPolicy{Request: meshbench.Duration(300 * time.Millisecond)}},
		meshbench.Policy{Authorization: &meshbench.Authorization{Action: meshbench.Allow, From: []string{mesh.Client}}})
	documents, err := New().Show(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(documents) != 2 || !strings.Contains(documents[0].Text, "0.300s") || !strings.Contains(documents[1].Text, identityOf("client")) {
		t.Errorf("%+v", documents)
	}
	for _, d := range documents {
		if !json.Valid([]byte(d.Text)) {
			t.Errorf("%s is no JSON", d.Title)
		}
	}
	r.Policies = []meshbench.Policy{{Mirror: &meshbench.MirrorPolicy{Service: "echo", Percent: 1}}}
	if _, err := New().Show(r); err == nil || !strings.Contains(meshbench.AsError(err).Hint, "linkerd.io") {
		t.Errorf("a mirror: %v", err)
	}
}

func TestShortLivedCertificates(t *testing.T) {
	r := request([]meshbench.Service{echo})
	if life := configured(t, r, "echo").CertificateLife; life != 0 {
		t.Errorf("by default certificates live %v", life)
	}
	r.Subject.Options = map[string]string{"certificates": "30s"}
	if life := configured(t, r, "echo").CertificateLife; time.Duration(life) != 30*time.Second {
		t.Errorf("they live %v", life)
	}
}
