package mosn

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

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
	address, err := access.Address(proxy, adminPort)
	return admin{proxy: proxy, address: address, http: d.http}, err
}

// do returns status and body.
func (a admin) do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint does not answer: %w", a.proxy, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBytes))
	if err != nil {
		return 0, nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint broke off: %w", a.proxy, err)
	}
	return response.StatusCode, answer, nil
}

// read gets a JSON document.
func (a admin) read(ctx context.Context, path string, into any) error {
	status, body, err := a.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint answers %d to %s", a.proxy, status, path)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return meshbench.Errorf(meshbench.Internal, "%s: what %s says cannot be read: %w", a.proxy, path, err)
	}
	return nil
}

// observedPath is the handler of runtimes/mosn that shows connections.
const observedPath = "/meshbench/observed"

// observed is what it answers.
type observed struct {
	Threads   int                    `json:"threads"` // GOMAXPROCS
	Listeners map[string]connections `json:"listeners"`
}

// connections are those of one listener that brought data.
type connections struct {
	Plain     uint64            `json:"plain"`
	TLS       uint64            `json:"tls"`
	Mutual    uint64            `json:"mutual"`
	Versions  map[string]uint64 `json:"versions"`
	Ciphers   map[string]uint64 `json:"ciphers"`
	Protocols map[string]uint64 `json:"protocols"`
}

// station is what a proxy has counted.
type station struct {
	observed
	requests map[string]uint64 // by listener: received
	attempts map[string]uint64 // by cluster: sent on
}

func (d Driver) station(ctx context.Context, access mesh.Access, proxy string) (station, error) {
	out := station{requests: map[string]uint64{}, attempts: map[string]uint64{}}
	a, err := d.admin(access, proxy)
	if err != nil {
		return out, err
	}
	if err := a.read(ctx, observedPath, &out.observed); err != nil {
		return out, err
	}
	var s statistics
	if err := a.read(ctx, "/api/v1/stats", &s); err != nil {
		return out, err
	}
	if err := s.collect("downstream", "listener", out.requests); err != nil {
		return out, meshbench.Errorf(meshbench.Internal, "%s: %w", proxy, err)
	}
	if err := s.collect("upstream", "cluster", out.attempts); err != nil {
		return out, meshbench.Errorf(meshbench.Internal, "%s: %w", proxy, err)
	}
	return out, nil
}

// statistics is what MOSN counts: type, labels ("listener.inbound"), name,
// value.
type statistics map[string]map[string]map[string]string

// collect sums request_total by the value of the label that stands alone.
func (s statistics) collect(kind, label string, into map[string]uint64) error {
	for labels, values := range s[kind] {
		name, ok := strings.CutPrefix(labels, label+".")
		total, counted := values["request_total"]
		if !ok || !counted {
			continue
		}
		n, err := strconv.ParseUint(total, 10, 64)
		if err != nil {
			return fmt.Errorf("request_total of %s is %q", labels, total)
		}
		into[name] += n
	}
	return nil
}

// Counters reads what the proof of path needs:
//
//   - requests at the callers' proxies: request_total of their listener for
//     the service;
//   - their attempts: request_total of the cluster, which MOSN counts when a
//     connection for the request is there;
//   - requests at the service's proxies: request_total of their listener
//     "inbound";
//   - handshakes and plaintext: connections of "inbound" by what the network
//     filter of runtimes/mosn saw when their first data came. MOSN itself
//     counts no handshakes.
func (d Driver) Counters(ctx context.Context, access mesh.Access, r mesh.Request) ([]mesh.Hop, error) {
	policies, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	all := proxies(r)
	stations := map[string]station{}
	for _, p := range all {
		if stations[p.name], err = d.station(ctx, access, p.name); err != nil {
			return nil, err
		}
	}
	var hops []mesh.Hop
	for _, e := range mesh.Edges(r.Services) {
		h := mesh.Hop{
			From: e.Name(), To: e.To,
			Secure: mode(r.Subject, policyOf(policies, e.To)) == meshbench.MTLSStrict,
		}
		for _, p := range all {
			s := stations[p.name]
			for _, o := range p.outbound {
				if o.service == e.To {
					h.ClientReceived += s.requests[o.port]
					h.ClientAttempts += s.attempts[e.To]
				}
			}
			if p.service == e.To {
				inbound := s.Listeners[inboundName]
				h.ServerReceived += s.requests[inboundName]
				h.Handshakes += inbound.Mutual
				h.Plaintext += inbound.Plain + inbound.TLS - inbound.Mutual
			}
		}
		hops = append(hops, h)
	}
	return hops, nil
}

// notSeen is the value of a setting that only traffic shows.
const notSeen = "not seen"

// Settings reads what the pair that load enters by really does. Where the two
// differ, a value names both sides.
//
//	version           as the program says
//	threads           GOMAXPROCS
//	mtls              strict: there were connections, all with certificates of both sides
//	tls_version, tls_cipher   of the connections that there were
//	upstream_http     what the service's proxy received
//	access_log, tracing  on or off, from the configuration in force
func (d Driver) Settings(ctx context.Context, access mesh.Access, r mesh.Request) ([]meshbench.Setting, error) {
	client, err := d.facts(ctx, access, ClientProxy)
	if err != nil {
		return nil, err
	}
	server, err := d.facts(ctx, access, proxyName(r.Services[0].Name, 0))
	if err != nil {
		return nil, err
	}
	var out []meshbench.Setting
	both := func(name string, value func(facts) string) {
		c, s := value(client), value(server)
		if c != s {
			c = "client " + c + ", server " + s
		}
		out = append(out, meshbench.Setting{Name: name, Value: c})
	}
	inbound := server.observed.Listeners[inboundName]
	both("version", func(f facts) string { return f.version })
	both("threads", func(f facts) string { return strconv.Itoa(f.observed.Threads) })
	out = append(out,
		meshbench.Setting{Name: "mtls", Value: inbound.mutual()},
		meshbench.Setting{Name: "tls_version", Value: words(inbound.Versions)},
		meshbench.Setting{Name: "tls_cipher", Value: words(inbound.Ciphers)},
		meshbench.Setting{Name: "upstream_http", Value: words(inbound.Protocols)},
	)
	both("access_log", func(f facts) string { return onOff(f.accessLog) })
	both("tracing", func(f facts) string { return onOff(f.tracing) })
	return out, nil
}

// mutual says whether the connections were mutual TLS.
func (c connections) mutual() string {
	switch {
	case c.Plain+c.TLS == 0:
		return notSeen
	case c.TLS == 0:
		return off
	case c.Plain > 0 || c.Mutual < c.TLS:
		return "partly"
	}
	return strict
}

func words(counts map[string]uint64) string {
	if len(counts) == 0 {
		return notSeen
	}
	return strings.Join(slices.Sorted(maps.Keys(counts)), ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return off
}

// facts is what a proxy shows of itself.
type facts struct {
	version            string
	observed           observed
	accessLog, tracing bool
}

func (d Driver) facts(ctx context.Context, access mesh.Access, proxy string) (facts, error) {
	var f facts
	a, err := d.admin(access, proxy)
	if err != nil {
		return f, err
	}
	if err := a.read(ctx, observedPath, &f.observed); err != nil {
		return f, err
	}
	status, body, err := a.do(ctx, http.MethodGet, "/api/v1/version", nil)
	if err != nil {
		return f, err
	}
	if status != http.StatusOK {
		return f, meshbench.Errorf(meshbench.Unavailable, "%s: the admin endpoint answers %d to a question for its version", proxy, status)
	}
	f.version = parseVersion(string(body))
	var dump any
	if err := a.read(ctx, "/api/v1/config_dump", &dump); err != nil {
		return f, err
	}
	f.look(dump)
	return f, nil
}

// parseVersion takes the number from "mosn version: 1.6.1".
func parseVersion(text string) string {
	return text[strings.LastIndexAny(text, " :")+1:]
}

// look walks through the configuration in force.
func (f *facts) look(value any) {
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			f.look(e)
		}
	case map[string]any:
		for key, e := range v {
			switch key {
			case "access_logs":
				list, _ := e.([]any)
				f.accessLog = f.accessLog || len(list) > 0
			case "tracing":
				t, _ := e.(map[string]any)
				f.tracing = f.tracing || t["enable"] == true
			}
			f.look(e)
		}
	}
}
