package envoy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/pki"
)

var echo = meshbench.Service{Name: "echo", Instances: []meshbench.PortRef{{Process: "echo", Port: "http"}}}

// TestConformance tries what needs no process; package test has the rest, and
// everything that needs a real Envoy.
func TestConformance(t *testing.T) {
	meshtest.Run(t, meshtest.Suite{
		Driver:       New(),
		Applications: []meshbench.Process{{Name: "echo", Role: meshbench.Application, Service: "echo", Runtime: meshbench.Self, Ports: []string{"http"}}},
		Service:      echo,
	})
}

// TestBootstrapHoldsNothingButTheWayToItsConfiguration: what a proxy does
// comes over ADS.
func TestBootstrapHoldsNothingButTheWayToItsConfiguration(t *testing.T) {
	for _, profile := range []meshbench.Profile{meshbench.Parity, meshbench.Shipped} {
		spec, err := New().Render(mesh.Request{Subject: meshbench.Subject{Mesh: "envoy"}, Profile: profile, Services: []meshbench.Service{echo}, Threads: 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range spec.Processes {
			if p.Name == ControlPlane {
				continue
			}
			i := slices.Index(p.Args, "--concurrency")
			if (i >= 0) != (profile == meshbench.Parity) || i >= 0 && p.Args[i+1] != "3" {
				t.Errorf("%s, %s: %v", profile, p.Name, p.Args)
			}
			text := p.Files[0].Text
			for _, port := range []string{`{{port "` + p.Name + `" "admin"}}`, `{{port "control-plane" "ads"}}`} {
				if !strings.Contains(text, port) {
					t.Errorf("%s lacks %s", p.Name, port)
				}
				text = strings.ReplaceAll(text, port, "1")
			}
			var b struct {
				Node struct {
					ID string `json:"id"`
				} `json:"node"`
				Static map[string][]struct {
					Name string `json:"name"`
				} `json:"static_resources"`
			}
			if err := json.Unmarshal([]byte(text), &b); err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
			if b.Node.ID != p.Name || len(b.Static) != 1 || len(b.Static["clusters"]) != 1 || b.Static["clusters"][0].Name != "control-plane" {
				t.Errorf("%s: %+v", p.Name, b)
			}
		}
	}
}

// folder is an Access to a deployment that does not run.
type folder string

func (f folder) Address(process, port string) (string, error) { return "127.0.0.1:1", nil }
func (f folder) Dir(process string) (string, error)           { return string(f), nil }
func (f folder) Program(runtime string) (string, error)       { return "/bin/true", nil }

func TestCredentialsAreMadeOnce(t *testing.T) {
	access := folder(t.TempDir())
	now := time.Now()
	client, server := pki.ServiceAccount("client"), pki.ServiceAccount("echo")
	first, err := loadCredentials(access, now, client, server)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadCredentials(access, now.Add(time.Hour), client, server)
	if err != nil || !cmp.Equal(first, again) {
		t.Errorf("they changed (%v)", err)
	}
	info, err := os.Stat(filepath.Join(string(access), "credentials.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	more, err := loadCredentials(access, now, client, pki.ServiceAccount("third"))
	if err != nil || more.Bundle != first.Bundle || more.Identities[client] != first.Identities[client] || more.Identities[pki.ServiceAccount("third")].Key == "" {
		t.Errorf("a third name changed the others (%v)", err)
	}
	late, err := loadCredentials(access, now.Add(pki.Life-time.Minute), client, server)
	if err != nil || late.Bundle == first.Bundle || late.Identities[client] == first.Identities[client] {
		t.Errorf("about to end, they were not made anew (%v)", err)
	}
	if entries, err := os.ReadDir(string(access)); err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(string(access), "credentials.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCredentials(access, now, client); err == nil {
		t.Error("broken credentials were accepted")
	}
}

func TestConfigOfTheProfiles(t *testing.T) {
	access := folder(t.TempDir())
	r := mesh.Request{Subject: meshbench.Subject{Mesh: "envoy"}, Services: []meshbench.Service{echo}, Threads: 1}
	everybody := []string{pki.ServiceAccount("client"), pki.ServiceAccount("echo")}
	for _, profile := range []meshbench.Profile{meshbench.Parity, meshbench.Shipped} {
		r.Profile = profile
		c, err := New().Config(access, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		cluster, listener := c.Node(ClientProxy).Clusters[0], c.Node("echo-proxy").Listeners[0]
		if !slices.Equal(cluster.TLS.Peers, everybody[1:]) || !slices.Equal(listener.TLS.Peers, everybody) {
			t.Errorf("%s: the proxies expect %v and %v", profile, cluster.TLS.Peers, listener.TLS.Peers)
		}
		set := profile == meshbench.Parity
		if (cluster.TLS.Version == "1.3") != set || slices.Equal(listener.TLS.Groups, []string{"X25519"}) != set || (cluster.Limit > 0) != set || (listener.Routes[0].Timeout > 0) != set {
			t.Errorf("%s: %+v %+v", profile, cluster, listener)
		}
	}
}

// shop is a graph: front calls back and cart, cart calls back, which has two
// instances, and nobody calls next.
func shop() []meshbench.Service {
	at := func(process string) meshbench.PortRef { return meshbench.PortRef{Process: process, Port: "http"} }
	return []meshbench.Service{
		{Name: "front", Instances: []meshbench.PortRef{at("front")}, Calls: []string{"back", "cart"}},
		{Name: "cart", Instances: []meshbench.PortRef{at("cart")}, Calls: []string{"back"}},
		{Name: "back", Instances: []meshbench.PortRef{at("back"), at("back-2")}},
		{Name: "next", Instances: []meshbench.PortRef{at("next")}},
	}
}

func TestOneProxyPerInstance(t *testing.T) {
	r := mesh.Request{Subject: meshbench.Subject{Mesh: "envoy"}, Profile: meshbench.Parity, Services: shop(), Threads: 1}
	spec, err := New().Render(r)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range spec.Processes {
		names = append(names, p.Name+": "+strings.Join(p.Ports, " "))
	}
	want := []string{
		"control-plane: ads admin",
		"front-proxy: inbound to-back to-cart admin",
		"cart-proxy: inbound to-back admin",
		"back-proxy: inbound admin", "back-2-proxy: inbound admin",
		"next-proxy: inbound admin",
		"client-proxy: to-front admin",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	ways := []meshbench.Route{
		{From: "front", To: "back", At: meshbench.PortRef{Process: "front-proxy", Port: "to-back"}},
		{From: "front", To: "cart", At: meshbench.PortRef{Process: "front-proxy", Port: "to-cart"}},
		{From: "cart", To: "back", At: meshbench.PortRef{Process: "cart-proxy", Port: "to-back"}},
	}
	if d := cmp.Diff(ways, spec.Routes); d != "" {
		t.Error(d)
	}
	c, err := New().Config(folder(t.TempDir()), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	clusters := map[string]int{}
	for _, k := range c.Node("front-proxy").Clusters {
		clusters[k.Name] = len(k.Endpoints)
	}
	if d := cmp.Diff(map[string]int{"application": 1, "to-front": 1, "to-cart": 1, "to-back": 2, "to-next": 1}, clusters); d != "" {
		t.Error(d)
	}
	if n := c.Node("back-2-proxy"); len(n.Clusters) != 1 || n.Identity.Name != pki.ServiceAccount("back") {
		t.Errorf("%+v", n)
	}
}

func TestOptions(t *testing.T) {
	access := folder(t.TempDir())
	for text, holds := range map[string]func(client, server controlplane.Node) bool{
		"envoy": func(c, s controlplane.Node) bool {
			return c.Clusters[0].TLS != nil && !c.Clusters[0].HTTP2 && !s.Listeners[0].AccessLog && len(s.Listeners[0].Routes[0].Authorizations) == 0
		},
		"envoy:mtls=off": func(c, s controlplane.Node) bool {
			return c.Clusters[0].TLS == nil && s.Listeners[0].TLS == nil
		},
		"envoy:upstream=http2": func(c, s controlplane.Node) bool {
			return c.Clusters[0].HTTP2 && !s.Clusters[0].HTTP2
		},
		"envoy:access_log=on": func(c, s controlplane.Node) bool {
			return c.Listeners[0].AccessLog && s.Listeners[0].AccessLog
		},
		"envoy:rbac=on": func(c, s controlplane.Node) bool {
			list := s.Listeners[0].Routes[0].Authorizations
			return len(list) == 1 && list[0].Action == meshbench.Allow && slices.Contains(list[0].From, pki.ServiceAccount("client"))
		},
	} {
		subject, err := meshbench.ParseSubject(text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New().Config(access, mesh.Request{Subject: subject, Profile: meshbench.Parity, Services: []meshbench.Service{echo}, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if !holds(*c.Node(ClientProxy), *c.Node("echo-proxy")) {
			t.Errorf("%s: %+v", text, c)
		}
	}
	both := meshbench.Subject{Mesh: "envoy", Options: map[string]string{"rbac": "on", "mtls": "off"}}
	_, err := New().Render(mesh.Request{Subject: both, Profile: meshbench.Parity, Services: []meshbench.Service{echo}, Threads: 1})
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid || e.Hint == "" {
		t.Errorf("rules about identities without any: %v", err)
	}
}

// TestShow holds what policies become to Envoy's own words.
func TestShow(t *testing.T) {
	second := meshbench.Duration(time.Second)
	r := mesh.Request{
		Subject: meshbench.Subject{Mesh: "envoy"}, Profile: meshbench.Parity, Services: shop(), Threads: 1,
		Policies: []meshbench.Policy{
			{To: "back", Match: &meshbench.Match{Headers: map[string]string{"x-user": "dev"}}, Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 12.5}}},
			{To: "back", Timeout: &meshbench.TimeoutPolicy{Request: second}},
			{To: "cart", RateLimit: &meshbench.RateLimitPolicy{Requests: 5, Per: second}},
		},
	}
	docs, err := New().Show(r)
	if err != nil {
		t.Fatal(err)
	}
	byTitle := map[string]string{}
	for _, d := range docs {
		byTitle[d.Title] = d.Text
		if strings.Contains(d.Text, "PRIVATE KEY") || d.Media != "application/yaml" {
			t.Errorf("%s: %s\n%s", d.Title, d.Media, d.Text)
		}
	}
	titles := slices.Sorted(maps.Keys(byTitle))
	if want := []string{"RouteConfiguration inbound of cart-proxy", "RouteConfiguration to-back of cart-proxy", "RouteConfiguration to-back of front-proxy"}; !slices.Equal(titles, want) {
		t.Fatalf("titles %q", titles)
	}
	want := `name: to-back
virtual_hosts:
  - name: to-back
    domains:
      - '*'
    routes:
      - match:
          prefix: /
          headers:
            - name: x-user
              string_match:
                exact: dev
        route:
          cluster: to-back
          timeout: 1s
        typed_per_filter_config:
          fault:
            '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
            abort:
              http_status: 418
              percentage:
                numerator: 125000
                denominator: MILLION
      - match:
          prefix: /
        route:
          cluster: to-back
          timeout: 1s
`
	if d := cmp.Diff(want, byTitle["RouteConfiguration to-back of front-proxy"]); d != "" {
		t.Error(d)
	}
	r.Policies = nil
	all, err := New().Show(r)
	if err != nil || len(all) < 20 {
		t.Errorf("without policies %d documents, %v", len(all), err)
	}
}
