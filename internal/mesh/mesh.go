// Package mesh is how Meshbench drives a service mesh: the Driver interface,
// the suite of tests that every driver passes (package meshtest), and the
// explicit list of drivers (Builtin). Each mesh is a folder below it.
package mesh

import (
	"context"

	"github.com/meshbench/meshbench"
)

// Driver knows one mesh.
type Driver interface {
	// Describe tells what the mesh is, as data.
	Describe() Description
	// Render says what must run. It touches nothing.
	Render(Request) (meshbench.Spec, error)
	// Prepare is called before a process of the Spec starts, when all before
	// it are ready: for files that only a running control plane can give.
	Prepare(ctx context.Context, access Access, request Request, process string) error
	// Configure gives a running deployment its configuration, policies
	// included, and returns when the proxies have taken it. It is idempotent,
	// and can be called again with other policies: what is not asked for any
	// more is taken back.
	Configure(ctx context.Context, access Access, request Request) error
	// Show returns the mesh's own configuration that the request's policies
	// become, as Configure applies it. It touches nothing.
	Show(Request) ([]Document, error)
	// Counters reads what the proxies have counted since they started, hop by
	// hop: the first is the generator's way in.
	Counters(ctx context.Context, access Access, request Request) ([]Hop, error)
	// Settings reads what the proxies really do, after traffic went through.
	Settings(ctx context.Context, access Access, request Request) ([]meshbench.Setting, error)
}

// Variants is what a driver is beside Driver where a subject's options decide
// what it can do.
type Variants interface {
	// DescribeSubject is Describe for a subject. It differs from it in
	// NamesPeer and Capabilities alone.
	DescribeSubject(meshbench.Subject) Description
}

// DescribeSubject tells what a mesh is with the options of a subject.
func DescribeSubject(d Driver, s meshbench.Subject) Description {
	if v, ok := d.(Variants); ok {
		return v.DescribeSubject(s)
	}
	return d.Describe()
}

// Access is the way to what was deployed (see infra.Access).
type Access interface {
	Address(process, port string) (string, error)
	Dir(process string) (string, error)
	// Program returns the path of a runtime's program, of one that the Spec
	// names.
	Program(runtime string) (string, error)
}

// Request is what a driver shall render and configure.
type Request struct {
	Subject  meshbench.Subject
	Profile  meshbench.Profile
	Workload meshbench.Workload
	Services []meshbench.Service // the first is the one that load enters by
	Policies []meshbench.Policy
	Threads  int // worker threads per proxy in profile parity
}

// Document is a piece of a mesh's own configuration, for people to read.
type Document struct {
	Title string `json:"title"` // what it is and for whom: "VirtualService echo"
	Media string `json:"media"` // "application/yaml", "application/json"
	Text  string `json:"text"`
}

// Description is a mesh as data.
type Description struct {
	Name     string   // "envoy"
	Title    string   // "Envoy"
	Summary  string   // one sentence
	Versions []string // that can be asked for, newest first; the first is the default; "1.40" means its newest patch
	Options  []Option
	Profiles []meshbench.Profile
	Runtimes []string              // names in the catalogue of package runtimes: "envoy"
	HasProxy bool                  // false: "none"
	Path     meshbench.NetworkPath // that its subjects always need on this machine; empty: loopback (see PathOf)
	// NamesPeer tells that the application learns who calls, by the header
	// X-Forwarded-Client-Cert.
	NamesPeer bool
	// Capabilities has every kind of policy once, supported or not.
	Capabilities []Capability
}

// Capability tells whether a mesh can do what a kind of policy asks.
type Capability struct {
	Policy    meshbench.PolicyKind
	Supported bool
	Note      string // where it is not: why; where it is: what differs, if anything
	Source    string // address of the documentation that says so; needed where it is not supported
}

// Option is a setting of a subject.
type Option struct {
	Name    string
	Values  []string // the first is the default
	Summary string
}

// Client is who sends the load, as a service's name and an identity.
const Client = "client"

// Hop is what the two proxies between a sender and a service counted.
type Hop struct {
	From, To string // services; Client for the generator; several callers are joined (see Edge)
	Secure   bool   // mutual TLS is what was asked for
	Layer4   bool   // these proxies know connections only: requests are counted as connections
	Counters
}

// Counters is what the proxies counted, for the proof of path.
type Counters struct {
	ClientReceived uint64 // requests at the client proxy
	ClientAttempts uint64 // upstream attempts of the client proxy, those not sent left out
	ServerReceived uint64 // requests at the server proxy
	Handshakes     uint64 // mutual TLS, between the proxies
	Plaintext      uint64 // connections between the proxies without TLS
}
