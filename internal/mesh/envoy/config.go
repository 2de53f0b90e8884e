package envoy

import (
	"slices"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
	"github.com/meshbench/meshbench/internal/pki"
)

// workloads are the SPIFFE names of everybody in a deployment. They are let in
// by each other's proxies; whom of them a service answers, authorizations say.
func workloads(r mesh.Request) []string {
	out := []string{pki.ServiceAccount(mesh.Client)}
	for _, s := range r.Services {
		out = append(out, pki.ServiceAccount(s.Name))
	}
	return out
}

// writer puts a request into the words of the control plane.
type writer struct {
	mesh.Request
	policies map[string]mesh.ServicePolicy // by service
	address  func(process, port string) (string, error)
}

// configOf is what the proxies of a deployment shall do. address says where
// their ports are.
func configOf(r mesh.Request, address func(process, port string) (string, error), c credentials) (controlplane.Config, error) {
	combined, err := mesh.Combine(r)
	if err != nil {
		return controlplane.Config{}, err
	}
	w := writer{Request: r, policies: map[string]mesh.ServicePolicy{}, address: address}
	for _, p := range combined {
		w.policies[p.Service] = p
	}
	var out controlplane.Config
	for _, p := range proxies(r) {
		who := mesh.Client
		if p.service != "" {
			who = p.service
		}
		identity := c.Identities[pki.ServiceAccount(who)]
		node := controlplane.Node{ID: p.name, Identity: &identity, Trust: c.Bundle}
		if p.service != "" {
			if err := w.serve(&node, p); err != nil {
				return controlplane.Config{}, err
			}
		}
		if err := w.call(&node, p); err != nil {
			return controlplane.Config{}, err
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out, nil
}

// mode is how a service's proxies are reached.
func (w writer) mode(service string) meshbench.MTLSMode {
	if m := w.policies[service].MTLS; m != "" {
		return m
	}
	return meshbench.MTLSMode(option(w.Subject, "mtls"))
}

// serve gives a server's proxy its inbound listener and the application
// behind it.
func (w writer) serve(n *controlplane.Node, p proxy) error {
	at, err := w.address(p.name, inbound)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(w.Services, func(s meshbench.Service) bool { return s.Name == p.service })
	application := w.Services[i].Instances[p.instance]
	behind, err := w.address(application.Process, application.Port)
	if err != nil {
		return err
	}
	policy := w.policies[p.service]
	route := controlplane.Route{
		Prefix: "/", Cluster: appCluster, Timeout: w.timeout(0),
		Authorizations: w.authorizations(policy), RateLimit: policy.RateLimit,
	}
	for _, rule := range policy.Rules {
		// The client's proxy bounds the time; this one must not be before it.
		if longest := max(route.Timeout, envoyTimeout); rule.Timeout > longest {
			route.Timeout = rule.Timeout
		}
	}
	l := controlplane.Listener{
		Name: inbound, Address: at, Inbound: true, AccessLog: w.accessLog(),
		Permissive: w.mode(p.service) == meshbench.MTLSPermissive,
		Routes:     []controlplane.Route{route},
	}
	if w.mode(p.service) != meshbench.MTLSOff {
		l.TLS = w.tls(workloads(w.Request)...)
	}
	n.Listeners = append(n.Listeners, l)
	n.Clusters = append(n.Clusters, controlplane.Cluster{Name: appCluster, Endpoints: []string{behind}, Limit: w.limit()})
	return nil
}

// authorizations are those of the policies, names made identities, and the
// rule of the option rbac where no policy says who is allowed.
func (w writer) authorizations(p mesh.ServicePolicy) []meshbench.Authorization {
	var out []meshbench.Authorization
	allowed := false
	for _, a := range p.Authorizations {
		from := make([]string, len(a.From))
		for i, name := range a.From {
			from[i] = pki.ServiceAccount(name)
		}
		a.From = from
		out = append(out, a)
		allowed = allowed || a.Action == meshbench.Allow
	}
	if option(w.Subject, "rbac") == "on" && !allowed {
		out = append(out, meshbench.Authorization{Action: meshbench.Allow, From: workloads(w.Request)})
	}
	return out
}

// call gives a proxy its outbound listeners. It knows every service, since
// each may be a backend of a split or a mirror: a policy that begins to use
// one finds its cluster ready, and one that ends leaves no route without one.
func (w writer) call(n *controlplane.Node, p proxy) error {
	if len(p.calls) == 0 {
		return nil
	}
	for _, to := range p.calls {
		at, err := w.address(p.name, Outbound(to))
		if err != nil {
			return err
		}
		l := controlplane.Listener{Name: Outbound(to), Address: at, AccessLog: w.accessLog()}
		for _, rule := range w.policies[to].Rules {
			l.Routes = append(l.Routes, w.route(rule))
		}
		n.Listeners = append(n.Listeners, l)
	}
	retries := false
	for _, to := range p.calls {
		for _, rule := range w.policies[to].Rules {
			retries = retries || rule.Retry != nil
		}
	}
	for _, s := range w.Services {
		c := controlplane.Cluster{
			Name: Outbound(s.Name), Limit: w.limit(), HTTP2: option(w.Subject, "upstream") == "http2",
			Breaker: w.policies[s.Name].CircuitBreaker, Outlier: w.policies[s.Name].OutlierDetection, Retries: retries,
		}
		for i := range s.Instances {
			at, err := w.address(ServerProxy(s.Name, i), inbound)
			if err != nil {
				return err
			}
			c.Endpoints = append(c.Endpoints, at)
		}
		if w.mode(s.Name) != meshbench.MTLSOff {
			c.TLS = w.tls(pki.ServiceAccount(s.Name))
		}
		n.Clusters = append(n.Clusters, c)
	}
	return nil
}

// route is a rule of an outbound listener.
func (w writer) route(rule mesh.Rule) controlplane.Route {
	out := controlplane.Route{
		Prefix: "/", Timeout: w.timeout(rule.Timeout), Retry: rule.Retry, Fault: rule.Fault,
		Request: rule.Request, Response: rule.Response,
	}
	if m := rule.Match; m != nil {
		out.Method, out.Headers = m.Method, m.Headers
		if m.PathPrefix != "" {
			out.Prefix = m.PathPrefix
		}
	}
	if len(rule.Backends) == 1 {
		out.Cluster = Outbound(rule.Backends[0].Service)
	} else {
		for _, b := range rule.Backends {
			out.Backends = append(out.Backends, controlplane.Backend{Cluster: Outbound(b.Service), Weight: b.Weight})
		}
	}
	if rule.Mirror != nil {
		out.Mirror = &controlplane.Mirror{Cluster: Outbound(rule.Mirror.Service), Percent: rule.Mirror.Percent}
	}
	return out
}

// envoyTimeout is what Envoy waits for an answer by itself.
const envoyTimeout = meshbench.Duration(15 * time.Second)

// timeout is that of a policy, or else the profile's.
func (w writer) timeout(policy meshbench.Duration) meshbench.Duration {
	if policy == 0 && w.Profile == meshbench.Parity {
		return meshbench.Duration(parityTimeout)
	}
	return policy
}

func (w writer) tls(peers ...string) *controlplane.TLS {
	t := &controlplane.TLS{Peers: peers}
	if w.Profile == meshbench.Parity {
		t.Version, t.Groups = parityTLS, []string{parityGroup}
	}
	if option(w.Subject, "upstream") == "http2" {
		t.ALPN = []string{"h2"}
	}
	return t
}

func (w writer) limit() uint32 {
	if w.Profile == meshbench.Parity {
		return parityLimit
	}
	return 0
}

func (w writer) accessLog() bool { return option(w.Subject, "access_log") == "on" }
