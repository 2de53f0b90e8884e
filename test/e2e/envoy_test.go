package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
	"github.com/meshbench/meshbench/internal/pki"
	"github.com/meshbench/meshbench/internal/workload"
)

var echoProxy = envoy.ServerProxy(workload.Service, 0)

// pair is a running pair of Envoys before an echo service.
type pair struct {
	infra.Deployment
	driver  envoy.Driver
	request mesh.Request
}

// renderedPair deploys a pair without configuring it.
func renderedPair(t *testing.T, version string) pair {
	t.Helper()
	return rendered(t, meshbench.Subject{Mesh: "envoy", Version: version})
}

func rendered(t *testing.T, subject meshbench.Subject) pair {
	t.Helper()
	p := pair{driver: envoy.New(), request: mesh.Request{
		Subject: subject, Profile: meshbench.Parity,
		Workload: echoWorkload, Services: []meshbench.Service{echoService}, Threads: 1,
	}}
	spec, err := p.driver.Render(p.request)
	if err != nil {
		t.Fatal(err)
	}
	spec.Processes = append(workload.Services{}.Processes(echoWorkload, 1, nil), spec.Processes...)
	p.Deployment = deploy(t, here(t), spec, nil)
	return p
}

func runningPair(t *testing.T, version string) pair {
	t.Helper()
	p := renderedPair(t, version)
	if err := p.driver.Configure(t.Context(), p, p.request); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusOK)
	return p
}

// changed applies the pair's configuration with a change.
func (p pair) changed(t *testing.T, change func(*controlplane.Config)) error {
	t.Helper()
	c, err := p.driver.Config(p, p.request)
	if err != nil {
		t.Fatal(err)
	}
	change(&c)
	return p.driver.Apply(t.Context(), p, c)
}

// get sends one request on a connection of its own.
func (p pair) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Get(strings.TrimSuffix(p.Target().URL, "/") + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func (p pair) expect(t *testing.T, path string, status int) {
	t.Helper()
	if response, body := p.get(t, path); response.StatusCode != status {
		t.Fatalf("%s answers %s, want %d: %.200s", path, response.Status, status, body)
	}
}

func (p pair) counters(t *testing.T) mesh.Counters {
	t.Helper()
	hops, err := p.driver.Counters(t.Context(), p, p.request)
	if err != nil || len(hops) != 1 {
		t.Fatal(hops, err)
	}
	return hops[0].Counters
}

func (p pair) settings(t *testing.T) map[string]string {
	t.Helper()
	list, err := p.driver.Settings(t.Context(), p, p.request)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range list {
		out[s.Name] = s.Value
	}
	return out
}

// admin asks a proxy's own administration endpoint.
func (p pair) admin(t *testing.T, proxy, path string) string {
	t.Helper()
	address, err := p.Address(proxy, "admin")
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestRouteChangesInARunningPair puts a changed route over ADS into proxies
// that run, and sees it in real answers: no process starts anew, and the
// route before comes back the same way.
func TestRouteChangesInARunningPair(t *testing.T) {
	p := runningPair(t, "")
	before := p.counters(t)
	route := func(status int, header string) func(*controlplane.Config) {
		return func(c *controlplane.Config) {
			l := &c.Node(envoy.ClientProxy).Listeners[0]
			l.Routes = append([]controlplane.Route{
				{Prefix: "/teapot", Direct: &controlplane.Direct{Status: status, Body: "short and stout"}},
			}, l.Routes...)
			l.Routes[1].Response = &meshbench.HeaderChange{Add: map[string]string{"x-changed": header}}
		}
	}
	begun := time.Now()
	if err := p.changed(t, route(http.StatusTeapot, "first")); err != nil {
		t.Fatal(err)
	}
	accepted := time.Since(begun)
	response, body := p.get(t, "/teapot")
	for response.StatusCode != http.StatusTeapot && time.Since(begun) < 30*time.Second {
		response, body = p.get(t, "/teapot")
	}
	t.Logf("accepted after %v, seen in an answer after %v", accepted, time.Since(begun))
	if response.StatusCode != http.StatusTeapot || body != "short and stout" {
		t.Errorf("/teapot answers %s: %s", response.Status, body)
	}
	if response, _ := p.get(t, "/other"); response.StatusCode != http.StatusOK || response.Header.Get("x-changed") != "first" {
		t.Errorf("/other answers %s with x-changed %q", response.Status, response.Header.Get("x-changed"))
	}
	// The same proxies did this: their counters went on.
	if after := p.counters(t); after.ClientReceived <= before.ClientReceived || after.ServerReceived != before.ServerReceived+1 {
		t.Errorf("counters went from %+v to %+v", before, after)
	}
	if err := p.driver.Configure(t.Context(), p, p.request); err != nil {
		t.Fatal(err)
	}
	if response, _ := p.get(t, "/teapot"); response.StatusCode != http.StatusOK || response.Header.Get("x-changed") != "" {
		t.Errorf("taken back, /teapot answers %s", response.Status)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

// TestRefusedConfigurationTellsEnvoysWords applies what Envoy cannot take:
// the error has its words, what was before stays in force, the refused
// version is not sent over and over, and a good one heals it.
func TestRefusedConfigurationTellsEnvoysWords(t *testing.T) {
	p := runningPair(t, "")
	for _, tt := range []struct {
		name, words string
		change      func(*controlplane.Config)
	}{
		{"key exchange", "ECDH", func(c *controlplane.Config) {
			c.Node(echoProxy).Listeners[0].TLS.Groups = []string{"X448"}
		}},
		{"trust", envoy.ClientProxy, func(c *controlplane.Config) { c.Node(envoy.ClientProxy).Trust = "nobody" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // refused once, refused again
				err := p.changed(t, tt.change)
				e := meshbench.AsError(err)
				if e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, tt.words) {
					t.Fatalf("got %v, want Envoy's words about %s", err, tt.words)
				}
				if strings.Contains(e.Message, "PRIVATE KEY") {
					t.Errorf("the error tells a key: %v", e)
				}
				t.Log(e)
			}
			p.expect(t, "/", http.StatusOK)
			for _, proxy := range []string{envoy.ClientProxy, echoProxy} {
				for _, line := range strings.Split(p.admin(t, proxy, `/stats?filter=update_rejected`), "\n") {
					var n int
					if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err == nil && n > 4 {
						t.Errorf("%s: %s", proxy, line)
					}
				}
			}
			if err := p.driver.Configure(t.Context(), p, p.request); err != nil {
				t.Fatal(err)
			}
			p.expect(t, "/", http.StatusOK)
		})
	}
}

// TestPortTakenBeforeTheListener lets another program have the port that the
// client proxy was promised.
func TestPortTakenBeforeTheListener(t *testing.T) {
	p := renderedPair(t, "")
	address, err := p.Address(envoy.ClientProxy, envoy.Outbound(workload.Service))
	if err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	err = p.driver.Configure(t.Context(), p, p.request)
	e := meshbench.AsError(err)
	if e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "cannot bind") || e.Hint == "" {
		t.Fatalf("got %+v", e)
	}
}

// TestClientVerifiesTheServer makes the client proxy expect somebody else:
// it must not send its requests to the server that is there.
func TestClientVerifiesTheServer(t *testing.T) {
	p := runningPair(t, "")
	before := p.counters(t)
	if err := p.changed(t, func(c *controlplane.Config) {
		c.Node(envoy.ClientProxy).Clusters[0].TLS.Peers = []string{pki.ServiceAccount("somebody-else")}
	}); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusServiceUnavailable)
	after := p.counters(t)
	if after.ServerReceived != before.ServerReceived || after.ClientAttempts != before.ClientAttempts {
		t.Errorf("a request was sent: counters went from %+v to %+v", before, after)
	}
}

// TestPlaintextIsSeen takes TLS away: the proof of path must notice.
func TestPlaintextIsSeen(t *testing.T) {
	p := runningPair(t, "")
	if got := p.settings(t)["mtls"]; got != "strict" {
		t.Errorf("mtls %q as observed, want strict", got)
	}
	if err := p.changed(t, func(c *controlplane.Config) {
		c.Node(envoy.ClientProxy).Clusters[0].TLS = nil
		c.Node(echoProxy).Listeners[0].TLS = nil
	}); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusOK)
	if c := p.counters(t); c.Plaintext == 0 {
		t.Errorf("nobody saw the plaintext connection: %+v", c)
	}
	if got := p.settings(t)["mtls"]; got == "strict" {
		t.Error("mtls is called strict")
	}
}

// TestPairOutlivesItsControlPlane kills the control plane: requests go on,
// and configuring says what is missing.
func TestPairOutlivesItsControlPlane(t *testing.T) {
	p := runningPair(t, "")
	if err := p.Signal(t.Context(), meshbench.ControlPlane, 0, infra.Kill); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for p.Check() == nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	p.expect(t, "/", http.StatusOK)
	err := p.driver.Configure(ctx, p, p.request)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "control plane") {
		t.Errorf("got %v", err)
	}
}

// TestParkedPairGoesOn stops the pair for a while, as when others are
// measured.
func TestParkedPairGoesOn(t *testing.T) {
	p := runningPair(t, "")
	if err := p.Park(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := p.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "/", http.StatusOK)
	if err := p.changed(t, func(c *controlplane.Config) {
		c.Node(envoy.ClientProxy).Listeners[0].Routes[0] = controlplane.Route{Prefix: "/", Direct: &controlplane.Direct{Status: http.StatusTeapot}}
	}); err != nil {
		t.Fatalf("after parking, the control plane reaches nobody: %v", err)
	}
	p.expect(t, "/", http.StatusTeapot)
}

// TestOldestEnvoy is the other end of the range that the catalogue pins.
func TestOldestEnvoy(t *testing.T) {
	versions := envoy.New().Describe().Versions
	oldest := versions[len(versions)-1]
	p := runningPair(t, oldest)
	if c := p.counters(t); c.ClientReceived != 1 || c.ClientAttempts != 1 || c.ServerReceived != 1 || c.Handshakes != 1 || c.Plaintext != 0 {
		t.Errorf("after one request: %+v", c)
	}
	s := p.settings(t)
	if s["version"] != oldest || s["mtls"] != "strict" || s["tls_version"] != "TLSv1.3" || s["tls_group"] != "X25519" {
		t.Errorf("settings %v", s)
	}
}
