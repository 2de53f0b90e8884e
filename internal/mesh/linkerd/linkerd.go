// Package linkerd drives Linkerd's own proxy, linkerd2-proxy, as it runs in a
// pod: one beside the generator and one beside each instance of a service,
// every pair of them in a network namespace of its own, whose TCP connections
// are redirected to the proxy. What the proxies do is told to them over
// Linkerd's own API by a control plane of ours (package controlplane).
//
//	generator -> client-proxy == mutual TLS ==> echo-proxy -> echo
//
// The proxy is configured by its environment, which holds who it is, whom it
// trusts and where the control plane is; everything else comes over the API.
package linkerd

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// The processes of a deployment and their ports. The proxy of a service's
// instance is called SERVICE-proxy, SERVICE-2-proxy and so on.
const (
	ControlPlane = "control-plane" // ports "api" and "admin"
	ClientProxy  = "client-proxy"  // ports of every proxy: "inbound", "outbound", "admin", and "to-SERVICE" for each that it calls

	inboundPort  = "inbound"
	outboundPort = "outbound"
	adminPort    = "admin"
	apiPort      = "api"
)

// Runtime is the name of the proxy in the catalogue of package runtimes.
const Runtime = "linkerd2-proxy"

// lifeOption is the option that makes certificates short-lived, so that what
// their renewal costs can be measured.
const lifeOption = "certificates"

// networks are those of addresses that the proxy asks the control plane
// about: the ones for benchmarks of RFC 2544, which namespaces are made of.
const networks = "198.18.0.0/15"

// askTimeout is for one question to a proxy or the control plane; it is long
// since the machine may be busy.
const askTimeout = 20 * time.Second

// Driver implements mesh.Driver.
type Driver struct {
	http *http.Client
}

var _ mesh.Driver = Driver{}

// New returns a driver. It keeps nothing between calls: what belongs to a
// deployment is in the directories of its processes.
func New() Driver {
	return Driver{http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Describe tells what Linkerd is here. Its proxy has no releases that package
// runtimes could pin: the version is that of the binary on this machine.
func (Driver) Describe() mesh.Description {
	return mesh.Description{
		Name:     "linkerd",
		Title:    "Linkerd",
		Summary:  "Linkerd's proxy in network namespaces as in pods, with mutual TLS, under a control plane of ours that speaks Linkerd's API.",
		Versions: []string{"2"},
		Options: []mesh.Option{
			{Name: "mtls", Values: []string{"strict", "permissive", "off"}, Summary: "strict: nothing but mutual TLS is let in; permissive: plain text, too; off: the proxies speak plain text"},
			{Name: lifeOption, Values: []string{"24h", "30s"}, Summary: "how long a proxy's certificate is good for; it asks for the next one after 70 % of that"},
		},
		Profiles:     []meshbench.Profile{meshbench.Parity, meshbench.Shipped},
		Runtimes:     []string{Runtime},
		HasProxy:     true,
		Path:         meshbench.PathNamespaces,
		Capabilities: capabilities(),
	}
}

// capabilities say what Linkerd has, by its own documentation.
func capabilities() []mesh.Capability {
	yes := func(kind meshbench.PolicyKind, note, source string) mesh.Capability {
		return mesh.Capability{Policy: kind, Supported: true, Note: note, Source: "https://linkerd.io/2/" + source}
	}
	no := func(kind meshbench.PolicyKind, note, source string) mesh.Capability {
		return mesh.Capability{Policy: kind, Note: note, Source: "https://linkerd.io/2/" + source}
	}
	return []mesh.Capability{
		yes(meshbench.PolicyMTLS, "off is what an endpoint without an identity gets: Linkerd has no switch for meshed ones", "features/automatic-mtls/"),
		yes(meshbench.PolicyAuthorization, "Linkerd allows only: a deny becomes an allow for everybody else who is known; a path prefix ends at a slash", "reference/authorization-policy/"),
		yes(meshbench.PolicyTimeout, "answered with 504", "reference/timeouts/"),
		yes(meshbench.PolicyRetry, "by status alone (5xx, gateway_error), for requests of up to 64 KiB", "reference/retries/"),
		no(meshbench.PolicyFault, "Linkerd injects no faults: it splits requests to a service that fails", "tasks/fault-injection/"),
		yes(meshbench.PolicySplit, "", "features/traffic-split/"),
		no(meshbench.PolicyMirror, "no filter of its HTTPRoute mirrors requests", "reference/httproute/"),
		yes(meshbench.PolicyHeaders, "", "reference/httproute/"),
		yes(meshbench.PolicyRateLimit, "in whole requests per second", "reference/rate-limiting/"),
		no(meshbench.PolicyCircuitBreaker, "Linkerd bounds neither connections nor requests to a service: its circuit breaking is by failures (outlier_detection)", "reference/circuit-breaking/"),
		yes(meshbench.PolicyOutlierDetection, "by failures in a row; all endpoints may be left out", "reference/circuit-breaking/"),
	}
}

// serviceProxy is the name of the proxy of an instance, from 0.
func serviceProxy(service string, instance int) string {
	if instance == 0 {
		return service + "-proxy"
	}
	return fmt.Sprintf("%s-%d-proxy", service, instance+1)
}

// toPort is the port of a caller's proxy that stands for a service's address.
func toPort(service string) string { return "to-" + service }

// identityOf is the DNS-like name of a service, in Linkerd's form.
func identityOf(service string) string {
	return service + ".default.serviceaccount.identity.linkerd." + pki.TrustDomain
}

// ownIdentity is the control plane's.
const ownIdentity = "control-plane.meshbench.serviceaccount.identity.linkerd." + pki.TrustDomain

// authorityOf is the name of a service as clients know it.
func authorityOf(service string) string { return service + ".default.svc." + pki.TrustDomain + ":80" }

// proxy is one of a deployment.
type proxy struct {
	process  string
	service  string // whose identity it has; mesh.Client for the generator's
	instance int
	app      meshbench.PortRef // the application beside it; zero: none
	calls    []string          // services
}

// proxies are all of a request: of the services in order, then the
// generator's.
func proxies(r mesh.Request) []proxy {
	var out []proxy
	for _, s := range r.Services {
		for i, app := range s.Instances {
			out = append(out, proxy{process: serviceProxy(s.Name, i), service: s.Name, instance: i, app: app, calls: s.Calls})
		}
	}
	return append(out, proxy{process: ClientProxy, service: mesh.Client, calls: []string{r.Services[0].Name}})
}

// Render says that a control plane and the proxies must run, each with its
// application in a namespace of its own.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
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
				"control-plane", "linkerd",
				"--listen", address(ControlPlane, apiPort),
				"--admin", address(ControlPlane, adminPort),
				"--credentials", "{{dir}}/" + credentialsFile,
			},
			Ports:    []string{apiPort, adminPort},
			ReadyURL: "http://" + address(ControlPlane, adminPort) + "/ready",
			MayPark:  true,
		}},
		Namespaces: []meshbench.Namespace{{Name: ControlPlane, Processes: []string{ControlPlane}}},
		Entry:      meshbench.PortRef{Process: ClientProxy, Port: toPort(r.Services[0].Name)},
		// What clients would write into the request.
		Host: strings.TrimSuffix(authorityOf(r.Services[0].Name), ":80"),
	}
	for _, p := range proxies(r) {
		spec.Processes = append(spec.Processes, p.render(r, version))
		spec.Namespaces = append(spec.Namespaces, p.namespace())
		if p.service == mesh.Client {
			continue
		}
		for _, to := range p.calls {
			spec.Routes = append(spec.Routes, meshbench.Route{
				From: p.service, To: to, Instance: p.instance, At: meshbench.PortRef{Process: p.process, Port: toPort(to)},
				Host: strings.TrimSuffix(authorityOf(to), ":80"),
			})
		}
	}
	return spec, nil
}

func (p proxy) render(r mesh.Request, version string) meshbench.Process {
	out := meshbench.Process{
		Name: p.process, Role: meshbench.ServerProxy, Service: p.service, Instance: p.instance,
		Runtime: Runtime + "@" + version,
		Env: []string{
			"LINKERD2_PROXY_LOG=warn",
			"LINKERD2_PROXY_LOG_FORMAT=plain",
			"LINKERD2_PROXY_IDENTITY_DIR={{dir}}/" + identityDir,
			"LINKERD2_PROXY_IDENTITY_TOKEN_FILE={{dir}}/" + tokenFile,
			"LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS={{content `" + anchorsFile + "`}}",
			"LINKERD2_PROXY_IDENTITY_LOCAL_NAME=" + identityOf(p.service),
			"LINKERD2_PROXY_POLICY_WORKLOAD=" + p.process,
			"LINKERD2_PROXY_DESTINATION_CONTEXT=" + p.process,
			"LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS=" + networks,
			"LINKERD2_PROXY_INBOUND_DEFAULT_POLICY=deny",
			"LINKERD2_PROXY_INBOUND_LISTEN_ADDR=0.0.0.0:" + port(p.process, inboundPort),
			// Not on loopback alone: what comes from outside for a service's
			// address is redirected here, too.
			"LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR=0.0.0.0:" + port(p.process, outboundPort),
			"LINKERD2_PROXY_ADMIN_LISTEN_ADDR=" + address(p.process, adminPort),
			"LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD=1s",
		},
		Ports:    []string{inboundPort, outboundPort, adminPort},
		ReadyURL: "http://" + address(p.process, adminPort) + "/ready",
		MayPark:  true,
	}
	for _, name := range []string{"DESTINATION", "IDENTITY", "POLICY"} {
		out.Env = append(out.Env,
			"LINKERD2_PROXY_"+name+"_SVC_ADDR="+address(ControlPlane, apiPort),
			"LINKERD2_PROXY_"+name+"_SVC_NAME="+ownIdentity)
	}
	if p.service == mesh.Client {
		out.Role, out.Service = meshbench.ClientProxy, ""
	} else {
		// Else the first connection is judged by the default policy.
		out.Env = append(out.Env, "LINKERD2_PROXY_INBOUND_PORTS="+port(p.app.Process, p.app.Port))
	}
	if r.Profile == meshbench.Parity {
		out.Env = append(out.Env, "LINKERD2_PROXY_CORES="+strconv.Itoa(r.Threads))
	}
	for _, to := range p.calls {
		out.Ports = append(out.Ports, toPort(to))
	}
	return out
}

func (p proxy) namespace() meshbench.Namespace {
	n := meshbench.Namespace{
		Name: strings.TrimSuffix(p.process, "-proxy"), Processes: []string{p.process},
		Redirect: &meshbench.Redirect{
			Proxy: p.process, Inbound: inboundPort, Outbound: outboundPort,
			Direct: []meshbench.PortRef{{Process: p.process, Port: adminPort}},
		},
	}
	if p.app != (meshbench.PortRef{}) {
		n.Processes = append(n.Processes, p.app.Process)
	}
	for _, to := range p.calls {
		n.Redirect.Services = append(n.Redirect.Services, toPort(to))
	}
	return n
}

// address and port are texts of a Spec.
func address(process, port string) string {
	return fmt.Sprintf("{{address `%s` `%s`}}", process, port)
}

func port(process, port string) string { return fmt.Sprintf("{{port `%s` `%s`}}", process, port) }
