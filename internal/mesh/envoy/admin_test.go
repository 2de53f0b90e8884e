package envoy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/meshbench/meshbench/internal/mesh"
)

func TestParseStats(t *testing.T) {
	got, err := parseStats([]byte("cluster.a.upstream_rq_total: 12\n\nlistener.[::1]_80.ssl.handshake: 3\n" +
		"cluster.a.upstream_rq_time: P0(1,1) P25(1,1)\ncontrol_plane.identifier: \"x\"\nbig: 18446744073709551615\n"))
	want := stats{"cluster.a.upstream_rq_total": 12, "listener.[::1]_80.ssl.handshake": 3, "big": 18446744073709551615}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"<html>", "name", ": 1", "name:1"} {
		if got, err := parseStats([]byte(bad)); err == nil {
			t.Errorf("%q read as %v", bad, got)
		}
	}
	if _, err := got.need(ClientProxy, "moon"); err == nil || !strings.Contains(err.Error(), "moon") {
		t.Errorf("a counter that does not exist: %v", err)
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add("cluster.a.upstream_rq_total: 12\nb: 0\n")
	f.Add("a: P0(nan,1)\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStats([]byte(text))
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
	got, err := parseVersion([]byte(`{"version": "e3b4a6e9570da15ac1caffdded17a8bebdc7dfc9/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}`))
	if got != "1.40.0" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"version": "1.40.0"}`, `{"version": "a//b"}`, `[]`} {
		if got, err := parseVersion([]byte(bad)); err == nil {
			t.Errorf("%q read as %q", bad, got)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add(`{"version": "abc/1.40.0/Clean/RELEASE/BoringSSL"}`)
	f.Add(`{"version": "/"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := parseVersion([]byte(text)); err == nil && (v == "" || strings.Contains(v, "/")) {
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
  }, {"filters": [], "filter_chain_match": {"transport_protocol": "raw_buffer"}}]
}}}]}`

func TestParseConfigDump(t *testing.T) {
	var got configFacts
	err := got.read([]byte(dump))
	want := configFacts{
		accessLog: true, tracing: true, groups: []string{"X25519"},
		requiresCertificate: true, verifiesNames: true, listeners: 2, tlsSocket: 1, permissive: true,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	quiet := `{"access_log": [], "require_client_certificate": false, "match_typed_subject_alt_names": [], "filter_chains": {}}`
	got = configFacts{}
	if err := got.read([]byte(quiet)); err != nil || !reflect.DeepEqual(got, configFacts{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParseConfigDump(f *testing.F) {
	f.Add(dump)
	f.Add(`{"ecdh_curves": "X25519", "filter_chains": [1]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var got configFacts
		if err := got.read([]byte(text)); err == nil && got.tlsSocket > got.listeners {
			t.Errorf("%+v", got)
		}
	})
}

func TestMutual(t *testing.T) {
	config := configFacts{requiresCertificate: true, verifiesNames: true, listeners: 1, tlsSocket: 1}
	client := observation{prefix: "cluster.to-echo.", config: configFacts{verifiesNames: true}}
	server := observation{prefix: "listener.inbound.", config: config, stats: stats{}}
	for _, tt := range []struct {
		name  string
		c     mesh.Counters
		spoil func(client, server *observation)
		want  string
	}{
		{"strict", mesh.Counters{Handshakes: 1}, func(_, _ *observation) {}, "strict"},
		{"nothing yet", mesh.Counters{}, func(_, _ *observation) {}, notSeen},
		{"plaintext only", mesh.Counters{Plaintext: 1}, func(_, _ *observation) {}, "off"},
		{"plaintext too", mesh.Counters{Plaintext: 1, Handshakes: 1}, func(_, _ *observation) {}, "partly"},
		{"client unnamed", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.stats["listener.inbound.ssl.no_certificate"] = 1 }, "partly"},
		{"certificate not required", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.requiresCertificate = false }, "partly"},
		{"client not verified", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.verifiesNames = false }, "partly"},
		{"server not verified", mesh.Counters{Handshakes: 1}, func(c, _ *observation) { c.config.verifiesNames = false }, "partly"},
		{"permissive", mesh.Counters{Handshakes: 1, Plaintext: 1}, func(_, s *observation) { s.config.permissive, s.config.listeners = true, 2 }, "permissive"},
		{"another way in", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.listeners = 2 }, "partly"},
	} {
		c, s := client, server
		s.stats = stats{}
		tt.spoil(&c, &s)
		if got := mutual(c, s, tt.c); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
