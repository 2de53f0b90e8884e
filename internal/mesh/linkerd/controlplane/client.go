package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/meshbench/meshbench"
)

// Client speaks the management protocol of a control plane.
type Client struct {
	Address string // host:port
	HTTP    *http.Client
}

// Put makes c what all proxies should have and returns its version.
func (c Client) Put(ctx context.Context, config Config) (version string, err error) {
	data, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	var out versionAnswer
	err = c.call(ctx, http.MethodPut, "/config", bytes.NewReader(data), &out)
	return out.Version, err
}

// State asks what has been sent. Where wait is positive, it answers when all
// that version says was sent or the time is over (at most 30 s).
func (c Client) State(ctx context.Context, version string, wait time.Duration) (State, error) {
	query := url.Values{"version": {version}, "wait": {wait.String()}}
	var out State
	err := c.call(ctx, http.MethodGet, "/state?"+query.Encode(), nil, &out)
	return out, err
}

// Await returns nil when all that a version says was sent on every stream
// that proxies hold open. A version that was replaced meanwhile is an error of
// code Conflict, the end of ctx one of code Unavailable.
func (c Client) Await(ctx context.Context, version string) error {
	for {
		state, err := c.State(ctx, version, 5*time.Second)
		switch {
		case ctx.Err() != nil:
			return meshbench.Errorf(meshbench.Unavailable, "not all proxies were sent their configuration in time: %w", ctx.Err()).
				WithHint("look into the log of the proxies")
		case err != nil:
			return err
		case state.Version != version:
			return meshbench.Errorf(meshbench.Conflict, "configuration %s was replaced by %s before all proxies had it", version, state.Version)
		case state.Sent:
			return nil
		}
	}
}

func (c Client) call(ctx context.Context, method, path string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.Address+path, body)
	if err != nil {
		return err
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane does not answer: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxConfigBytes))
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane stopped in the middle of an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var e meshbench.Error
		if err := json.Unmarshal(data, &e); err != nil || e.Code == "" {
			return meshbench.Errorf(meshbench.Internal, "the control plane answers %s to %s %s", response.Status, method, path)
		}
		return &e
	}
	if err := json.Unmarshal(data, into); err != nil {
		return meshbench.Errorf(meshbench.Internal, "the control plane's answer cannot be read: %w", err)
	}
	return nil
}
