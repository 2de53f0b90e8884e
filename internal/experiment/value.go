package experiment

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is what a value is, in the words of JSON Schema.
type kind int

const (
	anything kind = iota
	null
	boolean
	integer // of rules only: a value of kind number may be one
	number
	textual
	list
	mapping
)

func kindOf(schemaType string) kind {
	switch schemaType {
	case "null":
		return null
	case "boolean":
		return boolean
	case "integer":
		return integer
	case "number":
		return number
	case "string":
		return textual
	case "array":
		return list
	case "object":
		return mapping
	}
	return anything
}

// value is a part of a document and where it was written. Everything that
// can give an experiment (YAML, flags, an Experiment in memory) becomes one,
// so that all are checked by the same rules with the same words.
type value struct {
	kind    kind
	at      place
	scalar  string // a number in the form of canonicalNumber; "true" or "false"; a text
	written string // a scalar as it was written, where that differs
	items   []*value
	entries []entry
}

// entry is a key of a mapping with its value.
type entry struct {
	key   string
	at    place
	value *value
}

// found says in words what a value is.
func (v *value) found() string {
	switch v.kind {
	case null:
		return "nothing"
	case list:
		if len(v.items) == 0 {
			return "an empty list"
		}
		return "a list"
	case mapping:
		return "a mapping"
	case textual:
		return quote(v.scalar)
	}
	if v.written != "" {
		return shorten(v.written)
	}
	return shorten(v.scalar)
}

// quote returns a text in quotes, its middle left out where it is long.
func quote(s string) string { return strconv.Quote(shorten(s)) }

func shorten(s string) string {
	r := []rune(s)
	if len(r) <= 60 {
		return s
	}
	return string(r[:40]) + "..." + string(r[len(r)-15:])
}

// json returns the value as encoding/json decodes it, numbers as json.Number.
func (v *value) json() any {
	switch v.kind {
	case boolean:
		return v.scalar == "true"
	case number:
		return json.Number(v.scalar)
	case textual:
		return v.scalar
	case list:
		out := make([]any, 0, len(v.items))
		for _, i := range v.items {
			out = append(out, i.json())
		}
		return out
	case mapping:
		out := map[string]any{}
		for _, e := range v.entries {
			out[e.key] = e.value.json()
		}
		return out
	}
	return nil
}

// fromJSON is the reverse of json; at becomes the place of all of it.
func fromJSON(doc any, at place) (*value, error) {
	v := &value{at: at}
	switch d := doc.(type) {
	case nil:
		v.kind = null
	case bool:
		v.kind, v.scalar = boolean, strconv.FormatBool(d)
	case string:
		v.kind, v.scalar = textual, d
	case json.Number:
		n, err := canonicalNumber(d.String())
		if err != nil {
			return nil, err
		}
		v.kind, v.scalar = number, n
	case []any:
		v.kind = list
		for _, item := range d {
			i, err := fromJSON(item, at)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, i)
		}
	case map[string]any:
		v.kind = mapping
		for _, key := range slices.Sorted(maps.Keys(d)) {
			e, err := fromJSON(d[key], at)
			if err != nil {
				return nil, err
			}
			v.entries = append(v.entries, entry{key, at, e})
		}
	default:
		return nil, fmt.Errorf("%T is no JSON value", doc)
	}
	return v, nil
}

// places maps the path of every field and element to where it was written.
func (v *value) places() map[string]place {
	out := map[string]place{}
	var walk func(v *value, path string)
	walk = func(v *value, path string) {
		out[path] = v.at
		for i, item := range v.items {
			walk(item, fmt.Sprintf("%s[%d]", path, i))
		}
		for _, e := range v.entries {
			walk(e.value, join(path, e.key))
		}
	}
	walk(v, "")
	return out
}

// nearestPlace returns where a path was written, or else the closest field
// above it.
func nearestPlace(places map[string]place, path string) place {
	for {
		if at, ok := places[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return places[""]
		}
		path = path[:cut]
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// decimal is a number as JSON writes it, but for leading zeros of exponents.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// canonicalNumber returns the one form of a number's value: 200 for 200.0 and
// 2e2. Integers below 1e21 stay exact (a seed has 64 bits); anything else has
// the precision of a float64. Larger numbers are an error: no field takes
// them.
func canonicalNumber(written string) (string, error) {
	if !decimal.MatchString(written) {
		return "", fmt.Errorf("found %s, expected a number in decimal digits", quote(written))
	}
	f, err := strconv.ParseFloat(written, 64)
	if err != nil || math.Abs(f) >= 1e21 {
		return "", fmt.Errorf("found %s, a number larger than any field takes", quote(written))
	}
	if !strings.ContainsAny(written, ".eE") {
		n, ok := new(big.Int).SetString(written, 10)
		if !ok {
			return "", fmt.Errorf("found %s, expected a number in decimal digits", quote(written))
		}
		return n.String(), nil
	}
	if f == 0 {
		return "0", nil
	}
	out, err := json.Marshal(f)
	return string(out), err
}

// exact returns a canonical number for comparing.
func exact(canonical string) *big.Rat {
	r, ok := new(big.Rat).SetString(canonical)
	if !ok {
		panic("meshbench: not a canonical number: " + canonical)
	}
	return r
}
