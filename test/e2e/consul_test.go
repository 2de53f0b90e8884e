package e2e

import (
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh/consul"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/workload"
)

// TestConsulConforms tries Consul with Envoys, TestConsulBuiltinConforms with
// its own proxies.
func TestConsulConforms(t *testing.T) { consulConforms(t, nil) }

func TestConsulBuiltinConforms(t *testing.T) {
	consulConforms(t, map[string]string{"proxy": "builtin"})
}

func consulConforms(t *testing.T, options map[string]string) {
	driver := consul.New()
	conforms(t, meshtest.Suite{
		Driver: driver, Options: options,
		Strict: &meshtest.Strict{
			Inbound: consul.Inbound(workload.Service),
			Client:  consul.Identity("client"), Server: consul.Identity(workload.Service),
			Issue: driver.Issue,
		},
		Examples: []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSStrict}}}, // there is no other mode
	})
}
