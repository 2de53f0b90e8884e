package consul

import (
	"context"
	"crypto/tls"
	"net/http"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

var _ mesh.Rotator = Driver{}

// Rotate makes the agent's authority anew, with a key of another size, which
// is how Consul is told to: it signs the new authority by the old one, and
// every proxy gets a new certificate and key within half a minute, which the
// agent spreads them over. It returns when all proxies show theirs.
func (d Driver) Rotate(ctx context.Context, access mesh.Access, r mesh.Request) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	a, err := d.agent(access)
	if err != nil {
		return err
	}
	before := map[string]string{}
	shown := proxies(r)
	if dataPlane(r.Subject) == builtinProxy {
		// A built-in proxy first calls its application, and the generator is
		// none: that proxy shows nothing.
		shown = shown[:len(shown)-1]
	}
	for _, p := range shown {
		if before[p.name], err = serial(ctx, access, p.name); err != nil {
			return err
		}
	}
	var authority struct {
		Provider string
		Config   object
	}
	if err := a.call(ctx, http.MethodGet, "/v1/connect/ca/configuration", nil, &authority); err != nil {
		return err
	}
	bits := 384
	if n, ok := authority.Config["PrivateKeyBits"].(float64); ok && int(n) == bits {
		bits = 256
	}
	authority.Config["PrivateKeyType"], authority.Config["PrivateKeyBits"] = "ec", bits
	if err := a.call(ctx, http.MethodPut, "/v1/connect/ca/configuration", authority, nil); err != nil {
		return err
	}
	for _, p := range shown {
		for {
			now, err := serial(ctx, access, p.name)
			if err != nil {
				return err
			}
			if now != before[p.name] {
				break
			}
			if !pause(ctx, look) {
				return meshbench.Errorf(meshbench.Unavailable, "%s did not get a new certificate: %w", p.name, ctx.Err())
			}
		}
	}
	if dataPlane(r.Subject) == builtinProxy {
		return nil
	}
	return d.awaitServing(ctx, access, r)
}

// serial is the serial number of the certificate that a proxy shows.
func serial(ctx context.Context, access mesh.Access, proxy string) (string, error) {
	address, err := access.Address(proxy, inboundPort)
	if err != nil {
		return "", err
	}
	// Without a certificate of our own: the proxy shows its own first. To ask
	// the agent for one would wait until it is made anew.
	state, err := handshake(ctx, address)
	if err != nil {
		return "", meshbench.Errorf(meshbench.Unavailable, "%s shows no certificate: %w", proxy, err)
	}
	return state.PeerCertificates[0].SerialNumber.String(), nil
}

// show makes a connection to a proxy as the client, and tells how it is
// secured.
func (d Driver) show(ctx context.Context, a agent, address string) (tls.ConnectionState, error) {
	leaf, err := a.leaf(ctx, mesh.Client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	own, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	if err != nil {
		return tls.ConnectionState{}, meshbench.Errorf(meshbench.Internal, "the certificate that Consul gave cannot be used: %w", err)
	}
	return handshake(ctx, address, own)
}
