package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

const (
	// agentTimeout is for one question to the agent; it is long since the
	// machine may be busy.
	agentTimeout = 20 * time.Second
	// maxAgentBytes bounds what is read of an answer.
	maxAgentBytes = 8 << 20
)

// agent is the HTTP API of a Consul agent
// (https://developer.hashicorp.com/consul/api-docs).
type agent struct {
	address string // host:port
	http    *http.Client
}

func (d Driver) agent(access mesh.Access) (agent, error) {
	address, err := access.Address(Agent, "http")
	return agent{address: address, http: d.http}, err
}

// call sends a request with in as its JSON body, unless it is nil, and reads
// the answer into out, unless it is nil. What the agent refuses (a status of
// 400 to 499, and 500 where it says that an entry is wrong) is an error of
// code Invalid in the agent's own words, a status of 404 one of code NotFound.
func (a agent) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, body)
	if err != nil {
		return err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the Consul agent does not answer: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAgentBytes))
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the Consul agent broke off: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal(method, path, response.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return meshbench.Errorf(meshbench.Internal, "what the Consul agent answers to %s cannot be read: %w", path, err)
	}
	return nil
}

func refusal(method, path string, status int, text []byte) error {
	code := meshbench.Unavailable
	switch {
	case status == http.StatusNotFound:
		code = meshbench.NotFound
	case status < 500, strings.HasPrefix(path, "/v1/config"):
		code = meshbench.Invalid
	}
	path, _, _ = strings.Cut(path, "?")
	return meshbench.Errorf(code, "Consul answers %d to %s %s: %s", status, method, path, strings.TrimSpace(fmt.Sprintf("%.500s", text)))
}

// bundle returns the certificates that the authority is trusted by, as PEM;
// empty while there is none.
func (a agent) bundle(ctx context.Context) (string, error) {
	var out struct {
		Roots []struct {
			RootCert string
			Active   bool
		}
	}
	if err := a.call(ctx, http.MethodGet, "/v1/connect/ca/roots", nil, &out); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range out.Roots {
		if r.Active {
			b.WriteString(r.RootCert)
		}
	}
	return b.String(), nil
}

// leaf is a certificate with its key, as PEM.
type leaf struct {
	CertPEM, PrivateKeyPEM string
	ServiceURI             string
}

// leaf asks for a certificate of a service.
func (a agent) leaf(ctx context.Context, service string) (leaf, error) {
	var out leaf
	err := a.call(ctx, http.MethodGet, "/v1/agent/connect/ca/leaf/"+url.PathEscape(service), nil, &out)
	return out, err
}

// awaitAuthority returns when the agent can sign certificates.
func (a agent) awaitAuthority(ctx context.Context) error {
	var last error
	for {
		bundle, err := a.bundle(ctx)
		if err == nil && bundle != "" {
			return nil
		}
		last = err
		if !pause(ctx, 10*time.Millisecond) {
			if last == nil {
				last = ctx.Err()
			}
			return meshbench.Errorf(meshbench.Unavailable, "the Consul agent's authority did not come up: %w", last)
		}
	}
}

// pause waits, and returns false where ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
