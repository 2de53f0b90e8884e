package local

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// errPortTaken is the cause of an error where somebody else had a port first.
var errPortTaken = errors.New("a port is taken by another process")

// awaitReady asks a process's ReadyURL until it is ready. The error tells how
// it ended, or what it answered last, with the end of its log.
func (d *deployment) awaitReady(ctx context.Context, r *running) error {
	target, err := d.render(r.spec.Name, "ready URL", r.spec.ReadyURL)
	if err != nil {
		return err
	}
	started := time.Now()
	pause := 2 * time.Millisecond
	for target != "" {
		last := d.probe(ctx, target)
		if last == nil {
			break
		}
		if e := meshbench.AsError(last); e.Code == meshbench.Invalid {
			return last
		}
		select {
		case <-ctx.Done():
			return meshbench.Errorf(meshbench.Unavailable, "%s: process %q was not ready: %w", d.name, r.spec.Name, ctx.Err())
		case <-r.ended:
			return d.portTaken(d.died(r, ", before it was ready"), r)
		case <-time.After(pause):
		}
		pause = min(pause*3/2, 50*time.Millisecond)
		if time.Since(started) > d.i.o.ReadyTimeout {
			e := meshbench.Errorf(meshbench.Unavailable, "%s: process %q (%s) was not ready within %s: %s",
				d.name, r.spec.Name, r.spec.Runtime, d.i.o.ReadyTimeout, last)
			return d.portTaken(d.withLog(e, r), r)
		}
	}
	// Somebody else may have answered in its place.
	if !r.alive() || !r.id.Alive() {
		select {
		case <-r.ended:
		case <-time.After(5 * time.Second): // the exit is told in a moment
		}
		return d.portTaken(d.died(r, ", before it was ready"), r)
	}
	return d.checkPorts(r)
}

// checkPorts finds ports of a process on which others listen.
func (d *deployment) checkPorts(r *running) error {
	pids := append(telemetry.Descendants(r.id.PID), r.id.PID)
	for _, name := range r.spec.Ports {
		port := d.ports[meshbench.PortRef{Process: r.spec.Name, Port: name}]
		listens := telemetry.Listens
		if d.namespaceOf(r.spec.Name) != nil {
			listens = telemetry.ListensBeside
		}
		some, ours, err := listens(port, pids)
		if err != nil {
			return meshbench.Errorf(meshbench.Unavailable, "%s: who listens on port %d cannot be read: %w", d.name, port, err)
		}
		if some && !ours {
			e := meshbench.Errorf(meshbench.Unavailable, "%s: port %d (%q of process %q) is taken by another process", d.name, port, name, r.spec.Name)
			e.Err = errPortTaken
			return d.withLog(e, r)
		}
	}
	return nil
}

// portTaken marks an error as one of a taken port where the log says so.
func (d *deployment) portTaken(e *meshbench.Error, r *running) error {
	text := strings.ToLower(lastLines(r.log, 50))
	if strings.Contains(text, "address already in use") || strings.Contains(text, "eaddrinuse") {
		e.Err = errPortTaken
	}
	return e
}

// probe returns nil if a ready URL answers as it shall, an error of code
// Invalid if it is none, else what it answered.
func (d *deployment) probe(ctx context.Context, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return meshbench.Errorf(meshbench.Invalid, "ready URL %q: %w", target, err)
	}
	switch u.Scheme {
	case "tcp":
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return err
		}
		return conn.Close()
	case "http":
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return meshbench.Errorf(meshbench.Invalid, "ready URL %q: %w", target, err)
		}
		response, err := d.i.http.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // for the error only
		if response.StatusCode != http.StatusOK {
			return errors.New("it answers " + response.Status + ": " + strings.TrimSpace(string(text)))
		}
		return nil
	}
	return meshbench.Errorf(meshbench.Invalid, "ready URL %q: its scheme is neither http nor tcp", target)
}
