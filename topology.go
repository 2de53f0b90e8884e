package meshbench

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Topology is the shape of the services. One of its fields is set; the zero
// Topology is a chain of one.
type Topology struct {
	Chain    int           `json:"chain,omitempty"`   // n services, each calls the next
	FanOut   int           `json:"fan_out,omitempty"` // a front that calls n leaves at the same time
	Services []ServiceNode `json:"services,omitempty"`
}

// ServiceNode is one service of a topology that is written out. The first is
// the one that load enters by.
type ServiceNode struct {
	Name      string         `json:"name"`
	Instances int            `json:"instances,omitempty"` // 0: one
	Calls     []string       `json:"calls,omitempty"`     // services that each request is passed on to, in this order
	Parallel  bool           `json:"parallel,omitempty"`  // all calls at the same time
	Latency   *ServiceTime   `json:"latency,omitempty"`   // its own, before the calls
	BodyBytes *int           `json:"body_bytes,omitempty"`
	Errors    *ServiceErrors `json:"errors,omitempty"`
}

// ServiceTimeLaw is the distribution of a service's own time.
type ServiceTimeLaw string

// The laws.
const (
	ConstantTime    ServiceTimeLaw = "constant"
	ExponentialTime ServiceTimeLaw = "exponential"
	LognormalTime   ServiceTimeLaw = "lognormal"
)

// ServiceTime is what a service takes for itself; it waits and burns no CPU.
type ServiceTime struct {
	Law   ServiceTimeLaw `json:"law"`
	Mean  Duration       `json:"mean"`
	Sigma float64        `json:"sigma,omitempty"` // lognormal: standard deviation of the logarithm; 0: 0.5
}

// UnmarshalJSON reads a time; where no law is given it is constant.
func (s *ServiceTime) UnmarshalJSON(data []byte) error {
	type plain ServiceTime
	p := plain{Law: ConstantTime}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*s = ServiceTime(p)
	return nil
}

// ServiceErrors makes a service fail now and then.
type ServiceErrors struct {
	Status  int     `json:"status"`
	Percent float64 `json:"percent"` // of the requests
}

// UnmarshalJSON reads a topology; unlike other parts of an experiment, one
// that is given replaces the default as a whole.
func (t *Topology) UnmarshalJSON(data []byte) error {
	type plain Topology
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*t = Topology(p)
	if t.FanOut == 0 && len(t.Services) == 0 {
		t.Chain = max(1, t.Chain)
	}
	return nil
}

// The names of services in a chain and a fan-out.
const (
	EchoService  = "echo"  // the first of a chain
	FrontService = "front" // the first of a fan-out
)

// Nodes returns the services of a topology, written out, with at least one
// instance each; load enters by the first. A chain is echo, hop2, hop3 ...; a fan-out is front, leaf1, leaf2 ...
func (t Topology) Nodes() []ServiceNode {
	var nodes []ServiceNode
	switch {
	case len(t.Services) > 0:
		nodes = slices.Clone(t.Services)
	case t.FanOut > 0:
		nodes = []ServiceNode{{Name: FrontService, Parallel: true}}
		for i := range t.FanOut {
			name := fmt.Sprintf("leaf%d", i+1)
			nodes[0].Calls = append(nodes[0].Calls, name)
			nodes = append(nodes, ServiceNode{Name: name})
		}
	default:
		nodes = []ServiceNode{{Name: EchoService}}
		for i := 1; i < t.Chain; i++ {
			name := fmt.Sprintf("hop%d", i+1)
			nodes[i-1].Calls = []string{name}
			nodes = append(nodes, ServiceNode{Name: name})
		}
	}
	for i := range nodes {
		nodes[i].Instances = max(1, nodes[i].Instances)
	}
	return nodes
}

// String returns the topology as --topology takes it; one that is written out
// as JSON.
func (t Topology) String() string {
	switch {
	case len(t.Services) > 0:
		text, _ := json.Marshal(t.Services) // of these types nothing can fail
		return string(text)
	case t.FanOut > 0:
		return fmt.Sprintf("fan_out=%d", t.FanOut)
	}
	return fmt.Sprintf("chain=%d", max(1, t.Chain))
}

// Walk is how a request walks a topology.
type Walk struct {
	// Hops is how many times a request goes from a sender to a service, the
	// generator's own way in included: the pairs of proxies that it passes.
	Hops int `json:"hops"`
	// Depth is how many of them follow one another on the longest way: calls
	// made at the same time count once.
	Depth int `json:"depth"`
	// Requests is how many requests each service gets for one that enters.
	Requests map[string]int `json:"requests"`
}

// Walk returns how one request walks the topology where nothing fails. The
// topology has no cycle (package experiment checks that).
func (t Topology) Walk() Walk {
	nodes := t.Nodes()
	byName := map[string]ServiceNode{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	w := Walk{Requests: map[string]int{}}
	// Below a service the walk is always the same: it is worked out once.
	type part struct {
		depth    int
		requests map[string]int
	}
	known := map[string]part{}
	var visit func(name string) part
	visit = func(name string) part {
		if p, ok := known[name]; ok {
			return p
		}
		n := byName[name]
		p := part{requests: map[string]int{name: 1}}
		for _, callee := range n.Calls {
			below := visit(callee)
			if n.Parallel {
				p.depth = max(p.depth, below.depth)
			} else {
				p.depth += below.depth
			}
			for s, times := range below.requests {
				p.requests[s] += times
			}
		}
		p.depth++
		known[name] = p
		return p
	}
	whole := visit(nodes[0].Name)
	w.Depth, w.Requests = whole.depth, whole.requests
	for _, times := range w.Requests {
		w.Hops += times
	}
	return w
}
