// Package envoy drives a pair of Envoy proxies: one on the client's side, one
// on the server's, strict mutual TLS between them, and everything that they
// do told to them over ADS by a control plane of ours (package controlplane),
// which runs as a process beside them.
//
//	generator -> client-proxy == mutual TLS ==> server-proxy -> application
//
// Their bootstraps are static and hold only who they are, where their admin
// endpoint is, and where the control plane is.
package envoy

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
)

// The processes of a deployment and their ports.
const (
	ControlPlane = "control-plane" // ports "ads" and "admin"
	ClientProxy  = "client-proxy"  // ports "http" (where load enters) and "admin"
	ServerProxy  = "server-proxy"  // ports "mtls" and "admin"
)

// The names that the configuration, and so the statistics, have inside the
// proxies.
const (
	entryListener   = "entry"       // of the client proxy: plain HTTP
	inboundListener = "inbound"     // of the server proxy: mutual TLS
	serviceCluster  = "service"     // of the client proxy: the server proxy
	appCluster      = "application" // of the server proxy
)

// What profile parity sets and profile shipped leaves to Envoy.
const (
	parityTLS     = "1.3"            // Envoy's own client offers 1.2 at most
	parityGroup   = "X25519"         // in TLS 1.3, Envoy 1.40 by itself prefers X25519MLKEM768
	parityTimeout = 60 * time.Second // Envoy's own is 15 s
	parityLimit   = 1 << 20          // of connections and requests; Envoy's own is 1024
)

// adminTimeout is for one question to a proxy or the control plane; it is
// long since the machine may be busy.
const adminTimeout = 20 * time.Second

// Driver implements mesh.Driver.
type Driver struct {
	http *http.Client
}

var _ mesh.Driver = Driver{}

// New returns a driver. It keeps nothing between calls: what belongs to a
// deployment is in the directory of its control plane.
func New() Driver {
	// No connection outlives its question, and no proxy of the environment
	// stands between us and a loopback address.
	return Driver{http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Describe tells what Envoy is here. The versions are those that package
// runtimes has pins for.
func (Driver) Describe() mesh.Description {
	return mesh.Description{
		Name:     "envoy",
		Title:    "Envoy",
		Summary:  "A pair of Envoy proxies with mutual TLS between them, configured over ADS.",
		Versions: []string{"1.40.0", "1.39.3", "1.38.3", "1.37.0", "1.36.4"},
		Options:  []mesh.Option{{Name: "mtls", Values: []string{"strict"}, Summary: "both proxies prove who they are, and nothing else is let in"}},
		Profiles: []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
		Runtimes: []string{"envoy"},
		HasProxy: true, NamesPeer: true,
		Capabilities: capabilities(),
	}
}

// bootstrap is all that a proxy knows before it asks the control plane. A
// fetch timeout of 0 makes it wait for its configuration rather than become
// live without one. NODE stands for the name of the process.
const bootstrap = `{
  "node": {"id": "NODE", "cluster": "meshbench"},
  "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": {{port "NODE" "admin"}}}}},
  "dynamic_resources": {
    "ads_config": {
      "api_type": "GRPC", "transport_api_version": "V3",
      "grpc_services": [{"envoy_grpc": {"cluster_name": "control-plane"}}]
    },
    "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
    "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
  },
  "static_resources": {"clusters": [{
    "name": "control-plane", "type": "STATIC", "connect_timeout": "5s",
    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
      "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
      "explicit_http_config": {"http2_protocol_options": {}}
    }},
    "load_assignment": {"cluster_name": "control-plane", "endpoints": [{"lb_endpoints": [{"endpoint": {
      "address": {"socket_address": {"address": "127.0.0.1", "port_value": {{port "control-plane" "ads"}}}}
    }}]}]}
  }]}
}
`

// Render says that a control plane and two proxies must run. The control
// plane ends with its sitting (Control is false): what it holds are ports and
// certificates of this sitting, and it is up in some 20 ms.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	version, err := mesh.Version(d.Describe(), r.Subject.Version)
	if err != nil {
		return meshbench.Spec{}, err
	}
	service := r.Services[0]
	proxy := func(name string, role meshbench.Role, service, port string) meshbench.Process {
		args := []string{
			"--config-path", "{{dir}}/bootstrap.json",
			"--disable-hot-restart", // several run on one machine
			"--drain-time-s", "1", "--drain-strategy", "immediate",
			"--log-level", "warning",
		}
		if r.Profile == meshbench.Parity {
			args = append(args, "--concurrency", strconv.Itoa(r.Threads))
		}
		return meshbench.Process{
			Name: name, Role: role, Service: service,
			Runtime:  "envoy@" + version,
			Args:     args,
			Files:    []meshbench.File{{Name: "bootstrap.json", Text: strings.ReplaceAll(bootstrap, "NODE", name)}},
			Ports:    []string{port, "admin"},
			ReadyURL: `http://{{address "` + name + `" "admin"}}/server_info`,
			MayPark:  true,
		}
	}
	return meshbench.Spec{
		Processes: []meshbench.Process{
			{
				Name: ControlPlane, Role: meshbench.ControlPlane,
				Runtime: meshbench.Self,
				Args: []string{
					"control-plane", "envoy",
					"--listen", `{{address "control-plane" "ads"}}`,
					"--admin", `{{address "control-plane" "admin"}}`,
				},
				Ports:    []string{"ads", "admin"},
				ReadyURL: `http://{{address "control-plane" "admin"}}/ready`,
				MayPark:  true,
			},
			proxy(ServerProxy, meshbench.ServerProxy, service.Name, "mtls"),
			proxy(ClientProxy, meshbench.ClientProxy, "", "http"),
		},
		Entry: meshbench.PortRef{Process: ClientProxy, Port: "http"},
	}, nil
}

// Inbound is where the server proxy takes mutual TLS and nothing else.
func Inbound() meshbench.PortRef { return meshbench.PortRef{Process: ServerProxy, Port: "mtls"} }

func capabilities() []mesh.Capability {
	var out []mesh.Capability
	for _, k := range meshbench.PolicyKinds() {
		out = append(out, mesh.Capability{Policy: k, Note: "the driver does not render it yet", Source: "docs/architecture.md"})
	}
	return out
}

// Prepare has nothing to prepare: a bootstrap says where the control plane is.
func (Driver) Prepare(context.Context, mesh.Access, mesh.Request, string) error { return nil }

// Show returns nothing yet.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	return []mesh.Document{}, mesh.CheckPolicies(d.Describe(), r)
}

func routes(profile meshbench.Profile, cluster string) []controlplane.Route {
	r := controlplane.Route{Prefix: "/", Cluster: cluster}
	if profile == meshbench.Parity {
		r.Timeout = meshbench.Duration(parityTimeout)
	}
	return []controlplane.Route{r}
}

func peerTLS(profile meshbench.Profile, peer string) *controlplane.TLS {
	t := &controlplane.TLS{Peers: []string{peer}}
	if profile == meshbench.Parity {
		t.Version, t.Groups = parityTLS, []string{parityGroup}
	}
	return t
}

func limit(profile meshbench.Profile) uint32 {
	if profile == meshbench.Parity {
		return parityLimit
	}
	return 0
}
