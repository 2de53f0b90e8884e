package local

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// client is this end of the pipe to a supervisor.
type client struct {
	logger *slog.Logger
	cmd    *exec.Cmd
	done   chan struct{} // it has ended, and nothing that it started lives

	write sync.Mutex // one request at a time
	in    io.WriteCloser
	send  *json.Encoder

	mu      sync.Mutex
	journal string // path
	next    uint64
	waiting map[uint64]chan reply
	exits   map[telemetry.Identity]chan string // gets how it ended
}

// startSupervisor starts `executable supervisor` in a session of its own, so
// that nothing a terminal sends reaches it or what it starts. In the end it
// removes dir, which need not exist yet.
func startSupervisor(ctx context.Context, executable, stateDir, dir, logPath string, logger *slog.Logger) (*client, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the supervisor's log cannot be written: %w", err)
	}
	defer log.Close()
	c := &client{
		logger:  logger,
		cmd:     exec.Command(executable, "supervisor"),
		done:    make(chan struct{}),
		waiting: map[uint64]chan reply{},
		exits:   map[telemetry.Identity]chan string{},
	}
	c.cmd.Env = []string{} // nothing of ours
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		c.send = json.NewEncoder(c.in)
		var out io.ReadCloser
		if out, err = c.cmd.StdoutPipe(); err == nil {
			if err = c.cmd.Start(); err == nil {
				go c.listen(out)
			}
		}
	}
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the supervisor cannot be started: %w", err)
	}
	opened, err := c.call(ctx, request{Op: opOpen, StateDir: stateDir, Path: dir})
	if err != nil {
		c.close()
		e := meshbench.Errorf(meshbench.Unavailable, "the supervisor does not start: %w", err).
			WithHint("it keeps its journal under %s: there must be room and rights", stateDir)
		if text := lastLines(logPath, 5); text != "" {
			e.Message += "\n" + text
		}
		return nil, e
	}
	c.mu.Lock()
	c.journal = opened.Journal
	c.mu.Unlock()
	return c, nil
}

// listen hands out what the supervisor says, until its end.
func (c *client) listen(out io.Reader) {
	replies := json.NewDecoder(out)
	for {
		var r reply
		if replies.Decode(&r) != nil {
			break
		}
		c.mu.Lock()
		if r.ID != 0 {
			if w := c.waiting[r.ID]; w != nil {
				delete(c.waiting, r.ID)
				w <- r // has room for it
			}
		} else {
			c.exit(r.Process) <- r.Exit // has room for it
		}
		c.mu.Unlock()
	}
	_ = c.cmd.Wait() // how it ended is nobody's question: that it did is
	c.finish()
	close(c.done)
}

// exit is the channel of a process's exit; mu is held. It is made by whoever
// comes first: a process may have ended before its start is answered.
func (c *client) exit(id telemetry.Identity) chan string {
	ch := c.exits[id]
	if ch == nil {
		ch = make(chan string, 1)
		c.exits[id] = ch
	}
	return ch
}

var errSupervisorEnded = errors.New("the supervisor has ended")

func (c *client) call(ctx context.Context, r request) (reply, error) {
	answer := make(chan reply, 1)
	c.mu.Lock()
	c.next++
	r.ID = c.next
	c.waiting[r.ID] = answer
	c.mu.Unlock()
	c.write.Lock()
	err := c.send.Encode(r)
	c.write.Unlock()
	if err != nil {
		return reply{}, errSupervisorEnded
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-c.done:
		return reply{}, errSupervisorEnded
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// start starts a process and returns the channel that tells its exit.
func (c *client) start(r startRequest) (telemetry.Identity, <-chan string, error) {
	// Not to be cut short: what was started must be known.
	a, err := c.call(context.Background(), request{Op: opStart, Start: &r})
	if err != nil {
		return telemetry.Identity{}, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return a.Process, c.exit(a.Process), nil
}

// ended tells whether the supervisor is gone.
func (c *client) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// close closes the pipe and returns when everything has ended.
func (c *client) close() {
	c.in.Close()
	select {
	case <-c.done:
	case <-time.After(endGrace + killPatience + 5*time.Second):
		_ = c.cmd.Process.Kill() // an error means that it has ended
		<-c.done
	}
}

// finish does what a supervisor that was killed has left undone. Where it
// cannot, the journal stays for the next start.
func (c *client) finish() {
	c.mu.Lock()
	path := c.journal
	c.mu.Unlock()
	if path == "" {
		return
	}
	ended, err := recoverJournal(context.Background(), path)
	if err != nil || len(ended) > 0 {
		c.logger.Warn("the supervisor was killed; what it left behind has been ended", "processes", len(ended), "error", err)
	}
}
