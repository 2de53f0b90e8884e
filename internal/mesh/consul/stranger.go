package consul

import (
	"context"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

var _ mesh.Stranger = Driver{}

// NoStranger is empty: every proxy has a port for the others.
func (Driver) NoStranger(mesh.Request) string { return "" }

// Inbound is where the first service's first proxy takes mutual TLS.
func (Driver) Inbound(r mesh.Request) meshbench.PortRef { return Inbound(r.Services[0].Name) }

// Identity is the SPIFFE name of a service.
func (Driver) Identity(_ context.Context, _ mesh.Access, service string) (string, error) {
	return Identity(service), nil
}

// Sign has the agent's authority sign a certificate. It knows the names of
// services of its own trust domain and the times that it chooses itself, so
// that others are an error of code Unavailable.
func (d Driver) Sign(ctx context.Context, access mesh.Access, name string, from, until time.Time) (pki.Identity, string, error) {
	service, ok := strings.CutPrefix(name, Identity(""))
	if !ok || service == "" || strings.Contains(service, "/") {
		return pki.Identity{}, "", meshbench.Errorf(meshbench.Unavailable, "Consul's authority signs the names of its own services, not %s", name).
			WithHint("%s", docsAuthority)
	}
	if now := time.Now(); until.Before(now) || from.After(now) {
		return pki.Identity{}, "", meshbench.Errorf(meshbench.Unavailable, "Consul's authority chooses the times of certificates itself: it signs none that is over or to come").
			WithHint("%s", docsAuthority)
	}
	a, err := d.agent(access)
	if err != nil {
		return pki.Identity{}, "", err
	}
	leaf, err := a.leaf(ctx, service)
	if err != nil {
		return pki.Identity{}, "", err
	}
	bundle, err := a.bundle(ctx)
	return pki.Identity{Name: leaf.ServiceURI, Certificate: leaf.CertPEM, Key: pki.Secret(leaf.PrivateKeyPEM)}, bundle, err
}

// Issue is Sign for now, by the name of the service that name ends with.
func (d Driver) Issue(access mesh.Access, name string) (identity pki.Identity, bundle string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), agentTimeout)
	defer cancel()
	service := name[strings.LastIndex(name, "/")+1:]
	return d.Sign(ctx, access, Identity(service), time.Now(), time.Now().Add(time.Hour))
}
