package mosn

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// configureTimeout is for all proxies to take their configuration.
const configureTimeout = 30 * time.Second

// configurationPath is the handler of runtimes/mosn that takes one.
const configurationPath = "/meshbench/configuration"

// Configure gives each proxy its certificate and all that it does. A proxy
// that answers has its listeners bound and what it was given in force. A
// refusal is an error of code Invalid with the proxy's own words.
func (d Driver) Configure(ctx context.Context, access mesh.Access, r mesh.Request) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	if err := d.check(r); err != nil {
		return err
	}
	generation, err := writeCredentials(access, r, time.Now())
	if err != nil {
		return err
	}
	all, err := configurations(r, access, generation)
	if err != nil {
		return err
	}
	// Services first, the client last: nobody is called that is not there.
	for i, p := range proxies(r) {
		if err := d.put(ctx, access, p.name, all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d Driver) check(r mesh.Request) error {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return err
	}
	return mesh.CheckPolicies(d.Describe(), r)
}

func (d Driver) put(ctx context.Context, access mesh.Access, proxy string, c configuration) error {
	a, err := d.admin(access, proxy)
	if err != nil {
		return err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	status, answer, err := a.do(ctx, http.MethodPut, configurationPath, body)
	switch {
	case err != nil:
		return err
	case status == http.StatusBadRequest:
		return meshbench.Errorf(meshbench.Invalid, "%s refuses its configuration: %s", proxy, bytes.TrimSpace(answer))
	case status != http.StatusOK:
		return meshbench.Errorf(meshbench.Unavailable, "%s answers %d to its configuration: %s", proxy, status, bytes.TrimSpace(answer))
	}
	return nil
}

// Show returns what each proxy is given, as MOSN's own configuration. The
// addresses and directories of a deployment are named, not known.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	if err := d.check(r); err != nil {
		return nil, err
	}
	all, err := configurations(r, unplaced{}, 1)
	if err != nil {
		return nil, err
	}
	var out []mesh.Document
	for i, p := range proxies(r) {
		text, err := json.MarshalIndent(all[i], "", "  ")
		if err != nil {
			return nil, err
		}
		out = append(out, mesh.Document{Title: "Configuration of " + p.name, Media: "application/json", Text: string(text) + "\n"})
	}
	return out, nil
}

// unplaced is a place before there is a deployment.
type unplaced struct{}

// Address names a port.
func (unplaced) Address(process, port string) (string, error) { return process + ":" + port, nil }

// Dir names a directory.
func (unplaced) Dir(process string) (string, error) { return process, nil }
