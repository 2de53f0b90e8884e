package play

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"

	"github.com/meshbench/meshbench"
)

// Client talks to the process that holds a playground.
type Client struct {
	http *http.Client
}

// NewClient returns one for a socket. It connects with each command.
func NewClient(socket string) Client {
	return Client{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Status tells what the playground looks like. Where there is none, this and
// every other method returns an error of code NotFound.
func (c Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/status", nil, &s)
}

// Apply makes policies those in force.
func (c Client) Apply(ctx context.Context, policies []meshbench.Policy) (a Applied, err error) {
	return a, c.do(ctx, http.MethodPut, "/policies", notNil(policies), &a)
}

// Send sends requests.
func (c Client) Send(ctx context.Context, s Sending) (sent Sent, err error) {
	return sent, c.do(ctx, http.MethodPost, "/requests", s, &sent)
}

// Down ends the playground and returns when nothing of it is left.
func (c Client) Down(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/down", struct{}{}, &struct{}{})
}

func (c Client) do(ctx context.Context, method, path string, body, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://playground"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return meshbench.Errorf(meshbench.NotFound, "no playground is up: %w", err).WithHint("start one with meshbench play up")
	}
	defer response.Body.Close()
	d := json.NewDecoder(response.Body)
	if response.StatusCode != http.StatusOK {
		var f failure
		if err := d.Decode(&f); err != nil || f.Code == "" {
			return meshbench.Errorf(meshbench.Internal, "the playground answers %s", response.Status)
		}
		return meshbench.Errorf(f.Code, "%s", f.Message).WithHint("%s", f.Hint)
	}
	if err := d.Decode(into); err != nil {
		return meshbench.Errorf(meshbench.Internal, "the playground's answer cannot be read: %w", err)
	}
	return nil
}
