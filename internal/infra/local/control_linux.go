package local

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
)

// Some control planes take longer to start than a sitting lasts. A process
// with Control set is therefore kept when its deployment ends, and the next
// deployment of an equal one takes it over. Two deployments never share one:
// what the first configures would be there for the second.

// control returns a running control plane for a Spec: one that was left, else
// a new one; nil where the Spec has no control process.
func (i *Infrastructure) control(ctx context.Context, name string, spec meshbench.Spec, prepare infra.Prepare) (*deployment, error) {
	part := controlPart(spec)
	if len(part.Processes) == 0 {
		return nil, nil
	}
	key, err := json.Marshal(part)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: %w", name, err)
	}
	for {
		c := i.take(string(key))
		if c == nil {
			break
		}
		if !c.supervisor.ended() && c.Check() == nil && c.signal(ctx, infra.Continue, func(meshbench.Process) bool { return true }) == nil {
			return c, nil
		}
		i.o.Logger.Warn("a control plane that was left is not whole any more, starting another", "deployment", name)
		if err := c.Close(ctx); err != nil {
			return nil, err
		}
	}
	c, err := i.deployOwn(ctx, name, part, nil, prepare)
	if err != nil {
		return nil, err
	}
	c.key = string(key)
	return c, nil
}

// controlPart is a Spec of the control processes alone.
func controlPart(spec meshbench.Spec) meshbench.Spec {
	part := meshbench.Spec{Runtimes: spec.Runtimes}
	for _, p := range spec.Processes {
		if p.Control {
			p.Control = false
			part.Processes = append(part.Processes, p)
		}
	}
	return part
}

// take returns a control plane that was left, or nil.
func (i *Infrastructure) take(key string) *deployment {
	i.mu.Lock()
	defer i.mu.Unlock()
	left := i.controls[key]
	if len(left) == 0 {
		return nil
	}
	c := left[len(left)-1]
	i.controls[key] = slices.Delete(left, len(left)-1, len(left))
	return c
}

// leave gives a control plane back; where the infrastructure is closed
// already, it ends.
func (i *Infrastructure) leave(ctx context.Context, c *deployment) {
	i.mu.Lock()
	if !i.closed {
		if i.controls == nil {
			i.controls = map[string][]*deployment{}
		}
		i.controls[c.key] = append(i.controls[c.key], c)
		i.mu.Unlock()
		return
	}
	i.mu.Unlock()
	if err := c.Close(ctx); err != nil {
		i.o.Logger.Error("a control plane could not be removed", "deployment", c.name, "error", err)
	}
}
