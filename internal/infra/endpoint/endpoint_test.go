package endpoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/infratest"
)

// TestMain makes the test binary a worker that repeats what it hears.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func executable(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestConformance(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	defer server.Close()
	infratest.Run(t, infratest.Subject{
		New: func(t *testing.T) infra.Infrastructure {
			i, err := New(map[string]string{"base": server.URL + "/path"}, Options{Executable: executable(t)})
			if err != nil {
				t.Fatal(err)
			}
			return i
		},
		Name: "base",
		Path: meshbench.PathEndpoint,
	})
}

func TestNewErrors(t *testing.T) {
	for _, urls := range []map[string]string{
		nil, {"a": ""}, {"a": "127.0.0.1:80"}, {"a": "ftp://x"}, {"a": "http://"}, {"a": "http://:80"}, {"ok": "http://x", "a": "http://x:port"},
	} {
		_, err := New(urls, Options{Executable: "/x"})
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Invalid || e.Hint == "" || len(urls) > 0 && !strings.Contains(e.Message, `"a"`) {
			t.Errorf("%v: %+v", urls, e)
		}
	}
}

func TestDeployErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody listens there now
	i, err := New(map[string]string{"gone": "http://user:pass@" + address, "other": "https://127.0.0.1"}, Options{Executable: executable(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, c := range []struct {
		name string
		code meshbench.Code
		want []string
	}{
		{"gone", meshbench.Unavailable, []string{`"gone"`, address, "refused"}},
		{"nobody", meshbench.NotFound, []string{`"nobody"`}},
	} {
		_, err := i.Deploy(context.Background(), c.name, meshbench.Spec{}, nil)
		e := meshbench.AsError(err)
		if e == nil || e.Code != c.code || e.Hint == "" || strings.Contains(e.Message, "pass@") {
			t.Errorf("%s: %+v", c.name, e)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(e.Message, w) {
				t.Errorf("%s: %q is not in %q", c.name, w, e.Message)
			}
		}
	}
}
