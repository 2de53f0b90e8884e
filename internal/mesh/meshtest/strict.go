package meshtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// strict knocks at the server proxy: who has the right certificate is let in,
// which proves that the others are kept out for what they lack.
func (s Suite) strict(ctx context.Context, t *testing.T, up Deployment, r mesh.Request) {
	address, err := up.Address(s.Strict.Inbound.Process, s.Strict.Inbound.Port)
	if err != nil {
		t.Fatal(err)
	}
	identity := func(name string) *tls.Certificate {
		i, _, err := s.Strict.Issue(up, name)
		if err != nil {
			t.Fatal(err)
		}
		return certificate(t, i)
	}
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := authority.IssueBetween(s.Strict.Client, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, bundle, err := s.Strict.Issue(up, s.Strict.Client)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		t.Fatal("the bundle holds no certificate")
	}
	for _, tt := range []struct {
		name        string
		plain       bool
		certificate *tls.Certificate
		letIn       bool
	}{
		{"the right certificate", false, identity(s.Strict.Client), true},
		{"plain HTTP", true, nil, false},
		{"TLS without a certificate", false, nil, false},
		{"a certificate of another authority", false, certificate(t, foreign), false},
		{"a certificate with another name", false, identity(pki.ServiceAccount("stranger")), s.Strict.AnyName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.read(ctx, t, up, r)
			err := knock(ctx, address, tt.plain, tt.certificate, roots, s.Strict.Server)
			after := s.read(ctx, t, up, r)
			arrived := after.Requests - before.Requests
			switch {
			case tt.letIn && (err != nil || arrived != 1):
				t.Fatalf("not let in: %v; %d requests arrived", err, arrived)
			case !tt.letIn && (err == nil || arrived != 0):
				t.Fatalf("let in; %d requests arrived", arrived)
			}
			var broken *brokenError
			if errors.As(err, &broken) {
				t.Fatalf("the attempt itself failed: %v", err)
			}
			if after.Plaintext != before.Plaintext {
				t.Errorf("%d plaintext connections were let in", after.Plaintext-before.Plaintext)
			}
			t.Logf("%v", err)
		})
	}
}

// brokenError is a failure that is no refusal: nobody listens, or the server
// is not who it should be.
type brokenError struct{ error }

// knock sends one request over a connection of its own and returns nil if it
// is answered with 200.
func knock(ctx context.Context, address string, plain bool, own *tls.Certificate, roots *x509.CertPool, server string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return &brokenError{err}
	}
	defer connection.Close()
	if deadline, ok := ctx.Deadline(); ok {
		connection.SetDeadline(deadline)
	}
	if !plain {
		config := &tls.Config{
			InsecureSkipVerify: true, // a SPIFFE name is no host name: verified below
			VerifyConnection: func(state tls.ConnectionState) error {
				leaf := state.PeerCertificates[0]
				if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
					return &brokenError{err}
				}
				if len(leaf.URIs) != 1 || leaf.URIs[0].String() != server {
					return &brokenError{fmt.Errorf("the server is %v, not %s", leaf.URIs, server)}
				}
				return nil
			},
		}
		if own != nil {
			// Sent whatever authorities the server asks for: it is the
			// server who shall refuse.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
		}
		secured := tls.Client(connection, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return err
		}
		connection = secured
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return &brokenError{err}
	}
	request.Close = true
	if err := request.Write(connection); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), request)
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return &brokenError{fmt.Errorf("neither let in nor refused: %w", err)}
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func certificate(t *testing.T, i pki.Identity) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(i.Certificate), []byte(i.Key))
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}
