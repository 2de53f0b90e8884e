package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshbench/meshbench/internal/mesh/builtin"
)

// TestRealBuilds holds that the programs that are built out of Go modules are
// here (test/run builds them before the tests) and are what they say.
func TestRealBuilds(t *testing.T) {
	data := t.TempDir()
	for ref, want := range map[string]struct {
		version []string // arguments
		says    string
		beside  string
		has     string // in what is beside it
	}{
		"etcd@3.6":            {[]string{"--version"}, "etcd Version: 3.6.8", "", ""},
		"kube-apiserver@1.36": {[]string{"--version"}, "Kubernetes v1.36.3", "", ""},
		"istiod@1.31":         {[]string{"version"}, `"1.31.0"`, "crd-all.gen.yaml", "virtualservices.networking.istio.io"},
		"pilot-agent@1.31":    {[]string{"version"}, `"1.31.0"`, "envoy_bootstrap.json", "prometheus_stats"},
		"consul@1.22":         {[]string{"version"}, "Consul v1.22.7", "", ""},
		"mosn@1.6":            {[]string{"--version"}, "1.6.1", "", ""},
	} {
		r := run(t, data, "runtime", "get", ref)
		if r.code != 0 || !strings.Contains(r.stdout, " is ready: ") {
			t.Errorf("runtime get %s: exit code %d, %s%s", ref, r.code, r.stdout, r.stderr)
			continue
		}
		path := strings.TrimSpace(run(t, data, "runtime", "path", ref).stdout)
		out, err := exec.Command(path, want.version...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want.says) {
			t.Errorf("%s %v prints %q, %v; want %q", path, want.version, out, err, want.says)
		}
		if want.beside == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), want.beside))
		if err != nil || !strings.Contains(string(text), want.has) {
			t.Errorf("%s: %s has %d bytes, %v; want %q in it", ref, want.beside, len(text), err, want.has)
		}
	}
}

// TestRuntimeGetMesh gets all that a mesh needs by the name of the mesh.
func TestRuntimeGetMesh(t *testing.T) {
	data := t.TempDir()
	r := run(t, data, "runtime", "get", "consul", "envoy@1.40.0")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if r.code != 0 || len(lines) != 2 || !strings.HasPrefix(lines[0], "consul 1.22.7 is ready: ") || !strings.HasPrefix(lines[1], "envoy 1.40.0 is ready: ") {
		t.Errorf("exit code %d, %q, %s", r.code, lines, r.stderr)
	}
	if r := run(t, data, "runtime", "get", "none"); r.code != 0 || r.stdout != "none needs no runtime\n" {
		t.Errorf("none: exit code %d, %q, %s", r.code, r.stdout, r.stderr)
	}
}

// TestMeshList holds that every mesh says how it stands here and what it can
// do, for people and for scripts.
func TestMeshList(t *testing.T) {
	data := t.TempDir()
	doc := run(t, data, "mesh", "list", "-o", "json").document(t)
	table := run(t, data, "mesh", "list")
	meshes := at(t, doc, "meshes").([]any)
	if len(meshes) != len(builtin.Drivers()) || table.code != 0 {
		t.Fatalf("%d meshes are listed, exit code %d: %s", len(meshes), table.code, table.stderr)
	}
	for i, driver := range builtin.Drivers() {
		d := driver.Describe()
		m := meshes[i]
		state := at(t, m, "state").(string)
		if at(t, m, "name") != d.Name || len(at(t, m, "capabilities").([]any)) != len(d.Capabilities) || len(at(t, m, "options").([]any)) != len(d.Options) {
			t.Errorf("%s is listed as %v", d.Name, m)
		}
		hint, _ := m.(map[string]any)["hint"].(string)
		switch state {
		case "ready", "available":
		case "unavailable":
			if hint == "" {
				t.Errorf("%s is unavailable, and nothing says what to do: %v", d.Name, at(t, m, "detail"))
			}
		default:
			t.Errorf("%s is %q", d.Name, state)
		}
		if !strings.Contains(table.stdout, d.Name+": "+d.Summary) || !strings.Contains(table.stdout, at(t, m, "detail").(string)) {
			t.Errorf("the table does not have what the document says of %s:\n%s", d.Name, table.stdout)
		}
	}
	if said := run(t, data, "runtime", "list").stdout; !strings.Contains(said, "linkerd2-proxy: put linkerd2-proxy on PATH; or take it from its release archive") &&
		!strings.Contains(said, "linkerd2-proxy  2.") {
		t.Errorf("the list does not say how to get linkerd2-proxy:\n%s", said)
	}
}

// TestRuntimeGetMistakes holds that a name or a source that is wrong is
// refused with what to do.
func TestRuntimeGetMistakes(t *testing.T) {
	data := t.TempDir()
	digest := strings.Repeat("0", 64)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"envoi"}, []string{`no mesh and no runtime called "envoi"`, "did you mean envoy?", "kube-apiserver"}},
		{[]string{"linkerd2-proxy"}, []string{"not on this machine", "--image cr.l5d.io/linkerd/proxy@sha256:DIGEST"}},
		{[]string{"envoy", "--image", "example.com/envoy@sha256:" + digest, "--file", "envoy"}, []string{"pinned in the catalogue"}},
		{[]string{"linkerd2-proxy", "--image", "example.com/proxy@sha256:" + digest}, []string{"--file is missing"}},
		{[]string{"linkerd2-proxy", "--image", "example.com/proxy:latest", "--file", "p"}, []string{"its digest"}},
		{[]string{"linkerd2-proxy", "--archive", "http://127.0.0.1:1/p.tar.gz", "--sha256", "abc", "--file", "p"}, []string{"64 hexadecimal digits"}},
		{[]string{"linkerd2-proxy", "--archive", "http://127.0.0.1:1/p.tar.gz", "--sha256", digest, "--file", "p"}, []string{"connection refused", "put linkerd2-proxy on PATH"}},
		{[]string{"linkerd2-proxy", "--sha256", digest}, []string{"belong to --archive"}},
	} {
		r := run(t, data, append([]string{"runtime", "get"}, c.args...)...)
		if r.code == 0 {
			t.Errorf("%v works", c.args)
		}
		for _, want := range c.want {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%v says %q, want %q", c.args, r.stderr, want)
			}
		}
	}
}
