// Package apiserver speaks with a Kubernetes API server of our own by plain
// REST: what a driver needs of it, and no more. The protocol is that of the
// Kubernetes API conventions; server-side apply is described at
// https://kubernetes.io/docs/reference/using-api/server-side-apply/.
package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

const (
	// maxBytes bounds what is read of an answer.
	maxBytes = 16 << 20
	// timeout is for one request; it is long since the machine may be busy.
	timeout = 20 * time.Second
	// owner is who the server notes as the manager of the fields we set.
	owner = "meshbench"
)

// Client is the way to one API server. It is made by New.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New returns a client of the server at address (host:port), which must prove
// itself by one of the certificates in roots (PEM). token is the bearer token
// that it knows us by.
func New(address, token string, roots []byte) (*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, meshbench.Errorf(meshbench.Internal, "the API server's certificate cannot be read")
	}
	return &Client{
		base: "https://" + address, token: token,
		// No proxy of the environment stands between us and a loopback address.
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}},
	}, nil
}

// Close ends the connections that were kept.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Resource says where objects of a kind are.
type Resource struct {
	APIVersion string // "v1", "networking.istio.io/v1"
	Kind       string // "VirtualService"
	Plural     string // "virtualservices"
	Cluster    bool   // it has no namespace
}

// path returns where an object is, or with no name all of the namespace.
func (r Resource) path(namespace, name string) string {
	base := "/apis/"
	if !strings.Contains(r.APIVersion, "/") {
		base = "/api/"
	}
	p := base + r.APIVersion
	if !r.Cluster {
		p += "/namespaces/" + url.PathEscape(namespace)
	}
	p += "/" + r.Plural
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

// Object is what an API server keeps, as far as all kinds are alike.
type Object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       any      `json:"spec,omitempty"`
}

// Metadata names an object.
type Metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"` // given by the server
}

// Apply makes an object what it shall be, and returns the version that the
// server gave it. What is as it shall be keeps its version. An object that the
// server refuses is an error of code invalid with the server's own words.
func (c *Client) Apply(ctx context.Context, r Resource, o Object) (version string, err error) {
	o.APIVersion, o.Kind = r.APIVersion, r.Kind
	body, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	query := url.Values{"fieldManager": {owner}, "force": {"true"}}
	var out Object
	err = c.do(ctx, http.MethodPatch, r.path(o.Metadata.Namespace, o.Metadata.Name)+"?"+query.Encode(), "application/apply-patch+yaml", body, &out)
	return out.Metadata.ResourceVersion, err
}

// Create makes an object that is given as YAML; that it is there already is no
// error.
func (c *Client) Create(ctx context.Context, r Resource, yaml []byte) error {
	err := c.do(ctx, http.MethodPost, r.path("", ""), "application/yaml", yaml, nil)
	if err != nil && meshbench.AsError(err).Code == meshbench.Conflict {
		return nil
	}
	return err
}

// Get reads an object into out. It is an error of code not_found where there
// is none.
func (c *Client) Get(ctx context.Context, r Resource, namespace, name string, out any) error {
	return c.do(ctx, http.MethodGet, r.path(namespace, name), "", nil, out)
}

// List returns the objects of a namespace that have a label.
func (c *Client) List(ctx context.Context, r Resource, namespace, label string) ([]Object, error) {
	var list struct {
		Items []Object `json:"items"`
	}
	err := c.do(ctx, http.MethodGet, r.path(namespace, "")+"?"+url.Values{"labelSelector": {label}}.Encode(), "", nil, &list)
	return list.Items, err
}

// Delete removes an object; that there is none is no error.
func (c *Client) Delete(ctx context.Context, r Resource, namespace, name string) error {
	err := c.do(ctx, http.MethodDelete, r.path(namespace, name), "", nil, nil)
	if err != nil && meshbench.AsError(err).Code == meshbench.NotFound {
		return nil
	}
	return err
}

// Token asks for a token of a service account, good for the audience and the
// time given (TokenRequest, authentication.k8s.io/v1).
func (c *Client) Token(ctx context.Context, namespace, account, audience string, life time.Duration) (string, error) {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"audiences": []string{audience}, "expirationSeconds": int(life.Seconds())},
	})
	if err != nil {
		return "", err
	}
	var out struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	accounts := Resource{APIVersion: "v1", Plural: "serviceaccounts"}
	err = c.do(ctx, http.MethodPost, accounts.path(namespace, account)+"/token", "application/json", body, &out)
	if err == nil && out.Status.Token == "" {
		err = meshbench.Errorf(meshbench.Unavailable, "the API server gave no token for the service account %s", account)
	}
	return out.Status.Token, err
}

// Ready tells whether the server serves.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "/readyz", "", nil, nil)
}

// do sends a request and decodes the answer into out, where it is not nil.
func (c *Client) do(ctx context.Context, method, path, media string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Accept", "application/json")
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the API server does not answer: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBytes))
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the API server broke off: %w", err)
	}
	if response.StatusCode >= 300 {
		return refusal(response.StatusCode, method+" "+path, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return meshbench.Errorf(meshbench.Internal, "the API server's answer to %s %s cannot be read: %w", method, path, err)
	}
	return nil
}

// refusal turns an answer into an error with the server's own words (a Status
// of the API conventions, or plain text).
func refusal(status int, asked string, text []byte) error {
	var s struct {
		Message string `json:"message"`
	}
	said := strings.TrimSpace(string(text))
	if json.Unmarshal(text, &s) == nil && s.Message != "" {
		said = s.Message
	}
	if len(said) > 2000 {
		said = said[:2000] + " ..."
	}
	code := meshbench.Unavailable
	switch status {
	case http.StatusNotFound:
		code = meshbench.NotFound
	case http.StatusConflict:
		code = meshbench.Conflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		code = meshbench.Invalid
	case http.StatusUnauthorized, http.StatusForbidden:
		code = meshbench.Internal
	}
	return meshbench.Errorf(code, "the API server refuses %s: %s", asked, fmt.Sprintf("%d: %s", status, said))
}
