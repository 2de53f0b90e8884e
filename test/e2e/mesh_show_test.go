package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMeshShow prints what policies become, and what cannot be done.
func TestMeshShow(t *testing.T) {
	data := t.TempDir()
	file := filepath.Join(data, "policies.yaml")
	if err := os.WriteFile(file, []byte("policies:\n  - {to: echo, timeout: {request: 250ms}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, data, "mesh", "show", "envoy", "--policies", file)
	if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "# RouteConfiguration to-echo of client-proxy\n") {
		t.Fatalf("code %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	var route struct {
		Hosts []struct {
			Routes []struct {
				Route map[string]string
			}
		} `yaml:"virtual_hosts"`
	}
	if err := yaml.Unmarshal([]byte(r.stdout), &route); err != nil || route.Hosts[0].Routes[0].Route["timeout"] != "0.250s" {
		t.Errorf("%v: %+v", err, route)
	}
	doc := run(t, data, "mesh", "show", "envoy:mtls=off", "--policies", file, "-o", "json").document(t)
	if at(t, doc, "subject") != "envoy:mtls=off" || at(t, doc, "documents.0.media") != "application/yaml" || len(at(t, doc, "unsupported").([]any)) != 0 {
		t.Errorf("%v", doc)
	}
	// The baseline can do nothing, and says so.
	r = run(t, data, "mesh", "show", "none", "--policies", file)
	if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "timeout: there is no proxy") {
		t.Errorf("code %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	r = run(t, data, "mesh", "show", "none", "--policies", file, "-o", "json")
	if doc := r.document(t); r.code != 2 || at(t, doc, "unsupported.0.policy") != "timeout" || at(t, doc, "unsupported.0.source") == "" {
		t.Errorf("code %d, %v", r.code, doc)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"envvoy"}, 2, "did you mean envoy?"},
		{[]string{"envoy:mlts=off"}, 2, "did you mean mtls?"},
		{[]string{"envoy", "--policies", file, "--services", "front"}, 2, `no service "echo"`},
		{[]string{"envoy", "--policies", filepath.Join(data, "none.yaml")}, 2, "no such file"},
		{[]string{"envoy", "--profile", "tuned"}, 2, `no profile "tuned"`},
		{nil, 2, "one mesh"},
	} {
		r := run(t, data, append([]string{"mesh", "show"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("%v: code %d, %s%s", c.args, r.code, r.stdout, r.stderr)
		}
	}
}
