package experiment

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meshbench/meshbench"
)

// checker walks a value along the schema.
type checker struct {
	ms *mistakes
}

// check reports what is wrong with v and returns what is right in its
// canonical form, as encoding/json decodes it: durations in their shortest
// form, numbers without needless zeros. Parts that are wrong are left out; ok
// is false where nothing remains.
func (c checker) check(r *rule, v *value, path string) (out any, ok bool) {
	if len(r.anyOf) > 0 {
		return c.anyOf(r, v, path)
	}
	if !accepts(r.kind, v) {
		c.wrong(r, v, path)
		return nil, false
	}
	switch v.kind {
	case textual:
		return c.text(r, v, path)
	case number:
		if !inRange(r, v.scalar) {
			c.wrong(r, v, path)
			return nil, false
		}
	case list:
		return c.list(r, v, path)
	case mapping:
		return c.mapping(r, v, path)
	}
	return v.json(), true
}

// anyOf follows the branch that takes the kind of v.
func (c checker) anyOf(r *rule, v *value, path string) (any, bool) {
	if scalar, axis := r.scalar(); axis && v.kind != list {
		return c.check(scalar, v, path)
	}
	for _, b := range r.anyOf {
		if len(b.anyOf) == 0 && !accepts(b.kind, v) {
			continue
		}
		trial := checker{&mistakes{form: c.ms.form}}
		out, ok := trial.check(b, v, path)
		if len(trial.ms.found) == 0 {
			return out, ok
		}
		if b.kind == list {
			c.ms.found = append(c.ms.found, trial.ms.found...)
			return out, ok
		}
	}
	c.wrong(r, v, path)
	return nil, false
}

// accepts tells whether a value is of a rule's kind.
func accepts(k kind, v *value) bool {
	if k == integer {
		return v.kind == number && exact(v.scalar).IsInt()
	}
	return k == anything || k == v.kind
}

func inRange(r *rule, n string) bool {
	x := exact(n)
	return (r.least == "" || x.Cmp(exact(r.least)) >= 0) &&
		(r.most == "" || x.Cmp(exact(r.most)) <= 0) &&
		(r.above == "" || x.Cmp(exact(r.above)) > 0)
}

// wrong reports a value that may not stand where it does.
func (c checker) wrong(r *rule, v *value, path string) {
	said := fmt.Sprintf("found %s, expected %s", v.found(), r.expects())
	switch {
	case v.kind == textual && slices.Contains(r.planned, v.scalar):
		said = fmt.Sprintf("%s is not built yet; this version has %s", v.scalar, strings.Join(r.words, " and "))
	case v.kind == list && r.kind != list && r.kind != mapping && !r.takesList():
		said += "; this field cannot be an axis"
	case v.kind == null && v.at.line > 0:
		said += " (or leave the key out)"
	default:
		s := suggestion(r, v)
		if s != "" && s != r.expects() {
			said += "; did you mean " + s + "?"
		}
		if slices.Contains(r.planned, s) {
			said += " (not built yet)"
		}
	}
	if r.note != "" {
		said += "; " + r.note
	}
	c.ms.add(v.at, path, "%s", said)
}

func (r *rule) takesList() bool {
	_, axis := r.scalar()
	return axis
}

// suggestion returns what was probably meant; empty: no idea.
func suggestion(r *rule, v *value) string {
	if scalar, axis := r.scalar(); axis {
		r = scalar
	}
	switch {
	case v.kind == textual && r.kind == list:
		words := strings.FieldsFunc(v.scalar, func(c rune) bool { return c == ',' || c == ' ' })
		for _, w := range words {
			if r.items.pattern == nil || !r.items.pattern.MatchString(w) {
				return ""
			}
		}
		return "[" + strings.Join(words, ", ") + "]"
	case v.kind == number && r.format == "go-duration":
		return v.scalar + "s"
	case v.kind == textual && r.format == "go-duration" && decimal.MatchString(v.scalar):
		return v.scalar + "s"
	case v.kind == textual && r.format == "go-duration":
		if d := strings.ToLower(strings.ReplaceAll(v.scalar, " ", "")); d != v.scalar && r.pattern.MatchString(d) {
			return d
		}
	case v.kind == textual && r.kind == boolean:
		switch strings.ToLower(v.scalar) {
		case "yes", "on", "true":
			return "true"
		case "no", "off", "false":
			return "false"
		}
	case v.kind == textual && (r.kind == integer || r.kind == number):
		if n, err := canonicalNumber(v.scalar); err == nil && inRange(r, n) {
			return n + " (without quotes)"
		}
	case v.kind == textual && r.pattern != nil && r.pattern.MatchString(strings.ToUpper(v.scalar)):
		return strings.ToUpper(v.scalar)
	case v.kind == textual:
		words := slices.Concat(r.words, r.planned)
		for _, b := range r.anyOf {
			words = append(slices.Clone(words), b.words...)
			if s := suggestion(b, v); s != "" {
				return s
			}
		}
		if w, ok := meshbench.Nearest(v.scalar, words); ok {
			return w
		}
	case v.kind == number || v.kind == boolean:
		if r.kind == textual && r.pattern != nil && r.pattern.MatchString(v.found()) {
			return `"` + v.found() + `" (in quotes)`
		}
	}
	return ""
}

func (c checker) text(r *rule, v *value, path string) (any, bool) {
	if len(r.words) > 0 && !slices.Contains(r.words, v.scalar) ||
		r.longest > 0 && utf8.RuneCountInString(v.scalar) > r.longest ||
		r.pattern != nil && !r.pattern.MatchString(v.scalar) {
		c.wrong(r, v, path)
		return nil, false
	}
	if r.format != "go-duration" {
		return v.scalar, true
	}
	d, err := time.ParseDuration(v.scalar)
	if err != nil || d < bound(r.least) || d > bound(r.most) {
		c.wrong(r, v, path)
		return nil, false
	}
	return meshbench.Duration(d).String(), true
}

// bound reads a bound of the schema; a test reads them all.
func bound(d string) time.Duration {
	v, err := time.ParseDuration(d)
	if err != nil {
		panic("meshbench: the embedded schema: " + err.Error())
	}
	return v
}

func (c checker) list(r *rule, v *value, path string) (any, bool) {
	if len(v.items) < r.shortest || r.longest > 0 && len(v.items) > r.longest {
		c.ms.add(v.at, path, "found a list of %d, expected %d to %d values", len(v.items), r.shortest, r.longest)
		return nil, false
	}
	out, seen := make([]any, 0, len(v.items)), map[string]bool{}
	for i, item := range v.items {
		value, ok := c.check(r.items, item, fmt.Sprintf("%s[%d]", path, i))
		if !ok && r.items.kind == textual && r.items.format == "" {
			value = "" // later elements keep their numbers
		} else if !ok {
			continue
		}
		if ok && r.unique {
			key, err := json.Marshal(value)
			if err != nil || seen[string(key)] {
				c.ms.add(item.at, fmt.Sprintf("%s[%d]", path, i), "%s is in the list already", item.found())
				continue
			}
			seen[string(key)] = true
		}
		out = append(out, value)
	}
	return out, len(out) >= r.shortest
}

func (c checker) mapping(r *rule, v *value, path string) (any, bool) {
	if r.longest > 0 && len(v.entries) > r.longest {
		c.ms.add(v.at, path, "found %d entries, expected at most %d", len(v.entries), r.longest)
		return nil, false
	}
	out := map[string]any{}
	for _, e := range v.entries {
		field := join(path, e.key)
		of := r.property(e.key)
		if of == nil {
			if of = r.additional; of == nil {
				c.unknown(r, e, path)
				continue
			}
			if !c.name(r.names, e, path) {
				continue
			}
		}
		if value, ok := c.check(of, e.value, field); ok {
			out[e.key] = value
		}
	}
	for _, key := range r.required {
		if !slices.ContainsFunc(v.entries, func(e entry) bool { return e.key == key }) {
			c.ms.add(v.at, path, "the key %s is missing; expected %s", key, r.property(key).expects())
			return nil, false
		}
	}
	return out, true
}

// name checks a key of one's own.
func (c checker) name(r *rule, e entry, path string) bool {
	if r.pattern.MatchString(e.key) && utf8.RuneCountInString(e.key) <= r.longest {
		return true
	}
	c.ms.add(e.at, path, "found the name %s, expected %s", quote(e.key), r.expects())
	return false
}

// unknown reports a key that may not stand where it does.
func (c checker) unknown(r *rule, e entry, path string) {
	said := "unknown key " + quote(e.key)
	if path != "" {
		path, _, _ = strings.Cut(path, "[")
	}
	near, found := meshbench.Nearest(e.key, r.keys())
	root, lost := c.ms.of().root(), ""
	home := root.home(e.key)
	switch {
	case slices.Contains(r.planned, e.key):
		said = e.key + " is not built yet"
	case root.property(e.key) != nil:
		said, lost = said+"; it belongs at the top of the document", e.key
	case home != "" && home != path:
		said, lost = said+"; it belongs under "+home, join(home, e.key)
	case found:
		said, lost = said+"; did you mean "+near+"?", join(path, near)
	}
	if lost == "" {
		said += " (keys here: " + strings.Join(r.keys(), ", ") + ")"
	}
	if r.note != "" {
		said += "; " + r.note
	}
	c.ms.found = append(c.ms.found, mistake{e.at, path, said, lost})
}
