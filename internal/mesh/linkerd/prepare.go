package linkerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
	"github.com/meshbench/meshbench/internal/pki"
)

// Files of the processes.
const (
	credentialsFile = "credentials.json"  // of the control plane
	tokensFile      = "tokens.json"       // beside it: proxy -> its token
	identityDir     = "identity"          // of a proxy: csr.der and key.p8
	tokenFile       = "token"             // of a proxy
	anchorsFile     = "trust-anchors.pem" // of a proxy
)

// Prepare makes the control plane's certificate and the authority before it
// starts, and a proxy's key, signing request and token before that one does;
// the control plane is told what it shall say to them, since a proxy asks at
// once.
func (d Driver) Prepare(ctx context.Context, access mesh.Access, r mesh.Request, process string) error {
	if process == ControlPlane {
		_, err := loadCredentials(access, proxies(r))
		return err
	}
	all := proxies(r)
	i := slices.IndexFunc(all, func(p proxy) bool { return p.process == process })
	if i < 0 {
		return nil // an application
	}
	c, err := loadCredentials(access, all)
	if err != nil {
		return err
	}
	if err := writeIdentity(access, all[i], c); err != nil {
		return err
	}
	config, err := d.config(access, r, c.tokens)
	if err != nil {
		return err
	}
	_, err = d.put(ctx, access, config)
	return err
}

// credentials are those of a deployment.
type credentials struct {
	controlplane.Credentials
	bundle string
	tokens map[string]pki.Secret // proxy -> what it proves its identity with
}

// loadCredentials reads what is kept beside the control plane, readable by
// its owner alone, and makes what is missing.
func loadCredentials(access mesh.Access, all []proxy) (credentials, error) {
	dir, err := access.Dir(ControlPlane)
	if err != nil {
		return credentials{}, err
	}
	c := credentials{tokens: map[string]pki.Secret{}}
	file := filepath.Join(dir, credentialsFile)
	found, err := readJSON(file, &c.Credentials)
	if err != nil {
		return credentials{}, err
	}
	if !found {
		if c.Credentials, err = newCredentials(time.Now()); err == nil {
			err = writePrivateJSON(file, c.Credentials)
		}
		if err != nil {
			return credentials{}, err
		}
	}
	authority, err := pki.ParseAuthority(c.Authority)
	if err != nil {
		return credentials{}, err
	}
	c.bundle = authority.Bundle()
	file = filepath.Join(dir, tokensFile)
	if _, err := readJSON(file, &c.tokens); err != nil {
		return credentials{}, err
	}
	changed := false
	for _, p := range all {
		if c.tokens[p.process] == "" {
			c.tokens[p.process] = pki.Secret(rand.Text())
			changed = true
		}
	}
	if changed {
		err = writePrivateJSON(file, c.tokens)
	}
	return c, err
}

func newCredentials(now time.Time) (controlplane.Credentials, error) {
	authority, err := pki.NewAuthority(now)
	if err != nil {
		return controlplane.Credentials{}, err
	}
	text, err := authority.Encode()
	if err != nil {
		return controlplane.Credentials{}, err
	}
	own, err := authority.IssueDNS(ownIdentity, now)
	return controlplane.Credentials{Authority: text, Identity: own}, err
}

// writeIdentity gives a proxy what it proves its identity with, and the
// authority that it trusts. A key that is there stays.
func writeIdentity(access mesh.Access, p proxy, c credentials) error {
	dir, err := access.Dir(p.process)
	if err != nil {
		return err
	}
	files := map[string][]byte{tokenFile: []byte(c.tokens[p.process]), anchorsFile: []byte(c.bundle)}
	key := filepath.Join(identityDir, "key.p8")
	if _, err := os.Stat(filepath.Join(dir, key)); errors.Is(err, fs.ErrNotExist) {
		request, private, err := pki.NewRequest(identityOf(p.service))
		if err != nil {
			return err
		}
		files[key], files[filepath.Join(identityDir, "csr.der")] = private, request
	}
	if err := os.MkdirAll(filepath.Join(dir, identityDir), 0o700); err != nil {
		return notKept(err)
	}
	for name, data := range files {
		if err := writePrivate(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}

// readJSON tells whether there is such a file.
func readJSON(file string, into any) (bool, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return false, meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be read: %w", err)
	}
	return true, nil
}

func writePrivateJSON(file string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writePrivate(file, data)
}

// writePrivate replaces a file as a whole.
func writePrivate(file string, data []byte) error {
	next := file + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return notKept(err)
	}
	if err := os.Rename(next, file); err != nil {
		return notKept(err)
	}
	return nil
}

func notKept(err error) error {
	return meshbench.Errorf(meshbench.Unavailable, "the credentials of the deployment cannot be kept: %w", err)
}
