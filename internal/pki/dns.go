package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"regexp"
	"slices"
	"time"

	"github.com/meshbench/meshbench"
)

// dnsName is what a DNS-like identity may be: labels of RFC 1123, at least
// two of them.
var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$`)

// IssueDNS signs a certificate for a DNS name with a fresh P-256 key. It is
// good from now until the authority ends. The error has the code Invalid
// where the name is none, Unavailable where the authority has ended.
func (a *Authority) IssueDNS(name string, now time.Time) (Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	der, _, err := a.signDNS(key.Public(), name, Life, now)
	if err != nil {
		return Identity{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Name: name, Certificate: encode("CERTIFICATE", der), Key: Secret(encode("PRIVATE KEY", pkcs8))}, nil
}

// SignRequest answers a certificate signing request (PKCS #10, RFC 2986; DER)
// with a certificate (DER) for its key and one DNS name, good from now for
// life, but not longer than the authority. The request must be signed by its
// own key and ask for that very name and no other. Errors have the code
// Invalid, or Unavailable where the authority has ended.
func (a *Authority) SignRequest(request []byte, name string, life time.Duration, now time.Time) (certificate []byte, ends time.Time, err error) {
	r, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, time.Time{}, meshbench.Errorf(meshbench.Invalid, "not a certificate signing request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, time.Time{}, meshbench.Errorf(meshbench.Invalid, "the certificate signing request is not signed by its own key: %w", err)
	}
	if !slices.Equal(r.DNSNames, []string{name}) || len(r.URIs)+len(r.EmailAddresses)+len(r.IPAddresses) > 0 {
		return nil, time.Time{}, meshbench.Errorf(meshbench.Invalid, "the certificate signing request asks for %q, not for %q alone", r.DNSNames, name)
	}
	return a.signDNS(r.PublicKey, name, life, now)
}

func (a *Authority) signDNS(key any, name string, life time.Duration, now time.Time) ([]byte, time.Time, error) {
	if !dnsName.MatchString(name) || len(name) > 253 {
		return nil, time.Time{}, meshbench.Errorf(meshbench.Invalid, "%q is not a DNS name", name)
	}
	if !now.Before(a.certificate.NotAfter) {
		return nil, time.Time{}, meshbench.Errorf(meshbench.Unavailable, "the throw-away authority ended at %s", a.certificate.NotAfter.Format(time.RFC3339))
	}
	ends := now.Add(life)
	if ends.After(a.certificate.NotAfter) {
		ends = a.certificate.NotAfter
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, time.Time{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Meshbench"}},
		NotBefore:             now.Add(-skew),
		NotAfter:              ends,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{name},
	}, a.certificate, key, a.key)
	return der, ends, err
}

// NewRequest makes a fresh P-256 key and a certificate signing request
// (PKCS #10, DER) for a DNS name, signed by it. The key is PKCS #8, DER.
func NewRequest(name string) (request, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, private); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return request, key, err
}
