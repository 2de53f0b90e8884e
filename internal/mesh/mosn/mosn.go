// Package mosn drives MOSN, the data plane of SOFAMesh and the part of it that
// lives on: one MOSN per service instance and one for the client, mutual TLS
// between them.
//
//	generator -> client-proxy == mutual TLS ==> echo-proxy -> application
//
// SOFAMesh's control plane was a fork of Istio's and is gone, so there is none
// here: each MOSN starts empty, and Configure gives it listeners, routers and
// clusters through its own admin endpoint. That endpoint has a handler of ours
// for it (runtimes/mosn), which calls the functions of MOSN that its own client
// of Istio's API calls; changes take effect without a restart.
package mosn

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// ClientProxy is the generator's own proxy. Its port "http" is where load
// enters.
const ClientProxy = "client-proxy"

// The ports of proxies. A caller has one port "to-SERVICE" for each service
// that it calls.
const (
	adminPort   = "admin"
	entryPort   = "http"    // of the client proxy
	inboundPort = "inbound" // of a service's proxy
)

// The values of the options.
const (
	strict = "strict"
	off    = "off"
	http1  = "http1"
	http2  = "http2"
)

// adminTimeout is for one question to a proxy; it is long since the machine
// may be busy.
const adminTimeout = 20 * time.Second

// Driver implements mesh.Driver.
type Driver struct {
	http *http.Client
}

var _ mesh.Driver = Driver{}

// New returns a driver. It keeps nothing between calls: what belongs to a
// deployment is in the directory of its client proxy.
func New() Driver {
	// No connection outlives its question, and no proxy of the environment
	// stands between us and a loopback address.
	return Driver{http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Describe tells what MOSN is here.
func (Driver) Describe() mesh.Description {
	return mesh.Description{
		Name:     "mosn",
		Title:    "MOSN",
		Summary:  "MOSN proxies, the living part of SOFAMesh, with mutual TLS between them and without a control plane.",
		Versions: []string{"1.6.1"},
		Options: []mesh.Option{
			{Name: "mtls", Values: []string{strict, off}, Summary: "strict: every proxy needs a certificate of the authority, and nothing else is let in; off: plain text between the proxies"},
			{Name: "upstream", Values: []string{http1, http2}, Summary: "what the proxies speak with each other; they translate to and from HTTP/1.1 for http2"},
		},
		Profiles:     []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
		Runtimes:     []string{"mosn"},
		HasProxy:     true,
		Capabilities: capabilities(),
	}
}

// option returns the value of an option, or its default.
func option(s meshbench.Subject, name string) string {
	if v := s.Options[name]; v != "" {
		return v
	}
	for _, o := range (Driver{}).Describe().Options {
		if o.Name == name {
			return o.Values[0]
		}
	}
	return ""
}

// proxyName is the process that stands before an instance of a service.
func proxyName(service string, instance int) string {
	if instance == 0 {
		return service + "-proxy"
	}
	return service + "-" + strconv.Itoa(instance+1) + "-proxy"
}

// outboundPort is the port at which a caller's proxy takes requests for a
// service.
func outboundPort(service string) string { return "to-" + service }

// empty is all that a proxy starts with. PROCESSORS stands for their number, a
// member with its comma, or nothing; NAME for the process.
const empty = `{
  "disable_upgrade": true,
  "pid": "{{dir}}/mosn.pid",
  "servers": [{PROCESSORS"default_log_path": "stdout", "default_log_level": "ERROR"}],
  "cluster_manager": {},
  "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": {{port "NAME" "admin"}}}}}
}
`

// Render says that a proxy must run for each instance of each service, and
// one for the client.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	version, err := mesh.Version(d.Describe(), r.Subject.Version)
	if err != nil {
		return meshbench.Spec{}, err
	}
	processors := ""
	var env []string
	if r.Profile == meshbench.Parity {
		processors = `"processor": ` + strconv.Itoa(r.Threads) + ", "
		// MOSN carries a copy of Go's crypto/tls from the time when TLS 1.3 had
		// to be asked for.
		env = []string{"GODEBUG=tls13=1"}
	}
	spec := meshbench.Spec{Entry: meshbench.PortRef{Process: ClientProxy, Port: entryPort}}
	for _, p := range proxies(r) {
		process := meshbench.Process{
			Name: p.name, Role: meshbench.ServerProxy, Service: p.service, Instance: p.instance,
			Runtime:  "mosn@" + version,
			Env:      env,
			Args:     []string{"start", "--config", "{{dir}}/mosn.json"},
			Files:    []meshbench.File{{Name: "mosn.json", Text: strings.NewReplacer("NAME", p.name, "PROCESSORS", processors).Replace(empty)}},
			Ports:    []string{adminPort},
			ReadyURL: `http://{{address "` + p.name + `" "` + adminPort + `"}}/api/v1/states`,
			MayPark:  true,
		}
		if p.service == "" {
			process.Role = meshbench.ClientProxy
		} else {
			process.Ports = append(process.Ports, inboundPort)
		}
		for _, o := range p.outbound {
			process.Ports = append(process.Ports, o.port)
			if p.service != "" {
				spec.Routes = append(spec.Routes, meshbench.Route{
					From: p.service, To: o.service, Instance: p.instance, At: meshbench.PortRef{Process: p.name, Port: o.port}, Host: o.service,
				})
			}
		}
		spec.Processes = append(spec.Processes, process)
	}
	return spec, nil
}

// proxy is one MOSN.
type proxy struct {
	name     string
	service  string // empty for the client's
	instance int
	at       meshbench.PortRef // the application behind it
	outbound []outbound
}

// outbound is a way from a proxy to a service.
type outbound struct{ service, port string }

// identity is the name in the proxy's certificate, before pki makes a SPIFFE
// name of it.
func (p proxy) identity() string {
	if p.service == "" {
		return mesh.Client
	}
	return p.service
}

// proxies lists them in the order in which they start: the client's is the
// last.
func proxies(r mesh.Request) []proxy {
	var out []proxy
	for _, s := range r.Services {
		for i, at := range s.Instances {
			p := proxy{name: proxyName(s.Name, i), service: s.Name, instance: i, at: at}
			for _, to := range s.Calls {
				p.outbound = append(p.outbound, outbound{to, outboundPort(to)})
			}
			out = append(out, p)
		}
	}
	return append(out, proxy{name: ClientProxy, outbound: []outbound{{r.Services[0].Name, entryPort}}})
}

// Prepare has nothing to prepare: a proxy starts empty.
func (Driver) Prepare(context.Context, mesh.Access, mesh.Request, string) error { return nil }

// Inbound is where the proxy of a service's first instance takes requests.
func Inbound(service string) meshbench.PortRef {
	return meshbench.PortRef{Process: proxyName(service, 0), Port: inboundPort}
}
