package experiment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The limits of a document. They are far above what people write, and low
// enough that no document makes a small file into much work (aliases that
// repeat aliases).
const (
	maxBytes  = 1 << 18
	maxDepth  = 16
	maxValues = 20_000
)

// readYAML reads the one document of a file. Mistakes that leave nothing to
// read end it with nil; others (keys that are given twice, numbers in a form
// that JSON lacks) leave out the part that is wrong.
func readYAML(name string, data []byte, ms *mistakes) *value {
	at := func(line, column int) place { return place{name, line, column} }
	if len(data) > maxBytes {
		ms.add(at(1, 1), "", "the file has %d bytes; %s has at most %d", len(data), ms.of().one, maxBytes)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if line, column, what := badCharacter(data); what != "" {
		ms.add(at(line, column), "", "%s", what)
		return nil
	}
	documents, err := decodeYAML(data)
	if err != nil {
		syntaxMistake(name, data, err, ms)
		return nil
	}
	if len(documents) > 1 {
		second := documents[1]
		ms.add(at(second.Line, second.Column), "", "a second document begins here; a file holds one %s", ms.of().what)
		return nil
	}
	if len(documents) == 0 || len(documents[0].Content) == 0 || documents[0].Content[0].ShortTag() == "!!null" {
		ms.add(at(1, 1), "", "the file is empty; the smallest %s is  %s", ms.of().what, ms.of().smallest)
		return nil
	}
	r := reader{name: name, ms: ms, left: maxValues}
	v := r.value(documents[0].Content[0], "", 0)
	if r.left < 0 {
		return nil
	}
	return v
}

// decodeYAML returns up to two documents.
func decodeYAML(data []byte) (documents []*yaml.Node, err error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	for len(documents) < 2 {
		var n yaml.Node
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return documents, err
		}
		documents = append(documents, &n)
	}
	return documents, nil
}

// badCharacter finds the first byte that no YAML document has.
func badCharacter(data []byte) (line, column int, what string) {
	line, column = 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return line, column, fmt.Sprintf("found the byte 0x%02x, expected text in UTF-8", data[i])
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return line, column, fmt.Sprintf("found the control character U+%04X, expected text", r)
		}
		i += size
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return 0, 0, ""
}

var parserPrefix = regexp.MustCompile(`^yaml: (line [0-9]+: )?`)

// syntaxMistake reports why a text is no YAML, where it stops to be.
func syntaxMistake(name string, data []byte, err error, ms *mistakes) {
	lines := bytes.SplitAfter(data, []byte("\n"))
	tabs := 0
	for i, l := range lines {
		indent := l[:len(l)-len(bytes.TrimLeft(l, " \t"))]
		if tab := bytes.IndexByte(indent, '\t'); tab >= 0 && len(bytes.TrimSpace(l)) > 0 {
			ms.add(place{name, i + 1, tab + 1}, "", "found a tab in the indentation; YAML indents with spaces")
			tabs++
		}
	}
	if tabs > 0 {
		return
	}
	line := brokenLine(lines)
	text := strings.TrimRight(string(lines[line-1]), "\r\n")
	column := len(text) - len(strings.TrimLeft(text, " ")) + 1
	message := parserPrefix.ReplaceAllString(err.Error(), "")
	if second := strings.LastIndex(text, ": "); second >= 0 && strings.Contains(message, secondColon) {
		column = utf8.RuneCountInString(text[:second]) + 1
	}
	ms.add(place{name, line, column}, "", "%s:  %s", plainWords(message), shorten(strings.TrimSpace(text)))
}

// brokenLine returns the number of the line at which the text stops to be
// YAML: every text from its beginning to that line or a later one is broken.
// The parser's own number is that of the construct around the mistake, which
// may have begun far above. In long files a binary search must do.
func brokenLine(lines [][]byte) int {
	broken := func(n int) bool {
		_, err := decodeYAML(bytes.Join(lines[:n], nil))
		return err != nil
	}
	last := len(lines)
	if last > 300 {
		low := 0
		for low+1 < last {
			if middle := (low + last) / 2; broken(middle) {
				last = middle
			} else {
				low = middle
			}
		}
		return last
	}
	for last > 1 && broken(last-1) {
		last--
	}
	return last
}

// secondColon is what the parser says of "a: b: c".
const secondColon = "mapping values are not allowed"

// plainWords says what the parser's message means for a line.
func plainWords(message string) string {
	switch {
	case strings.Contains(message, secondColon):
		return "found a second \": \" in a line; put the text in quotes, or the key on a line of its own with the right indentation"
	case strings.Contains(message, "did not find expected ',' or ']'"):
		return "a list is not closed; expected , or ]"
	case strings.Contains(message, "did not find expected ',' or '}'"):
		return "a mapping is not closed; expected , or }"
	case strings.Contains(message, "found unexpected end of stream"):
		return "a quote is not closed"
	case strings.Contains(message, "did not find expected key"), strings.Contains(message, "could not find expected ':'"):
		return "this is no key of the mapping above it; expected key: value, indented as the other keys"
	case strings.Contains(message, "cannot start any token"):
		return "a text that begins with a character of YAML's own (@ ` % and others) belongs in quotes"
	case strings.Contains(message, "unknown anchor"):
		return message + "; an alias (*name) repeats a value that has an anchor (&name)"
	}
	return "not YAML: " + message
}

// reader turns the nodes of a document into values.
type reader struct {
	name string
	ms   *mistakes
	left int // values that may still be read: an alias counts as what it repeats
}

func (r *reader) at(n *yaml.Node) place { return place{r.name, n.Line, n.Column} }

// value returns nil where a node is no value that an experiment can hold.
func (r *reader) value(n *yaml.Node, path string, depth int) *value {
	if r.left--; r.left < 0 || depth > maxDepth {
		if r.left >= -1 {
			r.ms.add(r.at(n), path, "the document is nested too deeply or repeats too much; %s has at most %d levels and %d values", r.ms.of().one, maxDepth, maxValues)
		}
		r.left = -2 // said once
		return nil
	}
	v := &value{at: r.at(n)}
	switch n.Kind {
	case yaml.AliasNode:
		c := r.value(n.Alias, path, depth+1)
		if c != nil {
			c.at = r.at(n)
		}
		return c
	case yaml.SequenceNode:
		v.kind = list
		for i, c := range n.Content {
			if item := r.value(c, fmt.Sprintf("%s[%d]", path, i), depth+1); item != nil {
				v.items = append(v.items, item)
			}
		}
		return v
	case yaml.MappingNode:
		v.kind = mapping
		r.entries(v, n, path, depth)
		return v
	}
	return r.scalar(v, n, path)
}

// entries reads the keys of a mapping.
func (r *reader) entries(v *value, n *yaml.Node, path string, depth int) {
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			r.ms.add(r.at(n.Content[i]), path, "found a list or a mapping where a key was expected")
			continue
		}
		if k.ShortTag() == "!!merge" {
			r.ms.add(r.at(k), path, "found a merge key (<<); write the keys out")
			continue
		}
		if first := seen[k.Value]; first != nil {
			r.ms.add(r.at(n.Content[i]), join(path, k.Value), "given twice, first in line %d", first.Line)
			continue
		}
		seen[k.Value] = n.Content[i]
		if value := r.value(c, join(path, k.Value), depth+1); value != nil {
			v.entries = append(v.entries, entry{k.Value, r.at(n.Content[i]), value})
		}
	}
}

// scalar reads a null, a truth value, a number or a text.
func (r *reader) scalar(v *value, n *yaml.Node, path string) *value {
	v.scalar = n.Value
	switch tag := n.ShortTag(); tag {
	case "!!null":
		v.kind, v.scalar = null, ""
	case "!!bool":
		v.kind, v.scalar, v.written = boolean, strings.ToLower(n.Value), n.Value
		if v.scalar != "true" && v.scalar != "false" {
			r.ms.add(r.at(n), path, "found %s, expected true or false", quote(n.Value))
			return nil
		}
	case "!!int", "!!float":
		canonical, err := canonicalNumber(n.Value)
		if err != nil {
			r.ms.add(r.at(n), path, "%v", err)
			return nil
		}
		v.kind, v.scalar, v.written = number, canonical, n.Value
	case "!!str", "!!timestamp":
		v.kind = textual
	default:
		r.ms.add(r.at(n), path, "found the tag %s; %s has texts, numbers, truth values, lists and mappings", quote(tag), r.ms.of().one)
		return nil
	}
	return v
}
