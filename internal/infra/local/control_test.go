//go:build linux

package local

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/infratest"
)

// controlled is the echo service with a control plane before it.
func controlled() meshbench.Spec {
	spec := infratest.Spec()
	control := shell("control", "while :; do sleep 1; done")
	control.Control, control.MayPark, control.Ports = true, true, []string{"api"}
	control.Role = meshbench.ControlPlane
	spec.Processes = append([]meshbench.Process{control}, spec.Processes...)
	spec.Processes[1].Files = []meshbench.File{{Name: "way", Text: `{{address "control" "api"}} {{dirof "control"}}`}}
	return spec
}

func shellsAndNames(prepared *[]string) infra.Prepare {
	return func(_ context.Context, _ infra.Access, process string) error {
		*prepared = append(*prepared, process)
		return nil
	}
}

func pids(t *testing.T, d infra.Deployment) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, r := range d.(*deployment).processes() {
		if !r.id.Alive() {
			t.Errorf("%s does not live", r.spec.Name)
		}
		out[r.spec.Name] = r.id.PID
	}
	return out
}

// TestControlOutlivesADeployment: the next one takes it over, a second beside
// it has its own, and nothing outlives the infrastructure.
func TestControlOutlivesADeployment(t *testing.T) {
	ctx, i := open(t, options(t))
	var prepared []string
	deploy := func() infra.Deployment {
		t.Helper()
		d, err := i.Deploy(ctx, "one", controlled(), shellsAndNames(&prepared))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := deploy()
	first := pids(t, one)
	two := deploy()
	second := pids(t, two)
	if first["control"] == second["control"] || len(first) != 2 {
		t.Errorf("side by side: %v and %v", first, second)
	}
	if !slices.Equal(prepared, []string{"control", "echo", "control", "echo"}) {
		t.Errorf("prepared %v", prepared)
	}
	if err := one.Park(ctx); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(ctx); err != nil {
		t.Fatal(err)
	}
	three := deploy()
	third := pids(t, three)
	if third["control"] != first["control"] || third["echo"] == first["echo"] {
		t.Errorf("after the first %v: %v", first, third)
	}
	if !slices.Equal(prepared[4:], []string{"echo"}) {
		t.Errorf("prepared for the third: %v", prepared[4:])
	}
	dir, err := three.Dir("control")
	if err != nil {
		t.Fatal(err)
	}
	own, _ := three.Dir("echo")
	address, _ := three.Address("control", "api")
	if text, err := os.ReadFile(filepath.Join(own, "way")); err != nil || string(text) != address+" "+dir {
		t.Errorf("the way to the control plane is %q, %v; want %q", text, err, address+" "+dir)
	}
	if usage, err := three.Usage(ctx); err != nil || len(usage) != 2 || usage[0].Role != meshbench.ControlPlane {
		t.Errorf("usage %+v, %v", usage, err)
	}

	if err := unix.Kill(third["control"], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "its death is noticed", func() bool { return three.Check() != nil })
	if err := three.Close(ctx); err != nil {
		t.Fatal(err)
	}
	four := deploy()
	if fourth := pids(t, four); fourth["control"] == first["control"] {
		t.Errorf("a dead control plane was taken over: %v", fourth)
	}
	if err := four.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{second["control"], first["control"]} {
		if unix.Kill(pid, 0) == nil {
			t.Errorf("%d outlived the infrastructure", pid)
		}
	}
}
