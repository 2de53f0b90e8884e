package workload

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meshbench/meshbench"
)

// connectionsPerCallee bounds the connections that a service keeps to each
// address of another; further calls wait for one.
const connectionsPerCallee = 256

// callTimeout ends a call that nobody answers.
const callTimeout = time.Minute

// caller sends requests to one other service.
type caller struct {
	to        string
	host      string
	addresses []string
	next      atomic.Uint64
	transport *http.Transport
}

func newCaller(c Call) (*caller, error) {
	if c.To == "" || len(c.Addresses) == 0 {
		return nil, meshbench.Errorf(meshbench.Invalid, "a call needs the name of a service and an address (found %q and %d)", c.To, len(c.Addresses))
	}
	return &caller{
		to: c.To, host: c.Host, addresses: c.Addresses,
		transport: &http.Transport{
			MaxConnsPerHost: connectionsPerCallee, MaxIdleConnsPerHost: connectionsPerCallee,
			IdleConnTimeout: 5 * time.Minute, ResponseHeaderTimeout: callTimeout,
			DisableCompression: true,
		},
	}, nil
}

func (c *caller) close() { c.transport.CloseIdleConnections() }

// maxReason is how much of a failing answer is passed on as the reason.
const maxReason = 1 << 10

// maxReflection bounds the answers that are read for their Reflection.
const maxReflection = 8 << 20

// call passes a request on: a GET of the same path, without query and body.
// An answer of 400 or more is a failure, and so is none.
func (c *caller) call(r *http.Request, header http.Header, reflect bool) meshbench.CallReflection {
	out := meshbench.CallReflection{To: c.to}
	address := c.addresses[(c.next.Add(1)-1)%uint64(len(c.addresses))]
	path, raw := r.URL.Path, r.URL.RawPath
	if !strings.HasPrefix(path, "/") { // OPTIONS *
		path, raw = "/", ""
	}
	request := (&http.Request{
		Method: http.MethodGet, Host: c.host, Header: header.Clone(),
		URL: &url.URL{Scheme: "http", Host: address, Path: path, RawPath: raw},
	}).WithContext(r.Context())
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	defer response.Body.Close()
	out.Status = response.StatusCode
	failed := response.StatusCode >= http.StatusBadRequest
	if failed || reflect {
		limit := int64(maxReason)
		if reflect {
			limit = maxReflection
		}
		text, _ := io.ReadAll(io.LimitReader(response.Body, limit))
		var answer meshbench.Reflection
		if reflect && json.Unmarshal(text, &answer) == nil && answer.Service != "" {
			out.Answer, text = &answer, nil
		}
		if failed {
			out.Error = fmt.Sprintf("answered %d", response.StatusCode)
			if reason := firstLine(text); reason != "" {
				out.Error += ": " + reason
			}
		}
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil && out.Error == "" {
		out.Error = err.Error()
	}
	return out
}

// firstLine is what a failing answer gives as its reason.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(text[:min(len(text), maxReason)]), "\n")
	return strings.ToValidUTF8(strings.TrimSpace(line), "?")
}

// passedOn returns the headers that a service passes on: those by which
// requests are traced, and those of the application's own that begin with x-.
// What a proxy added for the service itself stays with it. more is added.
func passedOn(in, more http.Header) http.Header {
	out := http.Header{"User-Agent": {"meshbench"}}
	for name, values := range in {
		switch {
		case name == "Traceparent", name == "Tracestate", name == "B3", name == "Baggage":
		case !strings.HasPrefix(name, "X-"),
			strings.HasPrefix(name, headerPrefix),
			strings.HasPrefix(name, "X-Forwarded-"),
			strings.HasPrefix(name, "X-Envoy-"):
			continue
		}
		out[name] = slices.Clone(values)
	}
	maps.Copy(out, more)
	return out
}
