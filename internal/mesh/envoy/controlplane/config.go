// Package controlplane is the control plane of the Envoy driver: an ADS
// server (Envoy's aggregated discovery service, xDS protocol version 3, state
// of the world) that runs as a process of its own, and the small HTTP
// protocol by which the driver tells it what the proxies shall do.
//
// The driver PUTs a Config, which names every listener, route, cluster and
// certificate of every proxy; the control plane turns it into xDS resources
// of one version and keeps account of which proxy has accepted which.
package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// Config is what all proxies of a deployment shall do.
type Config struct {
	Nodes []Node `json:"nodes"`
}

// Node returns the configuration of a proxy, to be changed in place, or nil.
func (c *Config) Node(id string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].ID == id {
			return &c.Nodes[i]
		}
	}
	return nil
}

// Node is what one proxy shall do.
type Node struct {
	ID        string        `json:"id"`                 // as in its bootstrap: "client-proxy"
	Identity  *pki.Identity `json:"identity,omitempty"` // who it is; needed where anything has TLS
	Trust     string        `json:"trust,omitempty"`    // PEM: the authorities whose certificates it accepts
	Listeners []Listener    `json:"listeners"`
	Clusters  []Cluster     `json:"clusters"`
}

// Listener is a port on which a proxy takes HTTP requests.
type Listener struct {
	Name    string `json:"name"`          // also the prefix of its statistics
	Address string `json:"address"`       // host:port
	TLS     *TLS   `json:"tls,omitempty"` // nil: plain text; else a client certificate is required
	// Permissive lets plain text in beside TLS.
	Permissive bool `json:"permissive,omitempty"`
	// Inbound listeners stand before an application: their routes can have
	// authorizations and a rate limit. Those of others can have faults.
	Inbound   bool    `json:"inbound,omitempty"`
	AccessLog bool    `json:"access_log,omitempty"` // a line per request on standard output
	Routes    []Route `json:"routes"`               // the first that matches wins
}

// TLS is mutual TLS at one end of a connection.
type TLS struct {
	Peers   []string `json:"peers"`             // SPIFFE names of which the other end must prove one
	Version string   `json:"version,omitempty"` // "1.2" or "1.3" and no other; empty: Envoy's own range
	Groups  []string `json:"groups,omitempty"`  // for key exchange, "X25519"; empty: Envoy's own list
	ALPN    []string `json:"alpn,omitempty"`    // protocols that are offered, "h2"; empty: Envoy's own
}

// Route says what becomes of requests that fit: they go to a cluster, to one
// of several, or Direct answers them.
type Route struct {
	Prefix  string            `json:"prefix"`            // of the path, by whole elements: /a fits /a and /a/b
	Method  string            `json:"method,omitempty"`  // empty: every method
	Headers map[string]string `json:"headers,omitempty"` // name -> its exact value

	Cluster  string             `json:"cluster,omitempty"`
	Backends []Backend          `json:"backends,omitempty"` // in place of Cluster
	Direct   *Direct            `json:"direct,omitempty"`
	Timeout  meshbench.Duration `json:"timeout,omitempty"` // for the whole answer; 0: Envoy's own, 15 s

	Retry    *meshbench.RetryPolicy  `json:"retry,omitempty"` // nil: Envoy does not retry
	Mirror   *Mirror                 `json:"mirror,omitempty"`
	Request  *meshbench.HeaderChange `json:"request,omitempty"`
	Response *meshbench.HeaderChange `json:"response,omitempty"`
	Fault    *meshbench.FaultPolicy  `json:"fault,omitempty"` // not on inbound listeners

	// On inbound listeners alone. From has SPIFFE names.
	Authorizations []meshbench.Authorization  `json:"authorizations,omitempty"`
	RateLimit      *meshbench.RateLimitPolicy `json:"rate_limit,omitempty"`
}

// Backend is a cluster with its share of the requests.
type Backend struct {
	Cluster string `json:"cluster"`
	Weight  int    `json:"weight"` // of the sum of all
}

// Mirror is where copies of requests go.
type Mirror struct {
	Cluster string  `json:"cluster"`
	Percent float64 `json:"percent"` // of the requests
}

// Direct is an answer that the proxy gives itself.
type Direct struct {
	Status int    `json:"status"`
	Body   string `json:"body,omitempty"`
}

// Cluster is where requests can be sent.
type Cluster struct {
	Name      string   `json:"name"`
	Endpoints []string `json:"endpoints"`       // host:port
	TLS       *TLS     `json:"tls,omitempty"`   // nil: plain text
	HTTP2     bool     `json:"http2,omitempty"` // else HTTP/1.1
	Limit     uint32   `json:"limit,omitempty"` // connections, pending and active requests; 0: Envoy's own, 1024
	// Breaker has limits of its own; its zeros, as policies have them, bound
	// nothing.
	Breaker *meshbench.CircuitBreaker `json:"breaker,omitempty"`
	// Retries lifts Envoy's own limit of 3 retries at the same time.
	Retries bool                        `json:"retries,omitempty"`
	Outlier *meshbench.OutlierDetection `json:"outlier,omitempty"`
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

// Validate finds what is wrong before a proxy does, in the words of this
// package. The error has the code Invalid.
func (c Config) Validate() error {
	if len(c.Nodes) == 0 {
		return meshbench.Errorf(meshbench.Invalid, "the configuration names no proxy")
	}
	ids := map[string]bool{}
	for _, n := range c.Nodes {
		if n.ID == "" || ids[n.ID] {
			return meshbench.Errorf(meshbench.Invalid, "the proxy id %q is empty or not unique", n.ID)
		}
		ids[n.ID] = true
		if err := n.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (n Node) validate() error {
	invalid := func(format string, args ...any) error {
		return meshbench.Errorf(meshbench.Invalid, "proxy %s: "+format, append([]any{n.ID}, args...)...)
	}
	clusters, listeners := map[string]bool{}, map[string]bool{}
	secured := false
	for _, c := range n.Clusters {
		if c.Name == "" || clusters[c.Name] {
			return invalid("the cluster name %q is empty or not unique", c.Name)
		}
		clusters[c.Name] = true
		if len(c.Endpoints) == 0 {
			return invalid("cluster %s has no endpoint", c.Name)
		}
		for _, e := range c.Endpoints {
			if _, _, err := splitAddress(e); err != nil {
				return invalid("cluster %s: %v", c.Name, err)
			}
		}
		if err := c.TLS.validate(); err != nil {
			return invalid("cluster %s: %v", c.Name, err)
		}
		secured = secured || c.TLS != nil
	}
	for _, l := range n.Listeners {
		if l.Name == "" || strings.Contains(l.Name, ".") || listeners[l.Name] {
			return invalid("the listener name %q is empty, not unique or has a dot", l.Name)
		}
		listeners[l.Name] = true
		if _, _, err := splitAddress(l.Address); err != nil {
			return invalid("listener %s: %v", l.Name, err)
		}
		if err := l.TLS.validate(); err != nil {
			return invalid("listener %s: %v", l.Name, err)
		}
		if l.Permissive && l.TLS == nil {
			return invalid("listener %s lets plain text in beside TLS, which it does not have", l.Name)
		}
		secured = secured || l.TLS != nil
		for _, r := range l.Routes {
			if why := r.wrong(l.Inbound, clusters); why != "" {
				return invalid("listener %s: %s", l.Name, why)
			}
		}
	}
	if secured && (n.Identity == nil || n.Identity.Certificate == "" || n.Identity.Key == "" || n.Trust == "") {
		return invalid("TLS needs a certificate, its key and a bundle to trust")
	}
	return nil
}

// wrong says why a route makes no sense; empty: it does.
func (r Route) wrong(inbound bool, clusters map[string]bool) string {
	targets := 0
	for _, set := range []bool{r.Cluster != "", len(r.Backends) > 0, r.Direct != nil} {
		if set {
			targets++
		}
	}
	names := []string{r.Cluster}
	sum := uint64(0)
	for _, b := range r.Backends {
		if b.Weight < 0 || b.Weight > maxWeight {
			return fmt.Sprintf("route %s has a backend with weight %d", r.Prefix, b.Weight)
		}
		sum += uint64(b.Weight)
		names = append(names, b.Cluster)
	}
	if r.Mirror != nil {
		names = append(names, r.Mirror.Cluster)
	}
	switch {
	case !strings.HasPrefix(r.Prefix, "/") || strings.ContainsAny(r.Prefix, "?#"):
		return fmt.Sprintf("the route prefix %q does not begin with /, or has more than a path", r.Prefix)
	case targets != 1:
		return fmt.Sprintf("route %s needs either a cluster, backends or a direct answer", r.Prefix)
	case r.Direct != nil && (r.Direct.Status < 200 || r.Direct.Status > 599):
		return fmt.Sprintf("route %s answers with status %d", r.Prefix, r.Direct.Status)
	case len(r.Backends) > 0 && (sum == 0 || sum > maxWeight):
		return fmt.Sprintf("route %s has weights with the sum %d", r.Prefix, sum)
	case inbound && r.Fault != nil:
		return fmt.Sprintf("route %s has a fault, which an inbound listener cannot have", r.Prefix)
	case !inbound && (len(r.Authorizations) > 0 || r.RateLimit != nil):
		return fmt.Sprintf("route %s has an authorization or a rate limit, which only an inbound listener can have", r.Prefix)
	}
	for i, n := range names {
		if (i > 0 || n != "") && !clusters[n] {
			return fmt.Sprintf("route %s goes to cluster %q, which does not exist", r.Prefix, n)
		}
	}
	return ""
}

// maxWeight bounds the sum of the weights of a route.
const maxWeight = 1 << 31

func (t *TLS) validate() error {
	if t == nil {
		return nil
	}
	if len(t.Peers) == 0 || slices.Contains(t.Peers, "") {
		return meshbench.Errorf(meshbench.Invalid, "TLS without the name of a peer would let everybody in")
	}
	if t.Version != "" && versions[t.Version] == 0 {
		return meshbench.Errorf(meshbench.Invalid, "TLS version %q is neither 1.2 nor 1.3", t.Version)
	}
	return nil
}

func splitAddress(text string) (host string, port uint32, err error) {
	host, word, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil || n == 0 || net.ParseIP(host) == nil {
		return "", 0, meshbench.Errorf(meshbench.Invalid, "%q is not an IP address with a port", text)
	}
	return host, uint32(n), nil
}
