//go:build linux

package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/workload"
)

// TestMain makes the test binary stand in for Meshbench: started with a
// command, it is that command.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "supervisor":
		err = Supervise(ctx, os.Stdin, os.Stdout)
	case "workload":
		err = workload.Serve(ctx, workload.Options{Listen: os.Args[4], Control: os.Args[6], BodyBytes: 512})
	case "worker":
		_, err = io.Copy(os.Stdout, os.Stdin)
	case "measure":
		err = measure(ctx, os.Args[2], os.Args[3], os.Args[4])
	case "pod":
		err = pod(os.Args[2:])
	case "lock":
		err = holdLock(ctx)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// shells is a runtime "sh" with which processes of any behaviour are made.
func shells(_ context.Context, name string) (string, error) {
	if name == "sh" {
		return "/bin/sh", nil
	}
	return "", meshbench.Errorf(meshbench.NotFound, "runtime %q is not known", name)
}

// shell is a process that runs a script.
func shell(name, script string) meshbench.Process {
	return meshbench.Process{
		Name: name, Role: meshbench.OtherRole, Runtime: "sh", Args: []string{"-c", script},
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
	}
}

// families is a Spec whose processes have descendants of every kind, each a
// sleep for a number of seconds that no other process has: children,
// grandchildren, such as ignore SIGTERM, orphans, and those that leave the
// group and the session.
func families(mark string) meshbench.Spec {
	nap := "sleep " + mark
	return meshbench.Spec{Processes: []meshbench.Process{
		shell("child", nap+" & "+nap),
		shell("grandchild", "sh -c '"+nap+" & "+nap+" & wait' & wait"),
		shell("stubborn", "trap '' TERM; while :; do "+nap+"; done"),
		shell("orphan", "(sh -c '"+nap+" &'); (setsid "+nap+" &); setsid sh -c '"+nap+" & "+nap+"' & "+nap),
	}}
}

// measure is what is killed: it deploys families, says so, and waits.
func measure(ctx context.Context, dir, stateDir, mark string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := Recover(ctx, stateDir); err != nil {
		return err
	}
	i, err := New(ctx, Options{Executable: exe, Dir: dir, StateDir: stateDir, Runtime: shells})
	if err != nil {
		return err
	}
	for n := range 2 {
		spec := families(mark)
		if n == 1 {
			// In a network of their own, which must be gone, too.
			for _, p := range spec.Processes {
				spec.Namespaces = append(spec.Namespaces, meshbench.Namespace{Name: p.Name, Processes: []string{p.Name}})
			}
		}
		if _, err := i.Deploy(ctx, fmt.Sprint("families-", n), spec, nil); err != nil {
			return err
		}
	}
	if _, err := i.Worker(ctx); err != nil {
		return err
	}
	fmt.Println("deployed")
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
	}
	return i.Close()
}

func holdLock(ctx context.Context) error {
	unlock, err := Lock(ctx, true, func(who string) { fmt.Println("waiting for", who) })
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Println("locked")
	<-ctx.Done()
	return nil
}
