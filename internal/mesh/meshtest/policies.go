package meshtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// example returns a policy of a kind for requests to a service; other is
// another service.
func example(kind meshbench.PolicyKind, to, other string) meshbench.Policy {
	p := meshbench.Policy{Name: "an example of " + string(kind), To: to}
	switch kind {
	case meshbench.PolicyMTLS:
		p.MTLS = &meshbench.MTLSPolicy{Mode: meshbench.MTLSPermissive}
	case meshbench.PolicyAuthorization:
		p.Authorization = &meshbench.Authorization{Action: meshbench.Deny, From: []string{mesh.Client}}
	case meshbench.PolicyTimeout:
		p.Timeout = &meshbench.TimeoutPolicy{Request: meshbench.Duration(20 * time.Second)}
	case meshbench.PolicyRetry:
		p.Retry = &meshbench.RetryPolicy{Attempts: 2, On: []meshbench.RetryOn{meshbench.RetryOn5xx}}
	case meshbench.PolicyFault:
		p.Fault = &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}
	case meshbench.PolicySplit:
		p.Split = &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: to}, {Service: other, Weight: 1}}}
	case meshbench.PolicyMirror:
		p.Mirror = &meshbench.MirrorPolicy{Service: other, Percent: 100}
	case meshbench.PolicyHeaders:
		p.Headers = &meshbench.HeadersPolicy{
			Request:  &meshbench.HeaderChange{Set: map[string]string{"x-meshtest": "request"}},
			Response: &meshbench.HeaderChange{Set: map[string]string{"x-meshtest": "answer"}},
		}
	case meshbench.PolicyRateLimit:
		p.RateLimit = &meshbench.RateLimitPolicy{Requests: 1, Per: meshbench.Duration(time.Minute)}
	case meshbench.PolicyCircuitBreaker:
		p.CircuitBreaker = &meshbench.CircuitBreaker{MaxConnections: 100, MaxPendingRequests: 100, MaxRequests: 100}
	case meshbench.PolicyOutlierDetection:
		p.OutlierDetection = &meshbench.OutlierDetection{ConsecutiveErrors: 5, BaseEjection: meshbench.Duration(time.Second), MaxEjectionPercent: 50}
	}
	return p
}

// example is the suite's own, or the driver's.
func (s Suite) example(kind meshbench.PolicyKind, to, other string) meshbench.Policy {
	for _, p := range s.Examples {
		if k, err := p.Kind(); err == nil && k == kind {
			p.Name, p.To = "an example of "+string(kind), to
			return p
		}
	}
	return example(kind, to, other)
}

// examples are a policy of every kind that is supported, or of every kind
// that is not.
func (s Suite) examples(supported bool, to, other string) []meshbench.Policy {
	var out []meshbench.Policy
	for _, c := range s.describe().Capabilities {
		if c.Supported == supported {
			out = append(out, s.example(c.Policy, to, other))
		}
	}
	return out
}

// capabilities: each kind of policy once, and a source for what is missing.
func (s Suite) capabilities(t *testing.T) {
	var kinds []meshbench.PolicyKind
	for _, c := range s.describe().Capabilities {
		kinds = append(kinds, c.Policy)
		if !c.Supported && (c.Note == "" || c.Source == "") {
			t.Errorf("%s is not supported, without a reason (%q) or a source (%q)", c.Policy, c.Note, c.Source)
		}
	}
	want := meshbench.PolicyKinds()
	slices.Sort(kinds)
	slices.Sort(want)
	if !slices.Equal(kinds, want) {
		t.Errorf("capabilities %v, want each of %v", kinds, want)
	}
}

// options: every value of every option renders, or is refused as invalid.
func (s Suite) options(t *testing.T) {
	d := s.describe()
	for _, o := range d.Options {
		for _, v := range o.Values {
			for _, profile := range d.Profiles {
				r := s.request(profile, "")
				r.Subject.Options = map[string]string{o.Name: v}
				r.Subject.ID = r.Subject.String()
				spec, err := s.Driver.Render(r)
				if err != nil {
					t.Errorf("%s %s: %v", r.Subject, profile, err)
					continue
				}
				if err := s.whole(spec).Validate(); err != nil {
					t.Errorf("%s %s: %v", r.Subject, profile, err)
				}
				s.checkProcesses(t, r, spec)
				if _, err := s.Driver.Show(r); err != nil {
					t.Errorf("%s %s: %v", r.Subject, profile, err)
				}
			}
		}
		r := s.request(meshbench.Parity, "")
		r.Subject.Options = map[string]string{o.Name: "no-such-value"}
		if _, err := s.Driver.Render(r); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
			t.Errorf("%s=no-such-value: %v", o.Name, err)
		}
	}
}

// show: what policies become can be seen without anything running, and what
// cannot be done is refused with its reason and source.
func (s Suite) show(t *testing.T) {
	d := s.describe()
	services := s.Graph
	if services == nil {
		services = []meshbench.Service{s.Service, {Name: "other", Instances: s.Service.Instances}}
	}
	to, other := services[0].Name, services[len(services)-1].Name
	request := func(policies ...meshbench.Policy) mesh.Request {
		r := s.request(meshbench.Parity, "")
		r.Services, r.Policies = services, policies
		return r
	}
	for _, p := range s.examples(true, to, other) {
		docs, err := s.Driver.Show(request(p))
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if len(docs) == 0 {
			t.Errorf("%s becomes nothing", p.Name)
		}
		for _, doc := range docs {
			if doc.Title == "" || doc.Media == "" || strings.TrimSpace(doc.Text) == "" {
				t.Errorf("%s: a document lacks its title, media type or text: %+v", p.Name, doc)
			}
		}
		again, err := s.Driver.Show(request(p))
		if err != nil || !cmp.Equal(docs, again) {
			t.Errorf("%s: shown again it is another (%v)", p.Name, err)
		}
	}
	for _, p := range s.examples(false, to, other) {
		kind, err := p.Kind()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(d.Capabilities, func(c mesh.Capability) bool { return c.Policy == kind })
		_, err = s.Driver.Show(request(p))
		refused(t, p.Name, err, d.Capabilities[i])
	}
	if _, err := s.Driver.Show(request(meshbench.Policy{Name: "empty"})); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		t.Errorf("a policy that says nothing: %v", err)
	}
}

// refused wants an error that tells why the mesh cannot do something.
func refused(t *testing.T, what string, err error, c mesh.Capability) {
	t.Helper()
	e := meshbench.AsError(err)
	if e == nil || e.Code != meshbench.Invalid || !strings.Contains(e.Message, string(c.Policy)) ||
		!strings.Contains(e.Hint, c.Note) || !strings.Contains(e.Hint, c.Source) {
		t.Errorf("%s: got %+v, want a refusal with %q and %q", what, e, c.Note, c.Source)
	}
}
