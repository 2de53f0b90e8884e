package experiment

import (
	"bytes"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed schema.json
var schemaText []byte

// Schema returns the JSON Schema (draft 2020-12) of an experiment. It is the
// one source of what a document may contain: Parse walks it. The keywords
// that begin with x- are annotations for that walk and for the reference
// (docs/experiment.md); other validators ignore them.
func Schema() []byte { return bytes.Clone(schemaText) }

// rule is one schema of the document, with the keywords that the document
// uses. A keyword that is not here is a fault of the document (readRule).
type rule struct {
	description string
	text        string // default, as YAML on one line; empty: none
	defaultText string // x-default: a default that is no constant
	expected    string // x-expected: what to say instead of the type
	note        string // x-note: said after every mistake here
	comment     string // x-comment: beside the field in a printed document
	flow        bool   // x-flow: printed on one line
	block       bool   // x-block: printed with a line for each of its items, and so is what it stands in

	kind       kind // type; anything where none is given
	properties []property
	additional *rule // nil: no other key may stand
	names      *rule // propertyNames
	required   []string
	items      *rule
	unique     bool

	words   []string // enum, or the one word of const
	planned []string // x-planned: words or keys of later versions
	pattern *regexp.Regexp
	format  string // "go-duration"

	least, most       string // minimum, maximum; x-minimum and x-maximum of a duration
	above             string // exclusiveMinimum
	shortest, longest int    // minItems; maxItems, maxLength or maxProperties; 0: none
	anyOf             []*rule
	examples          []string
}

// property is a key of a mapping and the rule of its value.
type property struct {
	name string
	rule *rule
}

// property returns the rule of a key.
func (r *rule) property(name string) *rule {
	for _, p := range r.properties {
		if p.name == name {
			return p.rule
		}
	}
	return nil
}

// keys returns the names of all properties, in their order.
func (r *rule) keys() []string {
	var out []string
	for _, p := range r.properties {
		out = append(out, p.name)
	}
	return out
}

// scalar returns the rule of the value itself where a list of values (an
// axis) may stand too, and whether one may.
func (r *rule) scalar() (*rule, bool) {
	if len(r.anyOf) == 2 && r.anyOf[1].kind == list && r.anyOf[1].items != nil {
		return r.anyOf[0], true
	}
	return r, false
}

// at returns the rule of a dotted path of keys; nil where there is none.
func (r *rule) at(path string) *rule {
	for name := range strings.SplitSeq(path, ".") {
		if r = r.property(name); r == nil {
			return nil
		}
	}
	return r
}

// document returns the rule of the whole document, read once.
var document = sync.OnceValue(func() *rule {
	r, err := readSchema(schemaText)
	if err != nil {
		panic("meshbench: the embedded schema: " + err.Error()) // a test reads it
	}
	return r
})

// readSchema reads a schema document. Like every JSON document it is a YAML
// document too, read as such because that keeps the order of the keys.
func readSchema(text []byte) (*rule, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	root := doc.Content[0]
	definitions := map[string]*rule{}
	if defs := member(root, "$defs"); defs != nil {
		// Definitions refer to no other definition.
		for i := 0; i < len(defs.Content); i += 2 {
			r, err := readRule(defs.Content[i+1], nil)
			if err != nil {
				return nil, fmt.Errorf("$defs/%s: %w", defs.Content[i].Value, err)
			}
			definitions["#/$defs/"+defs.Content[i].Value] = r
		}
	}
	return readRule(root, definitions)
}

func member(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func readRule(n *yaml.Node, definitions map[string]*rule) (*rule, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: a schema is a mapping", n.Line)
	}
	if ref := member(n, "$ref"); ref != nil {
		r := definitions[ref.Value]
		if r == nil || len(n.Content) != 2 {
			return nil, fmt.Errorf("line %d: %q is no definition, or not alone", n.Line, ref.Value)
		}
		return r, nil
	}
	r := &rule{}
	for i := 0; i < len(n.Content); i += 2 {
		key, v := n.Content[i].Value, n.Content[i+1]
		if err := r.read(key, v, definitions); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return r, nil
}

// read takes in one keyword.
func (r *rule) read(key string, v *yaml.Node, definitions map[string]*rule) (err error) {
	switch key {
	case "$schema", "$id", "$defs", "title":
	case "description":
		r.description = v.Value
	case "default":
		r.text, err = oneLine(v)
	case "examples":
		for _, e := range v.Content {
			text, err := oneLine(e)
			if err != nil {
				return err
			}
			r.examples = append(r.examples, text)
		}
	case "x-default":
		r.defaultText = v.Value
	case "x-expected":
		r.expected = v.Value
	case "x-note":
		r.note = v.Value
	case "x-comment":
		r.comment = v.Value
	case "x-flow":
		r.flow = v.Value == "true"
	case "x-block":
		r.block = v.Value == "true"
	case "x-planned":
		r.planned = values(v)
	case "type":
		if r.kind = kindOf(v.Value); r.kind == anything {
			err = fmt.Errorf("unknown type %q", v.Value)
		}
	case "properties":
		for i := 0; i < len(v.Content); i += 2 {
			p, err := readRule(v.Content[i+1], definitions)
			if err != nil {
				return fmt.Errorf("%s: %w", v.Content[i].Value, err)
			}
			r.properties = append(r.properties, property{v.Content[i].Value, p})
		}
	case "additionalProperties":
		if v.Kind == yaml.MappingNode {
			r.additional, err = readRule(v, definitions)
		} else if v.Value != "false" {
			err = fmt.Errorf("a schema or false")
		}
	case "propertyNames":
		r.names, err = readRule(v, definitions)
		if err == nil && r.names.kind == anything {
			r.names.kind = textual
		}
	case "required":
		r.required = values(v)
	case "items":
		r.items, err = readRule(v, definitions)
	case "uniqueItems":
		r.unique = v.Value == "true"
	case "enum":
		r.words = values(v)
	case "const":
		r.words = []string{v.Value}
	case "pattern":
		r.pattern, err = regexp.Compile(v.Value)
	case "format":
		r.format = v.Value
	case "minimum", "x-minimum":
		r.least = v.Value
	case "maximum", "x-maximum":
		r.most = v.Value
	case "exclusiveMinimum":
		r.above = v.Value
	case "minItems":
		r.shortest, err = strconv.Atoi(v.Value)
	case "maxItems", "maxLength", "maxProperties":
		r.longest, err = strconv.Atoi(v.Value)
	case "anyOf":
		for _, b := range v.Content {
			branch, err := readRule(b, definitions)
			if err != nil {
				return err
			}
			r.anyOf = append(r.anyOf, branch)
		}
	default:
		err = fmt.Errorf("line %d: a keyword that this package does not know", v.Line)
	}
	return err
}

func values(list *yaml.Node) []string {
	var out []string
	for _, c := range list.Content {
		out = append(out, c.Value)
	}
	return out
}

// oneLine writes a value in YAML's flow style.
func oneLine(n *yaml.Node) (string, error) {
	c := plain(n)
	out, err := yaml.Marshal(c)
	return strings.TrimSuffix(string(out), "\n"), err
}

// plain copies a node without the style of its JSON.
func plain(n *yaml.Node) *yaml.Node {
	c := &yaml.Node{Kind: n.Kind, Tag: n.ShortTag(), Value: n.Value, Style: yaml.FlowStyle}
	if n.Kind == yaml.ScalarNode {
		c.Style = 0
	}
	for _, child := range n.Content {
		c.Content = append(c.Content, plain(child))
	}
	return c
}

// expects says in words what may stand where the rule holds.
func (r *rule) expects() string {
	if r.expected != "" {
		return r.expected
	}
	if scalar, axis := r.scalar(); axis {
		return scalar.expects()
	}
	if len(r.words) > 0 {
		return alternatives(r.words)
	}
	switch r.kind {
	case boolean:
		return "true or false"
	case integer:
		return "a whole number" + r.between()
	case number:
		return "a number" + r.between()
	case textual:
		if r.format == "go-duration" {
			return "a duration" + r.between() + ", as in 500ms, 4s or 10m"
		}
		return "text"
	case list:
		return "a list"
	case mapping:
		if len(r.properties) > 0 {
			return "a mapping with keys of " + strings.Join(r.keys(), ", ")
		}
		return "a mapping of names to values"
	}
	var out []string
	for _, b := range r.anyOf {
		out = append(out, b.expects())
	}
	return alternatives(out)
}

func (r *rule) between() string {
	switch {
	case r.least != "" && r.most != "":
		return " from " + r.least + " to " + r.most
	case r.above != "" && r.most != "":
		return " above " + r.above + " and at most " + r.most
	}
	return ""
}

func alternatives(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// home returns the path of the mapping below r that has the key, where there
// is exactly one; empty: none.
func (r *rule) home(key string) string {
	var found []string
	var walk func(r *rule, path []string)
	walk = func(r *rule, path []string) {
		if len(path) > 0 && slices.Contains(r.keys(), key) {
			found = append(found, strings.Join(path, "."))
		}
		for _, p := range r.properties {
			walk(p.rule, append(slices.Clone(path), p.name))
		}
	}
	walk(r, nil)
	if len(found) != 1 {
		return ""
	}
	return found[0]
}
