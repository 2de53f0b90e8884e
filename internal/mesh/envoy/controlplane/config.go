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
	Name    string  `json:"name"`          // also the prefix of its statistics
	Address string  `json:"address"`       // host:port
	TLS     *TLS    `json:"tls,omitempty"` // nil: plain text; else a client certificate is required
	Routes  []Route `json:"routes"`        // the first that matches wins
}

// TLS is mutual TLS at one end of a connection.
type TLS struct {
	Peers   []string `json:"peers"`             // SPIFFE names of which the other end must prove one
	Version string   `json:"version,omitempty"` // "1.2" or "1.3" and no other; empty: Envoy's own range
	Groups  []string `json:"groups,omitempty"`  // for key exchange, "X25519"; empty: Envoy's own list
}

// Route says what becomes of requests whose path begins with Prefix: they go
// to a cluster, or Direct answers them.
type Route struct {
	Prefix  string             `json:"prefix"`
	Cluster string             `json:"cluster,omitempty"`
	Direct  *Direct            `json:"direct,omitempty"`
	Timeout meshbench.Duration `json:"timeout,omitempty"` // for the whole answer; 0: Envoy's own, 15 s
	// ResponseHeaders are added to the answer.
	ResponseHeaders map[string]string `json:"response_headers,omitempty"`
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
	Limit     uint32   `json:"limit,omitempty"` // connections, pending and active requests; 0: Envoy's own, 1024
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
		secured = secured || l.TLS != nil
		for _, r := range l.Routes {
			switch {
			case !strings.HasPrefix(r.Prefix, "/"):
				return invalid("listener %s: the route prefix %q does not begin with /", l.Name, r.Prefix)
			case (r.Cluster == "") == (r.Direct == nil):
				return invalid("listener %s: route %s needs either a cluster or a direct answer", l.Name, r.Prefix)
			case r.Cluster != "" && !clusters[r.Cluster]:
				return invalid("listener %s: route %s goes to cluster %q, which does not exist", l.Name, r.Prefix, r.Cluster)
			case r.Direct != nil && (r.Direct.Status < 200 || r.Direct.Status > 599):
				return invalid("listener %s: route %s answers with status %d", l.Name, r.Prefix, r.Direct.Status)
			}
		}
	}
	if secured && (n.Identity == nil || n.Identity.Certificate == "" || n.Identity.Key == "" || n.Trust == "") {
		return invalid("TLS needs a certificate, its key and a bundle to trust")
	}
	return nil
}

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
