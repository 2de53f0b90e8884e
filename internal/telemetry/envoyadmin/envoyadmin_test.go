package envoyadmin

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseStats(t *testing.T) {
	got, err := ParseStats([]byte("cluster.a.upstream_rq_total: 12\n\nlistener.[::1]_80.ssl.handshake: 3\n" +
		"cluster.a.upstream_rq_time: P0(1,1) P25(1,1)\ncontrol_plane.identifier: \"x\"\nbig: 18446744073709551615\n"))
	want := Stats{"cluster.a.upstream_rq_total": 12, "listener.[::1]_80.ssl.handshake": 3, "big": 18446744073709551615}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"<html>", "name", ": 1", "name:1"} {
		if got, err := ParseStats([]byte(bad)); err == nil {
			t.Errorf("%q read as %v", bad, got)
		}
	}
	if _, err := got.Need("client-proxy", "moon"); err == nil || !strings.Contains(err.Error(), "moon") {
		t.Errorf("a counter that does not exist: %v", err)
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add("cluster.a.upstream_rq_total: 12\nb: 0\n")
	f.Add("a: P0(nan,1)\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseStats([]byte(text))
		if err != nil {
			return
		}
		for name := range s {
			if name == "" || strings.ContainsAny(name, "\n\r") {
				t.Errorf("a name %q", name)
			}
		}
	})
}

func TestParseVersion(t *testing.T) {
	got, err := ParseVersion([]byte(`{"version": "e3b4a6e9570da15ac1caffdded17a8bebdc7dfc9/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}`))
	if got != "1.40.0" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"version": "1.40.0"}`, `{"version": "a//b"}`, `[]`} {
		if got, err := ParseVersion([]byte(bad)); err == nil {
			t.Errorf("%q read as %q", bad, got)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add(`{"version": "abc/1.40.0/Clean/RELEASE/BoringSSL"}`)
	f.Add(`{"version": "/"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := ParseVersion([]byte(text)); err == nil && (v == "" || strings.Contains(v, "/")) {
			t.Errorf("version %q", v)
		}
	})
}

const dump = `{"configs": [{"@type": "x", "active_state": {"listener": {
  "filter_chains": [{
    "filters": [{"typed_config": {"stat_prefix": "inbound", "access_log": [{"name": "stdout"}], "tracing": {}}}],
    "transport_socket": {"typed_config": {
      "require_client_certificate": true,
      "common_tls_context": {
        "tls_params": {"ecdh_curves": ["X25519"]},
        "combined_validation_context": {"default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "URI"}]}}
      }
    }}
  }, {"filters": []}]
}}}]}`

func TestFacts(t *testing.T) {
	var got Facts
	err := got.Read([]byte(dump))
	want := Facts{
		AccessLog: true, Tracing: true, Groups: []string{"X25519"},
		RequiresCertificate: true, VerifiesNames: true, Chains: 2, TLSChains: 1,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	got = Facts{}
	quiet := `{"access_log": [], "require_client_certificate": false, "match_typed_subject_alt_names": [], "filter_chains": {}, "transport_protocol": "tls"}`
	if err := got.Read([]byte(quiet)); err != nil || !reflect.DeepEqual(got, Facts{}) {
		t.Errorf("got %+v, %v", got, err)
	}
	got = Facts{}
	if err := got.Read([]byte(`{"match_subject_alt_names": [{"prefix": "spiffe://"}]}`)); err != nil || !got.VerifiesNames {
		t.Errorf("the older name of a field: %+v, %v", got, err)
	}
	got = Facts{}
	refused := `{"transport_protocol": "raw_buffer", "error_state": {"details": "no such filter", "failed_configuration": {"filter_chains": [1]}}}`
	if err := got.Read([]byte(refused)); err != nil || !reflect.DeepEqual(got, Facts{Permissive: true, Rejected: []string{"no such filter"}}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzFacts(f *testing.F) {
	f.Add(dump)
	f.Add(`{"ecdh_curves": "X25519", "filter_chains": [1], "error_state": 1}`)
	f.Fuzz(func(t *testing.T, text string) {
		var got Facts
		if err := got.Read([]byte(text)); err == nil && got.TLSChains > got.Chains {
			t.Errorf("%+v", got)
		}
	})
}

func TestWordsOfStats(t *testing.T) {
	s := Stats{"a.ssl.versions.TLSv1.3": 2, "a.ssl.versions.TLSv1.2": 0, "a.ssl.versions.TLSv1.1": 1, "b.ssl.versions.TLSv1.2": 9, "a.upstream_cx_http2_total": 1, "upstream_cx_http1_total": 3}
	for got, want := range map[string]string{
		s.Counted("a.ssl.versions."): "TLSv1.1, TLSv1.3", s.Counted("c."): "", s.Spoken("a."): "HTTP/2", s.Spoken(""): "HTTP/1.1", s.Spoken("b.") + "-": "-",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
