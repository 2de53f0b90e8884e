package mesh

import (
	"context"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// Stranger is what a driver is beside Driver where somebody can knock at a
// service's proxy past the mesh, to find out who is let in.
type Stranger interface {
	// NoStranger says why it cannot be for a subject with such options, with
	// the source; empty where it can.
	NoStranger(r Request) string
	// Inbound is the port at which a service's proxy takes what comes from
	// other proxies.
	Inbound(r Request) meshbench.PortRef
	// Identity is the SPIFFE name of a service; Client is one too.
	Identity(ctx context.Context, access Access, service string) (string, error)
	// Sign makes a certificate by the authority that the deployment trusts,
	// and returns the bundle that this authority is trusted by. The error has
	// the code Unavailable where the authority signs no such certificate.
	Sign(ctx context.Context, access Access, name string, from, until time.Time) (identity pki.Identity, bundle string, err error)
}

// Rotator is what a driver is beside Driver where the certificates of a
// running deployment can be replaced on demand.
type Rotator interface {
	// Rotate gives every proxy a new certificate and key, and returns when
	// they have them.
	Rotate(ctx context.Context, access Access, r Request) error
}
