// Package envoyadmin reads the administration endpoint of an Envoy: its
// counters, its version and the configuration that is in force. Several meshes
// run Envoys, and their drivers read them alike.
package envoyadmin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

const (
	// maxBytes bounds what is read of an answer.
	maxBytes = 16 << 20
	// timeout is for one question; it is long since the machine may be busy.
	timeout = 20 * time.Second
)

// Client is the administration endpoint of one proxy.
type Client struct {
	Proxy   string // its name, for errors
	Address string // host:port
	HTTP    *http.Client
}

// Get returns status and body. Errors are of code unavailable.
func (a Client) Get(ctx context.Context, path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := a.HTTP.Do(request)
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint does not answer: %w", a.Proxy, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBytes))
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint broke off: %w", a.Proxy, err)
	}
	return response.StatusCode, body, nil
}

// OK returns the body of an answer of 200; everything else is an error.
func (a Client) OK(ctx context.Context, path string) ([]byte, error) {
	status, body, err := a.Get(ctx, path)
	if err == nil && status != http.StatusOK {
		err = meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint answers %d to %s", a.Proxy, status, path)
	}
	return body, err
}

// Stats reads the counters and gauges whose names match a regular expression.
func (a Client) Stats(ctx context.Context, filter string) (Stats, error) {
	body, err := a.OK(ctx, "/stats?"+url.Values{"filter": {filter}}.Encode())
	if err != nil {
		return nil, err
	}
	s, err := ParseStats(body)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: %w", a.Proxy, err)
	}
	return s, nil
}

// AwaitLive returns when the proxy serves: its state is live, its workers
// run, nothing waits for a part of its configuration, and no connection
// follows an earlier one: those end when the proxy has drained a listener that
// was changed.
func (a Client) AwaitLive(ctx context.Context) error {
	for {
		status, _, err := a.Get(ctx, "/ready")
		if err != nil {
			return err
		}
		if status == http.StatusOK {
			s, err := a.Stats(ctx, `^(listener_manager\.(workers_started|total_listeners_(active|warming|draining)|total_filter_chains_draining)|cluster_manager\.warming_clusters)$`)
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
			return meshbench.Errorf(meshbench.Unavailable, "%s accepted its configuration but did not become live: %w", a.Proxy, ctx.Err())
		}
	}
}

// Stats are the counters and gauges of a proxy by name.
type Stats map[string]uint64

// ParseStats reads the text form of Envoy's /stats: lines of "name: value".
// Values that are no numbers (histograms, text readouts) are left out.
func ParseStats(text []byte) (Stats, error) {
	out := Stats{}
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

// Need returns a counter that must exist.
func (s Stats) Need(proxy, name string) (uint64, error) {
	v, ok := s[name]
	if !ok {
		return 0, meshbench.Errorf(meshbench.Internal, "%s does not count %s", proxy, name).
			WithHint("this version of Envoy may name it differently")
	}
	return v, nil
}

// Counted lists what counted below a prefix: the ends of the names that have
// it, "TLSv1.3, TLSv1.2" of "listener.in.ssl.versions."; empty where nothing
// did.
func (s Stats) Counted(prefix string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if word, ok := strings.CutPrefix(name, prefix); ok && s[name] > 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// Spoken lists the versions of HTTP on connections to a cluster, whose
// statistics have the prefix; empty where there was none.
func (s Stats) Spoken(prefix string) string {
	var words []string
	for _, v := range []struct{ counter, word string }{
		{"upstream_cx_http1_total", "HTTP/1.1"}, {"upstream_cx_http2_total", "HTTP/2"}, {"upstream_cx_http3_total", "HTTP/3"},
	} {
		if s[prefix+v.counter] > 0 {
			words = append(words, v.word)
		}
	}
	return strings.Join(words, ", ")
}

// ParseVersion reads the version of /server_info: "1.40.0" of
// "COMMIT/1.40.0/Clean/RELEASE/BoringSSL".
func ParseVersion(serverInfo []byte) (string, error) {
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

// Facts is what a dump of the configuration in force says.
type Facts struct {
	AccessLog, Tracing  bool
	Groups              []string // for key exchange, where the configuration names them
	RequiresCertificate bool
	VerifiesNames       bool
	Chains, TLSChains   int  // filter chains, and those that have TLS
	Permissive          bool // a filter chain is for connections without TLS beside others
	// Rejected is what the proxy said of parts of its configuration that it
	// did not take.
	Rejected []string
}

// Read looks through a /config_dump for the words that matter, wherever they
// stand, and adds them.
func (f *Facts) Read(dump []byte) error {
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
					f.AccessLog = f.AccessLog || ok && len(list) > 0
				case "tracing":
					f.Tracing = true
				case "ecdh_curves":
					list, _ := e.([]any)
					for _, g := range list {
						if g, ok := g.(string); ok {
							f.Groups = append(f.Groups, g)
						}
					}
				case "transport_protocol":
					f.Permissive = f.Permissive || e == "raw_buffer"
				case "error_state":
					if e, ok := e.(map[string]any); ok {
						if words, ok := e["details"].(string); ok && words != "" {
							f.Rejected = append(f.Rejected, words)
						}
					}
					continue // what was refused is not in force
				case "require_client_certificate":
					f.RequiresCertificate = f.RequiresCertificate || e == true
				case "match_typed_subject_alt_names", "match_subject_alt_names": // the second is the older name
					list, ok := e.([]any)
					f.VerifiesNames = f.VerifiesNames || ok && len(list) > 0
				case "filter_chains":
					list, _ := e.([]any)
					for _, c := range list {
						f.Chains++
						if c, ok := c.(map[string]any); ok && c["transport_socket"] != nil {
							f.TLSChains++
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

// Config reads parts of the configuration in force: resources of a kind, such
// as dynamic_listeners, whose names match a regular expression.
func (a Client) Config(ctx context.Context, kind, name string) ([]byte, error) {
	return a.OK(ctx, "/config_dump?"+url.Values{"resource": {kind}, "name_regex": {name}}.Encode())
}
