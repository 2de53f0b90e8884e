package envoy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
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
	for _, profile := range []meshbench.Profile{meshbench.Parity, meshbench.Shipped} {
		r.Profile = profile
		c, err := New().Config(access, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		cluster, listener := c.Node(ClientProxy).Clusters[0], c.Node(ServerProxy).Listeners[0]
		if !slices.Equal(cluster.TLS.Peers, []string{pki.ServiceAccount("echo")}) || !slices.Equal(listener.TLS.Peers, []string{pki.ServiceAccount("client")}) {
			t.Errorf("%s: the proxies expect %v and %v", profile, cluster.TLS.Peers, listener.TLS.Peers)
		}
		set := profile == meshbench.Parity
		if (cluster.TLS.Version == "1.3") != set || slices.Equal(listener.TLS.Groups, []string{"X25519"}) != set || (cluster.Limit > 0) != set || (listener.Routes[0].Timeout > 0) != set {
			t.Errorf("%s: %+v %+v", profile, cluster, listener)
		}
	}
}
