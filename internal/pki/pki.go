// Package pki makes throw-away certificate authorities and the certificates
// of workloads that meshes know by a SPIFFE name. Nothing here is meant to
// outlive a run: an Authority lives for a day at most, and its key is on disk
// only where a driver keeps it beside the deployment that it belongs to.
//
// The form of the certificates is that of the X.509-SVID specification of the
// SPIFFE project: exactly one URI among the subject alternative names, not an
// authority, usable for both ends of a connection.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// TrustDomain is the domain of every SPIFFE name that Meshbench hands out.
const TrustDomain = "meshbench.local"

// Life is how long authorities and their certificates are good for: longer
// than any sitting, too short to be worth stealing.
const Life = 24 * time.Hour

// skew is how long before now a certificate begins to be good: proxies may
// look at a clock that is behind.
const skew = 5 * time.Minute

// ServiceAccount returns the SPIFFE name of a service account in the
// namespace default: spiffe://meshbench.local/ns/default/sa/NAME.
func ServiceAccount(name string) string {
	return "spiffe://" + TrustDomain + "/ns/default/sa/" + name
}

// Secret is a PEM block that must not be seen: it shows itself in no log and
// no formatted text. JSON and files get the real thing.
type Secret string

// String returns a placeholder.
func (Secret) String() string { return "[secret]" }

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Identity is what a workload proves who it is with.
type Identity struct {
	Name        string `json:"name"`        // the SPIFFE name
	Certificate string `json:"certificate"` // PEM, the workload's own
	Key         Secret `json:"key"`         // PEM, PKCS #8
}

// Authority signs certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a fresh P-256 key, good from now on
// for Life.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Meshbench"}, CommonName: "Meshbench throw-away authority"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(Life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: TrustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// path is what the SPIFFE-ID specification allows after the trust domain.
var path = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)

// Issue signs a certificate for a SPIFFE name of our trust domain with a
// fresh P-256 key. It is good from now until the authority ends.
func (a *Authority) Issue(name string, now time.Time) (Identity, error) {
	uri, err := url.Parse(name)
	if err != nil || uri.Scheme != "spiffe" || uri.Host != TrustDomain || !path.MatchString(uri.Path) ||
		name != "spiffe://"+TrustDomain+uri.Path || strings.Contains(uri.Path+"/", "/./") || strings.Contains(uri.Path+"/", "/../") {
		return Identity{}, meshbench.Errorf(meshbench.Invalid, "%q is not a SPIFFE name of the trust domain %s", name, TrustDomain)
	}
	if !now.Before(a.certificate.NotAfter) {
		return Identity{}, meshbench.Errorf(meshbench.Unavailable, "the throw-away authority ended at %s", a.certificate.NotAfter.Format(time.RFC3339))
	}
	return Sign(a.certificate, a.key, name, now.Add(-skew), a.certificate.NotAfter)
}

// IssueBetween signs a certificate for any SPIFFE name and any time: what a
// proxy is tried with that should refuse it.
func (a *Authority) IssueBetween(name string, from, until time.Time) (Identity, error) {
	return Sign(a.certificate, a.key, name, from, until)
}

// Sign signs a certificate for a SPIFFE name, of any trust domain, with a
// fresh P-256 key, by an authority's certificate and key.
func Sign(authority *x509.Certificate, by crypto.Signer, name string, from, until time.Time) (Identity, error) {
	uri, err := url.Parse(name)
	if err != nil || uri.Scheme != "spiffe" || uri.Host == "" {
		return Identity{}, meshbench.Errorf(meshbench.Invalid, "%q is not a SPIFFE name", name)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	serial, err := serialNumber()
	if err != nil {
		return Identity{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Meshbench"}},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), by)
	if err != nil {
		return Identity{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Name: name, Certificate: encode("CERTIFICATE", der), Key: Secret(encode("PRIVATE KEY", pkcs8))}, nil
}

// Bundle is the authority's certificate as PEM: what the other side trusts.
func (a *Authority) Bundle() string { return encode("CERTIFICATE", a.certificate.Raw) }

// Ends tells when the authority and all that it signed end.
func (a *Authority) Ends() time.Time { return a.certificate.NotAfter }

// Encode returns certificate and key as PEM, for ParseAuthority.
func (a *Authority) Encode() (Secret, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return "", err
	}
	return Secret(a.Bundle() + encode("PRIVATE KEY", pkcs8)), nil
}

// ParseAuthority reads what Encode wrote.
func ParseAuthority(text Secret) (*Authority, error) {
	bad := func(why string) (*Authority, error) {
		return nil, meshbench.Errorf(meshbench.Invalid, "not an authority: %s", why)
	}
	first, rest := pem.Decode([]byte(text))
	if first == nil || first.Type != "CERTIFICATE" {
		return bad("no certificate")
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return bad(err.Error())
	}
	second, _ := pem.Decode(rest)
	if second == nil || second.Type != "PRIVATE KEY" {
		return bad("no private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return bad("the private key cannot be read")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) || !certificate.IsCA {
		return bad("the private key is not the certificate's")
	}
	return &Authority{certificate: certificate, key: key}, nil
}

func serialNumber() (*big.Int, error) {
	// RFC 5280 allows 20 bytes; 127 random bits stay positive.
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
