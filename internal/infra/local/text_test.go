//go:build linux

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

func TestRender(t *testing.T) {
	l := layout{
		ports: map[meshbench.PortRef]int{{Process: "a", Port: "web"}: 81, {Process: "b", Port: "admin"}: 82},
		dirs:  map[string]string{"a": "/d/a", "b": "/d/b"},
		hosts: map[string]string{"a": "127.0.0.1", "b": "127.64.0.3"}, programs: map[string]string{"x@1": "/bin/x"},
	}
	for _, c := range []struct{ text, want string }{
		{"plain } { text", "plain } { text"},
		{`{{port "b" "admin"}} {{address "a" "web"}} {{dir}}`, "82 127.0.0.1:81 /d/a"},
		{`{{host "b"}} {{address "b" "admin"}} {{dirof "b"}} {{program "x@1"}}`, "127.64.0.3 127.64.0.3:82 /d/b /bin/x"},
		{`"%LOCAL% {{"{{"}}"`, `"%LOCAL% {{"`},
	} {
		if got, err := l.render("a", "args", c.text); err != nil || got != c.want {
			t.Errorf("%q: %q, error %v; want %q", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"{{", `{{port "a" "admin"}}`, `{{port "c" "web"}}`, `{{port}}`, `{{.Secret}}`, `{{env "HOME"}}`, `{{host "c"}}`, `{{program "x@2"}}`} {
		_, err := l.render("a", "file x.yaml", text)
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Internal || !strings.Contains(e.Message, `"a"`) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add(`{{port "a" "web"}}`)
	f.Add(`{{range $i := .}}{{end}}`)
	f.Add(`{{define "x"}}{{dir}}{{end}}{{template "x"}}`)
	l := layout{ports: map[meshbench.PortRef]int{{Process: "a", Port: "web"}: 81}, dirs: map[string]string{"a": "/d"}}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := l.render("a", "x", text)
		if err == nil && !strings.Contains(text, "{{") && got != text {
			t.Errorf("%q became %q without a template in it", text, got)
		}
	})
}

func TestFileName(t *testing.T) {
	for in, want := range map[string]string{
		"envoy@1.40:mtls=strict/rate=200": "envoy@1.40_mtls=strict_rate=200",
		"none#2":                          "none#2",
		"../../etc":                       ".._.._etc",
		"a b\x00é":                        "a_b__",
	} {
		if got := fileName(in); got != want {
			t.Errorf("fileName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestClearOf(t *testing.T) {
	for _, c := range []struct {
		kernel    string
		low, high int
	}{
		{"32768\t60999\n", 10240, 32767},
		{"10000 40000", 40001, 65535},
		{"1024 65535", 10240, 65535}, // nothing is left: all
		{"11000 65000", 10240, 65535},
		{"1 1", 10241, 65535}, // never a privileged one
		{"", 10240, 65535}, {"x y", 10240, 65535}, {"5 4", 10240, 65535}, {"1 99999", 10240, 65535},
	} {
		if low, high := clearOf(c.kernel); low != c.low || high != c.high {
			t.Errorf("%q: %d-%d, want %d-%d", c.kernel, low, high, c.low, c.high)
		}
	}
}

func FuzzClearOf(f *testing.F) {
	f.Add("32768 60999")
	f.Add("-1 70000")
	f.Fuzz(func(t *testing.T, kernel string) {
		if low, high := clearOf(kernel); low < 1024 || high > 65535 || high-low < 999 {
			t.Errorf("%q: %d-%d", kernel, low, high)
		}
	})
}

func TestPickNeverTwice(t *testing.T) {
	p := newPortPicker()
	seen := map[int]bool{}
	ports := map[meshbench.PortRef]int{}
	for i := range 200 {
		n, err := p.pick()
		if err != nil {
			t.Fatal(err)
		}
		if seen[n] || n < p.low || n > p.high {
			t.Fatalf("port %d is picked again, or outside of %d-%d", n, p.low, p.high)
		}
		seen[n] = true
		ports[meshbench.PortRef{Port: fmt.Sprint(i)}] = n
	}
	p.free(ports)
	if len(p.used) != 0 {
		t.Errorf("%d ports are still taken", len(p.used))
	}
}

func TestCappedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l := &cappedLog{path: path, limit: 100}
	for i := range 50 {
		if n, err := fmt.Fprintf(l, "line %2d\n", i); n != 8 || err != nil {
			t.Fatal(n, err)
		}
	}
	l.Close()
	if got := lastLines(path, 3); got != "line 47\nline 48\nline 49" {
		t.Errorf("the last three lines: %q", got)
	}
	// More than the newer part has: the older one helps out.
	if got := strings.Count(lastLines(path, 14), "\n") + 1; got != 14 {
		t.Errorf("%d lines, want 14", got)
	}
	if got := lastLines(path, 0); got != "" {
		t.Errorf("no lines: %q", got)
	}
	if got := lastLines(filepath.Join(t.TempDir(), "none"), 5); got != "" {
		t.Errorf("no file: %q", got)
	}
	for _, p := range []string{path, olderLog(path)} {
		if info, err := os.Stat(p); err != nil || info.Size() > 100 {
			t.Errorf("%s: %v, error %v", p, info, err)
		}
	}
	// What cannot be written is dropped: the process goes on.
	bad := &cappedLog{path: filepath.Join(t.TempDir(), "no", "such", "directory"), limit: 100}
	if n, err := bad.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("a log that cannot be written: %d, %v", n, err)
	}
	full := &cappedLog{path: "/dev/full", limit: 1 << 20}
	for range 3 {
		if n, err := full.Write([]byte("x")); n != 1 || err != nil {
			t.Errorf("a full disk: %d, %v", n, err)
		}
	}
}
