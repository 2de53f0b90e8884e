// Package envoy drives Envoy proxies: one beside each instance of a service
// and one beside the generator, strict mutual TLS between them, and everything
// that they do told to them over ADS by a control plane of ours (package
// controlplane), which runs as a process beside them.
//
//	generator -> client-proxy == mutual TLS ==> echo-proxy -> application
//
// Where a service calls another, its application sends the request to a port
// of its own proxy:
//
//	application -> front-proxy == mutual TLS ==> back-proxy -> application
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
)

// The processes of a deployment that belong to no service.
const (
	ControlPlane = "control-plane" // ports "ads" and "admin"
	ClientProxy  = "client-proxy"  // ports Outbound of the first service, and "admin"
)

// ServerProxy is the process beside an instance of a service. It has the
// ports "inbound", Outbound of each service that is called, and "admin".
func ServerProxy(service string, instance int) string {
	if instance > 0 {
		service += "-" + strconv.Itoa(instance+1)
	}
	return service + "-proxy"
}

// Outbound is where a proxy takes requests to a service. A port, a listener
// and a cluster are called so, and with them their statistics.
func Outbound(service string) string { return "to-" + service }

// Inbound is where the proxy of a service's first instance takes what comes
// from other proxies.
func Inbound(service string) meshbench.PortRef {
	return meshbench.PortRef{Process: ServerProxy(service, 0), Port: inbound}
}

const (
	inbound    = "inbound"     // the port and listener before an application
	appCluster = "application" // where it leads
	adminPort  = "admin"
)

// What profile parity sets and profile shipped leaves to Envoy.
const (
	parityTLS     = "1.3"            // Envoy's own client offers 1.2 at most
	parityGroup   = "X25519"         // in TLS 1.3, Envoy 1.40 by itself prefers X25519MLKEM768
	parityTimeout = 60 * time.Second // Envoy's own is 15 s
	parityLimit   = 1 << 20          // of connections and requests; Envoy's own is 1024
)

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
		Summary:  "Envoy proxies with mutual TLS between them, configured over ADS.",
		Versions: []string{"1.40.0", "1.39.3", "1.38.3", "1.37.0", "1.36.4"},
		Options:  options(),
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

// Render says that a control plane and the proxies must run. The control
// plane ends with its sitting (Control is false): what it holds are ports and
// certificates of this sitting, and it is up in some 20 ms.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := check(d, r); err != nil {
		return meshbench.Spec{}, err
	}
	version, err := mesh.Version(d.Describe(), r.Subject.Version)
	if err != nil {
		return meshbench.Spec{}, err
	}
	spec := meshbench.Spec{
		Processes: []meshbench.Process{{
			Name: ControlPlane, Role: meshbench.ControlPlane,
			Runtime: meshbench.Self,
			Args: []string{
				"control-plane", "envoy",
				"--listen", `{{address "control-plane" "ads"}}`,
				"--admin", `{{address "control-plane" "admin"}}`,
			},
			Ports:    []string{"ads", adminPort},
			ReadyURL: `http://{{address "control-plane" "admin"}}/ready`,
			MayPark:  true,
		}},
		Entry: meshbench.PortRef{Process: ClientProxy, Port: Outbound(r.Services[0].Name)},
	}
	for _, p := range proxies(r) {
		args := []string{
			"--config-path", "{{dir}}/bootstrap.json",
			"--disable-hot-restart", // several run on one machine
			"--drain-time-s", "1", "--drain-strategy", "immediate",
			"--log-level", "warning",
		}
		if r.Profile == meshbench.Parity {
			args = append(args, "--concurrency", strconv.Itoa(r.Threads))
		}
		process := meshbench.Process{
			Name: p.name, Role: meshbench.ClientProxy, Service: p.service, Instance: p.instance,
			Runtime:  "envoy@" + version,
			Args:     args,
			Files:    []meshbench.File{{Name: "bootstrap.json", Text: strings.ReplaceAll(bootstrap, "NODE", p.name)}},
			ReadyURL: `http://{{address "` + p.name + `" "admin"}}/server_info`,
			MayPark:  true,
		}
		if p.service != "" {
			process.Role = meshbench.ServerProxy
			process.Ports = append(process.Ports, inbound)
		}
		for _, to := range p.calls {
			process.Ports = append(process.Ports, Outbound(to))
			if p.service != "" {
				spec.Routes = append(spec.Routes, meshbench.Route{
					From: p.service, Instance: p.instance, To: to,
					At: meshbench.PortRef{Process: p.name, Port: Outbound(to)},
				})
			}
		}
		process.Ports = append(process.Ports, adminPort)
		spec.Processes = append(spec.Processes, process)
	}
	return spec, nil
}

// proxy is one Envoy.
type proxy struct {
	name     string
	service  string // that it stands before; empty: the generator's
	instance int
	calls    []string // the services that requests go to through it
}

// proxies are all of a deployment: the servers' and then the client's.
func proxies(r mesh.Request) []proxy {
	var out []proxy
	for _, s := range r.Services {
		for i := range s.Instances {
			out = append(out, proxy{ServerProxy(s.Name, i), s.Name, i, s.Calls})
		}
	}
	return append(out, proxy{name: ClientProxy, calls: []string{r.Services[0].Name}})
}

// Prepare has nothing to prepare: a bootstrap says where the control plane is.
func (Driver) Prepare(context.Context, mesh.Access, mesh.Request, string) error { return nil }
