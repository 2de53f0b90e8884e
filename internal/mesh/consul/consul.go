// Package consul drives Consul Connect: a real Consul agent as the control
// plane, and per service instance one proxy, of either data plane that Consul
// has: Envoy, which the agent configures over xDS, or Consul's built-in proxy.
//
//	generator -> client-proxy == mutual TLS ==> echo-proxy -> application
//
// Consul is a program of its own that runs beside Meshbench: it is spoken with
// over its HTTP API and never linked. Certificates come from the authority of
// the agent; what a proxy does is told in Consul's own configuration entries.
package consul

import (
	"net/http"
	"strconv"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// The processes of a deployment beside the proxies, and the ports of all.
const (
	Agent   = "control-plane" // the Consul agent: ports "http", "grpc", "server" and "serf"
	Metrics = "metrics"       // takes what built-in proxies count: ports "statsd" and "admin"

	entryPort   = "http"    // of the client's proxy: where load enters
	inboundPort = "inbound" // of every proxy: mutual TLS
	adminPort   = "admin"   // of every proxy: Envoy's admin endpoint, or the built-in proxy's debugging
	callPrefix  = "to-"     // of a service's proxy: where the service reaches another one
)

// The data planes.
const (
	envoyProxy   = "envoy"
	builtinProxy = "builtin"
)

// envoyVersion is the Envoy that Consul configures here: the one that the
// subject envoy has by default, so that the two can be compared. It is newer
// than those that Consul 1.22 lists (1.33 to 1.35), none of which can be had
// where the others come from; it takes everything that Consul tells it.
const envoyVersion = "1.40.0"

// clusterID makes the trust domain the same in every deployment. It is a UUID
// whose first bytes spell "meshbench".
const clusterID = "6d657368-6265-6e63-6800-000000000000"

// trustDomain is what the names of all workloads begin with.
const trustDomain = clusterID + ".consul"

// Identity is the SPIFFE name of a service; mesh.Client is one too.
func Identity(service string) string {
	return "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/" + service
}

// Driver implements mesh.Driver.
type Driver struct {
	http *http.Client
}

var (
	_ mesh.Driver   = Driver{}
	_ mesh.Variants = Driver{}
)

// New returns a driver. It keeps nothing between calls: what belongs to a
// deployment is in its agent.
func New() Driver {
	// No connection outlives its question, and no proxy of the environment
	// stands between us and a loopback address.
	return Driver{http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Describe tells what Consul is here, with the data plane Envoy. The versions
// are those that package runtimes has pins for.
func (d Driver) Describe() mesh.Description { return d.DescribeSubject(meshbench.Subject{}) }

// DescribeSubject tells it of a subject: its data plane decides what it can do.
func (Driver) DescribeSubject(s meshbench.Subject) mesh.Description {
	plane := dataPlane(s)
	return mesh.Description{
		Name:     "consul",
		Title:    "Consul",
		Summary:  "A Consul agent with a proxy per service instance, Envoy or Consul's own, and mutual TLS by Consul's authority.",
		Versions: []string{"1.22.7"},
		Options: []mesh.Option{
			{Name: "proxy", Values: []string{envoyProxy, builtinProxy}, Summary: "the data plane: Envoy, or the proxy that is part of Consul and knows connections only"},
			{Name: "mtls", Values: []string{"strict"}, Summary: "both proxies prove who they are, and nothing else is let in"},
		},
		Profiles: []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
		Runtimes: []string{"consul", "envoy"},
		HasProxy: true, NamesPeer: plane == envoyProxy,
		Capabilities: capabilities(plane),
	}
}

// dataPlane is which proxy a subject asks for.
func dataPlane(s meshbench.Subject) string {
	if p := s.Options["proxy"]; p != "" {
		return p
	}
	return envoyProxy
}

// proxy is the proxy of a service instance, or the generator's own.
type proxy struct {
	name        string // of its process, and its id in Consul
	service     string // mesh.Client for the generator's
	id          string // of the service instance in Consul
	instance    int
	application *meshbench.PortRef // nil for the generator's
	calls       []call
}

// call is a way from a proxy to a service: a port of the proxy.
type call struct {
	to, port string
}

// proxies lists those of a request: each service's by instance, and the
// generator's last, so that a server is up before its client.
func proxies(r mesh.Request) []proxy {
	var out []proxy
	for _, s := range r.Services {
		var calls []call
		for _, c := range s.Calls {
			calls = append(calls, call{c, callPrefix + c})
		}
		for i := range s.Instances {
			id := s.Name
			if i > 0 {
				id += "-" + strconv.Itoa(i+1)
			}
			out = append(out, proxy{
				name: id + "-proxy", service: s.Name, id: id, instance: i,
				application: &s.Instances[i], calls: calls,
			})
		}
	}
	return append(out, proxy{
		name: mesh.Client + "-proxy", service: mesh.Client, id: mesh.Client,
		calls: []call{{r.Services[0].Name, entryPort}},
	})
}

// of returns the proxies of a service.
func of(all []proxy, service string) []proxy {
	var out []proxy
	for _, p := range all {
		if p.service == service {
			out = append(out, p)
		}
	}
	return out
}

// agentConfig is the agent's configuration beside what -dev says: every port
// is ours, nothing is looked up elsewhere, and whoever is not allowed by an
// intention is denied, as Consul's documentation advises for production.
const agentConfig = `{
  "ports": {
    "http": {{port "control-plane" "http"}}, "https": -1,
    "grpc": {{port "control-plane" "grpc"}}, "grpc_tls": -1,
    "server": {{port "control-plane" "server"}},
    "serf_lan": {{port "control-plane" "serf"}}, "serf_wan": -1,
    "dns": -1
  },
  "disable_update_check": true,
  "ui_config": {"enabled": false},
  "default_intention_policy": "deny",
  "connect": {"enabled": true, "ca_provider": "consul", "ca_config": {"cluster_id": "` + clusterID + `"}}
}
`

// Render says that an agent and the proxies must run. The agent ends with its
// sitting (Control is false): it is up in half a second and holds nothing that
// another sitting could use.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	version, err := mesh.Version(d.Describe(), r.Subject.Version)
	if err != nil {
		return meshbench.Spec{}, err
	}
	runtime := "consul@" + version
	spec := meshbench.Spec{
		Processes: []meshbench.Process{{
			Name: Agent, Role: meshbench.ControlPlane,
			Runtime: runtime,
			Args: []string{
				"agent", "-dev", "-node", "meshbench", "-bind", "127.0.0.1", "-client", "127.0.0.1",
				"-log-level", "warn", "-config-file", "{{dir}}/agent.json",
			},
			Files:    []meshbench.File{{Name: "agent.json", Text: agentConfig}},
			Ports:    []string{"http", "grpc", "server", "serf"},
			ReadyURL: `http://{{address "control-plane" "http"}}/v1/connect/ca/roots`,
			MayPark:  true,
		}},
		Entry: meshbench.PortRef{Process: mesh.Client + "-proxy", Port: entryPort},
	}
	builtin := dataPlane(r.Subject) == builtinProxy
	if builtin {
		spec.Processes = append(spec.Processes, metricsProcess())
	}
	for _, p := range proxies(r) {
		process := meshbench.Process{
			Name: p.name, Role: meshbench.ServerProxy, Service: p.service, Instance: p.instance,
			Ports:   []string{inboundPort, adminPort},
			MayPark: true,
		}
		if p.application == nil {
			process.Role, process.Service = meshbench.ClientProxy, ""
		}
		for _, c := range p.calls {
			process.Ports = append(process.Ports, c.port)
			if p.application != nil {
				spec.Routes = append(spec.Routes, meshbench.Route{
					From: p.service, Instance: p.instance, To: c.to, At: meshbench.PortRef{Process: p.name, Port: c.port},
				})
			}
		}
		if builtin {
			runBuiltin(&process, r, runtime)
		} else {
			runEnvoy(&process, r)
		}
		spec.Processes = append(spec.Processes, process)
	}
	return spec, nil
}

// runEnvoy makes a process an Envoy, whose bootstrap Prepare writes.
func runEnvoy(p *meshbench.Process, r mesh.Request) {
	p.Runtime = "envoy@" + envoyVersion
	p.Args = []string{
		"--config-path", "{{dir}}/" + bootstrapFile,
		"--disable-hot-restart", // several run on one machine
		"--drain-time-s", "1", "--drain-strategy", "immediate",
		"--log-level", "warning",
	}
	if r.Profile == meshbench.Parity {
		p.Args = append(p.Args, "--concurrency", strconv.Itoa(r.Threads))
	}
	p.ReadyURL = `http://{{address "` + p.Name + `" "` + adminPort + `"}}/server_info`
}

// Inbound is where a service's first proxy takes mutual TLS and nothing else.
func Inbound(service string) meshbench.PortRef {
	return meshbench.PortRef{Process: service + "-proxy", Port: inboundPort}
}
