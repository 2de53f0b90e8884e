package workload

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/meshbench/meshbench"
)

// The names in a Spec.
const (
	Service     = meshbench.EchoService // the service of a chain of one, and its process
	HTTPPort    = "http"                // where the workload arrives
	ControlPort = "control"             // where Meshbench asks what was seen
	nodeFile    = "node.json"
)

// ProcessName is the name of the process of an instance, from 0: echo, echo-2.
func ProcessName(service string, instance int) string {
	if instance == 0 {
		return service
	}
	return fmt.Sprintf("%s-%d", service, instance+1)
}

// Services knows the services of every workload.
type Services struct{}

// Services returns the services of a workload, the one that load enters by
// first.
func (Services) Services(w meshbench.Workload) []meshbench.Service {
	var out []meshbench.Service
	for _, n := range w.Topology.Nodes() {
		s := meshbench.Service{Name: n.Name, Calls: n.Calls}
		for i := range n.Instances {
			s.Instances = append(s.Instances, meshbench.PortRef{Process: ProcessName(n.Name, i), Port: HTTPPort})
		}
		out = append(out, s)
	}
	return out
}

// Processes returns the processes of a workload's services, one per instance,
// each on the given number of threads (GOMAXPROCS). They may be parked.
// routes are the ways from service to service; where there is none, a service
// calls the other's instances in turn.
func (s Services) Processes(w meshbench.Workload, threads int, routes []meshbench.Route) []meshbench.Process {
	services := map[string]meshbench.Service{}
	for _, service := range s.Services(w) {
		services[service.Name] = service
	}
	var out []meshbench.Process
	for _, n := range w.Topology.Nodes() {
		bodyBytes := w.Response.BodyBytes
		if n.BodyBytes != nil {
			bodyBytes = *n.BodyBytes
		}
		for i := range n.Instances {
			node := Node{Latency: n.Latency, Errors: n.Errors, Parallel: n.Parallel}
			for _, to := range n.Calls {
				node.Calls = append(node.Calls, way(n.Name, i, services[to], routes))
			}
			out = append(out, process(n.Name, i, bodyBytes, threads, node))
		}
	}
	return out
}

// Metrics returns where the services of a workload tell their metrics, and
// which of them belong to a result. address gives host:port of a port of a
// process.
func (s Services) Metrics(w meshbench.Workload, address func(process, port string) (string, error)) ([]meshbench.MetricSource, error) {
	var out []meshbench.MetricSource
	for _, service := range s.Services(w) {
		for _, at := range service.Instances {
			control, err := address(at.Process, ControlPort)
			if err != nil {
				return nil, err
			}
			out = append(out, meshbench.MetricSource{Name: at.Process, URL: "http://" + control + MetricsPath, Series: []string{"meshbench_*"}})
		}
	}
	return out, nil
}

// way is how an instance of a service reaches another service.
func way(from string, instance int, to meshbench.Service, routes []meshbench.Route) Call {
	for _, r := range routes {
		if r.From == from && r.Instance == instance && r.To == to.Name {
			return Call{To: to.Name, Addresses: []string{address(r.At)}, Host: r.Host}
		}
	}
	c := Call{To: to.Name}
	for _, at := range to.Instances {
		c.Addresses = append(c.Addresses, address(at))
	}
	return c
}

// address is the text of a Spec that becomes host:port. Its words are in
// backquotes, since JSON leaves those as they are.
func address(at meshbench.PortRef) string {
	return fmt.Sprintf("{{address `%s` `%s`}}", at.Process, at.Port)
}

func process(service string, instance, bodyBytes, threads int, node Node) meshbench.Process {
	name := ProcessName(service, instance)
	p := meshbench.Process{
		Name:     name,
		Role:     meshbench.Application,
		Service:  service,
		Instance: instance,
		Runtime:  meshbench.Self,
		Args: []string{
			"workload", "echo",
			"--listen", address(meshbench.PortRef{Process: name, Port: HTTPPort}),
			"--control", address(meshbench.PortRef{Process: name, Port: ControlPort}),
			"--body-bytes", strconv.Itoa(bodyBytes),
			"--service", service, "--instance", strconv.Itoa(instance),
		},
		Env:      []string{"GOMAXPROCS=" + strconv.Itoa(threads)},
		Ports:    []string{HTTPPort, ControlPort},
		ReadyURL: "http://" + address(meshbench.PortRef{Process: name, Port: ControlPort}) + ReadyPath,
		MayPark:  true,
	}
	if node.Latency != nil || node.Errors != nil || len(node.Calls) > 0 {
		text, _ := json.Marshal(node) // of these types nothing can fail
		p.Files = []meshbench.File{{Name: nodeFile, Text: string(text)}}
		p.Args = append(p.Args, "--node", "{{dir}}/"+nodeFile)
	}
	return p
}

// ReadNode reads the file that tells a service what to do.
func ReadNode(text []byte) (Node, error) {
	var n Node
	if err := json.Unmarshal(text, &n); err != nil {
		return n, meshbench.Errorf(meshbench.Invalid, "the service's node cannot be read: %w", err)
	}
	return n, nil
}
