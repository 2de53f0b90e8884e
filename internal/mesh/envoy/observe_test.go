package envoy

import (
	"testing"

	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

func TestMutual(t *testing.T) {
	config := envoyadmin.Facts{RequiresCertificate: true, VerifiesNames: true, Chains: 1, TLSChains: 1}
	client := observation{prefix: "cluster.to-echo.", config: envoyadmin.Facts{VerifiesNames: true}}
	server := observation{prefix: "listener.inbound.", config: config, stats: envoyadmin.Stats{}}
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
		{"certificate not required", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.RequiresCertificate = false }, "partly"},
		{"client not verified", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.VerifiesNames = false }, "partly"},
		{"server not verified", mesh.Counters{Handshakes: 1}, func(c, _ *observation) { c.config.VerifiesNames = false }, "partly"},
		{"permissive", mesh.Counters{Handshakes: 1, Plaintext: 1}, func(_, s *observation) { s.config.Permissive, s.config.Chains = true, 2 }, "permissive"},
		{"another way in", mesh.Counters{Handshakes: 1}, func(_, s *observation) { s.config.Chains = 2 }, "partly"},
	} {
		c, s := client, server
		s.stats = envoyadmin.Stats{}
		tt.spoil(&c, &s)
		if got := mutual(c, s, tt.c); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
