//go:build linux && linkerd

package linkerd

import (
	"os/exec"
	"testing"

	"github.com/meshbench/meshbench/internal/mesh/linkerd"
)

// real is the proxy on PATH.
func real(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(linkerd.Runtime)
	if err != nil {
		t.Fatalf("%v: these tests need Linkerd's own proxy; docs/meshes.md says where it comes from", err)
	}
	return path
}

func TestDriverConforms(t *testing.T) { conforms(t, real(t)) }

func TestPolicies(t *testing.T) { policies(t, real(t)) }
