package apiserver

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// asked is what a stand-in for an API server was asked last: the real one is
// tried by the end-to-end tests.
type asked struct {
	line, media, token, body string
}

func serve(t *testing.T, status int, answer string) (*Client, *asked) {
	t.Helper()
	var last asked
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		last = asked{r.Method + " " + r.URL.String(), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(body)}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c, err := New(server.Listener.Addr().String(), "secret", roots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &last
}

var sidecars = Resource{APIVersion: "networking.istio.io/v1", Kind: "Sidecar", Plural: "sidecars"}

func TestApply(t *testing.T) {
	c, last := serve(t, 200, `{"metadata": {"resourceVersion": "17"}}`)
	version, err := c.Apply(t.Context(), sidecars, Object{Metadata: Metadata{Name: "echo", Namespace: "default"}, Spec: map[string]any{"a": 1}})
	if err != nil || version != "17" {
		t.Errorf("version %q, %v", version, err)
	}
	if last.line != "PATCH /apis/networking.istio.io/v1/namespaces/default/sidecars/echo?fieldManager=meshbench&force=true" ||
		last.media != "application/apply-patch+yaml" || last.token != "Bearer secret" {
		t.Errorf("asked %+v", *last)
	}
	var sent map[string]any
	if err := json.Unmarshal([]byte(last.body), &sent); err != nil || sent["kind"] != "Sidecar" || sent["apiVersion"] != "networking.istio.io/v1" {
		t.Errorf("sent %s, %v", last.body, err)
	}
}

func TestPaths(t *testing.T) {
	for _, tt := range []struct {
		resource        Resource
		namespace, name string
		want            string
	}{
		{Resource{APIVersion: "v1", Plural: "namespaces", Cluster: true}, "", "default", "/api/v1/namespaces/default"},
		{Resource{APIVersion: "v1", Plural: "secrets"}, "istio-system", "ca", "/api/v1/namespaces/istio-system/secrets/ca"},
		{Resource{APIVersion: "apiextensions.k8s.io/v1", Plural: "customresourcedefinitions", Cluster: true}, "", "", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"},
		{sidecars, "default", "a/b", "/apis/networking.istio.io/v1/namespaces/default/sidecars/a%2Fb"},
	} {
		if got := tt.resource.path(tt.namespace, tt.name); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

func TestToken(t *testing.T) {
	c, last := serve(t, 201, `{"status": {"token": "abc"}}`)
	token, err := c.Token(t.Context(), "default", "echo", "istio-ca", time.Hour)
	if err != nil || token != "abc" {
		t.Errorf("%q, %v", token, err)
	}
	if last.line != "POST /api/v1/namespaces/default/serviceaccounts/echo/token" || !strings.Contains(last.body, `"expirationSeconds":3600`) || !strings.Contains(last.body, `["istio-ca"]`) {
		t.Errorf("asked %+v", *last)
	}
	c, _ = serve(t, 201, `{}`)
	if token, err := c.Token(t.Context(), "default", "echo", "istio-ca", time.Hour); err == nil {
		t.Errorf("no token, but %q", token)
	}
}

// TestRefusals: the server's own words reach the caller, with the right code.
func TestRefusals(t *testing.T) {
	const words = `{"kind": "Status", "message": "spec.hosts: Required value"}`
	for status, code := range map[int]meshbench.Code{
		404: meshbench.NotFound, 409: meshbench.Conflict, 422: meshbench.Invalid, 400: meshbench.Invalid,
		401: meshbench.Internal, 429: meshbench.Unavailable, 500: meshbench.Unavailable,
	} {
		c, _ := serve(t, status, words)
		_, err := c.Apply(t.Context(), sidecars, Object{Metadata: Metadata{Name: "echo", Namespace: "default"}})
		if e := meshbench.AsError(err); e == nil || e.Code != code || !strings.Contains(e.Message, "spec.hosts: Required value") {
			t.Errorf("%d: %+v", status, e)
		}
	}
	c, _ := serve(t, 500, strings.Repeat("x", 5000))
	if err := c.Ready(t.Context()); err == nil || len(err.Error()) > 2200 {
		t.Errorf("a long answer: %v", err)
	}
	c, _ = serve(t, 409, words)
	if err := c.Create(t.Context(), sidecars, []byte("kind: Sidecar")); err != nil {
		t.Errorf("creating what is there: %v", err)
	}
	c, _ = serve(t, 404, words)
	if err := c.Delete(t.Context(), sidecars, "default", "echo"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestList(t *testing.T) {
	c, last := serve(t, 200, `{"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}`)
	got, err := c.List(t.Context(), sidecars, "default", "x=y")
	if err != nil || len(got) != 2 || got[1].Metadata.Name != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	if !strings.HasSuffix(last.line, "/sidecars?labelSelector=x%3Dy") {
		t.Errorf("asked %s", last.line)
	}
}

// TestOtherServer: one that proves itself by another certificate is told
// nothing.
func TestOtherServer(t *testing.T) {
	known, last := serve(t, 200, "{}")
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(strings.TrimPrefix(known.base, "https://"), "secret", []byte(authority.Bundle()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err == nil || meshbench.AsError(err).Code != meshbench.Unavailable {
		t.Errorf("got %v", err)
	}
	if last.line != "" {
		t.Errorf("asked %+v", *last)
	}
	if _, err := New("127.0.0.1:1", "secret", []byte("no certificate")); err == nil {
		t.Error("a client without roots was made")
	}
}
