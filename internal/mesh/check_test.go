package mesh_test

import (
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

var proxy = mesh.Description{
	Name: "proxy", Title: "Proxy", Versions: []string{"1.40.0", "1.39.3", "1.39.1", "1.4.2"},
	Options: []mesh.Option{
		{Name: "mtls", Values: []string{"strict", "permissive"}},
		{Name: "upstream", Values: []string{"http1", "http2"}},
	},
}

func TestVersion(t *testing.T) {
	for asked, want := range map[string]string{
		"": "1.40.0", "1.40": "1.40.0", "1.39": "1.39.3", "1.39.1": "1.39.1", "1.4": "1.4.2", "1": "1.40.0",
	} {
		if got, err := mesh.Version(proxy, asked); err != nil || got != want {
			t.Errorf("Version(%q) = %q, %v; want %q", asked, got, err, want)
		}
	}
	for asked, nearest := range map[string]string{
		"1.41": "1.40.0", "1.38": "1.39.3", "v1.40.1": "1.40.0", "2": "1.40.0", "1.39.2": "1.39.3", "1.40.O": "1.40.0",
	} {
		_, err := mesh.Version(proxy, asked)
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.NotFound {
			t.Fatalf("Version(%q): %v", asked, err)
		}
		if !strings.HasPrefix(e.Hint, "did you mean "+nearest+"?") {
			t.Errorf("Version(%q): hint %q does not name %s", asked, e.Hint, nearest)
		}
	}
	if got, err := mesh.Version(mesh.Description{Name: "none"}, ""); got != "" || err != nil {
		t.Errorf("a mesh without versions: %q, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		subject string
		code    meshbench.Code // empty: accepted
		hint    string
	}{
		{"proxy", "", ""},
		{"proxy@1.39:mtls=permissive:upstream=http2", "", ""},
		{"proxy@1.37", meshbench.NotFound, "1.39.3"},
		{"proxy:mlts=strict", meshbench.Invalid, "did you mean mtls?"},
		{"proxy:mtls=stric", meshbench.Invalid, "did you mean strict? there are: strict, permissive"},
		{"proxy:mtls=off", meshbench.Invalid, "there are: strict, permissive"},
	}
	for _, tt := range tests {
		s, err := meshbench.ParseSubject(tt.subject)
		if err != nil {
			t.Fatal(err)
		}
		err = mesh.Check(proxy, s)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.subject, err)
			}
			continue
		}
		e := meshbench.AsError(err)
		if e == nil || e.Code != tt.code || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: %+v", tt.subject, e)
		}
	}
	s, _ := meshbench.ParseSubject("none@1:a=b")
	if err := mesh.Check(mesh.Description{Name: "none", Title: "No mesh"}, s); err == nil {
		t.Error("a version of a mesh without versions was accepted")
	}
}
