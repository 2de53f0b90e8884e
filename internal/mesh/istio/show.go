package istio

import (
	"bytes"

	"go.yaml.in/yaml/v3"

	"github.com/meshbench/meshbench/internal/mesh"
)

// Show returns Istio's own resources that the policies become, as Configure
// applies them; without policies what the subject itself asks for.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return nil, err
	}
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return nil, err
	}
	shown, err := policies(r)
	if err != nil {
		return nil, err
	}
	if len(r.Policies) == 0 {
		if shown, err = general(r); err != nil {
			return nil, err
		}
	}
	out := []mesh.Document{}
	for _, o := range shown {
		text, err := yamlOf(o)
		if err != nil {
			return nil, err
		}
		out = append(out, mesh.Document{Title: o.kind.Kind + " " + o.Metadata.Name, Media: "application/yaml", Text: text})
	}
	return out, nil
}

// yamlOf writes an object as people write it: what it is, its name, and the
// rest in the order of the alphabet.
func yamlOf(o object) (string, error) {
	type metadata struct {
		Name      string            `yaml:"name"`
		Namespace string            `yaml:"namespace"`
		Labels    map[string]string `yaml:"labels,omitempty"`
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	err := e.Encode(struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       any      `yaml:"spec"`
	}{
		o.kind.APIVersion, o.kind.Kind,
		metadata{o.Metadata.Name, o.Metadata.Namespace, o.Metadata.Labels}, o.Spec,
	})
	if err != nil {
		return "", err
	}
	return b.String(), e.Close()
}
