package envoy

import (
	"context"
	"path/filepath"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

var (
	_ mesh.Stranger = Driver{}
	_ mesh.Rotator  = Driver{}
)

// NoStranger says why nobody is kept out where mutual TLS is off.
func (Driver) NoStranger(r mesh.Request) string {
	if option(r.Subject, "mtls") == "off" {
		return "mtls=off was asked for, and then the proxies speak plain text (source: docs/meshes.md)"
	}
	return ""
}

// Inbound is the port of the first service's proxy.
func (Driver) Inbound(r mesh.Request) meshbench.PortRef { return Inbound(r.Services[0].Name) }

// Identity is the service account of a service.
func (Driver) Identity(_ context.Context, _ mesh.Access, service string) (string, error) {
	return pki.ServiceAccount(service), nil
}

// Sign makes a certificate by the deployment's own authority.
func (Driver) Sign(_ context.Context, access mesh.Access, name string, from, until time.Time) (identity pki.Identity, bundle string, err error) {
	c, err := loadCredentials(access, time.Now())
	if err != nil {
		return pki.Identity{}, "", err
	}
	authority, err := pki.ParseAuthority(c.Authority)
	if err != nil {
		return pki.Identity{}, "", err
	}
	identity, err = authority.IssueBetween(name, from, until)
	return identity, c.Bundle, err
}

// Rotate has every proxy's certificate signed anew, for a new key.
func (d Driver) Rotate(ctx context.Context, access mesh.Access, r mesh.Request) error {
	c, err := loadCredentials(access, time.Now())
	if err != nil {
		return err
	}
	dir, err := access.Dir(ControlPlane)
	if err != nil {
		return err
	}
	clear(c.Identities)
	if err := writePrivate(filepath.Join(dir, "credentials.json"), c); err != nil {
		return err
	}
	return d.Configure(ctx, access, r)
}
