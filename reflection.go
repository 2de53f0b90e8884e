package meshbench

import "strings"

// Headers by which a request tells an application of Meshbench's own what to
// do instead of its usual answer. Each can stand in the query as well, as
// meshbench-NAME: "/?meshbench-status=503". A service that obeys names itself
// in its answer's ServiceHeader and InstanceHeader. docs/workloads.md has the
// whole table.
const (
	ReflectHeader       = "X-Meshbench-Reflect"       // 1 or all: the answer is a Reflection as JSON; all: of every service on the way
	StatusHeader        = "X-Meshbench-Status"        // 200 to 599: the answer's status
	FailHeader          = "X-Meshbench-Fail"          // KEY/N/WHAT: the first N requests of a key get a status, "reset" or "close"
	DelayHeader         = "X-Meshbench-Delay"         // a duration: waits before the answer
	PauseHeader         = "X-Meshbench-Pause"         // a duration: waits between the answer's head and its body
	BodyBytesHeader     = "X-Meshbench-Body-Bytes"    // length of the answer's body
	AnswerHeader        = "X-Meshbench-Header"        // "Name: value", repeatable: a header of the answer, in this case
	TrailerHeader       = "X-Meshbench-Trailer"       // "Name: value", repeatable: a trailer of the answer
	CutHeader           = "X-Meshbench-Cut"           // reset, close (both without an answer) or half (of the answer's body)
	EarlyHeader         = "X-Meshbench-Early"         // 1: answers before the request's body is read
	InformationalHeader = "X-Meshbench-Informational" // 102 to 199: sent before the answer
	AtHeader            = "X-Meshbench-At"            // SERVICE: who obeys; all others pass it on

	ServiceHeader  = "X-Meshbench-Service"  // of the answer: who gave it
	InstanceHeader = "X-Meshbench-Instance" // of the answer: its number, from 0
	TriesHeader    = "X-Meshbench-Tries"    // of the answer: how many requests of a FailHeader's key came so far
)

// Reflection is what a request looked like when it reached the application.
type Reflection struct {
	Service  string `json:"service"`
	Instance int    `json:"instance"`
	Number   uint64 `json:"number"` // of this instance's requests, from 1

	Method string `json:"method"`
	Target string `json:"target"` // as in the request line: "/a?b=c", "http://h/a", "*"
	Path   string `json:"path"`
	Proto  string `json:"proto"` // "HTTP/1.1"
	Host   string `json:"host"`
	// Headers are name and value in the order of the wire, with the names'
	// own case where Exact; else in alphabetical order, in canonical case.
	Headers  [][2]string `json:"headers"`
	Exact    bool        `json:"exact"`
	Trailers [][2]string `json:"trailers"` // in alphabetical order

	ContentLength int64  `json:"content_length"` // -1: chunked
	BodyBytes     int64  `json:"body_bytes"`     // that arrived
	BodySHA256    string `json:"body_sha256"`    // in hexadecimal
	BodyError     string `json:"body_error,omitempty"`

	RemoteAddress string `json:"remote_address"`      // who connected, host:port
	PeerName      string `json:"peer_name,omitempty"` // the SPIFFE name that came with it
	Tries         uint64 `json:"tries,omitempty"`     // with a FailHeader: requests of its key so far

	Calls []CallReflection `json:"calls,omitempty"` // what the service asked others before it answered
}

// CallReflection is what became of a call from one service to another.
type CallReflection struct {
	To     string      `json:"to"`
	Status int         `json:"status,omitempty"` // 0: no answer
	Error  string      `json:"error,omitempty"`
	Answer *Reflection `json:"answer,omitempty"` // where everybody was asked to reflect
}

// Header returns all values of a header, whatever the case of its name.
func (r Reflection) Header(name string) []string {
	var out []string
	for _, h := range r.Headers {
		if strings.EqualFold(h[0], name) {
			out = append(out, h[1])
		}
	}
	return out
}
