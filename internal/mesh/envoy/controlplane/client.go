package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
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

// Rollback makes the last configuration that all proxies had the one to have,
// and returns its version; "" where there is none.
func (c Client) Rollback(ctx context.Context) (version string, err error) {
	var out versionAnswer
	err = c.call(ctx, http.MethodPost, "/rollback", nil, &out)
	return out.Version, err
}

// Account asks which proxy has accepted what. Where wait is positive, it
// answers when version is decided or the time is over (at most 30 s).
func (c Client) Account(ctx context.Context, version string, wait time.Duration) (Account, error) {
	query := url.Values{"version": {version}, "wait": {wait.String()}}
	var out Account
	err := c.call(ctx, http.MethodGet, "/acks?"+query.Encode(), nil, &out)
	return out, err
}

// Await returns nil when all proxies have accepted a version. A refusal is an
// error of code Invalid with the proxy's own words, a version that was
// replaced meanwhile one of code Conflict, and the end of ctx one of code
// Unavailable that says who has not answered.
func (c Client) Await(ctx context.Context, version string) error {
	for {
		wait := 5 * time.Second
		if deadline, ok := ctx.Deadline(); ok {
			// A little is left for asking a last time who is late.
			wait = min(wait, max(0, time.Until(deadline)-500*time.Millisecond))
		}
		account, err := c.Account(ctx, version, wait)
		if err != nil {
			return err
		}
		switch account.Outcome {
		case Accepted:
			return nil
		case Rejected:
			return refused(account)
		case Replaced:
			return meshbench.Errorf(meshbench.Conflict, "configuration %s was replaced by %s before all proxies had it", version, account.Version)
		case Pending:
			if wait == 0 {
				return meshbench.Errorf(meshbench.Unavailable, "%s did not accept the configuration in time", strings.Join(silent(account), " and ")).
					WithHint("look into the log of the proxy")
			}
		default:
			return meshbench.Errorf(meshbench.Internal, "the control plane speaks of an unknown outcome %q", account.Outcome)
		}
	}
}

// refused makes an error of the proxies' own words. A listener that cannot
// have its port is refused like one that makes no sense, but says something
// else about what to do.
func refused(a Account) error {
	words := strings.Join(refusals(a), "; ")
	if strings.Contains(words, "cannot bind") {
		return meshbench.Errorf(meshbench.Unavailable, "configuration refused: %s", words).
			WithHint("another program took the port meanwhile; run it again")
	}
	return meshbench.Errorf(meshbench.Invalid, "configuration refused: %s", words)
}

// refusals are the proxies' own words.
func refusals(a Account) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(a.Nodes)) {
		for _, word := range slices.Sorted(maps.Keys(a.Nodes[id].Types)) {
			if r := a.Nodes[id].Types[word].Rejected; r != nil && r.Version == a.Version {
				out = append(out, fmt.Sprintf("%s does not take its %s: %s", id, word, r.Message))
			}
		}
	}
	return out
}

// silent are the proxies that have not accepted everything.
func silent(a Account) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(a.Nodes)) {
		n := a.Nodes[id]
		behind := !n.Connected
		for _, t := range n.Types {
			behind = behind || t.Accepted != a.Version
		}
		if behind {
			out = append(out, id)
		}
	}
	return out
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
