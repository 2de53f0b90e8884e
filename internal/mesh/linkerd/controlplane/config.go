// Package controlplane is a control plane for Linkerd's proxies: a server of
// Linkerd's own API (module github.com/linkerd/linkerd2-proxy-api:
// Destination, Identity, inbound and outbound policies) that runs as a process
// of its own, and the small HTTP protocol by which the driver tells it what
// the proxies shall do.
//
// The driver PUTs a Config. Every stream that a proxy holds open gets what
// changed for it. Linkerd's API has no word by which a proxy says that it has
// taken something, so what the control plane can tell is what it has sent.
package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// Config is what all proxies of a deployment shall do.
type Config struct {
	Workloads []Workload `json:"workloads"`
	Services  []Service  `json:"services"`
	// CertificateLife is how long the proxies' certificates are good for; 0:
	// as long as the authority.
	CertificateLife meshbench.Duration `json:"certificate_life,omitempty"`
}

// Workload is one proxy, and what it lets in.
type Workload struct {
	Name     string     `json:"name"`     // what it calls itself in questions about policies: "client-proxy"
	Identity string     `json:"identity"` // the DNS-like name that it may have a certificate for
	Token    pki.Secret `json:"token"`    // what it proves that with
	Servers  []Server   `json:"servers"`
}

// Server is a port whose connections a proxy takes in.
type Server struct {
	Name    string   `json:"name"` // also the label srv_name of its metrics
	Port    uint16   `json:"port"`
	Clients Clients  `json:"clients"`          // who is let in, where no access says otherwise
	Access  []Access `json:"access,omitempty"` // by request; what fits more narrowly wins
	// RateLimit is of all HTTP requests, per second; 0: none.
	RateLimit uint32 `json:"rate_limit,omitempty"`
}

// Clients says who is let in. The zero value is nobody.
type Clients struct {
	Unmeshed bool     `json:"unmeshed,omitempty"` // anybody, without TLS too
	Meshed   bool     `json:"meshed,omitempty"`   // anybody with an identity
	Names    []string `json:"names,omitempty"`    // these identities
}

// Access is who may send the requests that fit.
type Access struct {
	PathPrefix string  `json:"path_prefix"`      // "/": every path
	Method     string  `json:"method,omitempty"` // empty: every method
	Clients    Clients `json:"clients"`
}

// Service is where requests go.
type Service struct {
	Name      string     `json:"name"`      // host:port of its authority: "echo.default.svc.meshbench.local:80"
	Addresses []string   `json:"addresses"` // IP:port: connections to them are to this service
	Routes    []Route    `json:"routes"`    // of the routes that fit a request, the narrowest wins
	Endpoints []Endpoint `json:"endpoints"`
	Breaker   *Breaker   `json:"breaker,omitempty"`
}

// Route is what becomes of the requests that fit Match (nil: of all).
type Route struct {
	Match    *meshbench.Match   `json:"match,omitempty"`
	Backends []Backend          `json:"backends"` // at least one
	Timeout  meshbench.Duration `json:"timeout,omitempty"`
	Retry    *Retry             `json:"retry,omitempty"`
	Request  []HeaderChange     `json:"request,omitempty"`  // made one after the other
	Response []HeaderChange     `json:"response,omitempty"` // likewise
}

// Backend is a service with its share of the requests.
type Backend struct {
	Service string `json:"service"`
	Weight  uint32 `json:"weight"`
}

// Retry sends again what was answered with one of some statuses.
type Retry struct {
	Max           uint32             `json:"max"`
	Statuses      []StatusRange      `json:"statuses"`
	PerTryTimeout meshbench.Duration `json:"per_try_timeout,omitempty"`
}

// StatusRange is of HTTP statuses, both ends included.
type StatusRange struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// HeaderChange is made in this order: add, set, remove.
type HeaderChange struct {
	Add    map[string]string `json:"add,omitempty"`
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

// Endpoint is an instance of a service.
type Endpoint struct {
	Address string `json:"address"` // IP:port
	// Identity is the DNS-like name that its proxy proves; empty: it is spoken
	// to in plain text.
	Identity string `json:"identity,omitempty"`
	// HTTP2 tells that its proxy takes HTTP/1 requests inside of HTTP/2.
	HTTP2 bool `json:"http2,omitempty"`
}

// Breaker leaves an endpoint out that fails (Linkerd: consecutive failures).
type Breaker struct {
	Failures uint32             `json:"failures"`
	First    meshbench.Duration `json:"first"` // how long it stays out at first
	Longest  meshbench.Duration `json:"longest"`
}

// Version is a hash of everything in c: equal configurations have equal
// versions, in this process and the next.
func (c Config) Version() (string, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// Validate finds what is wrong before a proxy does. The error has the code
// Invalid.
func (c Config) Validate() error {
	if c.CertificateLife < 0 {
		return meshbench.Errorf(meshbench.Invalid, "certificates cannot be good for less than nothing")
	}
	names := map[string]bool{}
	for _, w := range c.Workloads {
		if w.Name == "" || names[w.Name] {
			return meshbench.Errorf(meshbench.Invalid, "the workload %q has no name or is there twice", w.Name)
		}
		names[w.Name] = true
		if err := w.validate(); err != nil {
			return err
		}
	}
	services, addresses := map[string]bool{}, map[string]bool{}
	for _, s := range c.Services {
		if s.Name == "" || services[s.Name] {
			return meshbench.Errorf(meshbench.Invalid, "the service %q has no name or is there twice", s.Name)
		}
		services[s.Name] = true
		for _, a := range s.Addresses {
			if addresses[a] {
				return meshbench.Errorf(meshbench.Invalid, "service %s: the address %s is another's, too", s.Name, a)
			}
			addresses[a] = true
		}
	}
	for _, s := range c.Services {
		if err := s.validate(services); err != nil {
			return err
		}
	}
	return nil
}

func (w Workload) validate() error {
	invalid := func(format string, args ...any) error {
		return meshbench.Errorf(meshbench.Invalid, "workload %s: "+format, append([]any{w.Name}, args...)...)
	}
	if w.Identity == "" || w.Token == "" {
		return invalid("it needs an identity and a token")
	}
	ports := map[uint16]bool{}
	for _, s := range w.Servers {
		if s.Name == "" || s.Port == 0 || ports[s.Port] {
			return invalid("server %q has no name, or its port %d is none or there twice", s.Name, s.Port)
		}
		ports[s.Port] = true
		for _, a := range s.Access {
			if !strings.HasPrefix(a.PathPrefix, "/") {
				return invalid("server %s: the path %q does not begin with a slash", s.Name, a.PathPrefix)
			}
		}
	}
	return nil
}

func (s Service) validate(services map[string]bool) error {
	invalid := func(format string, args ...any) error {
		return meshbench.Errorf(meshbench.Invalid, "service %s: "+format, append([]any{s.Name}, args...)...)
	}
	for _, a := range s.Addresses {
		if _, err := parseAddress(a); err != nil {
			return invalid("%v", err)
		}
	}
	for _, e := range s.Endpoints {
		if _, err := parseAddress(e.Address); err != nil {
			return invalid("%v", err)
		}
	}
	if len(s.Addresses) > 0 && len(s.Routes) == 0 {
		return invalid("it has addresses and no route")
	}
	for _, r := range s.Routes {
		if m := r.Match; m != nil && m.PathPrefix != "" && !strings.HasPrefix(m.PathPrefix, "/") {
			return invalid("the path %q does not begin with a slash", m.PathPrefix)
		}
		if r.Timeout < 0 {
			return invalid("a timeout is below 0")
		}
		sum := uint64(0)
		for _, b := range r.Backends {
			if !services[b.Service] {
				return invalid("its backend %q does not exist", b.Service)
			}
			sum += uint64(b.Weight)
		}
		if sum == 0 || sum > 1<<31 {
			return invalid("the weights of its backends make %d", sum)
		}
		if t := r.Retry; t != nil {
			if t.Max == 0 || len(t.Statuses) == 0 || t.PerTryTimeout < 0 {
				return invalid("a retry needs a number and statuses")
			}
			for _, x := range t.Statuses {
				if x.First < 100 || x.Last > 599 || x.First > x.Last {
					return invalid("%d to %d are no statuses", x.First, x.Last)
				}
			}
		}
	}
	if b := s.Breaker; b != nil && (b.Failures == 0 || b.First <= 0 || b.Longest < b.First) {
		return invalid("its breaker needs a number of failures, and times above 0, the longest last")
	}
	return nil
}

// parseAddress reads IPv4:port. (Linkerd's API has IPv6 as well; no
// deployment here does.)
func parseAddress(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil || !a.Addr().Is4() || a.Port() == 0 {
		return netip.AddrPort{}, meshbench.Errorf(meshbench.Invalid, "%q is no IPv4 address with a port", text)
	}
	return a, nil
}
