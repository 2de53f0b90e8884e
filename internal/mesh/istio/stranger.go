package istio

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// NoStranger says that without mutual TLS nobody is kept out.
func (Driver) NoStranger(r mesh.Request) string {
	if mode(r) == meshbench.MTLSOff {
		return "with mtls=off the proxies speak plain text (https://istio.io/latest/docs/reference/config/security/peer_authentication/)"
	}
	return ""
}

// Inbound is where the proxy of the first service's first instance takes what
// comes from other proxies.
func (Driver) Inbound(r mesh.Request) meshbench.PortRef {
	return meshbench.PortRef{Process: proxies(r)[0].process, Port: "inbound"}
}

// Identity is the SPIFFE name of a service: that of its service account.
func (Driver) Identity(_ context.Context, _ mesh.Access, service string) (string, error) {
	return pki.ServiceAccount(service), nil
}

// Issue signs a certificate by istiod's own authority, as that of a further
// workload, for a day. It also returns the bundle that this authority is
// trusted by.
func (d Driver) Issue(access mesh.Access, name string) (identity pki.Identity, bundle string, err error) {
	now := time.Now()
	return d.Sign(context.Background(), access, name, now.Add(-time.Minute), now.Add(24*time.Hour))
}

// Sign makes a certificate for any SPIFFE name and time by istiod's own
// authority, whose key istiod keeps in the secret istio-ca-secret.
func (d Driver) Sign(ctx context.Context, access mesh.Access, name string, from, until time.Time) (identity pki.Identity, bundle string, err error) {
	server, err := connect(access)
	if err != nil {
		return pki.Identity{}, "", err
	}
	defer server.Close()
	var kept struct {
		Data map[string][]byte `json:"data"`
	}
	if err := server.Get(ctx, secrets, systemNamespace, "istio-ca-secret", &kept); err != nil {
		return pki.Identity{}, "", err
	}
	certificate, key, err := parseAuthority(kept.Data["ca-cert.pem"], kept.Data["ca-key.pem"])
	if err != nil {
		return pki.Identity{}, "", meshbench.Errorf(meshbench.Unavailable, "istiod's authority cannot be read: %w", err)
	}
	identity, err = pki.Sign(certificate, key, name, from, until)
	return identity, string(kept.Data["ca-cert.pem"]), err
}

// parseAuthority reads a certificate and its private key, both PEM.
func parseAuthority(certificate, key []byte) (*x509.Certificate, crypto.Signer, error) {
	c, _ := pem.Decode(certificate)
	k, _ := pem.Decode(key)
	if c == nil || k == nil {
		return nil, nil, errors.New("no certificate and key in PEM")
	}
	parsed, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, nil, err
	}
	var private any
	switch k.Type {
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(k.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(k.Bytes)
	default:
		private, err = x509.ParsePKCS8PrivateKey(k.Bytes)
	}
	if err != nil {
		return nil, nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("the key cannot sign")
	}
	return parsed, signer, nil
}
