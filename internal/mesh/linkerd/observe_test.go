package linkerd

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// The metrics of a client's and a service's proxy, in the form and with the
// labels that the real ones were seen to have.
var (
	clientMetrics = `
# HELP request_total Total count of HTTP requests.
# TYPE request_total counter
request_total{direction="outbound",authority="echo.default.svc.meshbench.local",dst_namespace="default",dst_service="echo",tls="true",server_id="` + identityOf("echo") + `"} 13
request_total{direction="outbound",dst_service="other",tls="true"} 7
request_total{direction="inbound",srv_name="proxy-admin",tls="no_identity",no_tls_reason="not_provided_by_remote"} 5
outbound_http_route_retry_requests_total{parent_kind="Service",parent_name="echo"} 3
proxy_build_info{version="2.300.0",git_sha="abc"} 1
rustls_info{tls_kx_groups="X25519MLKEM768,X25519",tls_fips="false"} 1
`
	echoMetrics = `
request_total{direction="inbound",srv_name="echo",tls="true",client_id="` + identityOf("client") + `"} 12
inbound_http_authz_allow_total{srv_name="echo",authz_name="echo-meshed",tls="true",client_id="` + identityOf("client") + `"} 12
inbound_http_authz_deny_total{srv_name="echo",tls="true",client_id="` + identityOf("client") + `"} 1
inbound_http_authz_deny_total{srv_name="echo",tls="no_identity",no_tls_reason="no_tls_from_remote"} 2
inbound_http_authz_allow_total{srv_name="proxy-admin",authz_name="proxy-admin-anybody",tls="no_identity"} 9
tcp_open_total{direction="inbound",peer="src",srv_name="echo",tls="true",client_id="` + identityOf("client") + `"} 2
tcp_open_total{direction="inbound",peer="dst",srv_name="echo",tls="no_identity"} 2
tcp_open_total{direction="inbound",peer="src",srv_name="echo",tls="no_identity"} 2
proxy_build_info{version="2.300.0"} 1
rustls_info{tls_kx_groups="X25519MLKEM768,X25519"} 1
`
)

// recorded is an Access to admin ports that answer with what is given; no
// proxy is behind them.
func recorded(t *testing.T, metrics map[string]string) *site {
	t.Helper()
	s := &site{addresses: map[meshbench.PortRef]string{}}
	for process, text := range metrics {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/metrics":
				w.Write([]byte(text))
			case "/env.json":
				w.Write([]byte(`{"LINKERD2_PROXY_CORES": "1", "LINKERD2_PROXY_LOG": "warn"}`))
			default:
				http.NotFound(w, r)
			}
		}))
		t.Cleanup(server.Close)
		s.addresses[meshbench.PortRef{Process: process, Port: adminPort}] = strings.TrimPrefix(server.URL, "http://")
	}
	return s
}

func TestCounters(t *testing.T) {
	access := recorded(t, map[string]string{ClientProxy: clientMetrics, "echo-proxy": echoMetrics})
	r := request([]meshbench.Service{echo})
	hops, err := New().Counters(t.Context(), access, r)
	if err != nil {
		t.Fatal(err)
	}
	want := []mesh.Hop{{From: mesh.Client, To: "echo", Secure: true, Counters: mesh.Counters{
		ClientReceived: 10, ClientAttempts: 13, ServerReceived: 15, Handshakes: 2, Plaintext: 0,
	}}}
	if difference := cmp.Diff(want, hops); difference != "" {
		t.Error(difference)
	}
	settings, err := New().Settings(t.Context(), access, r)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, s := range settings {
		values[s.Name] = s.Value
	}
	if values["version"] != "2.300.0" || values["threads"] != "1" || values["mtls"] != "strict" || values["access_log"] != "off" || values["tls_groups"] != "X25519MLKEM768,X25519" {
		t.Errorf("%v", values)
	}
}

func TestCountersOfPlainText(t *testing.T) {
	access := recorded(t, map[string]string{
		ClientProxy:  `request_total{direction="outbound",dst_service="echo",tls="no_identity"} 4`,
		"echo-proxy": `inbound_http_authz_allow_total{srv_name="echo",tls="no_identity"} 4`,
	})
	r := request([]meshbench.Service{echo})
	r.Subject.Options = map[string]string{"mtls": "off"}
	hops, err := New().Counters(t.Context(), access, r)
	want := []mesh.Hop{{From: mesh.Client, To: "echo", Counters: mesh.Counters{ClientReceived: 4, ClientAttempts: 4, ServerReceived: 4, Plaintext: 4}}}
	if difference := cmp.Diff(want, hops); err != nil || difference != "" {
		t.Errorf("%v\n%s", err, difference)
	}
	if got := mutual(hops); got != "off" {
		t.Errorf("mtls %s", got)
	}
}

func TestCountersOfAProxyThatDoesNotAnswer(t *testing.T) {
	access := recorded(t, map[string]string{ClientProxy: clientMetrics, "echo-proxy": "<html>"})
	if _, err := New().Counters(t.Context(), access, request([]meshbench.Service{echo})); err == nil || !strings.Contains(err.Error(), "echo-proxy") {
		t.Errorf("%v", err)
	}
}

func TestParseSamples(t *testing.T) {
	got, err := parseSamples([]byte("a 1\nb{} 2 1700000000\nc{x=\"1,}\\\"\\\\\\n\", y=\"\",} 3e2\n# a comment\n\nd NaN\n"))
	if err != nil || len(got) != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	if v := got[2].labels["x"]; v != "1,}\"\\\n" || got[2].value != 300 {
		t.Errorf("%q %v", v, got[2].value)
	}
	if got.sum("a", nil) != 1 || got.sum("c", map[string]string{"y": ""}) != 300 || got.sum("d", nil) != 0 || got.sum("moon", nil) != 0 {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"a", "{} 1", "a{x} 1", `a{x="1} 1`, "a one", "a 1 2 3", `a{x="1" 1`} {
		if got, err := parseSamples([]byte(bad)); err == nil {
			t.Errorf("%q read as %v", bad, got)
		}
	}
}

func FuzzParseSamples(f *testing.F) {
	f.Add(clientMetrics)
	f.Add(`a{b="c\"",} 1`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSamples([]byte(text))
		if err != nil {
			return
		}
		for _, x := range s {
			if x.name == "" || x.labels == nil {
				t.Errorf("%+v", x)
			}
		}
	})
}
