package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench/internal/experiment"
)

// planned lists the cells of an experiment: id, path, and what it is compared
// with.
func planned(t *testing.T, text string) [][3]string {
	t.Helper()
	e, err := experiment.Parse("experiment.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cells, err := experiment.Cells(e)
	if err == nil {
		cells, err = onPaths(cells)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out [][3]string
	for _, c := range cells {
		out = append(out, [3]string{c.ID, string(c.Path), c.Baseline})
	}
	return out
}

func TestEachNetworkPathHasItsOwnNone(t *testing.T) {
	const none = "none:path=namespaces"
	for _, tt := range []struct {
		name, text string
		want       [][3]string
	}{
		{"one path", "subjects: [none, envoy]", [][3]string{{"none", "loopback", ""}, {"envoy", "loopback", "none"}}},
		{"a mesh in namespaces", "subjects: [none, envoy, linkerd, \"linkerd:mtls=off\"]", [][3]string{
			{"none", "loopback", ""}, {"envoy", "loopback", "none"}, {none, "namespaces", ""}, {"linkerd", "namespaces", none}, {"linkerd:mtls=off", "namespaces", none},
		}},
		{"it is there already", "subjects: [none, linkerd, \"none:path=namespaces\"]", [][3]string{
			{"none", "loopback", ""}, {"linkerd", "namespaces", none}, {none, "namespaces", ""},
		}},
		{"it is the baseline", "subjects: [\"none:path=namespaces\", linkerd]", [][3]string{{none, "namespaces", ""}, {"linkerd", "namespaces", none}}},
		{"the baseline is a mesh in namespaces", "subjects: [linkerd, \"linkerd:mtls=off\", none]", [][3]string{
			{"linkerd", "namespaces", ""}, {"linkerd:mtls=off", "namespaces", "linkerd"}, {"none", "loopback", ""},
		}},
		{"axes", "subjects: [none, linkerd]\nload: {rate: [100, 200]}", [][3]string{
			{"none/rate=100", "loopback", ""}, {none + "/rate=100", "namespaces", ""}, {"linkerd/rate=100", "namespaces", none + "/rate=100"},
			{"none/rate=200", "loopback", ""}, {none + "/rate=200", "namespaces", ""}, {"linkerd/rate=200", "namespaces", none + "/rate=200"},
		}},
	} {
		if difference := cmp.Diff(tt.want, planned(t, tt.text)); difference != "" {
			t.Errorf("%s:\n%s", tt.name, difference)
		}
	}
}
