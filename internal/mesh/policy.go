package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
)

// ServicePolicy is all that a request's policies say about one service, put
// together: what a driver renders.
type ServicePolicy struct {
	Service        string
	MTLS           meshbench.MTLSMode // empty: as the subject says
	Authorizations []meshbench.Authorization
	// Rules are tried in order; the last one fits every request.
	Rules            []Rule
	RateLimit        *meshbench.RateLimitPolicy
	CircuitBreaker   *meshbench.CircuitBreaker
	OutlierDetection *meshbench.OutlierDetection
}

// Rule is what becomes of the requests that fit Match (nil: all of them).
type Rule struct {
	Match    *meshbench.Match
	Timeout  meshbench.Duration // 0: as the profile says
	Retry    *meshbench.RetryPolicy
	Fault    *meshbench.FaultPolicy
	Backends []meshbench.WeightedBackend // at least one
	Mirror   *meshbench.MirrorPolicy
	Request  *meshbench.HeaderChange
	Response *meshbench.HeaderChange
}

// Combine puts the policies of a request together by service, in the order of
// its services. Of two policies of one kind for the same requests the later
// one wins; authorizations add up. A rule with a Match has what the policies
// without one say too, where it says nothing of that kind itself. The error
// has the code Invalid.
func Combine(r Request) ([]ServicePolicy, error) {
	for _, p := range r.Policies {
		if err := checkPolicy(r, p); err != nil {
			return nil, err
		}
	}
	out := make([]ServicePolicy, 0, len(r.Services))
	for _, s := range r.Services {
		out = append(out, combine(r.Policies, s.Name))
	}
	return out, nil
}

func combine(policies []meshbench.Policy, service string) ServicePolicy {
	out := ServicePolicy{Service: service}
	all := Rule{}
	var narrow []Rule
	for _, p := range policies {
		if p.To != "" && p.To != service {
			continue
		}
		switch {
		case p.MTLS != nil:
			out.MTLS = p.MTLS.Mode
		case p.Authorization != nil:
			out.Authorizations = append(out.Authorizations, *p.Authorization)
		case p.RateLimit != nil:
			out.RateLimit = p.RateLimit
		case p.CircuitBreaker != nil:
			out.CircuitBreaker = p.CircuitBreaker
		case p.OutlierDetection != nil:
			out.OutlierDetection = p.OutlierDetection
		case p.Match == nil:
			all.set(p)
		default:
			i := slices.IndexFunc(narrow, func(r Rule) bool { return sameMatch(*r.Match, *p.Match) })
			if i < 0 {
				i = len(narrow)
				narrow = append(narrow, Rule{Match: p.Match})
			}
			narrow[i].set(p)
		}
	}
	if all.Backends == nil {
		all.Backends = []meshbench.WeightedBackend{{Service: service, Weight: 1}}
	}
	for _, r := range narrow {
		out.Rules = append(out.Rules, r.over(all))
	}
	out.Rules = append(out.Rules, all)
	return out
}

// set makes a policy part of the rule.
func (r *Rule) set(p meshbench.Policy) {
	switch {
	case p.Timeout != nil:
		r.Timeout = p.Timeout.Request
	case p.Retry != nil:
		r.Retry = p.Retry
	case p.Fault != nil:
		r.Fault = p.Fault
	case p.Split != nil:
		r.Backends = p.Split.Backends
	case p.Mirror != nil:
		r.Mirror = p.Mirror
	case p.Headers != nil:
		r.Request, r.Response = p.Headers.Request, p.Headers.Response
	}
}

// over returns r with what it says nothing of taken from general.
func (r Rule) over(general Rule) Rule {
	if r.Timeout == 0 {
		r.Timeout = general.Timeout
	}
	if r.Retry == nil {
		r.Retry = general.Retry
	}
	if r.Fault == nil {
		r.Fault = general.Fault
	}
	if r.Backends == nil {
		r.Backends = general.Backends
	}
	if r.Mirror == nil {
		r.Mirror = general.Mirror
	}
	if r.Request == nil && r.Response == nil {
		r.Request, r.Response = general.Request, general.Response
	}
	return r
}

func sameMatch(a, b meshbench.Match) bool {
	return a.PathPrefix == b.PathPrefix && a.Method == b.Method && maps.Equal(a.Headers, b.Headers)
}

// Unsupported returns the capabilities that a request's policies would need
// and the mesh does not have, each kind once.
func Unsupported(d Description, policies []meshbench.Policy) []Capability {
	var out []Capability
	for _, c := range d.Capabilities {
		wanted := slices.ContainsFunc(policies, func(p meshbench.Policy) bool {
			kind, err := p.Kind()
			return err == nil && kind == c.Policy
		})
		if wanted && !c.Supported {
			out = append(out, c)
		}
	}
	return out
}

// checkPolicy finds what no mesh could do with these services.
func checkPolicy(r Request, p meshbench.Policy) error {
	if err := CheckPolicy(p); err != nil {
		return err
	}
	names := make([]string, 0, len(r.Services))
	for _, s := range r.Services {
		names = append(names, s.Name)
	}
	for _, s := range Mentioned(p) {
		if !slices.Contains(names, s) {
			return refusal(p)("there is no service %q", s).WithHint("%s", Suggest(s, names))
		}
	}
	return nil
}

// Mentioned returns the services that a policy names, Client left out.
func Mentioned(p meshbench.Policy) []string {
	var out []string
	add := func(names ...string) {
		for _, n := range names {
			if n != "" && n != Client && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	add(p.To)
	if p.Authorization != nil {
		add(p.Authorization.From...)
	}
	if p.Split != nil {
		for _, b := range p.Split.Backends {
			add(b.Service)
		}
	}
	if p.Mirror != nil {
		add(p.Mirror.Service)
	}
	return out
}

// refusal makes errors of code Invalid about a policy.
func refusal(p meshbench.Policy) func(format string, args ...any) *meshbench.Error {
	label := p.Name
	if label == "" {
		kind, _ := p.Kind()
		label = string(kind)
	}
	return func(format string, args ...any) *meshbench.Error {
		return meshbench.Errorf(meshbench.Invalid, "policy %s: %s", label, fmt.Sprintf(format, args...))
	}
}

// CheckPolicy finds what is wrong with a policy whatever the services and the
// mesh. The error has the code Invalid.
func CheckPolicy(p meshbench.Policy) error {
	kind, err := p.Kind()
	if err != nil {
		return err
	}
	invalid := refusal(p)
	if p.Match != nil && !kind.OfRoute() {
		return invalid("a policy of kind %s is for every request: it cannot have a match", kind)
	}
	percent := func(v float64) error {
		if v <= 0 || v > 100 {
			return invalid("%g percent is not above 0 and at most 100", v)
		}
		return nil
	}
	switch kind {
	case meshbench.PolicyMTLS:
		modes := []string{string(meshbench.MTLSStrict), string(meshbench.MTLSPermissive), string(meshbench.MTLSOff)}
		if !slices.Contains(modes, string(p.MTLS.Mode)) {
			return invalid("%q is no mode of mutual TLS", p.MTLS.Mode).WithHint("%s", Suggest(string(p.MTLS.Mode), modes))
		}
	case meshbench.PolicyAuthorization:
		if a := p.Authorization.Action; a != meshbench.Allow && a != meshbench.Deny {
			return invalid("%q is no action", a).WithHint("there are: allow, deny")
		}
	case meshbench.PolicyTimeout:
		if p.Timeout.Request <= 0 {
			return invalid("a timeout must be above 0")
		}
	case meshbench.PolicyRetry:
		if p.Retry.Attempts < 0 || p.Retry.PerTryTimeout < 0 {
			return invalid("attempts and per_try_timeout must not be below 0")
		}
		reasons := []string{string(meshbench.RetryOn5xx), string(meshbench.RetryOnGatewayError), string(meshbench.RetryOnConnectFailure), string(meshbench.RetryOnReset)}
		for _, on := range p.Retry.On {
			if !slices.Contains(reasons, string(on)) {
				return invalid("%q is no reason for a retry", on).WithHint("%s", Suggest(string(on), reasons))
			}
		}
	case meshbench.PolicyFault:
		if p.Fault.Abort == nil && p.Fault.Delay == nil {
			return invalid("a fault needs an abort or a delay")
		}
		if a := p.Fault.Abort; a != nil {
			if a.Status < 200 || a.Status > 599 {
				return invalid("%d is no status that a request can be answered with", a.Status)
			}
			if err := percent(a.Percent); err != nil {
				return err
			}
		}
		if d := p.Fault.Delay; d != nil {
			if d.Duration <= 0 {
				return invalid("a delay must be above 0")
			}
			return percent(d.Percent)
		}
	case meshbench.PolicySplit:
		sum := 0
		for _, b := range p.Split.Backends {
			if b.Weight < 0 {
				return invalid("a weight must not be below 0")
			}
			sum += b.Weight
		}
		if sum == 0 {
			return invalid("the weights must not all be 0")
		}
	case meshbench.PolicyMirror:
		if p.Mirror.Service == "" {
			return invalid("a mirror needs a service")
		}
		return percent(p.Mirror.Percent)
	case meshbench.PolicyHeaders:
		if p.Headers.Request == nil && p.Headers.Response == nil {
			return invalid("it changes no header")
		}
	case meshbench.PolicyRateLimit:
		if p.RateLimit.Requests < 1 || p.RateLimit.Per <= 0 {
			return invalid("requests must be at least 1 and per above 0")
		}
	case meshbench.PolicyCircuitBreaker:
		if c := p.CircuitBreaker; c.MaxConnections < 0 || c.MaxPendingRequests < 0 || c.MaxRequests < 0 {
			return invalid("a limit must not be below 0")
		}
	case meshbench.PolicyOutlierDetection:
		if o := p.OutlierDetection; o.ConsecutiveErrors < 1 || o.BaseEjection <= 0 || o.MaxEjectionPercent < 0 || o.MaxEjectionPercent > 100 {
			return invalid("consecutive_errors must be at least 1, base_ejection above 0 and max_ejection_percent at most 100")
		}
	}
	return nil
}

// CheckPolicies finds policies that make no sense and those that the mesh
// cannot carry out. The error has the code Invalid and names them all, with
// the reasons.
func CheckPolicies(d Description, r Request) error {
	if _, err := Combine(r); err != nil {
		return err
	}
	missing := Unsupported(d, r.Policies)
	if len(missing) == 0 {
		return nil
	}
	var kinds, reasons []string
	for _, c := range missing {
		kinds = append(kinds, string(c.Policy))
		reasons = append(reasons, string(c.Policy)+": "+c.Note+" ("+c.Source+")")
	}
	return meshbench.Errorf(meshbench.Invalid, "%s cannot do %s", d.Title, strings.Join(kinds, ", ")).
		WithHint("%s", strings.Join(reasons, "; "))
}
