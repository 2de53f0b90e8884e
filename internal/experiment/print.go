package experiment

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
	"go.yaml.in/yaml/v3"
)

// YAML returns the document of an experiment as a person would write it: all
// fields that have a value, in the order of the schema, short parts on one
// line. Parse reads the same experiment from it.
func YAML(e meshbench.Experiment) ([]byte, error) {
	canonical(&e)
	doc, err := toDocument(e)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"name", "baseline"} {
		if doc[key] == "" {
			delete(doc, key)
		}
	}
	w, _ := doc["workload"].(map[string]any)
	if len(e.Workload.Assertions) == 0 {
		delete(w, "assertions")
	}
	if e.Infrastructure == meshbench.Endpoint && e.Workload.Response == defaultWorkload().Response {
		delete(w, "response") // it would say something about the endpoint that is not so
	}
	p := printer{order: e.Subjects}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(p.node(doc, document(), false)); err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "the experiment cannot be written as YAML: %w", err)
	}
	return b.Bytes(), nil
}

// printer makes YAML nodes.
type printer struct {
	order []string // of keys that the schema does not know: names of URLs
}

// node returns the node of a value that the rule describes (nil: nothing
// does), inside a part that is written on one line or not.
func (p printer) node(v any, r *rule, flow bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	if r != nil {
		n.LineComment = r.comment
		flow = flow || r.flow && !r.holdsBlock(v)
	}
	switch v := v.(type) {
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case bool:
		n.Tag, n.Value = "!!bool", "false"
		if v {
			n.Value = "true"
		}
	case json.Number:
		n.Value = v.String()
	case string:
		n.Tag, n.Value = "!!str", v
		// The plain forms of YAML are many; these are the harmless ones.
		if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c > '~' }) || strings.TrimSpace(v) != v {
			n.Style = yaml.DoubleQuotedStyle
		}
	case []any:
		n.Kind = yaml.SequenceNode
		var of *rule
		block := false
		if r != nil {
			of, block = r.items, r.block && !flow
		}
		if !block {
			n.Style = yaml.FlowStyle
		}
		for _, item := range v {
			n.Content = append(n.Content, p.node(item, of, !block))
		}
	case map[string]any:
		n.Kind = yaml.MappingNode
		if flow {
			n.Style = yaml.FlowStyle
		}
		for _, key := range p.keys(v, r) {
			var of *rule
			if r != nil {
				if of = r.property(key); of == nil {
					of = r.additional
				}
			}
			n.Content = append(n.Content, p.node(key, nil, true), p.node(v[key], of, flow))
		}
	}
	return n
}

// holdsBlock tells whether a mapping has a field that is printed on lines of
// its own.
func (r *rule) holdsBlock(v any) bool {
	m, _ := v.(map[string]any)
	for key := range m {
		if of := r.property(key); of != nil && of.block {
			return true
		}
	}
	return false
}

// keys returns the keys of a mapping in the order in which they are written:
// the schema's, then that of the subjects, then the alphabet's.
func (p printer) keys(v map[string]any, r *rule) []string {
	var known []string
	if r != nil {
		known = r.keys()
	}
	var out []string
	for _, key := range slices.Concat(known, p.order, slices.Sorted(maps.Keys(v))) {
		if _, ok := v[key]; ok && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}
