// Package meshtest is the suite of tests that every driver passes.
package meshtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// timeout is for everything that is waited for: generous, since tests run on
// busy machines.
const timeout = 60 * time.Second

// Suite is a driver and what is needed to try it.
type Suite struct {
	Driver mesh.Driver
	// Options are those of the subject: a driver with several forms passes the
	// suite in each.
	Options map[string]string
	// Applications are the processes behind the mesh; Service is one of them,
	// an HTTP/1.1 server that answers 200 to everything.
	Applications []meshbench.Process
	Service      meshbench.Service
	// Deploy starts a Spec and ends it with the test. Where it is nil, only
	// what needs no process is tried.
	// It calls prepare before each process starts.
	Deploy func(t *testing.T, spec meshbench.Spec, prepare Prepare) Deployment
	// Strict is nil where the mesh has no mutual TLS.
	Strict *Strict
	// Graph is three services with their applications, echo services like
	// Service: the first calls the second, which has two instances, and nobody
	// calls the third. Where it is nil, nothing with several services is tried.
	Graph             []meshbench.Service
	GraphApplications []meshbench.Process
	// Examples are tried in place of the suite's own policies of their kinds,
	// where a mesh has a kind but cannot do all of it.
	Examples []meshbench.Policy
}

// Prepare is the driver's own method for one request.
type Prepare func(ctx context.Context, access mesh.Access, process string) error

// Deployment is what Deploy returns: infra.Deployment has all of it.
type Deployment interface {
	mesh.Access
	Target() meshbench.Target
	Seen(ctx context.Context, service string) (meshbench.Seen, error)
}

// Strict says where strict mutual TLS can be put to the test.
type Strict struct {
	Inbound meshbench.PortRef // takes mutual TLS and nothing else
	Client  string            // the SPIFFE name that is let in
	Server  string            // the SPIFFE name that Inbound proves
	// AnyName tells that the mesh does not ask for the client's name: every
	// certificate of the deployment's authority is let in.
	AnyName bool
	// Issue signs a certificate for a name by the deployment's own authority,
	// and returns the bundle that it is trusted by.
	Issue func(access mesh.Access, name string) (pki.Identity, string, error)
}

// Run tries everything.
func Run(t *testing.T, s Suite) {
	t.Run("description", s.description)
	t.Run("render", s.render)
	t.Run("refusals", s.refusals)
	t.Run("options", s.options)
	t.Run("capabilities", s.capabilities)
	t.Run("show", s.show)
	if s.Graph != nil {
		t.Run("graph", s.graph)
	}
	if s.Deploy == nil {
		return
	}
	for _, profile := range s.describe().Profiles {
		t.Run("deployed/"+string(profile), func(t *testing.T) { s.deployed(t, profile) })
	}
	if s.Graph != nil {
		t.Run("deployed/graph", s.deployedGraph)
	}
}

// describe tells what the mesh is with the suite's options.
func (s Suite) describe() mesh.Description {
	return mesh.DescribeSubject(s.Driver, meshbench.Subject{Options: s.Options})
}

func (s Suite) request(profile meshbench.Profile, version string) mesh.Request {
	d := s.describe()
	subject := meshbench.Subject{Mesh: d.Name, Version: version, Options: s.Options}
	subject.ID = subject.String()
	return mesh.Request{
		Subject: subject, Profile: profile, Services: []meshbench.Service{s.Service}, Threads: 1,
		Workload: meshbench.Workload{Protocol: meshbench.HTTP1, Topology: meshbench.Topology{Chain: 1}},
	}
}

// versions are those that can be asked for, and none.
func (s Suite) versions() []string {
	return append([]string{""}, s.describe().Versions...)
}

func (s Suite) description(t *testing.T) {
	d := s.describe()
	if parsed, err := meshbench.ParseSubject(d.Name); err != nil || parsed.Mesh != d.Name {
		t.Errorf("the name %q cannot be written as a subject: %v", d.Name, err)
	}
	if d.Title == "" || !strings.HasSuffix(d.Summary, ".") {
		t.Errorf("title %q, summary %q: want a title and a sentence", d.Title, d.Summary)
	}
	if !slices.Contains(d.Profiles, meshbench.Parity) {
		t.Error("there is no profile parity")
	}
	if d.HasProxy != (len(d.Versions) > 0) || d.HasProxy != (len(d.Runtimes) > 0) {
		t.Errorf("proxy %v, versions %v, runtimes %v do not fit together", d.HasProxy, d.Versions, d.Runtimes)
	}
	if sorted := slices.Compact(slices.Clone(d.Versions)); len(sorted) != len(d.Versions) {
		t.Errorf("a version is listed twice: %v", d.Versions)
	}
	for _, o := range d.Options {
		if o.Name == "" || o.Summary == "" || len(o.Values) == 0 {
			t.Errorf("option %+v lacks a name, a summary or values", o)
		}
	}
	if !cmp.Equal(d, s.describe()) {
		t.Error("a second description is another one")
	}
}

func (s Suite) render(t *testing.T) {
	t.Chdir(t.TempDir())
	d := s.describe()
	for _, profile := range d.Profiles {
		for _, version := range s.versions() {
			r := s.request(profile, version)
			spec, err := s.Driver.Render(r)
			if err != nil {
				t.Fatalf("%s %s: %v", r.Subject, profile, err)
			}
			again, err := s.Driver.Render(r)
			if err != nil {
				t.Fatal(err)
			}
			if difference := cmp.Diff(spec, again); difference != "" {
				t.Errorf("%s %s: rendering again gives another spec:\n%s", r.Subject, profile, difference)
			}
			whole := s.whole(spec)
			if err := whole.Validate(); err != nil {
				t.Errorf("%s %s: %v", r.Subject, profile, err)
			}
			s.checkProcesses(t, r, spec)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("rendering left %v behind (%v)", left, err)
	}
}

// whole puts the applications before what the driver rendered.
func (s Suite) whole(spec meshbench.Spec) meshbench.Spec {
	spec.Processes = append(slices.Clone(s.Applications), spec.Processes...)
	return spec
}

func (s Suite) checkProcesses(t *testing.T, r mesh.Request, spec meshbench.Spec) {
	t.Helper()
	d := s.describe()
	proxies := 0
	for _, p := range spec.Processes {
		if p.Role == meshbench.ClientProxy || p.Role == meshbench.ServerProxy {
			proxies++
		}
		if p.ReadyURL == "" {
			t.Errorf("%s: nothing tells when %s is ready", r.Subject, p.Name)
		}
		if p.Runtime == meshbench.Self {
			continue
		}
		name, version, _ := strings.Cut(p.Runtime, "@")
		if !slices.Contains(d.Runtimes, name) {
			t.Errorf("%s: %s runs %s, which the description does not name", r.Subject, p.Name, name)
		}
		if name != d.Name {
			continue // a runtime of another product: the driver pins it
		}
		if want, err := mesh.Version(d, r.Subject.Version); err != nil || version != want {
			t.Errorf("%s: %s runs version %s, want %s (%v)", r.Subject, p.Name, version, want, err)
		}
	}
	if d.HasProxy != (proxies > 0) {
		t.Errorf("%s: the description says proxy %v, the spec has %d", r.Subject, d.HasProxy, proxies)
	}
}

func (s Suite) refusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*mesh.Request)
	}{
		{"unknown version", func(r *mesh.Request) { r.Subject.Version = "0.0.1" }},
		{"unknown option", func(r *mesh.Request) { r.Subject.Options = map[string]string{"colour": "red"} }},
		{"unknown profile", func(r *mesh.Request) { r.Profile = "tuned" }},
		{"no service", func(r *mesh.Request) { r.Services = nil }},
		{"no thread", func(r *mesh.Request) { r.Threads = 0 }},
		{"a service without instances", func(r *mesh.Request) { r.Services = []meshbench.Service{{Name: "empty"}} }},
		{"two services of one name", func(r *mesh.Request) { r.Services = append(slices.Clone(r.Services), r.Services[0]) }},
		{"a call to nobody", func(r *mesh.Request) {
			r.Services = []meshbench.Service{{Name: s.Service.Name, Instances: s.Service.Instances, Calls: []string{"nobody"}}}
		}},
	} {
		r := s.request(meshbench.Parity, "")
		tt.spoil(&r)
		_, err := s.Driver.Render(r)
		if err == nil {
			t.Errorf("%s: rendered", tt.name)
			continue
		}
		if e := meshbench.AsError(err); e.Code != meshbench.Invalid && e.Code != meshbench.NotFound {
			t.Errorf("%s: code %s, %v", tt.name, e.Code, err)
		}
	}
}

func (s Suite) deployed(t *testing.T, profile meshbench.Profile) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	r := s.request(profile, "")
	spec, err := s.Driver.Render(r)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	up := s.Deploy(t, s.whole(spec), func(ctx context.Context, access mesh.Access, process string) error {
		return s.Driver.Prepare(ctx, access, r, process)
	})
	deployed := time.Now()
	if err := s.Driver.Configure(ctx, up, r); err != nil {
		t.Fatal(err)
	}
	configured := time.Now()
	// The first request arrives as soon as Configure is back: no retry here.
	if err := get(ctx, http.DefaultClient, up.Target()); err != nil {
		t.Fatalf("the first request: %v", err)
	}
	t.Logf("up after %v, configured %v later, first answer %v later", deployed.Sub(begun), configured.Sub(deployed), time.Since(configured))

	const connections, each = 4, 25
	before := s.settled(ctx, t, up, r)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}, Timeout: timeout}
	failed := make(chan error, connections)
	for range connections {
		go func() {
			for range each {
				if err := get(ctx, client, up.Target()); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range connections {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	client.CloseIdleConnections()
	after := s.settled(ctx, t, up, r)
	s.checkCounters(t, before, after, connections*each)
	s.checkSettings(ctx, t, up, r)

	if err := s.Driver.Configure(ctx, up, r); err != nil {
		t.Fatalf("configuring again: %v", err)
	}
	if again := s.read(ctx, t, up, r); again != after && !after.layer4 { // a look at such proxies can count
		t.Errorf("configuring again moved the counters from %+v to %+v", after, again)
	}
	if err := get(ctx, http.DefaultClient, up.Target()); err != nil {
		t.Errorf("after configuring again: %v", err)
	}
	unknown := r
	unknown.Subject.Version = "0.0.1"
	if s.describe().HasProxy {
		if err := s.Driver.Configure(ctx, up, unknown); err == nil {
			t.Error("an unknown version was configured")
		}
	}
	if s.Strict != nil {
		t.Run("strict", func(t *testing.T) { s.strict(ctx, t, up, r) })
	}
}

// station is what proxies and application have counted.
type station struct {
	mesh.Counters
	meshbench.Seen
	layer4 bool
}

// settled reads what was counted. Proxies that know connections only tell of
// them a moment late: they are read until they say the same twice.
func (s Suite) settled(ctx context.Context, t *testing.T, up Deployment, r mesh.Request) station {
	t.Helper()
	now := s.read(ctx, t, up, r)
	for now.layer4 {
		time.Sleep(300 * time.Millisecond)
		next := s.read(ctx, t, up, r)
		if next == now {
			break
		}
		now = next
	}
	return now
}

func (s Suite) read(ctx context.Context, t *testing.T, up Deployment, r mesh.Request) station {
	t.Helper()
	hops, err := s.Driver.Counters(ctx, up, r)
	if err != nil {
		t.Fatal(err)
	}
	var c mesh.Counters
	layer4 := false
	if s.describe().HasProxy {
		if len(hops) == 0 || hops[0].From != mesh.Client || hops[0].To != s.Service.Name {
			t.Fatalf("the hops are %+v", hops)
		}
		c, layer4 = hops[0].Counters, hops[0].Layer4
	}
	seen, err := up.Seen(ctx, s.Service.Name)
	if err != nil {
		t.Fatal(err)
	}
	return station{c, seen, layer4}
}

func (s Suite) checkCounters(t *testing.T, before, after station, sent uint64) {
	t.Helper()
	if n := after.Requests - before.Requests; n != sent {
		t.Errorf("the application received %d of %d requests", n, sent)
	}
	if !s.describe().HasProxy {
		if after.Counters != (mesh.Counters{}) {
			t.Errorf("without a proxy somebody counted: %+v", after.Counters)
		}
		return
	}
	for name, n := range map[string]uint64{
		"client proxy received": after.ClientReceived - before.ClientReceived,
		"client proxy tried":    after.ClientAttempts - before.ClientAttempts,
		"server proxy received": after.ServerReceived - before.ServerReceived,
	} {
		if after.layer4 && n == 0 {
			t.Errorf("%s no connection of %d requests", name, sent)
		}
		if !after.layer4 && n != sent {
			t.Errorf("%s %d of %d requests", name, n, sent)
		}
	}
	if s.Strict == nil {
		return
	}
	if after.Handshakes == 0 || after.Plaintext != 0 {
		t.Errorf("%d handshakes, %d plaintext connections", after.Handshakes, after.Plaintext)
	}
	if s.describe().NamesPeer && after.PeerName != s.Strict.Client {
		t.Errorf("the application saw the peer %q, want %q", after.PeerName, s.Strict.Client)
	}
}

func (s Suite) checkSettings(ctx context.Context, t *testing.T, up Deployment, r mesh.Request) {
	t.Helper()
	settings, err := s.Driver.Settings(ctx, up, r)
	if err != nil {
		t.Fatal(err)
	}
	d := s.describe()
	values := map[string]string{}
	for _, v := range settings {
		if v.Name == "" || v.Value == "" || values[v.Name] != "" {
			t.Errorf("setting %+v is empty or named twice", v)
		}
		values[v.Name] = v.Value
		t.Logf("setting %s: %s", v.Name, v.Value)
	}
	if !d.HasProxy {
		return
	}
	// "2" stands for any release of it, where none is pinned.
	if want, _ := mesh.Version(d, r.Subject.Version); values["version"] != want && !strings.HasPrefix(values["version"], want+".") {
		t.Errorf("version %q as observed, want %q", values["version"], want)
	}
	if r.Profile == meshbench.Parity {
		for name, want := range map[string]string{
			"threads": fmt.Sprint(r.Threads), "access_log": "off", "tracing": "off",
		} {
			if values[name] != want {
				t.Errorf("parity: %s is %q, want %q", name, values[name], want)
			}
		}
	}
	for _, name := range []string{"threads", "upstream_http"} {
		if values[name] == "" {
			t.Errorf("there is no setting %s", name)
		}
	}
	if s.Strict != nil && values["mtls"] != "strict" {
		t.Errorf("mtls is %q as observed", values["mtls"])
	}
}

func get(ctx context.Context, client *http.Client, target meshbench.Target) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.URL, nil)
	if err != nil {
		return err
	}
	request.Host = target.Host
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", response.Status, body)
	}
	return err
}
