package linkerd

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
)

// maxRoutes bounds the routes that a service's rules become.
const maxRoutes = 64

// routes are the rules of a service. Ours are tried in order, Linkerd takes
// the narrowest that fits (Gateway API): so where two rules can fit the same
// request, a route is added for just those requests, which does what the first
// of them does.
func routes(service string, rules []mesh.Rule) ([]controlplane.Route, error) {
	matches := make([]meshbench.Match, 0, len(rules))
	known := map[string]bool{}
	add := func(m meshbench.Match) bool {
		key := matchKey(m)
		if known[key] {
			return false
		}
		known[key] = true
		matches = append(matches, m)
		return true
	}
	for _, r := range rules {
		m := meshbench.Match{}
		if r.Match != nil {
			m = *r.Match
		}
		if m.PathPrefix != "" && !strings.HasPrefix(m.PathPrefix, "/") {
			return nil, meshbench.Errorf(meshbench.Invalid, "service %s: the path prefix %q does not begin with a slash", service, m.PathPrefix)
		}
		add(m)
	}
	for i := 0; i < len(matches); i++ {
		for j := range i {
			both, ok := intersect(matches[i], matches[j])
			if ok {
				add(both)
			}
			if len(matches) > maxRoutes {
				return nil, meshbench.Errorf(meshbench.Invalid, "service %s: its policies overlap in more than %d ways", service, maxRoutes).
					WithHint("Linkerd takes the narrowest route, so each overlap needs one of its own: match fewer things at a time")
			}
		}
	}
	var out []controlplane.Route
	for _, m := range matches {
		// The first rule that fits all requests of m.
		i := slices.IndexFunc(rules, func(r mesh.Rule) bool { return r.Match == nil || contains(*r.Match, m) })
		made, err := route(service, rules[i])
		if err != nil {
			return nil, err
		}
		if matchKey(m) != matchKey(meshbench.Match{}) {
			made.Match = &m
		}
		out = append(out, made)
	}
	// The one that fits everything last, for people to read.
	slices.SortStableFunc(out, func(a, b controlplane.Route) int { return rank(a) - rank(b) })
	return out, nil
}

func rank(r controlplane.Route) int {
	if r.Match == nil {
		return 1
	}
	return 0
}

func matchKey(m meshbench.Match) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", strings.TrimSuffix(m.PathPrefix, "/"), m.Method)
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		fmt.Fprintf(&b, " %q=%q", strings.ToLower(name), m.Headers[name])
	}
	return b.String()
}

// under tells whether all paths below p are below prefix, segment by segment.
func under(p, prefix string) bool {
	p, prefix = strings.TrimSuffix(p, "/"), strings.TrimSuffix(prefix, "/")
	return prefix == "" || p == prefix || strings.HasPrefix(p, prefix+"/")
}

// contains tells whether all requests that fit m fit r, too.
func contains(r, m meshbench.Match) bool {
	if !under(m.PathPrefix, r.PathPrefix) || r.Method != "" && r.Method != m.Method {
		return false
	}
	for name, value := range r.Headers {
		if v, ok := header(m, name); !ok || v != value {
			return false
		}
	}
	return true
}

func header(m meshbench.Match, name string) (string, bool) {
	for n, v := range m.Headers {
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// intersect is of the requests that fit both; false where there are none.
func intersect(a, b meshbench.Match) (meshbench.Match, bool) {
	out := meshbench.Match{PathPrefix: a.PathPrefix, Method: a.Method, Headers: maps.Clone(a.Headers)}
	switch {
	case under(b.PathPrefix, a.PathPrefix):
		out.PathPrefix = b.PathPrefix
	case !under(a.PathPrefix, b.PathPrefix):
		return out, false
	}
	if out.Method == "" {
		out.Method = b.Method
	} else if b.Method != "" && b.Method != out.Method {
		return out, false
	}
	for name, value := range b.Headers {
		if v, ok := header(a, name); ok {
			if v != value {
				return out, false
			}
			continue
		}
		if out.Headers == nil {
			out.Headers = map[string]string{}
		}
		out.Headers[name] = value
	}
	return out, true
}

func route(service string, r mesh.Rule) (controlplane.Route, error) {
	out := controlplane.Route{Timeout: r.Timeout, Request: changes(r.Request), Response: changes(r.Response)}
	for _, b := range r.Backends {
		out.Backends = append(out.Backends, controlplane.Backend{Service: authorityOf(b.Service), Weight: uint32(b.Weight)})
	}
	if r.Retry == nil || r.Retry.Attempts == 0 {
		return out, nil
	}
	out.Retry = &controlplane.Retry{Max: uint32(r.Retry.Attempts), PerTryTimeout: r.Retry.PerTryTimeout}
	for _, on := range r.Retry.On {
		switch on {
		case meshbench.RetryOn5xx:
			out.Retry.Statuses = append(out.Retry.Statuses, controlplane.StatusRange{First: 500, Last: 599})
		case meshbench.RetryOnGatewayError:
			out.Retry.Statuses = append(out.Retry.Statuses, controlplane.StatusRange{First: 502, Last: 504})
		default:
			return out, meshbench.Errorf(meshbench.Invalid, "service %s: Linkerd cannot send requests again on %s", service, on).
				WithHint("it does so by status alone: 5xx, gateway_error (https://linkerd.io/2/reference/retries/)")
		}
	}
	if len(out.Retry.Statuses) == 0 {
		return out, meshbench.Errorf(meshbench.Invalid, "service %s: a retry needs a reason", service).WithHint("on: [5xx] or [gateway_error]")
	}
	return out, nil
}

// changes keep our order (set, add, remove); in one change, Linkerd's is add,
// set, remove.
func changes(c *meshbench.HeaderChange) []controlplane.HeaderChange {
	if c == nil {
		return nil
	}
	if len(c.Set) > 0 && len(c.Add) > 0 {
		return []controlplane.HeaderChange{{Set: c.Set}, {Add: c.Add, Remove: c.Remove}}
	}
	return []controlplane.HeaderChange{{Set: c.Set, Add: c.Add, Remove: c.Remove}}
}

// longestBackoff is how long Linkerd leaves an endpoint out at most, unless
// it is told otherwise.
const longestBackoff = time.Minute

func breaker(service string, o *meshbench.OutlierDetection) (*controlplane.Breaker, error) {
	if o == nil {
		return nil, nil
	}
	if o.MaxEjectionPercent > 0 && o.MaxEjectionPercent < 100 {
		return nil, meshbench.Errorf(meshbench.Invalid, "service %s: Linkerd cannot keep a share of the endpoints in", service).
			WithHint("leave max_ejection_percent out: all may be left out (https://linkerd.io/2/reference/circuit-breaking/)")
	}
	return &controlplane.Breaker{
		Failures: uint32(o.ConsecutiveErrors), First: o.BaseEjection, Longest: max(o.BaseEjection, meshbench.Duration(longestBackoff)),
	}, nil
}

func rateLimit(service string, l *meshbench.RateLimitPolicy) (uint32, error) {
	if l == nil {
		return 0, nil
	}
	perSecond := int64(l.Requests) * int64(time.Second)
	if perSecond%int64(l.Per) != 0 {
		return 0, meshbench.Errorf(meshbench.Invalid, "service %s: %d requests per %s are no whole number per second", service, l.Requests, time.Duration(l.Per)).
			WithHint("Linkerd counts per second (https://linkerd.io/2/reference/rate-limiting/)")
	}
	return uint32(perSecond / int64(l.Per)), nil
}

// authorize says who is let in by a service's proxy: by default, and by path
// and method where that differs.
//
// Linkerd only ever allows, and takes the narrowest route that fits a
// request. So for each path and method that an authorization names there is
// an access with all who may send such requests, after all authorizations
// that are about them.
func authorize(r mesh.Request, p mesh.ServicePolicy) (controlplane.Clients, []controlplane.Access, error) {
	paths, methods := []string{"/"}, []string{""}
	for _, a := range p.Authorizations {
		for _, path := range a.Paths {
			if !strings.HasPrefix(path, "/") {
				return controlplane.Clients{}, nil, meshbench.Errorf(meshbench.Invalid, "service %s: the path %q does not begin with a slash", p.Service, path)
			}
			if !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
		for _, m := range a.Methods {
			if !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
	}
	var all controlplane.Clients
	var access []controlplane.Access
	for _, path := range paths {
		for _, method := range methods {
			c, err := clients(r, p, path, method)
			if err != nil {
				return controlplane.Clients{}, nil, err
			}
			if path == "/" && method == "" {
				all = c
				continue
			}
			access = append(access, controlplane.Access{PathPrefix: path, Method: method, Clients: c})
		}
	}
	return all, access, nil
}

// clients are those who may send requests of a path and a method (empty: of
// one that no authorization names).
func clients(r mesh.Request, p mesh.ServicePolicy, path, method string) (controlplane.Clients, error) {
	about := func(a meshbench.Authorization) bool {
		return (len(a.Paths) == 0 || slices.ContainsFunc(a.Paths, func(prefix string) bool { return under(path, prefix) })) &&
			(len(a.Methods) == 0 || method != "" && slices.Contains(a.Methods, method))
	}
	unmeshed := mode(r, p) != meshbench.MTLSStrict
	everybody, names, allows := true, map[string]bool{}, false
	for _, a := range p.Authorizations {
		if a.Action != meshbench.Allow {
			continue
		}
		if !allows {
			allows, everybody = true, false
		}
		if !about(a) {
			continue
		}
		everybody = everybody || len(a.From) == 0
		for _, f := range a.From {
			names[identityOf(f)] = true
		}
	}
	for _, a := range p.Authorizations {
		if a.Action != meshbench.Deny || !about(a) {
			continue
		}
		if len(a.From) == 0 {
			return controlplane.Clients{}, nil
		}
		if everybody {
			if unmeshed {
				return controlplane.Clients{}, meshbench.Errorf(meshbench.Invalid, "service %s: Linkerd cannot deny some where it lets in requests without an identity", p.Service).
					WithHint("set mtls to strict, or allow the others (https://linkerd.io/2/reference/authorization-policy/)")
			}
			everybody = false
			names[identityOf(mesh.Client)] = true
			for _, s := range r.Services {
				names[identityOf(s.Name)] = true
			}
		}
		for _, f := range a.From {
			delete(names, identityOf(f))
		}
	}
	if everybody {
		return controlplane.Clients{Unmeshed: unmeshed, Meshed: !unmeshed}, nil
	}
	if len(names) > 0 && mode(r, p) == meshbench.MTLSOff {
		return controlplane.Clients{}, meshbench.Errorf(meshbench.Invalid, "service %s: without mutual TLS nobody has an identity that could be let in", p.Service).
			WithHint("set mtls to strict or permissive")
	}
	return controlplane.Clients{Names: slices.Sorted(maps.Keys(names))}, nil
}

func portNumber(access addresser, process, port string) (uint16, error) {
	at, err := access.Address(process, port)
	if err != nil {
		return 0, err
	}
	_, text, err := net.SplitHostPort(at)
	if err != nil {
		return 0, meshbench.Errorf(meshbench.Internal, "port %s of %s is at %q: %w", port, process, at, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, meshbench.Errorf(meshbench.Internal, "port %s of %s is at %q: %w", port, process, at, err)
	}
	return uint16(n), nil
}
