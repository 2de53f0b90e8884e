//go:build ignore

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"runtime"
	"sync"

	"mosn.io/api"
	"mosn.io/mosn/pkg/mtls"
	"mosn.io/pkg/buffer"
)

// observedPath shows what the network filter has seen.
const observedPath = "/meshbench/observed"

// filterName is how a listener's filter chain names the filter. Its
// configuration has one member, "listener": the name to count under.
const filterName = "meshbench_connections"

func init() { api.RegisterNetwork(filterName, newConnectionsFactory) }

// seen counts the connections of a listener that brought data.
type seen struct {
	Plain     uint64            `json:"plain"`
	TLS       uint64            `json:"tls"`    // whose handshake was completed
	Mutual    uint64            `json:"mutual"` // of them, those with a certificate of the other side
	Versions  map[string]uint64 `json:"versions"`
	Ciphers   map[string]uint64 `json:"ciphers"`
	Protocols map[string]uint64 `json:"protocols"`
}

var listeners = struct {
	sync.Mutex
	seen map[string]*seen
}{seen: map[string]*seen{}}

func showObserved(w http.ResponseWriter, _ *http.Request) {
	listeners.Lock()
	defer listeners.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"threads": runtime.GOMAXPROCS(0), "listeners": listeners.seen})
}

type connectionsFactory struct{ listener string }

func newConnectionsFactory(config map[string]interface{}) (api.NetworkFilterChainFactory, error) {
	name, _ := config["listener"].(string)
	return connectionsFactory{name}, nil
}

// CreateFilterChain gives each connection a filter of its own.
func (f connectionsFactory) CreateFilterChain(_ context.Context, callbacks api.NetWorkFilterChainFactoryCallbacks) {
	callbacks.AddReadFilter(&connection{listener: f.listener})
}

// connection is looked at when its first data arrive: a handshake is done
// then, or there was none.
type connection struct {
	listener  string
	callbacks api.ReadFilterCallbacks
	counted   bool
}

// OnData counts once and lets everything pass.
func (c *connection) OnData(data buffer.IoBuffer) api.FilterStatus {
	if !c.counted {
		c.counted = true
		c.count(bytes.HasPrefix(data.Bytes(), []byte("PRI * HTTP/2")))
	}
	return api.Continue
}

// OnNewConnection lets it pass.
func (c *connection) OnNewConnection() api.FilterStatus { return api.Continue }

// InitializeReadFilterCallbacks keeps the way to the connection.
func (c *connection) InitializeReadFilterCallbacks(callbacks api.ReadFilterCallbacks) {
	c.callbacks = callbacks
}

func (c *connection) count(http2 bool) {
	listeners.Lock()
	defer listeners.Unlock()
	s := listeners.seen[c.listener]
	if s == nil {
		s = &seen{Versions: map[string]uint64{}, Ciphers: map[string]uint64{}, Protocols: map[string]uint64{}}
		listeners.seen[c.listener] = s
	}
	if http2 {
		s.Protocols["HTTP/2"]++
	} else {
		s.Protocols["HTTP/1.1"]++
	}
	secured, ok := c.callbacks.Connection().RawConn().(*mtls.TLSConn)
	if !ok {
		s.Plain++
		return
	}
	state := secured.ConnectionState()
	s.TLS++
	if len(state.PeerCertificates) > 0 {
		s.Mutual++
	}
	s.Versions[tls.VersionName(state.Version)]++
	s.Ciphers[tls.CipherSuiteName(state.CipherSuite)]++
}
