package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/meshbench/meshbench"
)

// Entry is a workload of the catalogue: a fixed set that results are compared
// on. What it says never changes; a change is a new version, a further entry.
type Entry struct {
	Workload meshbench.Workload // its Name is name@version
	Summary  string             // goes on after "NAME is "
}

// Catalogue returns all named workloads, the default first.
func Catalogue() []Entry {
	return []Entry{
		{named("echo@1", meshbench.Topology{Chain: 1}), "GET / with an empty body, answered by 1024 bytes"},
		{named("chain3@1", meshbench.Topology{Chain: 3}), "GET / through three services, each of which calls the next and answers 1024 bytes"},
		{named("shop@1", shop1()), "GET / to six services in the shape of a small shop, each with its own time and size"},
	}
}

// named is a workload in which all of the catalogue but the topology is.
func named(name string, t meshbench.Topology) meshbench.Workload {
	return meshbench.Workload{
		Name:       name,
		Protocol:   meshbench.HTTP1,
		Topology:   t,
		Request:    meshbench.Request{Method: "GET", Path: "/"},
		Response:   meshbench.Response{BodyBytes: 1024},
		Assertions: []meshbench.Assertion{},
	}
}

// shop1 is the shape of a small shop: one page asks the catalogue and the
// cart, which ask others. The times are chosen, not measured anywhere.
func shop1() meshbench.Topology {
	takes := func(law meshbench.ServiceTimeLaw, mean time.Duration) *meshbench.ServiceTime {
		return &meshbench.ServiceTime{Law: law, Mean: meshbench.Duration(mean)}
	}
	bytes := func(n int) *int { return &n }
	return meshbench.Topology{Services: []meshbench.ServiceNode{
		{Name: "front", Calls: []string{"catalogue", "cart"}, Latency: takes(meshbench.LognormalTime, time.Millisecond), BodyBytes: bytes(8192)},
		{Name: "catalogue", Calls: []string{"prices", "stock"}, Parallel: true, Latency: takes(meshbench.LognormalTime, 2*time.Millisecond), BodyBytes: bytes(4096)},
		{Name: "cart", Calls: []string{"prices", "payment"}, Latency: takes(meshbench.ExponentialTime, time.Millisecond), BodyBytes: bytes(1024)},
		{Name: "prices", Latency: takes(meshbench.ConstantTime, 500*time.Microsecond), BodyBytes: bytes(256)},
		{Name: "stock", Latency: takes(meshbench.LognormalTime, time.Millisecond), BodyBytes: bytes(512)},
		{Name: "payment", Latency: takes(meshbench.LognormalTime, 3*time.Millisecond), BodyBytes: bytes(512)},
	}}
}

// Find returns the entry of a name.
func Find(name string) (Entry, bool) {
	for _, e := range Catalogue() {
		if e.Workload.Name == name {
			return e, true
		}
	}
	return Entry{}, false
}

// NameOf returns the name of the catalogue's workload that w equals, whatever
// it is called; empty: none.
func NameOf(w meshbench.Workload) string {
	digest := Digest(w)
	for _, e := range Catalogue() {
		if Digest(e.Workload) == digest {
			return e.Workload.Name
		}
	}
	return ""
}

// Digest returns the SHA-256, in hexadecimal, of what a workload says; its
// name is not part of it. A topology counts as its services, however it was
// written.
func Digest(w meshbench.Workload) string {
	w.Name = ""
	w.Topology = meshbench.Topology{Services: w.Topology.Nodes()}
	if len(w.Assertions) == 0 {
		w.Assertions = nil
	}
	text, _ := json.Marshal(w) // of these types nothing can fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
