package envoy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// maxAdminBytes bounds what is read of an answer of the admin endpoint.
const maxAdminBytes = 16 << 20

// admin is the administration endpoint of one proxy.
type admin struct {
	proxy   string
	address string
	http    *http.Client
}

func (d Driver) admin(access mesh.Access, proxy string) (admin, error) {
	address, err := access.Address(proxy, "admin")
	return admin{proxy: proxy, address: address, http: d.http}, err
}

// get returns status and body.
func (a admin) get(ctx context.Context, path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint does not answer: %w", a.proxy, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBytes))
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint broke off: %w", a.proxy, err)
	}
	return response.StatusCode, body, nil
}

func (a admin) ok(ctx context.Context, path string) ([]byte, error) {
	status, body, err := a.get(ctx, path)
	if err == nil && status != http.StatusOK {
		err = meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint answers %d to %s", a.proxy, status, path)
	}
	return body, err
}

// stats reads the counters and gauges whose names match a regular expression.
func (a admin) stats(ctx context.Context, filter string) (stats, error) {
	body, err := a.ok(ctx, "/stats?"+url.Values{"filter": {filter}}.Encode())
	if err != nil {
		return nil, err
	}
	s, err := parseStats(body)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: %w", a.proxy, err)
	}
	return s, nil
}

// awaitLive returns when the proxy serves: its state is live, its workers
// run, nothing waits for a part of its configuration, and no connection
// follows an earlier one: those end a second after a listener has changed.
func (a admin) awaitLive(ctx context.Context) error {
	for {
		status, _, err := a.get(ctx, "/ready")
		if err != nil {
			return err
		}
		if status == http.StatusOK {
			s, err := a.stats(ctx, `^(listener_manager\.(workers_started|total_listeners_(active|warming|draining)|total_filter_chains_draining)|cluster_manager\.warming_clusters)$`)
			if err != nil {
				return err
			}
			if s["listener_manager.workers_started"] == 1 && s["listener_manager.total_listeners_active"] > 0 &&
				s["listener_manager.total_listeners_warming"] == 0 && s["cluster_manager.warming_clusters"] == 0 &&
				s["listener_manager.total_listeners_draining"] == 0 && s["listener_manager.total_filter_chains_draining"] == 0 {
				return nil
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return meshbench.Errorf(meshbench.Unavailable, "%s accepted its configuration but did not become live: %w", a.proxy, ctx.Err())
		}
	}
}

// stats are the counters and gauges of a proxy by name.
type stats map[string]uint64

// parseStats reads the text form of Envoy's /stats: lines of "name: value".
// Values that are no numbers (histograms, text readouts) are left out.
func parseStats(text []byte) (stats, error) {
	out := stats{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		// A name can have colons (an IPv6 address), a number cannot.
		i := strings.LastIndex(line, ": ")
		if i <= 0 {
			return nil, fmt.Errorf("not a line of statistics: %.80q", line)
		}
		if n, err := strconv.ParseUint(line[i+2:], 10, 64); err == nil {
			out[line[:i]] = n
		}
	}
	return out, lines.Err()
}

// need returns a counter that must exist.
func (s stats) need(proxy, name string) (uint64, error) {
	v, ok := s[name]
	if !ok {
		return 0, meshbench.Errorf(meshbench.Internal, "%s does not count %s", proxy, name).
			WithHint("this version of Envoy may name it differently")
	}
	return v, nil
}

// parseVersion reads the version of /server_info: "1.40.0" of
// "COMMIT/1.40.0/Clean/RELEASE/BoringSSL".
func parseVersion(serverInfo []byte) (string, error) {
	var info struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(serverInfo, &info); err != nil {
		return "", err
	}
	parts := strings.Split(info.Version, "/")
	if len(parts) < 2 || parts[1] == "" {
		return "", fmt.Errorf("not a version of Envoy: %.80q", info.Version)
	}
	return parts[1], nil
}

// configFacts is what a dump of the configuration in force says.
type configFacts struct {
	accessLog, tracing   bool
	groups               []string // for key exchange, where the configuration names them
	requiresCertificate  bool
	verifiesNames        bool
	listeners, tlsSocket int  // filter chains, and those that have TLS
	permissive           bool // a filter chain is for connections without TLS beside others
}

// read looks through a /config_dump for the words that matter, wherever they
// stand.
func (f *configFacts) read(dump []byte) error {
	var document any
	if err := json.Unmarshal(dump, &document); err != nil {
		return err
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				switch key {
				case "access_log":
					list, ok := e.([]any)
					f.accessLog = f.accessLog || ok && len(list) > 0
				case "tracing":
					f.tracing = true
				case "ecdh_curves":
					list, _ := e.([]any)
					for _, g := range list {
						if g, ok := g.(string); ok {
							f.groups = append(f.groups, g)
						}
					}
				case "transport_protocol":
					f.permissive = f.permissive || e == "raw_buffer"
				case "require_client_certificate":
					f.requiresCertificate = f.requiresCertificate || e == true
				case "match_typed_subject_alt_names":
					list, ok := e.([]any)
					f.verifiesNames = f.verifiesNames || ok && len(list) > 0
				case "filter_chains":
					list, _ := e.([]any)
					for _, c := range list {
						f.listeners++
						if c, ok := c.(map[string]any); ok && c["transport_socket"] != nil {
							f.tlsSocket++
						}
					}
				}
				walk(e)
			}
		}
	}
	walk(document)
	return nil
}
