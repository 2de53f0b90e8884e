package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

func authority(t testing.TB) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *pki.Authority, name string) pki.Identity {
	t.Helper()
	i, err := a.Issue(pki.ServiceAccount(name), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func leaf(t testing.TB, i pki.Identity) *x509.Certificate {
	t.Helper()
	b, rest := pem.Decode([]byte(i.Certificate))
	if b == nil || len(rest) != 0 {
		t.Fatal("not exactly one certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pool(t testing.TB, a *pki.Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM([]byte(a.Bundle())) {
		t.Fatal("the bundle holds no certificate")
	}
	return p
}

func TestIssuedCertificateVerifies(t *testing.T) {
	a := authority(t)
	c := leaf(t, issue(t, a, "echo"))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://meshbench.local/ns/default/sa/echo" || len(c.DNSNames) != 0 {
		t.Errorf("names %v %v", c.URIs, c.DNSNames)
	}
	if c.IsCA || c.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("authority %v, key %v", c.IsCA, c.PublicKeyAlgorithm)
	}
	if life := c.NotAfter.Sub(c.NotBefore); life > 25*time.Hour {
		t.Errorf("good for %v", life)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), CurrentTime: a.Ends().Add(time.Second)}); err == nil {
		t.Error("still good after its end")
	}
	other := authority(t)
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, other)}); err == nil {
		t.Error("good under another authority")
	}
}

func TestIssueRefusesOtherNames(t *testing.T) {
	a := authority(t)
	for _, name := range []string{
		"", "echo", "spiffe://meshbench.local", "spiffe://meshbench.local/",
		"spiffe://cluster.local/ns/default/sa/echo", "https://meshbench.local/ns/default/sa/echo",
		"spiffe://user@meshbench.local/a", "spiffe://meshbench.local:1/a", "spiffe://meshbench.local/a?b",
		"spiffe://meshbench.local/a#b", "spiffe://meshbench.local/a/../b", "spiffe://meshbench.local/./a",
		"spiffe://meshbench.local/a//b", "spiffe://meshbench.local/%61", "spiffe://meshbench.local/a b",
	} {
		_, err := a.Issue(name, time.Now())
		if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := a.Issue(pki.ServiceAccount("late"), a.Ends()); err == nil {
		t.Error("issued after the authority's end")
	}
}

// TestHandshake holds the certificates against crypto/tls on a real
// connection: the right peer is let in, a stranger's authority is not.
func TestHandshake(t *testing.T) {
	a, stranger := authority(t), authority(t)
	for _, tt := range []struct {
		name   string
		client pki.Identity
		fails  bool
	}{
		{"own", issue(t, a, "client"), false},
		{"another authority", issue(t, stranger, "client"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := &tls.Config{
				Certificates: []tls.Certificate{pair(t, issue(t, a, "echo"))},
				ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool(t, a), MinVersion: tls.VersionTLS13,
			}
			client := &tls.Config{
				Certificates: []tls.Certificate{pair(t, tt.client)}, MinVersion: tls.VersionTLS13,
				InsecureSkipVerify: true, // SPIFFE names are no host names: verified below
				VerifyConnection: func(s tls.ConnectionState) error {
					_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool(t, a)})
					return err
				},
			}
			here, there := net.Pipe()
			defer here.Close()
			served := make(chan error, 1)
			go func() {
				defer there.Close()
				served <- tls.Server(there, server).Handshake()
			}()
			c := tls.Client(here, client)
			err := c.Handshake()
			if err == nil {
				// In TLS 1.3 a server's refusal comes with the first read.
				_, err = c.Read(make([]byte, 1))
			}
			if err := <-served; (err != nil) != tt.fails {
				t.Errorf("server: %v; client: %v", err, err)
			}
			if tt.fails && err == nil {
				t.Error("the client noticed nothing")
			}
		})
	}
}

func pair(t testing.TB, i pki.Identity) tls.Certificate {
	t.Helper()
	p, err := tls.X509KeyPair([]byte(i.Certificate), []byte(i.Key))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	i := issue(t, authority(t), "client")
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("issued", "key", i.Key)
	}
	fmt.Fprintf(&log, "%v %+v %#v %s %q", i, i, i, i.Key, i.Key)
	log.WriteString(errors.New(i.Key.String()).Error())
	if strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("a key was written: %s", log.String())
	}
	data, err := json.Marshal(i)
	if err != nil || !strings.Contains(string(data), "PRIVATE KEY") {
		t.Errorf("JSON lacks the key: %v", err)
	}
}

func TestAuthorityRoundTrip(t *testing.T) {
	a := authority(t)
	text, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pki.ParseAuthority(text)
	if err != nil {
		t.Fatal(err)
	}
	if b.Bundle() != a.Bundle() || !b.Ends().Equal(a.Ends()) {
		t.Error("the authority changed")
	}
	if _, err := leaf(t, issue(t, b, "echo")).Verify(x509.VerifyOptions{Roots: pool(t, a)}); err != nil {
		t.Error(err)
	}
	other, err := authority(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(other), "-----END CERTIFICATE-----\n")
	for _, bad := range []pki.Secret{"", pki.Secret(a.Bundle()), pki.Secret(a.Bundle() + key), text[:len(text)-40], pki.Secret(key)} {
		if _, err := pki.ParseAuthority(bad); err == nil {
			t.Errorf("accepted %d bytes that are no authority", len(bad))
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	text, err := authority(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("")
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := pki.ParseAuthority(pki.Secret(text))
		if err != nil {
			return
		}
		again, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pki.ParseAuthority(again); err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
	})
}
