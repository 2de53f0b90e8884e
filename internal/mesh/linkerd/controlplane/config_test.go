package controlplane

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/meshbench/meshbench"
)

func TestConfigValidate(t *testing.T) {
	if err := example().Validate(); err != nil {
		t.Fatalf("a valid configuration was refused: %v", err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{"two workloads of one name", func(c *Config) { c.Workloads[1].Name = "client-proxy" }, "there twice"},
		{"no identity", func(c *Config) { c.Workloads[0].Identity = "" }, "identity"},
		{"no token", func(c *Config) { c.Workloads[0].Token = "" }, "token"},
		{"a port twice", func(c *Config) { c.Workloads[1].Servers[1].Port = 9090 }, "9090"},
		{"a server without a name", func(c *Config) { c.Workloads[1].Servers[0].Name = "" }, "no name"},
		{"a path without a slash", func(c *Config) { c.Workloads[1].Servers[0].Access = []Access{{PathPrefix: "a"}} }, "slash"},
		{"two services of one name", func(c *Config) { c.Services[1].Name = echo }, "there twice"},
		{"an address twice", func(c *Config) { c.Services[1].Addresses = []string{entry} }, "another's"},
		{"an address without a port", func(c *Config) { c.Services[0].Addresses = []string{"198.18.1.2"} }, "no IPv4"},
		{"an endpoint with a name", func(c *Config) { c.Services[0].Endpoints[0].Address = "localhost:80" }, "no IPv4"},
		{"no route", func(c *Config) { c.Services[0].Routes = nil }, "no route"},
		{"an unknown backend", func(c *Config) { c.Services[0].Routes[0].Backends[0].Service = "moon" }, "moon"},
		{"weights of 0", func(c *Config) { c.Services[0].Routes[0].Backends[0].Weight = 0 }, "weights"},
		{"a retry without statuses", func(c *Config) { c.Services[0].Routes[0].Retry.Statuses = nil }, "statuses"},
		{"no status", func(c *Config) { c.Services[0].Routes[0].Retry.Statuses[0].Last = 600 }, "600"},
		{"a breaker that never closes", func(c *Config) { c.Services[0].Breaker.Longest = 0 }, "breaker"},
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
	changed.Services[0].Endpoints[0].HTTP2 = false
	if first, again := version(example()), version(example()); first != again || first == version(changed) {
		t.Error("versions do not follow the content")
	}
	// What is sent is what is hashed.
	data, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil || !cmp.Equal(back, example()) {
		t.Errorf("read back (%v): %s", err, cmp.Diff(example(), back))
	}
}

func TestTextIsAlwaysTheSame(t *testing.T) {
	c := example()
	for _, make := range []func() (string, error){
		func() (string, error) { return c.OutboundText(c.Services[0]) },
		func() (string, error) { return InboundText(c.Workloads[1].Servers[0]) },
	} {
		first, err := make()
		if err != nil || !json.Valid([]byte(first)) {
			t.Fatalf("%v: %s", err, first)
		}
		for range 20 {
			if again, _ := make(); again != first {
				t.Fatalf("it varies:\n%s\n%s", first, again)
			}
		}
	}
}

// FuzzConfig: whatever passes Validate becomes messages that can be sent.
func FuzzConfig(f *testing.F) {
	data, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add(`{}`)
	f.Add(`{"services":[{"name":"a","addresses":["1.2.3.4:5"],"routes":[{"backends":[{"service":"a","weight":1}]}],"endpoints":[]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var c Config
		if json.Unmarshal([]byte(text), &c) != nil || c.Validate() != nil {
			return
		}
		for _, s := range c.Services {
			if _, err := proto.Marshal(c.outboundPolicy(s)); err != nil {
				t.Errorf("service %q: %v", s.Name, err)
			}
			for _, u := range updates(&s, map[string]Endpoint{}, s.Endpoints) {
				if _, err := proto.Marshal(u); err != nil {
					t.Errorf("endpoints of %q: %v", s.Name, err)
				}
			}
		}
		for _, w := range c.Workloads {
			for _, s := range w.Servers {
				if _, err := proto.Marshal(inboundServer(s)); err != nil {
					t.Errorf("port %d of %q: %v", s.Port, w.Name, err)
				}
			}
		}
	})
}
