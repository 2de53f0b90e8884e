package meshbench

import "slices"

// Spec is what must run for a subject, as plain data: an infrastructure turns
// it into processes or pods. The texts in Args, Env, Files and ReadyURL are
// text/template with these functions:
//
//	port "PROCESS" "NAME"     the number that the infrastructure gave to a port
//	address "PROCESS" "NAME"  host:port to reach it at
//	host "PROCESS"            the IP address of a process
//	dir                       the process's own directory, where its Files are
//	dirof "PROCESS"           that of another process
//	program "RUNTIME"         the path of a runtime's program, of one in Runtimes
//	content "FILE"            what is in a file of the process's own directory
//	                          when it starts (in Args and Env only)
type Spec struct {
	Processes []Process
	// Entry is where load enters: a process and one of its ports.
	Entry PortRef
	// Host is the Host header to send; empty: the entry's own address.
	Host string
	// Routes is where services find each other: one per Calls of each instance
	// of a service, where it is not straight at the application.
	Routes []Route
	// Runtimes are needed beside those of the processes: what one of them
	// starts itself.
	Runtimes []string
	// Namespaces are the networks that some of the processes have of their own,
	// as pods do; the others share that of the infrastructure.
	Namespaces []Namespace
}

// Namespace is a network of its own, joined to the others and to whoever
// measures by one link.
type Namespace struct {
	Name      string   // unique in the Spec: "echo"
	Processes []string // names; those of the workload, too
	// Redirect is nil where connections stay as they are.
	Redirect *Redirect
	// Through is another namespace, which forwards what comes from outside, and
	// its answers: so that the way is as long as through a proxy there. Empty:
	// straight.
	Through string
}

// Redirect sends the TCP connections of a namespace through a proxy in it, as
// the rules in a pod do; the proxy learns where they were bound to (getsockopt
// SO_ORIGINAL_DST).
type Redirect struct {
	Proxy string // the process whose own connections go their way
	// Inbound and Outbound are ports of Proxy: connections from outside are
	// sent to the first, those that other processes make to the second, but
	// for those within the namespace.
	Inbound, Outbound string
	// Services are ports of Proxy on which nobody listens: connections to them,
	// from outside and from within, are sent to Outbound. They stand for the
	// addresses of services.
	Services []string
	// Direct are ports, of any process here, that are reached from outside
	// without the proxy.
	Direct []PortRef
}

// Route is the way from one service to another.
type Route struct {
	From, To string // services
	Instance int    // of From: each instance has a way of its own
	At       PortRef
	Host     string // Host header to send; empty: the address of At
}

// Service is an application that requests go to.
type Service struct {
	Name      string    // "echo"
	Instances []PortRef // the applications, each a port of a process of the Spec; at least one
	Calls     []string  // the services that it sends requests to
}

// At is the first instance.
func (s Service) At() PortRef { return s.Instances[0] }

// PortRef names a port of a process.
type PortRef struct {
	Process, Port string
}

// Process is one program of a Spec. They are started in order, each when the
// one before it is ready.
type Process struct {
	Name     string // unique in the Spec: "client-proxy"
	Role     Role
	Service  string // the service it belongs to: "echo"; may be empty
	Instance int

	Runtime string // a runtime's name with its version, "envoy@1.40.0"; Self for Meshbench itself
	Args    []string
	Env     []string // whole environment, NAME=value
	Files   []File   // written into the process's directory before it starts
	Ports   []string // names; the infrastructure chooses the numbers
	// OwnHost asks for an IP address that no other process has: some control
	// planes tell workloads apart by it.
	OwnHost bool
	// ReadyURL is asked until it answers 200 (http) or accepts a connection (tcp://host:port).
	ReadyURL string
	// MayPark tells that the process can be stopped (SIGSTOP) while other
	// subjects are measured, and goes on unharmed.
	MayPark bool
	// Control tells that it may outlive a sitting: a control plane.
	Control bool
}

// Self is the Runtime of a process that is Meshbench itself.
const Self = "meshbench"

// NeededRuntimes returns the runtimes of all processes and those beside them,
// each once.
func (s Spec) NeededRuntimes() []string {
	var out []string
	for _, p := range s.Processes {
		if p.Runtime != Self && !slices.Contains(out, p.Runtime) {
			out = append(out, p.Runtime)
		}
	}
	for _, r := range s.Runtimes {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// File is a file of a process.
type File struct {
	Name   string // relative to the process's directory
	Text   string // a template, see Spec
	Secret bool   // readable by the owner alone, never logged
}

// Target is where a generator sends its requests.
type Target struct {
	URL  string `json:"url"`            // http://127.0.0.1:12345
	Host string `json:"host,omitempty"` // Host header where it is not the URL's
}

// UsageReading is what one process has used so far.
type UsageReading struct {
	Role     Role
	Service  string
	Instance int
	Process  string // the Spec's name
	Alive    bool

	UserNanos, SystemNanos uint64 // process clock, children and dead threads included
	AnonBytes, FileBytes   uint64 // RssAnon, RssFile
}

// Seen is what a service's application has received so far.
type Seen struct {
	Requests uint64 `json:"requests"`
	PeerName string `json:"peer_name"` // the SPIFFE name that came with the last one; empty: none
}
