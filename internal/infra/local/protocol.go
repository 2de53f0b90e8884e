package local

import "github.com/meshbench/meshbench/internal/telemetry"

// The supervisor reads requests and writes replies, one JSON value each. Both
// ends are the same build of the same program, so the protocol has no
// version. Every request is answered once, with its id; what happens by
// itself is told with id 0.

// request is one thing that the supervisor shall do.
type request struct {
	ID uint64 `json:"id"`
	Op string `json:"op"`

	StateDir string        `json:"state_dir,omitempty"` // open
	Start    *startRequest `json:"start,omitempty"`     // start
	PID      int           `json:"pid,omitempty"`       // stop, signal
	GraceMS  int64         `json:"grace_ms,omitempty"`  // stop: between SIGTERM and SIGKILL
	Signal   string        `json:"signal,omitempty"`    // signal
	Path     string        `json:"path,omitempty"`      // open: a directory to be removed at the end

	Network *networkRequest `json:"network,omitempty"` // network, and with a name alone unnetwork
}

// The operations.
const (
	opOpen   = "open"   // the first: begins the journal
	opStart  = "start"  // starts a process
	opSignal = "signal" // sends it a signal
	opStop   = "stop"   // ends it and its descendants; answered when all are gone

	opNetwork   = "network"   // makes the namespaces of a deployment
	opUnnetwork = "unnetwork" // removes them
)

// startRequest is a program exactly as it shall be started.
type startRequest struct {
	Name string   `json:"name"` // for the journal
	Path string   `json:"path"`
	Args []string `json:"args"` // without the program's name
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	Log  string   `json:"log"` // file for standard output and standard error
	CPUs []int    `json:"cpus,omitempty"`

	Network   string `json:"network,omitempty"`   // of a deployment; empty: this machine's own
	Namespace string `json:"namespace,omitempty"` // of that network
	Group     uint32 `json:"group,omitempty"`     // 0: its parent's
}

// networkRequest asks for the namespaces of a deployment.
type networkRequest struct {
	Name       string             `json:"name"` // of the deployment
	Namespaces []namespaceRequest `json:"namespaces"`
}

type namespaceRequest struct {
	Name     string           `json:"name"`
	Redirect *redirectRequest `json:"redirect,omitempty"`
	Through  string           `json:"through,omitempty"` // another's name
}

// redirectRequest is meshbench.Redirect with numbers.
type redirectRequest struct {
	Group    uint32   `json:"group"` // connections of processes of this group go their way
	Inbound  uint16   `json:"inbound"`
	Outbound uint16   `json:"outbound"`
	Services []uint16 `json:"services"`
	Direct   []uint16 `json:"direct"`
}

// reply answers a request, or tells of an exit (ID 0).
type reply struct {
	ID      uint64             `json:"id"`
	Error   string             `json:"error,omitempty"`
	Process telemetry.Identity `json:"process,omitzero"` // started, or ended
	Journal string             `json:"journal,omitempty"`
	Exit    string             `json:"exit,omitempty"` // how it ended: "exit status 1", "signal: killed"

	Addresses map[string]string `json:"addresses,omitempty"` // of namespaces
}
