package controlplane

import (
	"maps"
	"slices"
	"strings"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Outcome is what has become of a version.
type Outcome string

// The outcomes.
const (
	Pending  Outcome = "pending"  // some proxy has not answered
	Accepted Outcome = "accepted" // every proxy has accepted all of it
	Rejected Outcome = "rejected" // some proxy refused a part of it
	Replaced Outcome = "replaced" // it is not, or no longer, the version to have
)

// Account is which proxy has accepted what: the answer to GET /acks.
type Account struct {
	Version string                 `json:"version"` // that all should have; empty before the first
	Outcome Outcome                `json:"outcome"` // of the version asked about, else of Version
	Nodes   map[string]NodeAccount `json:"nodes"`
}

// NodeAccount is the state of one proxy.
type NodeAccount struct {
	Connected bool                   `json:"connected"` // its stream is open
	Types     map[string]TypeAccount `json:"types"`     // listeners, routes, clusters, endpoints, secrets
}

// TypeAccount is the state of one type of resources at one proxy.
type TypeAccount struct {
	Accepted string     `json:"accepted"`           // the last version it took
	Rejected *Rejection `json:"rejected,omitempty"` // the version that it refused since then
}

// Rejection is a NACK in the proxy's own words.
type Rejection struct {
	Version string `json:"version"`
	Message string `json:"message"`
}

// typeWords are the types that this control plane serves.
var typeWords = map[string]string{
	resource.ListenerType: "listeners",
	resource.RouteType:    "routes",
	resource.ClusterType:  "clusters",
	resource.EndpointType: "endpoints",
	resource.SecretType:   "secrets",
}

// ledger keeps account of what was sent to and answered by each proxy.
type ledger struct {
	mu      sync.Mutex
	version string
	wanted  map[string][]string // node -> the types of which it gets resources
	nodes   map[string]*nodeEntry
	changed chan struct{} // closed at the next change
}

type nodeEntry struct {
	stream int64
	types  map[string]*typeEntry // by type URL
}

type typeEntry struct {
	accepted    string
	rejected    *Rejection
	sent, nonce string // of the last response
}

func newLedger() *ledger {
	return &ledger{wanted: map[string][]string{}, nodes: map[string]*nodeEntry{}, changed: make(chan struct{})}
}

// want notes the version that all nodes should have. Earlier refusals are
// forgotten: the same version may be tried again.
func (l *ledger) want(version string, wanted map[string][]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version, l.wanted = version, wanted
	for _, n := range l.nodes {
		for _, t := range n.types {
			t.rejected = nil
		}
	}
	l.wake()
}

// request notes what a proxy asks for. The xDS protocol has one message for
// subscribing, accepting (version_info is the version of the response) and
// refusing (error_detail is set, version_info is the last good version).
func (l *ledger) request(stream int64, r *discovery.DiscoveryRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := r.GetNode().GetId()
	n := l.nodes[id]
	if n == nil || n.stream < stream {
		n = &nodeEntry{stream: stream, types: map[string]*typeEntry{}}
		l.nodes[id] = n
	} else if n.stream > stream {
		return // the proxy has a newer stream; this is the end of the old one
	}
	t := n.types[r.GetTypeUrl()]
	if t == nil {
		t = &typeEntry{}
		n.types[r.GetTypeUrl()] = t
	}
	if r.GetResponseNonce() != t.nonce {
		return // answers a response that has been followed by another
	}
	t.accepted = r.GetVersionInfo()
	if r.GetErrorDetail() != nil {
		t.rejected = &Rejection{Version: t.sent, Message: strings.TrimSpace(r.GetErrorDetail().GetMessage())}
	} else if t.accepted == t.sent {
		t.rejected = nil
	}
	l.wake()
}

// response notes what is sent to a proxy.
func (l *ledger) response(stream int64, r *discovery.DiscoveryRequest, sent *discovery.DiscoveryResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[r.GetNode().GetId()]
	if n == nil || n.stream != stream {
		return
	}
	if t := n.types[sent.GetTypeUrl()]; t != nil {
		t.sent, t.nonce = sent.GetVersionInfo(), sent.GetNonce()
	}
}

// closed forgets a proxy whose stream has ended.
func (l *ledger) closed(stream int64, node *core.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.nodes[node.GetId()]; n != nil && n.stream == stream {
		delete(l.nodes, node.GetId())
		l.wake()
	}
}

// refused returns the version of a type that a proxy refused last, or "".
func (l *ledger) refused(node, typeURL string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.nodes[node]; n != nil {
		if t := n.types[typeURL]; t != nil && t.rejected != nil {
			return t.rejected.Version
		}
	}
	return ""
}

// account returns the state, the outcome of a version ("" is the current
// one), and a channel that is closed when anything changes.
func (l *ledger) account(version string) (Account, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Account{Version: l.version, Outcome: l.outcome(version), Nodes: map[string]NodeAccount{}}
	for _, id := range slices.Sorted(maps.Keys(l.wanted)) {
		out.Nodes[id] = NodeAccount{Types: map[string]TypeAccount{}}
	}
	for id, n := range l.nodes {
		node := NodeAccount{Connected: true, Types: map[string]TypeAccount{}}
		for url, t := range n.types {
			word, ok := typeWords[url]
			if !ok {
				word = url
			}
			node.Types[word] = TypeAccount{Accepted: t.accepted, Rejected: t.rejected}
		}
		out.Nodes[id] = node
	}
	return out, l.changed
}

func (l *ledger) outcome(version string) Outcome {
	if version == "" {
		version = l.version
	}
	if version != l.version {
		return Replaced
	}
	if version == "" {
		return Pending
	}
	outcome := Accepted
	for id, types := range l.wanted {
		n := l.nodes[id]
		for _, url := range types {
			switch {
			case n == nil || n.types[url] == nil:
				outcome = Pending
			case n.types[url].rejected != nil && n.types[url].rejected.Version == version:
				return Rejected
			case n.types[url].accepted != version:
				outcome = Pending
			}
		}
	}
	return outcome
}

// wake tells all who wait; l.mu is held.
func (l *ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}
