package controlplane

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/pki"
)

// example is a small pair with everything in it.
func example() Config {
	return Config{Nodes: []Node{
		{
			ID: "client", Identity: &pki.Identity{Name: "spiffe://meshbench.local/c", Certificate: "cert", Key: "key"}, Trust: "bundle",
			Listeners: []Listener{{Name: "entry", Address: "127.0.0.1:1000", Routes: []Route{
				{Prefix: "/teapot", Direct: &Direct{Status: 418, Body: "short"}},
				{Prefix: "/", Cluster: "service", Timeout: meshbench.Duration(time.Minute), Response: &meshbench.HeaderChange{Add: map[string]string{"x-b": "2", "x-a": "1"}}},
				{
					Prefix: "/split", Method: "GET", Headers: map[string]string{"x-user": "dev"}, Backends: []Backend{{"service", 9}, {"other", 1}},
					Retry:  &meshbench.RetryPolicy{Attempts: 2, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnConnectFailure}, PerTryTimeout: meshbench.Duration(time.Second)},
					Mirror: &Mirror{"other", 0.5}, Request: &meshbench.HeaderChange{Set: map[string]string{"x-100": "100%"}, Remove: []string{"X-Gone"}},
					Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 10}, Delay: &meshbench.Delay{Duration: meshbench.Duration(time.Second), Percent: 1}},
				},
			}}},
			Clusters: []Cluster{{
				Name: "service", Endpoints: []string{"127.0.0.1:2000"}, Limit: 4096,
				TLS:   &TLS{Peers: []string{"spiffe://meshbench.local/s"}, Version: "1.3", Groups: []string{"X25519"}, ALPN: []string{"h2"}},
				HTTP2: true, Retries: true, Breaker: &meshbench.CircuitBreaker{MaxConnections: 1},
				Outlier: &meshbench.OutlierDetection{ConsecutiveErrors: 3, BaseEjection: meshbench.Duration(time.Second), MaxEjectionPercent: 50},
			}, {Name: "other", Endpoints: []string{"127.0.0.1:2001"}}},
		},
		{
			ID: "server", Identity: &pki.Identity{Name: "spiffe://meshbench.local/s", Certificate: "cert", Key: "key"}, Trust: "bundle",
			Listeners: []Listener{{
				Name: "inbound", Address: "[::1]:2000", TLS: &TLS{Peers: []string{"spiffe://meshbench.local/c"}}, Permissive: true, Inbound: true, AccessLog: true,
				Routes: []Route{{
					Prefix: "/", Cluster: "app", RateLimit: &meshbench.RateLimitPolicy{Requests: 3, Per: meshbench.Duration(time.Second)},
					Authorizations: []meshbench.Authorization{
						{Action: meshbench.Deny, From: []string{"spiffe://meshbench.local/c"}, Paths: []string{"/admin"}, Methods: []string{"POST"}}, {Action: meshbench.Allow},
					},
				}},
			}},
			Clusters: []Cluster{{Name: "app", Endpoints: []string{"127.0.0.1:3000"}}},
		},
	}}
}

func TestConfigValidate(t *testing.T) {
	if err := example().Validate(); err != nil {
		t.Fatalf("a valid configuration was refused: %v", err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{"empty", func(c *Config) { c.Nodes = nil }, "no proxy"},
		{"twice the id", func(c *Config) { c.Nodes[1].ID = "client" }, "not unique"},
		{"cluster without a name", func(c *Config) { c.Nodes[1].Clusters[0].Name = "" }, "cluster name"},
		{"cluster without endpoints", func(c *Config) { c.Nodes[0].Clusters[0].Endpoints = nil }, "no endpoint"},
		{"endpoint without a port", func(c *Config) { c.Nodes[0].Clusters[0].Endpoints = []string{"127.0.0.1"} }, "missing port"},
		{"endpoint with a host name", func(c *Config) { c.Nodes[0].Clusters[0].Endpoints = []string{"localhost:80"} }, "not an IP address"},
		{"port 0", func(c *Config) { c.Nodes[0].Listeners[0].Address = "127.0.0.1:0" }, "not an IP address"},
		{"listener with a dot", func(c *Config) { c.Nodes[0].Listeners[0].Name = "a.b" }, "listener name"},
		{"prefix", func(c *Config) { c.Nodes[0].Listeners[0].Routes[0].Prefix = "teapot" }, "prefix"},
		{"prefix with a query", func(c *Config) { c.Nodes[0].Listeners[0].Routes[0].Prefix = "/a?b" }, "more than a path"},
		{"route to nothing", func(c *Config) { c.Nodes[0].Listeners[0].Routes[1].Cluster = "" }, "either a cluster"},
		{"route to two things", func(c *Config) { c.Nodes[0].Listeners[0].Routes[0].Cluster = "service" }, "either a cluster"},
		{"route to an unknown cluster", func(c *Config) { c.Nodes[0].Listeners[0].Routes[1].Cluster = "moon" }, "does not exist"},
		{"status", func(c *Config) { c.Nodes[0].Listeners[0].Routes[0].Direct.Status = 99 }, "status 99"},
		{"backend that does not exist", func(c *Config) {
			c.Nodes[1].Listeners[0].Routes[0] = Route{Prefix: "/", Backends: []Backend{{"moon", 1}}}
		}, "does not exist"},
		{"no weight", func(c *Config) {
			c.Nodes[1].Listeners[0].Routes[0] = Route{Prefix: "/", Backends: []Backend{{"app", 0}}}
		}, "sum 0"},
		{"weight below 0", func(c *Config) {
			c.Nodes[1].Listeners[0].Routes[0] = Route{Prefix: "/", Backends: []Backend{{"app", -1}}}
		}, "weight -1"},
		{"mirror to nothing", func(c *Config) { c.Nodes[1].Listeners[0].Routes[0].Mirror = &Mirror{"moon", 1} }, "does not exist"},
		{"fault before the application", func(c *Config) { c.Nodes[1].Listeners[0].Routes[0].Fault = &meshbench.FaultPolicy{} }, "fault"},
		{"authorization before the client", func(c *Config) {
			c.Nodes[0].Listeners[0].Routes[1].Authorizations = []meshbench.Authorization{{Action: meshbench.Deny}}
		}, "only an inbound"},
		{"permissive without TLS", func(c *Config) { c.Nodes[0].Listeners[0].Permissive = true }, "plain text"},
		{"TLS for everybody", func(c *Config) { c.Nodes[1].Listeners[0].TLS.Peers = nil }, "everybody"},
		{"TLS version", func(c *Config) { c.Nodes[0].Clusters[0].TLS.Version = "1.1" }, "TLS version"},
		{"no identity", func(c *Config) { c.Nodes[0].Identity = nil }, "certificate"},
		{"no trust", func(c *Config) { c.Nodes[1].Trust = "" }, "bundle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := example()
			tt.spoil(&c)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) || meshbench.AsError(err).Code != meshbench.Invalid {
				t.Fatalf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}

func TestVersionFollowsTheContent(t *testing.T) {
	version := func(c Config) string {
		v, err := c.Version()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	changed := example()
	changed.Node("server").Clusters[0].Endpoints[0] = "127.0.0.1:3001"
	if first, again := version(example()), version(example()); first != again || first == version(changed) {
		t.Error("versions do not follow the content")
	}
	if changed.Node("moon") != nil {
		t.Error("a node that does not exist")
	}
	// What is sent is what is hashed.
	data, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, example()) {
		t.Errorf("read back (%v): %+v", err, back)
	}
}

func FuzzConfig(f *testing.F) {
	data, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add(`{}`)
	f.Add(`{"nodes":[{"id":"a","listeners":[{"name":"l","address":"1.2.3.4:5","tls":{"peers":["x"]}}]}]}`)
	f.Add(`{"nodes":[{"id":"a","clusters":[{"name":"\n","endpoints":["[::]:1"]}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c Config
		if json.Unmarshal([]byte(text), &c) != nil || c.Validate() != nil {
			return
		}
		version, err := c.Version()
		if err != nil || version == "" {
			t.Fatalf("version %q, %v", version, err)
		}
		for _, n := range c.Nodes {
			s, err := snapshot(n, version)
			if err != nil {
				if meshbench.AsError(err).Code != meshbench.Invalid {
					t.Fatalf("code %s: %v", meshbench.AsError(err).Code, err)
				}
				continue
			}
			if err := s.Consistent(); err != nil {
				t.Fatalf("proxy %q gets resources that do not belong together: %v", n.ID, err)
			}
		}
	})
}

// TestUnusualPaths: what may be taken for another path, and what may not.
func TestUnusualPaths(t *testing.T) {
	whole := regexp.MustCompile("^(?:" + unusual + ")$")
	for path, want := range map[string]bool{
		"//admin": true, "/a//b": true, "/a/../b": true, "/a/./b": true, "/a/..": true, "/a/.": true, "/%61dmin": true, "/a%2fb": true,
		"/a%2F..": true, "/%2e%2e/b": true, "/%5C": true, "/a\\b": true, "/%7Euser": true, "/%5f": true, "/%3a": false, "/%40": false, "/%60": false,
		"/": false, "/admin": false, "/a/b.c": false, "/a/..b": false, "/a/.b/c": false, "/a%20b": false, "/%C3%A4": false, "/a/b/": false,
	} {
		if got := whole.MatchString(path); got != want {
			t.Errorf("%s: unusual %v, want %v", path, got, want)
		}
	}
}
