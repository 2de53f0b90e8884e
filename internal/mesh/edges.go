package mesh

import (
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// Edge is a service with those that send requests to it.
type Edge struct {
	From []string // services, or Client; at least one
	To   string
}

// Name is what Hop.From says: "client", "cart+checkout".
func (e Edge) Name() string { return strings.Join(e.From, "+") }

// Edges returns the ways that requests take by themselves: that of the
// generator to the first service, and then one per service that others call,
// in the order of the services. A server's proxy counts what it receives and
// not from whom, so the callers of one service share an edge, and what their
// proxies counted is added up.
func Edges(services []meshbench.Service) []Edge {
	var out []Edge
	for i, to := range services {
		var from []string
		if i == 0 {
			from = append(from, Client)
		}
		for _, s := range services {
			if slices.Contains(s.Calls, to.Name) {
				from = append(from, s.Name)
			}
		}
		if len(from) > 0 {
			out = append(out, Edge{From: from, To: to.Name})
		}
	}
	return out
}

// Callers returns who has a way to a service of its own: Client where it is
// the first, and the services that call it.
func Callers(services []meshbench.Service, to string) []string {
	for _, e := range Edges(services) {
		if e.To == to {
			return e.From
		}
	}
	return nil
}
