package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
	"github.com/meshbench/meshbench/internal/pki"
)

// configureTimeout is for all proxies to accept a configuration and be live.
const configureTimeout = 30 * time.Second

// Configure gives the proxies their listeners, routes, clusters and
// certificates, and the request's policies.
func (d Driver) Configure(ctx context.Context, access mesh.Access, r mesh.Request) error {
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return err
	}
	config, err := d.Config(access, r)
	if err != nil {
		return err
	}
	return d.Apply(ctx, access, config)
}

// Config returns what Configure applies. A caller may change routes,
// endpoints or anything else in it and Apply it to the running proxies;
// applying it unchanged takes the change back.
func (d Driver) Config(access mesh.Access, r mesh.Request) (controlplane.Config, error) {
	if err := check(d, r); err != nil {
		return controlplane.Config{}, err
	}
	c, err := loadCredentials(access, time.Now(), workloads(r)...)
	if err != nil {
		return controlplane.Config{}, err
	}
	return configOf(r, access.Address, c)
}

// Apply makes a configuration the one that the running proxies have, without
// a restart, and returns when they have accepted it and are live. A refusal
// is an error of code Invalid with the proxy's own words; what all of them had
// before is in force again.
func (d Driver) Apply(ctx context.Context, access mesh.Access, c controlplane.Config) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	address, err := access.Address(ControlPlane, "admin")
	if err != nil {
		return err
	}
	client := controlplane.Client{Address: address, HTTP: d.http}
	version, err := client.Put(ctx, c)
	if err != nil {
		return err
	}
	if err := client.Await(ctx, version); err != nil {
		if meshbench.AsError(err).Code == meshbench.Invalid {
			// Other proxies, and other parts of it, were accepted.
			if before, again := client.Rollback(ctx); again == nil && before != "" {
				_ = client.Await(ctx, before) // the refusal is what there is to tell
			}
		}
		return err
	}
	for _, n := range c.Nodes {
		a, err := d.admin(access, n.ID)
		if err != nil {
			return err
		}
		if err := a.AwaitLive(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Issue signs a certificate by the deployment's own authority, as that of a
// further workload. It also returns the bundle that this authority is
// trusted by.
func (d Driver) Issue(access mesh.Access, name string) (identity pki.Identity, bundle string, err error) {
	c, err := loadCredentials(access, time.Now())
	if err != nil {
		return pki.Identity{}, "", err
	}
	authority, err := pki.ParseAuthority(c.Authority)
	if err != nil {
		return pki.Identity{}, "", err
	}
	identity, err = authority.Issue(name, time.Now())
	return identity, c.Bundle, err
}

// credentials is the authority of a deployment and what it has signed.
type credentials struct {
	Authority  pki.Secret              `json:"authority"` // PEM
	Bundle     string                  `json:"bundle"`    // PEM
	Identities map[string]pki.Identity `json:"identities"`
}

// reserve is how long credentials must still be good for to be used again.
const reserve = time.Hour

// loadCredentials reads the deployment's credentials, and makes what is
// missing or about to end. They are kept beside the control plane, readable
// by their owner alone, so that configuring twice changes nothing.
func loadCredentials(access mesh.Access, now time.Time, names ...string) (credentials, error) {
	dir, err := access.Dir(ControlPlane)
	if err != nil {
		return credentials{}, err
	}
	file := filepath.Join(dir, "credentials.json")
	var c credentials
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &c); err != nil {
			return credentials{}, meshbench.Errorf(meshbench.Internal, "the credentials of the deployment cannot be read: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return credentials{}, meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be read: %w", err)
	}
	var authority *pki.Authority
	if c.Authority != "" {
		if authority, err = pki.ParseAuthority(c.Authority); err != nil {
			return credentials{}, err
		}
	}
	changed := false
	if authority == nil || now.After(authority.Ends().Add(-reserve)) {
		if authority, err = pki.NewAuthority(now); err != nil {
			return credentials{}, err
		}
		text, err := authority.Encode()
		if err != nil {
			return credentials{}, err
		}
		c = credentials{Authority: text, Bundle: authority.Bundle(), Identities: map[string]pki.Identity{}}
		changed = true
	}
	for _, name := range names {
		if _, ok := c.Identities[name]; ok {
			continue
		}
		if c.Identities[name], err = authority.Issue(name, now); err != nil {
			return credentials{}, err
		}
		changed = true
	}
	if !changed {
		return c, nil
	}
	return c, writePrivate(file, c)
}

// writePrivate replaces a file as a whole.
func writePrivate(file string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be kept: %w", err)
	}
	if err := os.Rename(next, file); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be kept: %w", err)
	}
	return nil
}
