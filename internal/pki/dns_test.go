package pki_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

const dnsName = "echo.default.serviceaccount.identity.linkerd.meshbench.local"

func request(t testing.TB, name string) (csr, key []byte) {
	t.Helper()
	csr, key, err := pki.NewRequest(name)
	if err != nil {
		t.Fatal(err)
	}
	return csr, key
}

func TestSignedRequestVerifies(t *testing.T) {
	a, now := authority(t), time.Now()
	csr, key := request(t, dnsName)
	der, ends, err := a.SignRequest(csr, dnsName, time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: dnsName, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := private.(*ecdsa.PrivateKey); !ok || !k.PublicKey.Equal(c.PublicKey) {
		t.Error("the certificate is for another key")
	}
	if want := now.Add(time.Minute); !ends.Equal(want) || c.NotAfter.Sub(want).Abs() > time.Second {
		t.Errorf("ends %v and %v, want %v", ends, c.NotAfter, want)
	}
	if _, ends, err := a.SignRequest(csr, dnsName, 10*pki.Life, now); err != nil || !ends.Equal(a.Ends()) {
		t.Errorf("it outlives its authority: %v, %v", ends, err)
	}
}

func TestSignRequestRefuses(t *testing.T) {
	a, now := authority(t), time.Now()
	good, _ := request(t, dnsName)
	for _, tt := range []struct {
		name    string
		request []byte
		asked   string
		now     time.Time
		code    meshbench.Code
	}{
		{"nonsense", []byte("nonsense"), dnsName, now, meshbench.Invalid},
		{"a broken signature", append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]^1), dnsName, now, meshbench.Invalid},
		{"another name", good, "other.meshbench.local", now, meshbench.Invalid},
		{"after the end", good, dnsName, a.Ends(), meshbench.Unavailable},
	} {
		_, _, err := a.SignRequest(tt.request, tt.asked, time.Hour, tt.now)
		if err == nil || meshbench.AsError(err).Code != tt.code {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, name := range []string{"", "localhost", "*.meshbench.local", "a..b", "UPPER.local", strings.Repeat("a.", 130) + "b"} {
		if _, err := a.IssueDNS(name, now); err == nil {
			t.Errorf("%q is taken for a DNS name", name)
		}
	}
}

func TestIssuedDNSIdentityIsOfItsName(t *testing.T) {
	a := authority(t)
	i, err := a.IssueDNS(dnsName, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, i)
	if err := c.VerifyHostname(dnsName); err != nil || len(c.DNSNames) != 1 || len(c.URIs) != 0 || i.Name != dnsName {
		t.Errorf("%v: %v %v", err, c.DNSNames, c.URIs)
	}
}
