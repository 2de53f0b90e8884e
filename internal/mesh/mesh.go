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
	// Configure gives a running deployment its configuration and returns when
	// the proxies have taken it. It is idempotent.
	Configure(ctx context.Context, access Access, request Request) error
	// Counters reads what the proxies have counted since they started.
	Counters(ctx context.Context, access Access) (Counters, error)
	// Settings reads what the proxies really do, after traffic went through.
	Settings(ctx context.Context, access Access) ([]meshbench.Setting, error)
}

// Access is the way to what was deployed (see infra.Access).
type Access interface {
	Address(process, port string) (string, error)
	Dir(process string) (string, error)
}

// Request is what a driver shall render.
type Request struct {
	Subject  meshbench.Subject
	Profile  meshbench.Profile
	Workload meshbench.Workload
	Services []Service
	Threads  int // worker threads per proxy in profile parity
}

// Service is an application that requests go to: a port of a process that is
// in the Spec already.
type Service struct {
	Name string            // "echo"
	At   meshbench.PortRef // of the application
}

// Description is a mesh as data.
type Description struct {
	Name     string   // "envoy"
	Title    string   // "Envoy"
	Summary  string   // one sentence
	Versions []string // that can be asked for, newest first; the first is the default; "1.40" means its newest patch
	Options  []Option
	Profiles []meshbench.Profile
	Runtimes []string // names in the catalogue of package runtimes: "envoy"
	HasProxy bool     // false: "none"
}

// Option is a setting of a subject.
type Option struct {
	Name    string
	Values  []string // the first is the default
	Summary string
}

// Counters is what the proxies counted, for the proof of path.
type Counters struct {
	ClientReceived uint64 // requests at the client proxy
	ClientAttempts uint64 // upstream attempts of the client proxy, those not sent left out
	ServerReceived uint64 // requests at the server proxy
	Handshakes     uint64 // mutual TLS, between the proxies
	Plaintext      uint64 // connections between the proxies without TLS
}
