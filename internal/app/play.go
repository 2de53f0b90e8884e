package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
	"github.com/meshbench/meshbench/internal/play"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/workload"
)

// PlayOptions are of a playground.
type PlayOptions struct {
	Subject  meshbench.Subject
	Profile  meshbench.Profile
	Workload meshbench.Workload
	Idle     time.Duration // it ends by itself after so long without a command
	Fetching func(runtimes.Progress)
}

func (a *App) playDir() string    { return filepath.Join(a.DataDir, "play") }
func (a *App) playSocket() string { return filepath.Join(a.playDir(), "socket") }

// Playground is the way to the playground that is up.
func (a *App) Playground() play.Client { return play.NewClient(a.playSocket()) }

// PlayUp starts a playground that outlives this process, and returns when
// requests go through it. Where one is up already the error has the code
// Conflict.
func (a *App) PlayUp(ctx context.Context, o PlayOptions) error {
	if _, err := a.Playground().Status(ctx); err == nil {
		return meshbench.Errorf(meshbench.Conflict, "a playground is up already").
			WithHint("look at it with meshbench play status, end it with meshbench play down")
	}
	driver, err := builtin.Find(o.Subject.Mesh)
	if err != nil {
		return err
	}
	// What must be fetched is fetched here, where somebody sees it.
	used := &usedRuntimes{cache: a.Runtimes(), progress: o.Fetching}
	request := mesh.Request{Subject: o.Subject, Profile: o.Profile, Workload: o.Workload, Threads: 1, Services: workload.Services{}.Services(o.Workload)}
	if err := used.need(ctx, driver, request); err != nil {
		return err
	}
	if err := os.MkdirAll(a.playDir(), 0o700); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the playground's directory cannot be made: %w", err)
	}
	work, err := json.Marshal(o.Workload)
	if err != nil {
		return err
	}
	logPath := filepath.Join(a.playDir(), "play.log")
	log, err := os.Create(logPath)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the playground's log cannot be written: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(a.Executable, "play", "serve", "--data-dir", a.DataDir, "--subject", o.Subject.String(),
		"--profile", string(o.Profile), "--idle", o.Idle.String())
	cmd.Env, cmd.Stderr, cmd.SysProcAttr = a.Environ, log, ownSession()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the playground's process cannot be started: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(os.Interrupt) })
	defer stop()
	// Where this fails, the process has ended: it then says nothing below.
	_, _ = stdin.Write(work)
	stdin.Close()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		cmd.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return meshbench.Errorf(meshbench.Internal, "the playground ended before it was up").WithHint("its log: %s", logPath)
	}
	var said struct {
		Error *meshbench.Error `json:"error"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return meshbench.Errorf(meshbench.Internal, "the playground says %.200q", line).WithHint("its log: %s", logPath)
	}
	if said.Error != nil {
		cmd.Wait()
		return said.Error
	}
	return cmd.Process.Release()
}

// PlayServe is the process that holds a playground. It reads the workload
// from in, and writes one line to out when it is up or has failed.
func (a *App) PlayServe(ctx context.Context, o PlayOptions, in io.Reader, out io.Writer) error {
	say := func(err error) {
		e := meshbench.AsError(err)
		if data, err := json.Marshal(map[string]*meshbench.Error{"error": e}); err == nil {
			fmt.Fprintf(out, "%s\n", data)
		}
	}
	p, on, err := a.playUp(ctx, o, in)
	if err != nil {
		say(err)
		return nil // the one who started this tells it
	}
	defer on.Close()
	up := false
	err = play.Serve(ctx, p, play.ServeOptions{Socket: a.playSocket(), Idle: o.Idle, Ready: func() { up = true; say(nil) }})
	if !up {
		say(err)
		p.Close(context.WithoutCancel(ctx))
		return nil
	}
	return err
}

func (a *App) playUp(ctx context.Context, o PlayOptions, in io.Reader) (*play.Playground, *local.Infrastructure, error) {
	if err := json.NewDecoder(in).Decode(&o.Workload); err != nil {
		return nil, nil, meshbench.Errorf(meshbench.Internal, "the workload cannot be read: %w", err)
	}
	driver, err := builtin.Find(o.Subject.Mesh)
	if err != nil {
		return nil, nil, err
	}
	if _, err := local.Recover(ctx, a.playDir()); err != nil {
		return nil, nil, err
	}
	used := &usedRuntimes{cache: a.Runtimes()}
	on, err := local.New(ctx, local.Options{
		Executable: a.Executable, Dir: filepath.Join(a.playDir(), "deployment"), StateDir: a.playDir(), Runtime: used.path, Logger: a.Logger,
	})
	if err != nil {
		return nil, nil, err
	}
	p, err := play.Up(ctx, play.Config{
		Infra: on, Driver: driver, Workload: workload.Services{}, Subject: o.Subject, Profile: o.Profile, Work: o.Workload, Now: a.Now,
	})
	if err != nil {
		on.Close()
		return nil, nil, err
	}
	return p, on, nil
}
