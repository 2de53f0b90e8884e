// Package istio drives Istio in its sidecar form: a real etcd, a real
// kube-apiserver, a real istiod (pilot-discovery), and beside the generator
// and every instance of a service a real pilot-agent with the Envoy that it
// starts.
//
//	generator -> client-proxy == mutual TLS ==> echo-proxy -> application
//
// There is no node and no pod: Istio takes workloads from ServiceEntry and
// WorkloadEntry objects, and listeners from Sidecar objects with captureMode
// NONE. Certificates come from istiod's own authority, by the way that they
// come in a cluster: the agent sends a CSR with a token of its service account
// (TokenRequest), and istiod asks the API server about the token
// (TokenReview). All configuration is Istio's own resources.
package istio

import (
	"net/http"
	"strconv"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// The processes of a deployment that are there whatever the workload is.
const (
	Etcd        = "etcd"           // ports "client" and "peer"
	APIServer   = "kube-apiserver" // port "https"
	Istiod      = "istiod"         // ports "http", "xds" and others
	ClientProxy = "client-proxy"   // see proxy
)

// The versions that belong together: those that Istio's release was built with
// where it names them, and the newest Envoy.
const (
	version     = "1.31.0"
	etcdRuntime = "etcd@3.6.8"
	apiRuntime  = "kube-apiserver@1.36.3"
	envoy       = "envoy@1.40.0"
)

// Driver implements mesh.Driver.
type Driver struct {
	http *http.Client
}

var (
	_ mesh.Driver   = Driver{}
	_ mesh.Stranger = Driver{}
)

// New returns a driver. It keeps nothing between calls.
func New() Driver {
	// No connection outlives its question, and no proxy of the environment
	// stands between us and a loopback address.
	return Driver{http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// The options.
const (
	optionMTLS     = "mtls"
	optionDebounce = "debounce"
)

// Describe tells what Istio is here.
func (Driver) Describe() mesh.Description {
	return mesh.Description{
		Name:     "istio",
		Title:    "Istio",
		Summary:  "Istio's sidecars: istiod with a Kubernetes API server of its own, and pilot-agents that run Envoys.",
		Versions: []string{version},
		Options: []mesh.Option{
			{Name: optionMTLS, Values: []string{"strict", "permissive", "off"}, Summary: "the mode of PeerAuthentication for the whole mesh"},
			{Name: optionDebounce, Values: []string{"100ms", "5ms"}, Summary: "how long istiod waits for further changes before it pushes one (PILOT_DEBOUNCE_AFTER)"},
		},
		Profiles: []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
		Runtimes: []string{"etcd", "kube-apiserver", "istiod", "pilot-agent", "envoy"},
		HasProxy: true, NamesPeer: true,
		Capabilities: capabilities(),
	}
}

func capabilities() []mesh.Capability {
	const reference = "https://istio.io/latest/docs/reference/config/"
	has := func(kind meshbench.PolicyKind, source, note string) mesh.Capability {
		return mesh.Capability{Policy: kind, Supported: true, Note: note, Source: reference + source}
	}
	return []mesh.Capability{
		has(meshbench.PolicyMTLS, "security/peer_authentication/", "PeerAuthentication; clients follow it by automatic mutual TLS"),
		has(meshbench.PolicyAuthorization, "security/authorization-policy/", "AuthorizationPolicy"),
		has(meshbench.PolicyTimeout, "networking/virtual-service/#HTTPRoute", "VirtualService"),
		has(meshbench.PolicyRetry, "networking/virtual-service/#HTTPRetry", "VirtualService; without a policy Istio retries twice, where no answer came or it was a 503 of a proxy"),
		has(meshbench.PolicyFault, "networking/virtual-service/#HTTPFaultInjection", "VirtualService; while a request is held back neither its timeout nor its retries count"),
		has(meshbench.PolicySplit, "networking/virtual-service/#HTTPRouteDestination", "VirtualService"),
		has(meshbench.PolicyMirror, "networking/virtual-service/#HTTPMirrorPolicy", "VirtualService; a copy's Host header gets the ending -shadow"),
		has(meshbench.PolicyHeaders, "networking/virtual-service/#Headers", "VirtualService; it removes before it sets and adds"),
		has(meshbench.PolicyRateLimit, "networking/envoy-filter/", "EnvoyFilter, since Istio has no resource of its own for it"),
		has(meshbench.PolicyCircuitBreaker, "networking/destination-rule/#ConnectionPoolSettings", "DestinationRule"),
		has(meshbench.PolicyOutlierDetection, "networking/destination-rule/#OutlierDetection", "DestinationRule"),
	}
}

// proxy is a pilot-agent with its Envoy. Its process has the ports
//
//	inbound       where other proxies reach the service; not the client's
//	to-SERVICE    where the application reaches a service that it calls
//	admin         of Envoy
//	status, envoy-status, prometheus   of agent and Envoy, for probes
type proxy struct {
	process  string
	owner    string // the service, or mesh.Client; the name of its service account too
	instance int
	app      *meshbench.PortRef // nil: the client's
	calls    []string
}

func (p proxy) role() meshbench.Role {
	if p.app == nil {
		return meshbench.ClientProxy
	}
	return meshbench.ServerProxy
}

// service is the owner, where that is a service.
func (p proxy) service() string {
	if p.app == nil {
		return ""
	}
	return p.owner
}

func (p proxy) ports() []string {
	out := []string{"admin", "status", "envoy-status", "prometheus"}
	if p.app != nil {
		out = append(out, "inbound")
	}
	for _, callee := range p.calls {
		out = append(out, outbound(callee))
	}
	return out
}

// outbound is the port of a caller's proxy that leads to a service.
func outbound(service string) string { return "to-" + service }

// proxies are all proxies of a request: those of the services, and the
// client's last.
func proxies(r mesh.Request) []proxy {
	var out []proxy
	for _, s := range r.Services {
		for i := range s.Instances {
			out = append(out, proxy{process: proxyName(s.Name, i), owner: s.Name, instance: i, app: &s.Instances[i], calls: s.Calls})
		}
	}
	return append(out, proxy{process: ClientProxy, owner: mesh.Client, calls: []string{r.Services[0].Name}})
}

// proxyName is the process of the proxy beside an instance.
func proxyName(service string, instance int) string {
	if instance == 0 {
		return service + "-proxy"
	}
	return service + "-" + strconv.Itoa(instance+1) + "-proxy"
}

// host is the name that a service is called by.
func host(service string) string { return service + ".mesh.local" }

// mode is the mode of mutual TLS that the subject asks for.
func mode(r mesh.Request) meshbench.MTLSMode {
	if m := r.Subject.Options[optionMTLS]; m != "" {
		return meshbench.MTLSMode(m)
	}
	return meshbench.MTLSStrict
}

// modeOf is the mode of mutual TLS of a service: its policy's, or the
// subject's.
func modeOf(r mesh.Request, p mesh.ServicePolicy) meshbench.MTLSMode {
	if p.MTLS != "" {
		return p.MTLS
	}
	return mode(r)
}
