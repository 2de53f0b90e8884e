package e2e

import (
	"testing"

	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/mesh/mosn"
	"github.com/meshbench/meshbench/internal/pki"
	"github.com/meshbench/meshbench/internal/workload"
)

func TestMosnConforms(t *testing.T) {
	driver := mosn.New()
	conformance(t, driver, &meshtest.Strict{
		Inbound: mosn.Inbound(workload.Service),
		Client:  pki.ServiceAccount("client"), Server: pki.ServiceAccount(workload.Service),
		AnyName: true, // MOSN asks for a certificate, and not for its name
		Issue:   driver.Issue,
	})
}
