package envoy

import (
	"bytes"
	"net"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
)

// Show returns the xDS resources that differ because of the policies, in the
// form of Envoy's own documentation; without policies all of them. Certificates
// are no part of it, and the ports are made up: a deployment has others.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return nil, err
	}
	if err := check(d, r); err != nil {
		return nil, err
	}
	shown, err := resources(r)
	if err != nil {
		return nil, err
	}
	known := map[string]proto.Message{}
	if len(r.Policies) > 0 {
		plain := r
		plain.Policies = nil
		before, err := resources(plain)
		if err != nil {
			return nil, err
		}
		for _, s := range before {
			known[s.title()] = s.Message
		}
	}
	out := []mesh.Document{}
	for _, s := range shown {
		if before := known[s.title()]; before != nil && proto.Equal(before, s.Message) {
			continue
		}
		text, err := yamlOf(s.Message)
		if err != nil {
			return nil, err
		}
		out = append(out, mesh.Document{Title: s.title(), Media: "application/yaml", Text: text})
	}
	return out, nil
}

// shownResource is a resource of a proxy.
type shownResource struct {
	controlplane.Resource
	proxy string
}

func (s shownResource) title() string {
	return string(s.Message.ProtoReflect().Descriptor().Name()) + " " + s.Name + " of " + s.proxy
}

// resources are those of all proxies.
func resources(r mesh.Request) ([]shownResource, error) {
	ports := map[meshbench.PortRef]int{}
	madeUp := func(process, port string) (string, error) {
		ref := meshbench.PortRef{Process: process, Port: port}
		if ports[ref] == 0 {
			ports[ref] = 10001 + len(ports)
		}
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[ref])), nil
	}
	config, err := configOf(r, madeUp, credentials{})
	if err != nil {
		return nil, err
	}
	var out []shownResource
	for _, n := range config.Nodes {
		list, err := controlplane.Resources(n)
		if err != nil {
			return nil, err
		}
		for _, resource := range list {
			out = append(out, shownResource{resource, n.ID})
		}
	}
	return out, nil
}

// yamlOf writes a message as YAML, its fields named as in Envoy's
// documentation.
func yamlOf(m proto.Message) (string, error) {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return "", err
	}
	// JSON is YAML; read as such, its keys keep their order.
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return "", err
	}
	unstyled(&doc)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&doc); err != nil {
		return "", err
	}
	return strings.TrimPrefix(b.String(), "---\n"), encoder.Close()
}

// unstyled takes the braces and quotes of JSON away; the writer quotes what
// needs it.
func unstyled(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		unstyled(c)
	}
}
