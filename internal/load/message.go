package load

import "github.com/meshbench/meshbench"

// ProtocolVersion is that of the messages between a worker and who drives it.
// It grows with every change that an older side would misread.
const ProtocolVersion = 1

// Message is one line of the protocol between a worker and who drives it.
// Every side numbers its own messages from 1. The worker says hello; it is
// told a job, prepares it and says ready; it is told to start, sends a tick
// every 100 ms and at the end done. Its driver sends heartbeats all the while,
// and stop to end a load before its time. An error ends the job, not the
// worker.
type Message struct {
	Seq     uint64           `json:"seq"`
	Type    Type             `json:"type"`
	Hello   *Hello           `json:"hello,omitempty"`
	Job     *Job             `json:"job,omitempty"`
	StartAt int64            `json:"start_at_ns,omitempty"` // unix nanoseconds; 0: now
	Tick    *Report          `json:"tick,omitempty"`
	Done    *Summary         `json:"done,omitempty"`
	Error   *meshbench.Error `json:"error,omitempty"`
}

// Type is what a Message is.
type Type string

// The types of messages, from the worker and to it.
const (
	TypeHello Type = "hello" // from
	TypeReady Type = "ready" // from
	TypeTick  Type = "tick"  // from
	TypeDone  Type = "done"  // from
	TypeError Type = "error" // from

	TypeJob       Type = "job"       // to
	TypeStart     Type = "start"     // to
	TypeHeartbeat Type = "heartbeat" // to
	TypeStop      Type = "stop"      // to
)

// Hello introduces a worker.
type Hello struct {
	Protocol int    `json:"protocol"`
	Build    string `json:"build"` // version of the program
	Engine   string `json:"engine"`
	PID      int    `json:"pid"`
}

// MaxLine is the longest line of the protocol: a tick in which every counter
// of every channel is used has 2 MB.
const MaxLine = 4 << 20
