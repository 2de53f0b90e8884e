package consul

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// What profile parity sets and profile shipped leaves to Consul and Envoy.
const (
	parityTimeout = 60 * time.Second // Envoy's own is 15 s
	parityLimit   = 1 << 20          // of connections and requests; Envoy's own is 1024
	parityTLS     = "TLSv1_3"        // Envoy's own client offers 1.2 at most

	shippedTimeout = 15 * time.Second // Envoy's own
)

// The kinds of configuration entries that are written here
// (https://developer.hashicorp.com/consul/docs/reference/config-entry).
const (
	kindMesh       = "mesh"
	kindProxy      = "proxy-defaults"
	kindService    = "service-defaults"
	kindSplitter   = "service-splitter"
	kindRouter     = "service-router"
	kindIntentions = "service-intentions"
)

// kinds are all of them.
var kinds = []string{kindMesh, kindProxy, kindService, kindSplitter, kindRouter, kindIntentions}

// object is a JSON object as Consul's API has it.
type object = map[string]any

// entry is a configuration entry.
type entry struct {
	kind, name string
	// inbound and outbound are the fields that concern the proxies of the
	// service itself, and its proxies' ways to others.
	inbound, outbound object
}

// body is the whole entry.
func (e entry) body() object {
	out := object{"Kind": e.kind, "Name": e.name}
	maps.Copy(out, e.inbound)
	maps.Copy(out, e.outbound)
	if e.kind == kindMesh {
		delete(out, "Name") // there is only one
	}
	return out
}

// digest tells two versions of a part of an entry apart.
func digest(part object) string {
	data, err := json.Marshal(part) // with its keys in order
	if err != nil {
		panic("consul: an entry that is no JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// entries returns what a request's services and policies become, in an order
// in which they can be written: what others refer to comes first.
func entries(r mesh.Request) ([]entry, error) {
	policies, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	if dataPlane(r.Subject) == builtinProxy {
		var out []entry
		for _, p := range policies {
			out = append(out, intentions(r, p))
		}
		return out, nil
	}
	parity := r.Profile == meshbench.Parity
	defaults := object{"protocol": protocol(r.Workload.Protocol)}
	var out []entry
	if parity {
		defaults["local_request_timeout_ms"] = parityTimeout.Milliseconds()
		versions := object{"TLSMinVersion": parityTLS, "TLSMaxVersion": parityTLS}
		out = append(out, entry{kind: kindMesh, name: "mesh", inbound: object{"TLS": object{"Incoming": versions, "Outgoing": versions}}})
	}
	out = append(out, entry{kind: kindProxy, name: "global", inbound: object{"Config": defaults}})
	client := meshbench.Service{Name: mesh.Client, Calls: []string{r.Services[0].Name}}
	for _, s := range append(slices.Clone(r.Services), client) {
		out = append(out, serviceDefaults(r, s, policies))
	}
	var routers, permissions []entry
	for _, p := range policies {
		router, splitters := routing(p, parity)
		out = append(out, splitters...)
		routers = append(routers, router...)
		permissions = append(permissions, intentions(r, p))
	}
	return slices.Concat(out, routers, permissions), nil
}

// protocol is Consul's word for what is spoken: but for HTTP/1.1, it is ours.
func protocol(p meshbench.Protocol) string {
	if p == meshbench.HTTP1 || p == "" {
		return "http"
	}
	return string(p)
}

// serviceDefaults says how a service is served, and how it reaches others.
func serviceDefaults(r mesh.Request, s meshbench.Service, policies []mesh.ServicePolicy) entry {
	parity := r.Profile == meshbench.Parity
	out := entry{kind: kindService, name: s.Name, inbound: object{"Protocol": protocol(r.Workload.Protocol)}, outbound: object{}}
	if parity {
		out.inbound["MaxInboundConnections"] = parityLimit
	}
	upstream := object{}
	if parity {
		upstream["Defaults"] = toward(mesh.ServicePolicy{}, parity)
	}
	var overrides []object
	for _, p := range policies {
		if p.Service == s.Name {
			usual := shippedTimeout
			if parity {
				usual = parityTimeout
			}
			// The server's proxy must not give up before the client's does.
			longest := usual
			for _, rule := range p.Rules {
				longest = max(longest, rule.Timeout.Std())
			}
			if longest > usual {
				out.inbound["LocalRequestTimeoutMs"] = longest.Milliseconds()
			}
		}
		if slices.Contains(s.Calls, p.Service) && (p.CircuitBreaker != nil || p.OutlierDetection != nil) {
			override := toward(p, parity)
			override["Name"] = p.Service
			overrides = append(overrides, override)
		}
	}
	if overrides != nil {
		upstream["Overrides"] = overrides
	}
	if len(upstream) > 0 {
		out.outbound["UpstreamConfig"] = upstream
	}
	return out
}

// toward is what bounds the way to a service.
func toward(p mesh.ServicePolicy, parity bool) object {
	out := object{}
	limits := object{}
	if parity {
		limits = object{"MaxConnections": parityLimit, "MaxPendingRequests": parityLimit, "MaxConcurrentRequests": parityLimit}
		// Consul looks for outliers unasked; a parity of all meshes does not.
		out["PassiveHealthCheck"] = object{"EnforcingConsecutive5xx": 0}
	}
	if c := p.CircuitBreaker; c != nil {
		for name, n := range map[string]int{
			"MaxConnections": c.MaxConnections, "MaxPendingRequests": c.MaxPendingRequests, "MaxConcurrentRequests": c.MaxRequests,
		} {
			if n > 0 {
				limits[name] = n
			}
		}
	}
	if o := p.OutlierDetection; o != nil {
		check := object{
			"MaxFailures": o.ConsecutiveErrors, "EnforcingConsecutive5xx": 100,
			"BaseEjectionTime": o.BaseEjection.Std().String(),
		}
		if o.Interval > 0 {
			check["Interval"] = o.Interval.Std().String()
		}
		if o.MaxEjectionPercent > 0 {
			check["MaxEjectionPercent"] = o.MaxEjectionPercent
		}
		out["PassiveHealthCheck"] = check
	}
	if len(limits) > 0 {
		out["Limits"] = limits
	}
	return out
}

// routing is the router of a service, where it needs one, and the splitters
// that it refers to.
//
// Shares are those of services that are not there: a router leads to
// "echo-split-1f2e3d4c", whose splitter leads to the real ones. Their names
// tell what they hold, so that a splitter never changes: it is the router that
// changes, and with it everything at once. It also keeps one service's split
// out of the way of another's, which would follow it.
func routing(p mesh.ServicePolicy, parity bool) (router, splitters []entry) {
	var routes []object
	plain := true
	for _, rule := range p.Rules {
		target := p.Service
		splits := shares(rule.Backends)
		if len(splits) == 1 {
			target = splits[0]["Service"].(string)
		} else {
			part := object{"Splits": splits}
			target += "-split-" + digest(part)[:8]
			if !slices.ContainsFunc(splitters, func(e entry) bool { return e.name == target }) {
				splitters = append(splitters, entry{kind: kindSplitter, name: target, outbound: part})
			}
		}
		destination := object{"Service": target}
		switch {
		case rule.Timeout > 0:
			destination["RequestTimeout"] = rule.Timeout.Std().String()
		case parity:
			destination["RequestTimeout"] = parityTimeout.String()
		}
		if retry := rule.Retry; retry != nil && retry.Attempts > 0 {
			destination["NumRetries"] = retry.Attempts
			destination["RetryOn"] = retryOn(retry.On)
		}
		for name, change := range map[string]*meshbench.HeaderChange{"RequestHeaders": rule.Request, "ResponseHeaders": rule.Response} {
			if change != nil {
				destination[name] = headerChange(*change)
			}
		}
		route := object{"Destination": destination}
		if rule.Match != nil {
			route["Match"] = object{"HTTP": match(*rule.Match)}
		}
		plain = plain && rule.Match == nil && target == p.Service && len(destination) == 1
		routes = append(routes, route)
	}
	if plain {
		return nil, nil // what Consul does without a router
	}
	return []entry{{kind: kindRouter, name: p.Service, outbound: object{"Routes": routes}}}, splitters
}

// retryOn are the reasons in Envoy's words, which Consul passes on.
func retryOn(reasons []meshbench.RetryOn) []string {
	words := map[meshbench.RetryOn]string{
		meshbench.RetryOn5xx: "5xx", meshbench.RetryOnGatewayError: "gateway-error",
		meshbench.RetryOnConnectFailure: "connect-failure", meshbench.RetryOnReset: "reset",
	}
	out := make([]string, len(reasons))
	for i, reason := range reasons {
		out[i] = words[reason]
	}
	return out
}

func headerChange(c meshbench.HeaderChange) object {
	out := object{}
	if len(c.Set) > 0 {
		out["Set"] = c.Set
	}
	if len(c.Add) > 0 {
		out["Add"] = c.Add
	}
	if len(c.Remove) > 0 {
		out["Remove"] = c.Remove
	}
	return out
}

func match(m meshbench.Match) object {
	out := object{}
	if m.PathPrefix != "" {
		out["PathPrefix"] = m.PathPrefix
	}
	if m.Method != "" {
		out["Methods"] = []string{m.Method}
	}
	var headers []object
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		if value := m.Headers[name]; value != "" {
			headers = append(headers, object{"Name": name, "Exact": value})
		} else {
			headers = append(headers, object{"Name": name, "Regex": "^$"}) // Consul reads an empty Exact as none
		}
	}
	if headers != nil {
		out["Header"] = headers
	}
	return out
}

// shares turns weights into percentages that add up to exactly 100, in steps
// of 0.01, the smallest that Consul has: what the rounding leaves over goes to
// those that lost most by it. What has no weight is left out.
func shares(backends []meshbench.WeightedBackend) []object {
	const whole = 100 * 100
	var used []meshbench.WeightedBackend
	sum := 0
	for _, b := range backends {
		if b.Weight > 0 {
			used = append(used, b)
			sum += b.Weight
		}
	}
	parts := make([]int, len(used))
	order := make([]int, len(used))
	left := whole
	for i, b := range used {
		parts[i] = b.Weight * whole / sum
		order[i] = i
		left -= parts[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return used[b].Weight*whole%sum - used[a].Weight*whole%sum })
	for _, i := range order[:left] {
		parts[i]++
	}
	var out []object
	for i, b := range used {
		if parts[i] > 0 {
			out = append(out, object{"Service": b.Service, "Weight": float64(parts[i]) / 100})
		}
	}
	return out
}

// intentions says who may send a service what. Every workload of the mesh may
// where no policy says otherwise; strangers with a certificate of the
// authority may not, since the agent denies what no intention allows.
func intentions(r mesh.Request, p mesh.ServicePolicy) entry {
	senders := []string{mesh.Client}
	for _, s := range r.Services {
		if s.Name != p.Service {
			senders = append(senders, s.Name)
		}
	}
	var sources []object
	for _, s := range senders {
		source := object{"Name": s}
		switch permissions := permissions(p.Authorizations, s); {
		case len(permissions) == 1 && permissions[0]["HTTP"] == nil:
			source["Action"] = permissions[0]["Action"]
		default:
			source["Permissions"] = permissions
		}
		sources = append(sources, source)
	}
	return entry{kind: kindIntentions, name: p.Service, inbound: object{"Sources": sources}}
}

// permissions is what a sender may do, in an order in which the first that
// fits decides: denials, what is allowed, and the opposite for the rest. A
// permission without HTTP is for everything, and is the last one.
func permissions(authorizations []meshbench.Authorization, sender string) []object {
	var out []object
	rest := meshbench.Allow
	if slices.ContainsFunc(authorizations, func(a meshbench.Authorization) bool { return a.Action == meshbench.Allow }) {
		rest = meshbench.Deny
	}
	for _, action := range []meshbench.Action{meshbench.Deny, meshbench.Allow} {
		for _, a := range authorizations {
			if a.Action != action || len(a.From) > 0 && !slices.Contains(a.From, sender) {
				continue
			}
			if len(a.Paths) == 0 && len(a.Methods) == 0 {
				return finish(out, action)
			}
			paths := a.Paths
			if len(paths) == 0 {
				paths = []string{"/"}
			}
			for _, path := range paths {
				http := object{"PathPrefix": path}
				if len(a.Methods) > 0 {
					http["Methods"] = a.Methods
				}
				out = append(out, object{"Action": string(action), "HTTP": http})
			}
		}
	}
	return finish(out, rest)
}

// finish adds what becomes of everything else.
func finish(permissions []object, rest meshbench.Action) []object {
	if len(permissions) == 0 {
		return []object{{"Action": string(rest)}}
	}
	return append(permissions, object{"Action": string(rest), "HTTP": object{"PathPrefix": "/"}})
}

// Show returns the configuration entries as JSON, in the form that `consul
// config write` takes.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	all, err := entries(r)
	if err != nil {
		return nil, err
	}
	out := []mesh.Document{}
	for _, e := range all {
		text, err := json.MarshalIndent(e.body(), "", "  ")
		if err != nil {
			return nil, err
		}
		out = append(out, mesh.Document{Title: e.kind + " " + e.name, Media: "application/json", Text: string(text) + "\n"})
	}
	return out, nil
}
