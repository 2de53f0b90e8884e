package istio

import (
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/meshtest"
	"github.com/meshbench/meshbench/internal/telemetry/envoyadmin"
)

func TestConforms(t *testing.T) {
	meshtest.Run(t, meshtest.Suite{Driver: New(), Applications: applications("echo"), Service: service("echo", 1)})
}

func service(name string, instances int, calls ...string) meshbench.Service {
	s := meshbench.Service{Name: name, Calls: calls}
	for i := range instances {
		process := name
		if i > 0 {
			process += "-" + strconv.Itoa(i+1)
		}
		s.Instances = append(s.Instances, meshbench.PortRef{Process: process, Port: "http"})
	}
	return s
}

func applications(names ...string) []meshbench.Process {
	var out []meshbench.Process
	for _, n := range names {
		out = append(out, meshbench.Process{Name: n, Role: meshbench.Application, Service: n, Runtime: meshbench.Self, Ports: []string{"http"}})
	}
	return out
}

func request(services ...meshbench.Service) mesh.Request {
	return mesh.Request{Subject: meshbench.Subject{ID: "istio", Mesh: "istio"}, Profile: meshbench.Parity, Services: services, Threads: 1}
}

// graph has a caller in the middle, a service with two instances, and one that
// nobody calls.
func graph() mesh.Request {
	return request(service("front", 1, "back"), service("back", 2), service("spare", 1))
}

// place is an Access that makes addresses up: each process has an IP address
// of its own, as processes have that ask for one.
type place struct{ t *testing.T }

func (p place) Address(process, port string) (string, error) {
	host, number := 1, 10000
	for _, c := range process {
		host = (host*31 + int(c)) % 250
	}
	for _, c := range process + port {
		number = 10000 + (number*31+int(c))%50000
	}
	return net.JoinHostPort("127.64.0."+strconv.Itoa(host), strconv.Itoa(number)), nil
}
func (p place) Dir(string) (string, error)     { return p.t.TempDir(), nil }
func (p place) Program(string) (string, error) { return "/nowhere", nil }

func TestRenderGraph(t *testing.T) {
	spec, err := New().Render(graph())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range spec.Processes {
		names = append(names, p.Name)
		if p.Control != (p.Role == meshbench.ControlPlane) {
			t.Errorf("%s: control %v, role %s", p.Name, p.Control, p.Role)
		}
		if strings.HasSuffix(p.Name, "-proxy") != p.OwnHost {
			t.Errorf("%s: own address %v", p.Name, p.OwnHost)
		}
	}
	want := []string{"etcd", "kube-apiserver", "istiod", "front-proxy", "back-proxy", "back-2-proxy", "spare-proxy", "client-proxy"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	spec.Processes = append(applications("front", "back", "back-2", "spare"), spec.Processes...)
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
	if spec.Entry != (meshbench.PortRef{Process: "client-proxy", Port: "to-front"}) || spec.Host != "front.mesh.local" {
		t.Errorf("entry %+v, host %s", spec.Entry, spec.Host)
	}
	if len(spec.Routes) != 1 || spec.Routes[0].At != (meshbench.PortRef{Process: "front-proxy", Port: "to-back"}) || spec.Routes[0].Host != "back.mesh.local" {
		t.Errorf("routes %+v", spec.Routes)
	}
	if !slices.Contains(spec.NeededRuntimes(), envoy) {
		t.Errorf("runtimes %v", spec.NeededRuntimes())
	}
}

// TestAgentConfig: what stands in the environment as JSON is JSON.
func TestAgentConfig(t *testing.T) {
	for _, profile := range []meshbench.Profile{meshbench.Parity, meshbench.Shipped} {
		r := graph()
		r.Profile = profile
		p, err := agent(r, proxies(r)[0])
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range p.Env {
			name, text, _ := strings.Cut(e, "=")
			if name != "PROXY_CONFIG" && name != "ISTIO_METAJSON_LABELS" {
				continue
			}
			found++
			var v map[string]any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Errorf("%s: %v: %s", name, err, text)
			}
			if name == "PROXY_CONFIG" && (v["concurrency"] != nil) != (profile == meshbench.Parity) {
				t.Errorf("%s: concurrency %v", profile, v["concurrency"])
			}
			if name == "PROXY_CONFIG" && v["proxyAdminPort"] != "{{port `front-proxy` `admin`}}" {
				t.Errorf("admin port %v", v["proxyAdminPort"])
			}
		}
		if found != 2 {
			t.Errorf("%d variables in JSON", found)
		}
	}
}

func specOf(t *testing.T, objects []object, kind, name string) fields {
	t.Helper()
	for _, o := range objects {
		if o.kind.Kind == kind && o.Metadata.Name == name {
			// As the API server gets it.
			text, err := json.Marshal(o.Spec)
			if err != nil {
				t.Fatal(err)
			}
			var v fields
			if err := json.Unmarshal(text, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// TestWorkloads: a caller's listener is joined to the service by a port of the
// same number, and every port of a service leads to the instance's inbound
// listener.
func TestWorkloads(t *testing.T) {
	access := place{t}
	objects, err := workloads(access, graph())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range objects {
		if seen[o.key()] {
			t.Errorf("%s is there twice", o.key())
		}
		seen[o.key()] = true
	}
	number := func(process, port string) float64 {
		_, n, err := listener(access, proxy{process: process}, port)
		if err != nil {
			t.Fatal(err)
		}
		return float64(n)
	}
	entry := specOf(t, objects, "ServiceEntry", "back")
	egress := specOf(t, objects, "Sidecar", "front-proxy")["egress"].([]any)
	if len(egress) != 1 {
		t.Fatalf("egress %v", egress)
	}
	at := egress[0].(fields)["port"].(fields)["number"]
	if at != number("front-proxy", "to-back") {
		t.Errorf("the listener is at %v", at)
	}
	ports := entry["ports"].([]any)
	if !slices.ContainsFunc(ports, func(p any) bool { return p.(fields)["number"] == at }) {
		t.Errorf("no port of the service has the number %v: %v", at, ports)
	}
	for _, instance := range []string{"back-proxy", "back-2-proxy"} {
		targets := specOf(t, objects, "WorkloadEntry", instance)["ports"].(fields)
		for _, p := range ports {
			name := p.(fields)["name"].(string)
			if targets[name] != number(instance, "inbound") {
				t.Errorf("%s: port %s leads to %v", instance, name, targets[name])
			}
		}
		if in := specOf(t, objects, "Sidecar", instance)["ingress"].([]any)[0].(fields)["port"].(fields)["number"]; in != number(instance, "inbound") {
			t.Errorf("%s listens at %v", instance, in)
		}
	}
	// Nobody calls it, but a split may send requests there.
	if d := cmp.Diff(any(ports), specOf(t, objects, "ServiceEntry", "spare")["ports"]); d != "" {
		t.Errorf("ports of spare: %s", d)
	}
}

func lasting(s float64) meshbench.Duration { return meshbench.Duration(s * float64(time.Second)) }

// TestShow holds what each kind of policy becomes.
func TestShow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy meshbench.Policy
		title  string
		spec   string // YAML
	}{
		{
			"mtls", meshbench.Policy{To: "back", MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSOff}}, "PeerAuthentication back-mtls",
			`{mtls: {mode: DISABLE}, selector: {matchLabels: {app: back}}}`,
		},
		{
			"authorization",
			meshbench.Policy{To: "back", Authorization: &meshbench.Authorization{Action: meshbench.Deny, From: []string{"client", "front"}, Paths: []string{"/admin"}, Methods: []string{"GET"}}},
			"AuthorizationPolicy back-1-deny",
			`{action: DENY, selector: {matchLabels: {app: back}}, rules: [{
				from: [{source: {principals: [meshbench.local/ns/default/sa/client, meshbench.local/ns/default/sa/front]}}],
				to: [{operation: {paths: ["/admin*"], methods: [GET]}}]}]}`,
		},
		{
			"authorization of everything", meshbench.Policy{To: "back", Authorization: &meshbench.Authorization{Action: meshbench.Deny}},
			"AuthorizationPolicy back-1-deny", `{action: DENY, selector: {matchLabels: {app: back}}, rules: [{}]}`,
		},
		{
			"timeout", meshbench.Policy{To: "back", Timeout: &meshbench.TimeoutPolicy{Request: lasting(0.2)}}, "VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [{destination: {host: back.mesh.local}}], timeout: 0.2s}]}`,
		},
		{
			"retry",
			meshbench.Policy{To: "back", Retry: &meshbench.RetryPolicy{Attempts: 3, On: []meshbench.RetryOn{meshbench.RetryOn5xx, meshbench.RetryOnConnectFailure}, PerTryTimeout: lasting(1)}},
			"VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [{destination: {host: back.mesh.local}}], retries: {attempts: 3, retryOn: "5xx,connect-failure", perTryTimeout: 1s}}]}`,
		},
		{
			"no retry", meshbench.Policy{To: "back", Retry: &meshbench.RetryPolicy{}}, "VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [{destination: {host: back.mesh.local}}], retries: {attempts: 0}}]}`,
		},
		{
			"fault", meshbench.Policy{To: "back", Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 12.5}, Delay: &meshbench.Delay{Duration: lasting(0.3), Percent: 100}}},
			"VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [{destination: {host: back.mesh.local}}],
				fault: {abort: {httpStatus: 503, percentage: {value: 12.5}}, delay: {fixedDelay: 0.3s, percentage: {value: 100}}}}]}`,
		},
		{
			"split", meshbench.Policy{To: "back", Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: "back", Weight: 9}, {Service: "spare", Weight: 1}, {Service: "front"}}}},
			"VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [
				{destination: {host: back.mesh.local}, weight: 9},
				{destination: {host: spare.mesh.local}, weight: 1}]}]}`,
		},
		{
			"mirror", meshbench.Policy{To: "back", Mirror: &meshbench.MirrorPolicy{Service: "spare", Percent: 50}}, "VirtualService back",
			`{hosts: [back.mesh.local], http: [{route: [{destination: {host: back.mesh.local}}],
				mirrors: [{destination: {host: spare.mesh.local}, percentage: {value: 50}}]}]}`,
		},
		{
			"headers with a match",
			meshbench.Policy{
				To:    "back",
				Match: &meshbench.Match{PathPrefix: "/a", Method: "POST", Headers: map[string]string{"X-Who": "me"}},
				Headers: &meshbench.HeadersPolicy{
					Request:  &meshbench.HeaderChange{Set: map[string]string{"x-a": "1"}, Remove: []string{"x-b"}},
					Response: &meshbench.HeaderChange{Add: map[string]string{"x-c": "2"}},
				},
			},
			"VirtualService back",
			`{hosts: [back.mesh.local], http: [
				{match: [{uri: {prefix: /a}, method: {exact: POST}, headers: {x-who: {exact: me}}}], route: [{destination: {host: back.mesh.local}}],
				 headers: {request: {set: {x-a: "1"}, remove: [x-b]}, response: {add: {x-c: "2"}}}},
				{route: [{destination: {host: back.mesh.local}}]}]}`,
		},
		{
			"circuit breaker", meshbench.Policy{To: "back", CircuitBreaker: &meshbench.CircuitBreaker{MaxConnections: 1, MaxPendingRequests: 2, MaxRequests: 3}},
			"DestinationRule back",
			`{host: back.mesh.local, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3}}}}`,
		},
		{
			"outlier detection", meshbench.Policy{To: "back", OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 5, Interval: lasting(0.5), BaseEjection: lasting(10), MaxEjectionPercent: 50}},
			"DestinationRule back",
			`{host: back.mesh.local, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5, interval: 0.5s, baseEjectionTime: 10s, maxEjectionPercent: 50}}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := graph()
			r.Policies = []meshbench.Policy{tt.policy}
			documents, err := New().Show(r)
			if err != nil {
				t.Fatal(err)
			}
			if len(documents) != 1 || documents[0].Title != tt.title {
				t.Fatalf("documents %+v, want %s alone", documents, tt.title)
			}
			var got struct {
				APIVersion, Kind string
				Spec             any
			}
			if err := yaml.Unmarshal([]byte(documents[0].Text), &got); err != nil {
				t.Fatal(err)
			}
			var want any
			if err := yaml.Unmarshal([]byte(strings.ReplaceAll(tt.spec, "\t", " ")), &want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got.Spec); d != "" {
				t.Errorf("%s:\n%s", d, documents[0].Text)
			}
		})
	}
}

// TestRateLimit: Envoy fills a bucket at most every 50 ms.
func TestRateLimit(t *testing.T) {
	for _, tt := range []struct {
		policy meshbench.RateLimitPolicy
		tokens float64
		every  string
	}{
		{meshbench.RateLimitPolicy{Requests: 5, Per: lasting(1)}, 5, "1s"},
		{meshbench.RateLimitPolicy{Requests: 1, Per: lasting(0.02)}, 3, "0.06s"},
	} {
		spec := specOf(t, []object{rateLimit("back", tt.policy)}, "EnvoyFilter", "back-rate-limit")
		bucket := spec["configPatches"].([]any)[0].(fields)["patch"].(fields)["value"].(fields)["typed_config"].(fields)["token_bucket"]
		want := fields{"max_tokens": tt.tokens, "tokens_per_fill": tt.tokens, "fill_interval": tt.every}
		if d := cmp.Diff(any(want), bucket); d != "" {
			t.Errorf("%+v: %s", tt.policy, d)
		}
	}
}

func TestDocuments(t *testing.T) {
	got := documents([]byte("# head\napiVersion: v1\nkind: A\n---\nkind: B\nspec:\n  kind: C\n---\n# nothing\n---\napiVersion: v1\nkind: D\n"))
	if len(got) != 3 || !strings.Contains(string(got[1]), "kind: B") || !strings.Contains(string(got[2]), "kind: D") {
		t.Errorf("%q", got)
	}
}

func TestCutCluster(t *testing.T) {
	for name, want := range map[string]string{
		"cluster.outbound|80||echo.mesh.local;.upstream_rq_total":    "upstream_rq_total",
		"cluster.outbound|9||echo.mesh.local;.ssl.versions.TLSv1.3":  "ssl.versions.TLSv1.3",
		"cluster.outbound|80||echo-v2.mesh.local;.upstream_rq_total": "",
		"cluster.inbound|80||;.upstream_rq_total":                    "",
	} {
		if got, _ := cutCluster(name, "echo"); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestMutual(t *testing.T) {
	strict := envoyadmin.Facts{RequiresCertificate: true, VerifiesNames: true, Chains: 1, TLSChains: 1}
	open := strict
	open.Permissive, open.Chains = true, 2
	client := envoyadmin.Facts{VerifiesNames: true}
	for _, tt := range []struct {
		want           string
		client, server envoyadmin.Facts
		counters       mesh.Counters
		unnamed        uint64
	}{
		{"strict", client, strict, mesh.Counters{Handshakes: 1}, 0},
		{notSeen, client, strict, mesh.Counters{}, 0},
		{"off", client, envoyadmin.Facts{Chains: 1}, mesh.Counters{Plaintext: 1}, 0},
		{"permissive", client, open, mesh.Counters{Handshakes: 1}, 0},
		{"permissive", client, open, mesh.Counters{Handshakes: 1, Plaintext: 1}, 0},
		{"partly", client, strict, mesh.Counters{Handshakes: 1}, 1},
		{"partly", client, strict, mesh.Counters{Handshakes: 1, Plaintext: 1}, 0},
		{"partly", envoyadmin.Facts{}, strict, mesh.Counters{Handshakes: 1}, 0},
		{"partly", client, envoyadmin.Facts{VerifiesNames: true, Chains: 1, TLSChains: 1}, mesh.Counters{Handshakes: 1}, 0},
	} {
		if got := mutual(tt.client, tt.server, tt.counters, tt.unnamed); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt, got, tt.want)
		}
	}
}

func TestParseRefusals(t *testing.T) {
	const syncz = `[
		{"proxy": "sidecar~127.64.0.1~echo-proxy.default~default.svc.cluster.local", "resources": {"LDS": {"lastError": "no such filter"}, "CDS": {"sent": "a"}}},
		{"proxy": "client-proxy.default", "resources": {"RDS": {"lastError": "virtual_hosts {}: Proto constraint validation failed (bad header)"}}}]`
	for proxy, want := range map[string]string{"echo-proxy": "no such filter", "client-proxy": "Proto constraint validation failed (bad header)", "proxy": ""} {
		if got, err := parseRefusals([]byte(syncz), proxy); got != want || err != nil {
			t.Errorf("%s: %q, %v", proxy, got, err)
		}
	}
	if _, err := parseRefusals([]byte("<html>"), "echo-proxy"); err == nil {
		t.Error("a page was read")
	}
}

// TestSecuredAlone: in a mesh without mutual TLS, clients must be told of the
// one service that demands it.
func TestSecuredAlone(t *testing.T) {
	r := graph()
	r.Subject.Options = map[string]string{optionMTLS: "off"}
	r.Policies = []meshbench.Policy{{To: "back", MTLS: &meshbench.MTLSPolicy{Mode: meshbench.MTLSStrict}}}
	objects, err := policies(r)
	if err != nil {
		t.Fatal(err)
	}
	want := fields{"host": "back.mesh.local", "trafficPolicy": fields{"tls": fields{"mode": "ISTIO_MUTUAL"}}}
	if d := cmp.Diff(want, specOf(t, objects, "DestinationRule", "back")); d != "" {
		t.Error(d)
	}
	if len(objects) != 2 {
		t.Errorf("%d objects", len(objects))
	}
}
