package report_test

import (
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

// documented reads docs/result.md: the fields of each object, from the table
// under the heading that names it.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("../../docs/result.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`^### (\w+)$`)
	row := regexp.MustCompile("^\\| `([^`]+)` \\| [^|]*\\S[^|]* \\| [^|]*\\S")
	out := map[string][]string{}
	name := ""
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			name = ""
			if m := heading.FindStringSubmatch(line); m != nil {
				name = m[1]
				out[name] = []string{}
			}
		case strings.HasPrefix(line, "| `"):
			m := row.FindStringSubmatch(line)
			if m == nil || name == "" {
				t.Errorf("docs/result.md, line %d, is no field with a type and a meaning: %s", i+1, line)
				continue
			}
			out[name] = append(out[name], m[1])
		}
	}
	return out
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// jsonObjects lists, for every type of object that a value of type typ holds
// in JSON, the names of its fields.
func jsonObjects(t *testing.T, typ reflect.Type, out map[string][]string) {
	t.Helper()
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		jsonObjects(t, typ.Elem(), out)
		return
	case reflect.Struct:
	default:
		return
	}
	// The types that write their own JSON: Latency has keys of its own, an
	// Experiment and an Estimate those of their fields, the others are scalars.
	switch typ {
	case reflect.TypeFor[meshbench.Latency]():
		out["Latency"] = latencyKeys(t)
		return
	case reflect.TypeFor[meshbench.Experiment](), reflect.TypeFor[meshbench.Estimate]():
	default:
		if typ.Implements(marshaler) || typ.Implements(textMarshaler) {
			if typ.PkgPath() == reflect.TypeFor[meshbench.Result]().PkgPath() {
				t.Errorf("%s writes its own JSON: say here which keys it has", typ)
			}
			return
		}
	}
	if _, done := out[typ.Name()]; done {
		return
	}
	out[typ.Name()] = []string{}
	var fields []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			// Its fields are this object's; they are documented with its type.
			jsonObjects(t, f.Type, out)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields = append(fields, name)
		jsonObjects(t, f.Type, out)
	}
	out[typ.Name()] = fields
}

// latencyKeys asks a full distribution for its keys.
func latencyKeys(t *testing.T) []string {
	t.Helper()
	l := meshbench.Latency{Count: 1, Values: map[meshbench.Quantile]meshbench.Microseconds{}, AtLeast: map[meshbench.Quantile]meshbench.Microseconds{}}
	for _, q := range meshbench.Quantiles {
		l.Values[q], l.AtLeast[q] = 1, 1
	}
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for k := range doc {
		keys = append(keys, k)
	}
	return keys
}

// Every field that is printed is documented, and what is documented exists.
func TestResultIsDocumented(t *testing.T) {
	want := map[string][]string{}
	for _, typ := range []reflect.Type{reflect.TypeFor[meshbench.Result](), reflect.TypeFor[meshbench.LoadResult](), reflect.TypeFor[meshbench.Trial]()} {
		jsonObjects(t, typ, want)
	}
	got := documented(t)
	for name, fields := range want {
		for _, f := range fields {
			if !slices.Contains(got[name], f) {
				t.Errorf("docs/result.md: %s lacks the field `%s`", name, f)
			}
		}
		for _, f := range got[name] {
			if !slices.Contains(fields, f) {
				t.Errorf("docs/result.md: %s documents `%s`, which does not exist", name, f)
			}
		}
	}
	for name := range got {
		if want[name] == nil {
			t.Errorf("docs/result.md documents an object %s, which no document holds", name)
		}
	}
}
