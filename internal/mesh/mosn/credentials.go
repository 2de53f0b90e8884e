package mosn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// reserve is how long certificates must still be good for to be used again.
const reserve = time.Hour

// credentialsFile is where a deployment's authority is kept, readable by its
// owner alone, in the directory of the client's proxy.
const credentialsFile = "credentials.json"

// credentials is the authority of a deployment.
type credentials struct {
	Authority pki.Secret `json:"authority"` // PEM
	// Generation counts the certificates that the proxies were given. It is
	// part of the names of their files: MOSN reads a file again only when its
	// name changes.
	Generation int `json:"generation"`
}

// files are a proxy's credentials of one generation, in a directory.
type files struct{ bundle, certificate, key string }

func filesIn(dir string, generation int) files {
	name := func(what string) string { return fmt.Sprintf("%s/%s-%d.pem", dir, what, generation) }
	return files{bundle: name("ca"), certificate: name("certificate"), key: name("key")}
}

func load(access mesh.Access) (credentials, *pki.Authority, error) {
	var c credentials
	dir, err := access.Dir(ClientProxy)
	if err != nil {
		return c, nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, credentialsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, nil, meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be read: %w", err)
	}
	authority, err := pki.ParseAuthority(c.Authority)
	return c, authority, err
}

func (c credentials) save(access mesh.Access) error {
	dir, err := access.Dir(ClientProxy)
	if err != nil {
		return err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(dir, credentialsFile), string(data))
}

// writeCredentials gives each proxy a certificate, its key and the bundle of
// the deployment's authority, where it has none of the current generation, and
// returns that. An authority that is about to end is replaced.
func writeCredentials(access mesh.Access, r mesh.Request, now time.Time) (generation int, err error) {
	c, authority, err := load(access)
	if err != nil {
		return 0, err
	}
	if authority == nil || now.After(authority.Ends().Add(-reserve)) {
		if authority, err = pki.NewAuthority(now); err != nil {
			return 0, err
		}
		encoded, err := authority.Encode()
		if err != nil {
			return 0, err
		}
		c = credentials{Authority: encoded, Generation: c.Generation + 1}
		if err := c.save(access); err != nil {
			return 0, err
		}
	}
	for _, p := range proxies(r) {
		dir, err := access.Dir(p.name)
		if err != nil {
			return 0, err
		}
		f := filesIn(dir, c.Generation)
		// The bundle is written last: it says that the others are there.
		if _, err := os.Stat(f.bundle); err == nil {
			continue
		}
		identity, err := authority.Issue(pki.ServiceAccount(p.identity()), now)
		if err != nil {
			return 0, err
		}
		for _, part := range []struct{ file, text string }{
			{f.certificate, identity.Certificate}, {f.key, string(identity.Key)}, {f.bundle, authority.Bundle()},
		} {
			if err := writePrivate(part.file, part.text); err != nil {
				return 0, err
			}
		}
	}
	return c.Generation, nil
}

// writePrivate replaces a file as a whole.
func writePrivate(file, text string) error {
	next := file + ".next"
	err := os.WriteFile(next, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be kept: %w", err)
	}
	return nil
}

var (
	_ mesh.Stranger = Driver{}
	_ mesh.Rotator  = Driver{}
)

// NoStranger says why nobody can knock with certificates.
func (d Driver) NoStranger(r mesh.Request) string {
	if option(r.Subject, "mtls") == off {
		return "with mtls=off MOSN asks nobody for a certificate (" + source + "pkg/mtls/tls_context.go)"
	}
	return ""
}

// Inbound is where the proxy of the first service takes requests.
func (Driver) Inbound(r mesh.Request) meshbench.PortRef { return Inbound(r.Services[0].Name) }

// Identity is the SPIFFE name of a service.
func (Driver) Identity(_ context.Context, _ mesh.Access, service string) (string, error) {
	return pki.ServiceAccount(service), nil
}

// Sign makes a certificate by the deployment's own authority.
func (Driver) Sign(_ context.Context, access mesh.Access, name string, from, until time.Time) (identity pki.Identity, bundle string, err error) {
	_, authority, err := load(access)
	if err != nil {
		return pki.Identity{}, "", err
	}
	if authority == nil {
		return pki.Identity{}, "", meshbench.Errorf(meshbench.Unavailable, "the deployment has no authority yet").WithHint("configure it first")
	}
	identity, err = authority.IssueBetween(name, from, until)
	return identity, authority.Bundle(), err
}

// Issue signs a certificate that is good from now on for as long as others.
func (d Driver) Issue(access mesh.Access, name string) (identity pki.Identity, bundle string, err error) {
	now := time.Now()
	return d.Sign(context.Background(), access, name, now, now.Add(reserve))
}

// Rotate gives every proxy a new certificate of the same authority. MOSN uses
// it for new connections.
func (d Driver) Rotate(ctx context.Context, access mesh.Access, r mesh.Request) error {
	c, _, err := load(access)
	if err != nil {
		return err
	}
	c.Generation++
	if err := c.save(access); err != nil {
		return err
	}
	return d.Configure(ctx, access, r)
}
