package istio

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/istio/apiserver"
)

const (
	// prepareTimeout is for one step of a deployment's start.
	prepareTimeout = 60 * time.Second
	// poll is how long we wait before we look again.
	poll = 10 * time.Millisecond
	// tokenLife is how long an agent may use its token: it shows it with each
	// CSR, and certificates are good for a day.
	tokenLife = 24 * time.Hour
)

// Prepare makes what a process needs and only those before it can give.
// Everything in it can be done again: what is there is kept.
//
//	kube-apiserver  the keys of its service accounts and the token that we are known by
//	istiod          a kubeconfig; Istio's kinds of resources, in the API server
//	the first proxy all objects, in the API server
//	proxies         the token of their service account, istiod's root certificate, the bootstrap's template
func (d Driver) Prepare(ctx context.Context, access mesh.Access, r mesh.Request, process string) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	switch process {
	case APIServer:
		return prepareAPIServer(access)
	case Istiod:
		return prepareIstiod(ctx, access)
	}
	for _, p := range proxies(r) {
		if p.process == process {
			return d.prepareProxy(ctx, access, r, p)
		}
	}
	return nil
}

func prepareAPIServer(access mesh.Access) error {
	dir, err := access.Dir(APIServer)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, tokensFile)); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	token := hex.EncodeToString(secret)
	// The tokens last: where they are, everything is.
	for _, f := range []struct {
		name string
		text []byte
	}{
		{accountKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})},
		{accountPub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})},
		{tokensFile, []byte(token + ",meshbench,meshbench,system:masters\n")},
	} {
		if err := write(filepath.Join(dir, f.name), f.text); err != nil {
			return err
		}
	}
	return nil
}

// write makes a private file and the directories above it.
func write(path string, text []byte) error {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "a file of the deployment cannot be written: %w", err)
	}
	return nil
}

// connect returns a client of the API server, with the certificate that the
// server made for itself and the token that we made for it.
func connect(access mesh.Access) (*apiserver.Client, error) {
	dir, err := access.Dir(APIServer)
	if err != nil {
		return nil, err
	}
	address, err := local(access, APIServer, "https")
	if err != nil {
		return nil, err
	}
	token, err := ownToken(dir)
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(dir, certificateFile))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the API server's certificate is not there: %w", err)
	}
	return apiserver.New(address, token, roots)
}

// certificateFile is what the API server proves itself with, in its directory.
const certificateFile = "pki/apiserver.crt"

func ownToken(dir string) (string, error) {
	tokens, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err != nil {
		return "", meshbench.Errorf(meshbench.Unavailable, "the API server's tokens are not there: %w", err)
	}
	token, _, _ := strings.Cut(string(tokens), ",")
	return token, nil
}

// local is the address of a port at 127.0.0.1, where everything listens but
// the workloads' own listeners.
func local(access mesh.Access, process, port string) (string, error) {
	address, err := access.Address(process, port)
	if err != nil {
		return "", err
	}
	_, number, err := net.SplitHostPort(address)
	if err != nil {
		return "", meshbench.Errorf(meshbench.Internal, "%q is no address: %w", address, err)
	}
	return net.JoinHostPort("127.0.0.1", number), nil
}

func prepareIstiod(ctx context.Context, access mesh.Access) error {
	var server *apiserver.Client
	// The certificate is there a moment before the server takes connections.
	err := await(ctx, "the API server serves", func() (err error) {
		if server, err = connect(access); err != nil {
			return err
		}
		return server.Ready(ctx)
	})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := writeKubeconfig(access); err != nil {
		return err
	}
	program, err := access.Program("istiod@" + version)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(program), crdFile))
	if err != nil {
		return meshbench.Errorf(meshbench.NotFound, "Istio's kinds of resources are not beside istiod: %w", err).
			WithHint("take istiod from the runtimes that Meshbench fetches: it has %s beside it", crdFile)
	}
	var group errgroup.Group
	group.SetLimit(2) // what one request waits for, the other uses
	for _, document := range documents(text) {
		group.Go(func() error { return server.Create(ctx, customResources, document) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range []string{systemNamespace, namespace} {
		if _, err := server.Apply(ctx, namespaces, apiserver.Object{Metadata: apiserver.Metadata{Name: n}}); err != nil {
			return err
		}
	}
	return nil
}

// documents are the documents of a YAML file.
func documents(yaml []byte) [][]byte {
	var out [][]byte
	for _, d := range strings.Split("\n"+string(yaml), "\n---") {
		if strings.Contains(d, "\nkind:") {
			out = append(out, []byte(d))
		}
	}
	return out
}

func writeKubeconfig(access mesh.Access) error {
	dir, err := access.Dir(APIServer)
	if err != nil {
		return err
	}
	own, err := access.Dir(Istiod)
	if err != nil {
		return err
	}
	address, err := local(access, APIServer, "https")
	if err != nil {
		return err
	}
	token, err := ownToken(dir)
	if err != nil {
		return err
	}
	type named map[string]any
	const name = "meshbench"
	text, err := json.Marshal(named{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []named{{"name": name, "cluster": named{
			"server": "https://" + address, "certificate-authority": filepath.Join(dir, certificateFile),
		}}},
		"users":    []named{{"name": name, "user": named{"token": token}}},
		"contexts": []named{{"name": name, "context": named{"cluster": name, "user": name}}},
	})
	if err != nil {
		return err
	}
	return write(filepath.Join(own, kubeconfig), text)
}

func (d Driver) prepareProxy(ctx context.Context, access mesh.Access, r mesh.Request, p proxy) error {
	dir, err := access.Dir(p.process)
	if err != nil {
		return err
	}
	server, err := connect(access)
	if err != nil {
		return err
	}
	defer server.Close()
	// Only now are the addresses known: a control plane may be older than the
	// deployment, and then has the objects of an earlier one.
	if p.process == proxies(r)[0].process {
		if err := d.applyAll(ctx, access, server, r); err != nil {
			return err
		}
	}
	token, err := server.Token(ctx, namespace, p.owner, "istio-ca", tokenLife)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, agentToken), []byte(token)); err != nil {
		return err
	}
	var root string
	err = await(ctx, "istiod has written its root certificate", func() (err error) {
		root, err = rootCertificate(ctx, server)
		return err
	})
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, agentRoot), []byte(root)); err != nil {
		return err
	}
	program, err := access.Program("pilot-agent@" + version)
	if err != nil {
		return err
	}
	template, err := os.ReadFile(filepath.Join(filepath.Dir(program), templateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return meshbench.Errorf(meshbench.NotFound, "the template of Envoy's bootstrap is not beside pilot-agent: %w", err).
			WithHint("take pilot-agent from the runtimes that Meshbench fetches: it has %s beside it", templateFile)
	}
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the template of Envoy's bootstrap cannot be read: %w", err)
	}
	return write(filepath.Join(dir, templateFile), template)
}

// rootCertificate is what workloads trust, as istiod publishes it in every
// namespace.
func rootCertificate(ctx context.Context, server *apiserver.Client) (string, error) {
	var published struct {
		Data map[string]string `json:"data"`
	}
	if err := server.Get(ctx, configMaps, namespace, "istio-ca-root-cert", &published); err != nil {
		return "", err
	}
	root := published.Data["root-cert.pem"]
	if root == "" {
		return "", meshbench.Errorf(meshbench.NotFound, "the config map istio-ca-root-cert is empty")
	}
	return root, nil
}

// await tries until it works. what says what is waited for. A refusal that
// another try cannot change ends it.
func await(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if code := meshbench.AsError(err).Code; code != meshbench.Unavailable && code != meshbench.NotFound {
			return err
		}
		select {
		case <-ctx.Done():
			return meshbench.Errorf(meshbench.Unavailable, "waited in vain until %s: %w", what, err)
		case <-time.After(poll):
		}
	}
}
