package behavior

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// knock is how somebody comes to the server's proxy past the client's.
type knock struct {
	plain       bool
	certificate *tls.Certificate
	newest      uint16 // version of TLS; 0: the newest
}

// response is what became of it.
type response struct {
	letIn   bool     // the application was reached
	server  []string // the SPIFFE names that the proxy proved
	version string
	how     string
}

// knock sends one request to the proxy of the first service. An error says
// that nothing was decided: nobody listens, or nothing came in time.
func (b *Bed) knock(ctx context.Context, k knock) (response, error) {
	stranger, ok := b.driver.(mesh.Stranger)
	if !ok {
		return response{}, errors.New("the driver knows no way past the mesh")
	}
	at := stranger.Inbound(b.request)
	address, err := b.up.Address(at.Process, at.Port)
	if err != nil {
		return response{}, err
	}
	key := b.Key()
	var out response
	var c *Conn
	if k.plain {
		c, err = dial(ctx, address, nil)
	} else {
		config := &tls.Config{
			InsecureSkipVerify: true, // a SPIFFE name is no host name; what it proves is looked at
			MaxVersion:         k.newest, MinVersion: tls.VersionTLS10,
			VerifyConnection: func(s tls.ConnectionState) error {
				out.version = tls.VersionName(s.Version)
				for _, u := range s.PeerCertificates[0].URIs {
					out.server = append(out.server, u.String())
				}
				return nil
			},
		}
		if k.certificate != nil {
			// Whatever authorities the proxy asks for: it shall refuse.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.certificate, nil }
		}
		c, err = dial(ctx, address, config)
	}
	if err != nil {
		if opError := (*net.OpError)(nil); errors.As(err, &opError) && opError.Op == "dial" {
			return response{}, err
		}
		out.how = "the handshake failed: " + reason(err)
		return out, nil
	}
	defer c.Close()
	_, err = io.WriteString(c, Request{Key: key, Fields: field("Connection", "close")}.text(b.host()))
	var a Answer
	if err != nil {
		a.Err = err
	} else {
		a = c.Answer("GET")
	}
	var n net.Error
	if a.Status == 0 && errors.As(a.Err, &n) && n.Timeout() {
		return response{}, fmt.Errorf("neither let in nor refused in %v", patience)
	}
	records, err := b.Records(ctx, key)
	if err != nil {
		return response{}, err
	}
	out.letIn = len(records) > 0
	out.how = a.String()
	return out, nil
}

// certificate is one that the deployment's authority signs.
func (b *Bed) certificate(ctx context.Context, name string, from, until time.Time) (*tls.Certificate, *x509.CertPool, error) {
	stranger, ok := b.driver.(mesh.Stranger)
	if !ok {
		return nil, nil, errors.New("the driver knows no way past the mesh")
	}
	identity, bundle, err := stranger.Sign(ctx, b.up, name, from, until)
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair([]byte(identity.Certificate), []byte(identity.Key))
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		return nil, nil, errors.New("the bundle holds no certificate")
	}
	return &pair, roots, nil
}

// identity is the SPIFFE name of a service, or of the client.
func (b *Bed) identity(ctx context.Context, service string) (string, error) {
	stranger, ok := b.driver.(mesh.Stranger)
	if !ok {
		return "", errors.New("the driver knows no way past the mesh")
	}
	return stranger.Identity(ctx, b.up, service)
}

// hour is a span of time around now.
func hour() (from, until time.Time) {
	now := time.Now()
	return now.Add(-5 * time.Minute), now.Add(time.Hour)
}

// client is the certificate that the client's own proxy could have.
func (b *Bed) client(ctx context.Context) (*tls.Certificate, error) {
	name, err := b.identity(ctx, mesh.Client)
	if err != nil {
		return nil, err
	}
	from, until := hour()
	c, _, err := b.certificate(ctx, name, from, until)
	return c, err
}

// keptOut is a probe of a stranger who must not be let in, while the right
// certificate is: else nothing would be proven.
func keptOut(name, question, expected, reference, sent string, who func(ctx context.Context, b *Bed) (knock, error)) Probe {
	return Probe{
		Name: name, Question: question, Expected: expected, Reference: reference, Needs: Proxy | Stranger,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			right, err := b.client(ctx)
			if err != nil {
				return Finding{}, err
			}
			control, err := b.knock(ctx, knock{certificate: right})
			if err != nil {
				return Finding{}, err
			}
			if !control.letIn {
				return Finding{}, fmt.Errorf("the right certificate is not let in either: %s", control.how)
			}
			k, err := who(ctx, b)
			if err != nil {
				if meshbench.AsError(err).Code == meshbench.Unavailable {
					return Finding{Unsupported, said(err)}, nil
				}
				return Finding{}, err
			}
			got, err := b.knock(ctx, k)
			if err != nil {
				return Finding{}, err
			}
			verb := "kept out"
			if got.letIn {
				verb = "let in"
			}
			return decide(!got.letIn, "sent to the server's proxy: %s; %s (%s); the right certificate was let in", sent, verb, got.how)
		},
	}
}

// signed is a knock with a certificate that the deployment's authority signs
// for a name that is made from the client's.
func signed(rename func(string) string, from, until func() time.Time) func(context.Context, *Bed) (knock, error) {
	return func(ctx context.Context, b *Bed) (knock, error) {
		name, err := b.identity(ctx, mesh.Client)
		if err != nil {
			return knock{}, err
		}
		c, _, err := b.certificate(ctx, rename(name), from(), until())
		return knock{certificate: c}, err
	}
}

func same(s string) string { return s }

func before(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(-d) } }

func identityProbes() []Probe {
	return []Probe{
		keptOut("identity.plain_text", "Is plain text kept out?", "the connection is refused or ended", istioMTLS,
			"plain HTTP", func(context.Context, *Bed) (knock, error) { return knock{plain: true}, nil }),
		keptOut("identity.no_certificate", "Is TLS without a certificate kept out?", "the handshake fails", istioMTLS,
			"TLS without a certificate", func(context.Context, *Bed) (knock, error) { return knock{}, nil }),
		keptOut("identity.foreign_authority", "Is a certificate of another authority kept out?", "the handshake fails", spiffe,
			"the client's name, signed by an authority of our own", func(ctx context.Context, b *Bed) (knock, error) {
				name, err := b.identity(ctx, mesh.Client)
				if err != nil {
					return knock{}, err
				}
				authority, err := pki.NewAuthority(time.Now())
				if err != nil {
					return knock{}, err
				}
				from, until := hour()
				identity, err := authority.IssueBetween(name, from, until)
				if err != nil {
					return knock{}, err
				}
				pair, err := tls.X509KeyPair([]byte(identity.Certificate), []byte(identity.Key))
				return knock{certificate: &pair}, err
			}),
		keptOut("identity.expired", "Is an expired certificate kept out?", "the handshake fails", rfc(5280, "6.1.3"),
			"the client's name, expired an hour ago", signed(same, before(2*time.Hour), before(time.Hour))),
		keptOut("identity.not_yet_valid", "Is a certificate kept out whose time has not come?", "the handshake fails", rfc(5280, "6.1.3"),
			"the client's name, valid from tomorrow on", signed(same, before(-24*time.Hour), before(-48*time.Hour))),
		keptOut("identity.foreign_trust_domain", "Is a name of another trust domain kept out, though the mesh's authority signed it?",
			"the handshake fails, or the request is denied", spiffe,
			"the client's name in the trust domain other.example", signed(func(name string) string {
				rest := strings.TrimPrefix(name, "spiffe://")
				_, path, _ := strings.Cut(rest, "/")
				return "spiffe://other.example/" + path
			}, before(5*time.Minute), before(-time.Hour))),
		keptOut("identity.old_tls", "Is TLS 1.1 kept out?", "the handshake fails", rfc(8996, "5"),
			"the right certificate, TLS 1.1 at most", func(ctx context.Context, b *Bed) (knock, error) {
				c, err := b.client(ctx)
				return knock{certificate: c, newest: tls.VersionTLS11}, err
			}),
		{
			Name: "identity.other_workload", Question: "Is another workload of the mesh let in, when no policy says who may call?",
			Expected: "it is let in: who may call is for authorization", Reference: istioAuthz, Needs: Proxy | Stranger,
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				k, err := signed(func(name string) string {
					i := strings.LastIndex(name, "/")
					return name[:i+1] + "stranger"
				}, before(5*time.Minute), before(-time.Hour))(ctx, b)
				if err != nil {
					return Finding{}, err
				}
				got, err := b.knock(ctx, k)
				if err != nil {
					return Finding{}, err
				}
				return decide(got.letIn, "sent to the server's proxy: a certificate of the mesh for a workload called stranger; seen: %s", got.how)
			},
		},
		{
			Name: "identity.server_name", Question: "Does the server's proxy prove the name of its service?",
			Expected: "exactly the service's SPIFFE name", Reference: spiffe, Needs: Proxy | Stranger,
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				c, err := b.client(ctx)
				if err != nil {
					return Finding{}, err
				}
				want, err := b.identity(ctx, Echo)
				if err != nil {
					return Finding{}, err
				}
				got, err := b.knock(ctx, knock{certificate: c})
				if err != nil {
					return Finding{}, err
				}
				return decide(len(got.server) == 1 && got.server[0] == want, "the server proved %s over %s; the service is %s", quoted(got.server), orNothing(got.version), want)
			},
		},
		{
			Name: "identity.peer_reaches_application", Question: "Does the application learn who calls?",
			Expected: "X-Forwarded-Client-Cert names the client's identity", Reference: envoyXFCC, Needs: Proxy | PeerName,
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				value, err := b.peerField(ctx, Request{})
				if err != nil {
					return Finding{}, err
				}
				return decide(strings.Contains(value, "URI=spiffe://") && strings.Contains(value, "/"+mesh.Client), "sent: GET /; arrived with X-Forwarded-Client-Cert %q", names(value))
			},
		},
		{
			Name: "identity.forged_peer", Question: "Is an identity taken away that the client itself claims in X-Forwarded-Client-Cert?",
			Expected: "the forged name does not arrive", Reference: envoyXFCC, Needs: Proxy | PeerName,
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				value, err := b.peerField(ctx, Request{Fields: field("X-Forwarded-Client-Cert", "URI=spiffe://forged.example/admin")})
				if err != nil {
					return Finding{}, err
				}
				return decide(!strings.Contains(value, "forged"), "sent: X-Forwarded-Client-Cert with spiffe://forged.example/admin; arrived with %q", names(value))
			},
		},
		{
			Name: "identity.permissive", Question: "Is plain text let in once the policy says permissive?",
			Expected: "it is let in, and what comes through the mesh too", Reference: istioMTLS, Needs: Proxy | Stranger,
			Policies: []meshbench.PolicyKind{meshbench.PolicyMTLS},
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				if err := b.Apply(ctx, meshbench.Policy{To: Echo, MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}}); err != nil {
					if meshbench.AsError(err).Code == meshbench.Invalid {
						return Finding{Unsupported, said(err)}, nil
					}
					return Finding{}, err
				}
				plain, err := b.knock(ctx, knock{plain: true})
				if err != nil {
					return Finding{}, err
				}
				// By the mesh's own proxy: some meshes tell their own mutual TLS
				// from a stranger's by more than the certificate.
				secure := b.Do(ctx, Request{})
				return decide(plain.letIn && secure.Status == 200, "sent to the server's proxy: plain HTTP: %s; through the client's proxy: %s", plain.how, secure)
			},
		},
	}
}

// peerField sends a request and returns X-Forwarded-Client-Cert as it arrived.
func (b *Bed) peerField(ctx context.Context, r Request) (string, error) {
	a, records, err := b.Ask(ctx, r)
	if err != nil {
		return "", err
	}
	if len(records) != 1 {
		return "", fmt.Errorf("%s; answer %s", seen(records), a)
	}
	return records[0].Message.Get("X-Forwarded-Client-Cert"), nil
}

// names are the parts of X-Forwarded-Client-Cert that name somebody.
func names(value string) string {
	var out []string
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return r == ';' || r == ',' }) {
		if strings.HasPrefix(part, "By=") || strings.HasPrefix(part, "URI=") {
			out = append(out, part)
		}
	}
	return strings.Join(out, ";")
}

// said is an error with its hint.
func said(err error) string {
	e := meshbench.AsError(err)
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ": " + e.Hint
}
