package e2e

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/mesh/none"
	"github.com/meshbench/meshbench/internal/pki"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/workload"
)

// here is a local infrastructure that ends with the test.
func here(t *testing.T) *local.Infrastructure {
	t.Helper()
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache := runtimes.NewCache(cmp.Or(os.Getenv("MESHBENCH_TEST_CACHE"), filepath.Join(user, "meshbench", "runtimes")), runtimes.Builtin(), runtimes.Options{})
	i, err := local.New(t.Context(), local.Options{
		Executable: program, Dir: t.TempDir(), StateDir: t.TempDir(),
		Runtime: func(ctx context.Context, nameAtVersion string) (string, error) {
			name, version, _ := strings.Cut(nameAtVersion, "@")
			r, err := cache.Get(ctx, name, version, nil)
			return r.Path, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// deploy starts a Spec that ends with the test; a failed test shows what the
// processes logged.
func deploy(t *testing.T, i *local.Infrastructure, spec meshbench.Spec, prepare infra.Prepare) infra.Deployment {
	t.Helper()
	up, err := i.Deploy(t.Context(), "subject", spec, prepare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range spec.Processes {
				t.Logf("log of %s:\n%s", p.Name, up.Log(p.Name, 20))
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := up.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return up
}

var (
	echoWorkload = meshbench.Workload{
		Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}, Response: meshbench.Response{BodyBytes: 1024},
	}
	echoService = workload.Services{}.Services(echoWorkload)[0]
)

// echoes are an echo service per instance, each a process of its own name.
func echoes(services []meshbench.Service) []meshbench.Process {
	var out []meshbench.Process
	for _, s := range services {
		for i, at := range s.Instances {
			address := func(port string) string { return `{{address "` + at.Process + `" "` + port + `"}}` }
			out = append(out, meshbench.Process{
				Name: at.Process, Role: meshbench.Application, Service: s.Name, Instance: i, Runtime: meshbench.Self,
				Args: []string{
					"workload", "echo", "--listen", address(workload.HTTPPort), "--control", address(workload.ControlPort), "--body-bytes", "100",
					"--service", s.Name, "--instance", strconv.Itoa(i),
				},
				Ports:    []string{workload.HTTPPort, workload.ControlPort},
				ReadyURL: "http://" + address(workload.ControlPort) + workload.ReadyPath,
			})
		}
	}
	return out
}

// graph is three services: front calls back, which has two instances, and
// nobody calls next.
func graph() []meshbench.Service {
	at := func(process string) meshbench.PortRef {
		return meshbench.PortRef{Process: process, Port: workload.HTTPPort}
	}
	return []meshbench.Service{
		{Name: "front", Instances: []meshbench.PortRef{at("front")}, Calls: []string{"back"}},
		{Name: "back", Instances: []meshbench.PortRef{at("back"), at("back-2")}},
		{Name: "next", Instances: []meshbench.PortRef{at("next")}},
	}
}

func conformance(t *testing.T, driver mesh.Driver, strict *meshtest.Strict) {
	conforms(t, meshtest.Suite{Driver: driver, Strict: strict})
}

// conforms runs a suite here: with this machine's processes as its
// applications, and deployed for real.
func conforms(t *testing.T, s meshtest.Suite) {
	i := here(t)
	s.Applications, s.Service = workload.Services{}.Processes(echoWorkload, 1, nil), echoService
	s.Graph, s.GraphApplications = graph(), echoes(graph())
	s.Deploy = func(t *testing.T, spec meshbench.Spec, prepare meshtest.Prepare) meshtest.Deployment {
		return deploy(t, i, spec, func(ctx context.Context, access infra.Access, process string) error {
			return prepare(ctx, access, process)
		})
	}
	meshtest.Run(t, s)
}

func TestNoneConforms(t *testing.T) { conformance(t, none.Driver{}, nil) }

func TestEnvoyConforms(t *testing.T) {
	driver := envoy.New()
	conformance(t, driver, &meshtest.Strict{
		Inbound: envoy.Inbound(workload.Service),
		Client:  pki.ServiceAccount("client"), Server: pki.ServiceAccount(workload.Service),
		Issue: driver.Issue,
	})
}
