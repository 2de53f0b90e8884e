//go:build ignore

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/alibaba/sentinel-golang/core/flow"
	v2 "mosn.io/mosn/pkg/config/v2"
	"mosn.io/mosn/pkg/filter/stream/flowcontrol"
	"mosn.io/mosn/pkg/router"
	"mosn.io/mosn/pkg/server"
	"mosn.io/mosn/pkg/upstream/cluster"
)

// configurationPath takes the whole configuration of the proxy, by PUT.
const configurationPath = "/meshbench/configuration"

// maxConfiguration bounds what is read of it, in bytes.
const maxConfiguration = 16 << 20

// document is what is PUT: the parts in MOSN's own words.
type document struct {
	Clusters  []json.RawMessage `json:"clusters"`
	Routers   []json.RawMessage `json:"routers"`
	Listeners []json.RawMessage `json:"listeners"`
}

// applied is what is in force: by kind and name, the text that it came from.
// A part that did not change is left alone, so that connections live on.
var applied = struct {
	sync.Mutex
	clusters, routers, listeners map[string][]byte
}{clusters: map[string][]byte{}, routers: map[string][]byte{}, listeners: map[string][]byte{}}

// takeConfiguration answers 200 when all of the document is in force: the
// listeners are bound then. With any other status the body says why.
func takeConfiguration(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		http.Error(w, "PUT a configuration", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxConfiguration))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	applied.Lock()
	defer applied.Unlock()
	if err := d.apply(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// apply makes what is named before what names it, and removes in the other
// order.
func (d document) apply() error {
	clusters, err := changes(d.Clusters, applied.clusters, func(c v2.Cluster) string { return c.Name })
	if err != nil {
		return err
	}
	routers, err := changes(d.Routers, applied.routers, func(c v2.RouterConfiguration) string { return c.RouterConfigName })
	if err != nil {
		return err
	}
	listeners, err := changes(d.Listeners, applied.listeners, func(l v2.Listener) string { return l.Name })
	if err != nil {
		return err
	}
	for _, c := range clusters.set {
		if err := cluster.GetClusterMngAdapterInstance().TriggerClusterAndHostsAddOrUpdate(c.value, c.value.Hosts); err != nil {
			return fmt.Errorf("cluster %s: %w", c.name, err)
		}
		applied.clusters[c.name] = c.text
	}
	for _, c := range routers.set {
		if err := router.GetRoutersMangerInstance().AddOrUpdateRouters(&c.value); err != nil {
			return fmt.Errorf("router %s: %w", c.name, err)
		}
		applied.routers[c.name] = c.text
	}
	for _, name := range listeners.gone {
		if err := server.GetListenerAdapterInstance().DeleteListener("", name); err != nil {
			return fmt.Errorf("listener %s: %w", name, err)
		}
		delete(applied.listeners, name)
	}
	for _, l := range listeners.set {
		if err := listen(l.value, applied.listeners[l.name] == nil); err != nil {
			return fmt.Errorf("listener %s: %w", l.name, err)
		}
		applied.listeners[l.name] = l.text
	}
	if !d.limits() {
		// Else a limit that comes again would remember what passed before.
		if err := flow.ClearRules(); err != nil {
			return err
		}
	}
	if len(clusters.gone) > 0 {
		if err := cluster.GetClusterMngAdapterInstance().TriggerClusterDel(clusters.gone...); err != nil {
			return err
		}
		for _, name := range clusters.gone {
			delete(applied.clusters, name)
		}
	}
	return nil
}

// limits tells whether a listener has a rate limit.
func (d document) limits() bool {
	return slices.ContainsFunc(d.Listeners, func(text json.RawMessage) bool {
		return bytes.Contains(text, []byte(flowcontrol.FlowControlFilterName))
	})
}

// listen adds or changes a listener. A new one is bound here, and handed over
// as MOSN hands sockets over in an upgrade, so that a port that is taken is an
// error of this call and connections are taken from now on.
func listen(l v2.Listener, fresh bool) error {
	address, err := net.ResolveTCPAddr("tcp", l.AddrConfig)
	if err != nil {
		return err
	}
	l.Addr = address
	if fresh {
		socket, err := net.ListenTCP("tcp", address)
		if err != nil {
			return err
		}
		l.InheritListener = socket
	}
	return server.GetListenerAdapterInstance().AddOrUpdateListener("", &l)
}

// change is one part that is new or different.
type change[T any] struct {
	name  string
	text  []byte
	value T
}

// difference is what must be done to get from what is in force to a document.
type difference[T any] struct {
	set  []change[T]
	gone []string
}

// changes reads all parts of one kind before any is applied, so that a
// document which cannot be read changes nothing.
func changes[T any](parts []json.RawMessage, have map[string][]byte, name func(T) string) (difference[T], error) {
	var out difference[T]
	var names []string
	for _, text := range parts {
		c := change[T]{text: text}
		if err := json.Unmarshal(text, &c.value); err != nil {
			return out, err
		}
		c.name = name(c.value)
		if c.name == "" || slices.Contains(names, c.name) {
			return out, fmt.Errorf("%q is no name, or is there twice", c.name)
		}
		names = append(names, c.name)
		if !bytes.Equal(have[c.name], text) {
			out.set = append(out.set, c)
		}
	}
	for n := range have {
		if !slices.Contains(names, n) {
			out.gone = append(out.gone, n)
		}
	}
	return out, nil
}
