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
}

// The operations.
const (
	opOpen   = "open"   // the first: begins the journal
	opStart  = "start"  // starts a process
	opSignal = "signal" // sends it a signal
	opStop   = "stop"   // ends it and its descendants; answered when all are gone
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
}

// reply answers a request, or tells of an exit (ID 0).
type reply struct {
	ID      uint64             `json:"id"`
	Error   string             `json:"error,omitempty"`
	Process telemetry.Identity `json:"process,omitzero"` // started, or ended
	Journal string             `json:"journal,omitempty"`
	Exit    string             `json:"exit,omitempty"` // how it ended: "exit status 1", "signal: killed"
}
