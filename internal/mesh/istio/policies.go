package istio

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// policies are the objects that the policies of a request become.
func policies(r mesh.Request) ([]object, error) {
	combined, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	var out []object
	for _, p := range combined {
		selector := fields{"matchLabels": fields{labelApp: p.Service}}
		if p.MTLS != "" {
			out = append(out, newObject(peerAuths, p.Service+"-mtls", fields{
				"selector": selector, "mtls": fields{"mode": peerMode(p.MTLS)},
			}))
		}
		for i, a := range p.Authorizations {
			out = append(out, newObject(authorizations, fmt.Sprintf("%s-%d-%s", p.Service, i+1, a.Action), fields{
				"selector": selector, "action": strings.ToUpper(string(a.Action)), "rules": []fields{authorizationRule(a)},
			}))
		}
		if routes := httpRoutes(p); routes != nil {
			out = append(out, newObject(virtualServices, p.Service, fields{"hosts": []string{host(p.Service)}, "http": routes}))
		}
		if traffic := trafficPolicy(r, p); len(traffic) > 0 {
			out = append(out, newObject(destinationRules, p.Service, fields{"host": host(p.Service), "trafficPolicy": traffic}))
		}
		if p.RateLimit != nil {
			out = append(out, rateLimit(p.Service, *p.RateLimit))
		}
	}
	return out, nil
}

// authorizationRule fits the requests that an authorization is about. One
// without anything fits all.
func authorizationRule(a meshbench.Authorization) fields {
	rule := fields{}
	if len(a.From) > 0 {
		var principals []string
		for _, name := range a.From {
			principals = append(principals, strings.TrimPrefix(pki.ServiceAccount(name), "spiffe://"))
		}
		rule["from"] = []fields{{"source": fields{"principals": principals}}}
	}
	operation := fields{}
	if len(a.Paths) > 0 {
		var paths []string
		for _, prefix := range a.Paths {
			paths = append(paths, prefix+"*")
		}
		operation["paths"] = paths
	}
	if len(a.Methods) > 0 {
		operation["methods"] = a.Methods
	}
	if len(operation) > 0 {
		rule["to"] = []fields{{"operation": operation}}
	}
	return rule
}

// httpRoutes are the routes of a VirtualService; nil where Istio's own are
// what is asked for.
func httpRoutes(p mesh.ServicePolicy) []fields {
	if last := p.Rules[len(p.Rules)-1]; len(p.Rules) == 1 && plain(p.Service, last) {
		return nil
	}
	var out []fields
	for _, rule := range p.Rules {
		out = append(out, httpRoute(rule))
	}
	return out
}

// plain tells whether a rule asks for nothing but the service itself.
func plain(service string, r mesh.Rule) bool {
	return r.Timeout == 0 && r.Retry == nil && r.Fault == nil && r.Mirror == nil && r.Request == nil && r.Response == nil &&
		len(r.Backends) == 1 && r.Backends[0].Service == service
}

func httpRoute(r mesh.Rule) fields {
	route := fields{}
	if m := r.Match; m != nil {
		match := fields{}
		if m.PathPrefix != "" {
			match["uri"] = fields{"prefix": m.PathPrefix}
		}
		if m.Method != "" {
			match["method"] = fields{"exact": m.Method}
		}
		headers := fields{}
		for name, value := range m.Headers {
			headers[strings.ToLower(name)] = fields{"exact": value}
		}
		if len(headers) > 0 {
			match["headers"] = headers
		}
		if len(match) > 0 {
			route["match"] = []fields{match}
		}
	}
	var backends []fields
	for _, b := range r.Backends {
		if b.Weight == 0 {
			continue
		}
		backends = append(backends, fields{"destination": destination(b.Service), "weight": b.Weight})
	}
	if len(backends) == 1 {
		delete(backends[0], "weight")
	}
	route["route"] = backends
	if r.Timeout > 0 {
		route["timeout"] = seconds(r.Timeout)
	}
	if r.Retry != nil {
		route["retries"] = retries(*r.Retry)
	}
	if f := r.Fault; f != nil {
		fault := fields{}
		if a := f.Abort; a != nil {
			fault["abort"] = fields{"httpStatus": a.Status, "percentage": fields{"value": a.Percent}}
		}
		if d := f.Delay; d != nil {
			fault["delay"] = fields{"fixedDelay": seconds(d.Duration), "percentage": fields{"value": d.Percent}}
		}
		route["fault"] = fault
	}
	if m := r.Mirror; m != nil {
		route["mirrors"] = []fields{{"destination": destination(m.Service), "percentage": fields{"value": m.Percent}}}
	}
	headers := fields{}
	for name, change := range map[string]*meshbench.HeaderChange{"request": r.Request, "response": r.Response} {
		if change == nil {
			continue
		}
		c := fields{}
		if len(change.Set) > 0 {
			c["set"] = change.Set
		}
		if len(change.Add) > 0 {
			c["add"] = change.Add
		}
		if len(change.Remove) > 0 {
			c["remove"] = change.Remove
		}
		headers[name] = c
	}
	if len(headers) > 0 {
		route["headers"] = headers
	}
	return route
}

// destination is a service as the target of a route, at the port that the
// request came in by (see workloads).
func destination(service string) fields { return fields{"host": host(service)} }

func retries(p meshbench.RetryPolicy) fields {
	var on []string
	for _, reason := range p.On {
		on = append(on, strings.ReplaceAll(string(reason), "_", "-"))
	}
	if len(on) == 0 || p.Attempts == 0 {
		return fields{"attempts": 0}
	}
	out := fields{"attempts": p.Attempts, "retryOn": strings.Join(on, ",")}
	if p.PerTryTimeout > 0 {
		out["perTryTimeout"] = seconds(p.PerTryTimeout)
	}
	return out
}

// trafficPolicy is that of a DestinationRule; empty where there is nothing to
// say.
func trafficPolicy(r mesh.Request, p mesh.ServicePolicy) fields {
	traffic := fields{}
	// Clients infer from policies for the whole mesh alone whether a service
	// takes mutual TLS.
	if mode(r) == meshbench.MTLSOff && modeOf(r, p) != meshbench.MTLSOff {
		traffic["tls"] = fields{"mode": "ISTIO_MUTUAL"}
	}
	if b := p.CircuitBreaker; b != nil {
		tcp, http := fields{}, fields{}
		for _, limit := range []struct {
			where fields
			name  string
			n     int
		}{{tcp, "maxConnections", b.MaxConnections}, {http, "http1MaxPendingRequests", b.MaxPendingRequests}, {http, "http2MaxRequests", b.MaxRequests}} {
			if limit.n > 0 {
				limit.where[limit.name] = limit.n
			}
		}
		pool := fields{}
		if len(tcp) > 0 {
			pool["tcp"] = tcp
		}
		if len(http) > 0 {
			pool["http"] = http
		}
		if len(pool) > 0 {
			traffic["connectionPool"] = pool
		}
	}
	if o := p.OutlierDetection; o != nil {
		outlier := fields{"consecutive5xxErrors": o.ConsecutiveErrors, "baseEjectionTime": seconds(o.BaseEjection)}
		if o.Interval > 0 {
			outlier["interval"] = seconds(o.Interval)
		}
		if o.MaxEjectionPercent > 0 {
			outlier["maxEjectionPercent"] = o.MaxEjectionPercent
		}
		traffic["outlierDetection"] = outlier
	}
	return traffic
}

// shortestFill is the least time between fills of a bucket that Envoy takes.
const shortestFill = 50 * time.Millisecond

// rateLimit is the EnvoyFilter that puts Envoy's local rate limit before the
// application.
func rateLimit(service string, p meshbench.RateLimitPolicy) object {
	requests, per := p.Requests, time.Duration(p.Per)
	if per < shortestFill {
		n := int(math.Ceil(float64(shortestFill) / float64(per)))
		requests, per = requests*n, per*time.Duration(n)
	}
	requests = min(requests, math.MaxInt32)
	always := fields{"default_value": fields{"numerator": 100, "denominator": "HUNDRED"}}
	const filter = "envoy.filters.http.local_ratelimit"
	return newObject(envoyFilters, service+"-rate-limit", fields{
		"workloadSelector": fields{"labels": fields{labelApp: service}},
		"configPatches": []fields{{
			"applyTo": "HTTP_FILTER",
			"match": fields{"context": "SIDECAR_INBOUND", "listener": fields{"filterChain": fields{"filter": fields{
				"name": "envoy.filters.network.http_connection_manager", "subFilter": fields{"name": "envoy.filters.http.router"},
			}}}},
			"patch": fields{"operation": "INSERT_BEFORE", "value": fields{"name": filter, "typed_config": fields{
				"@type":          "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
				"stat_prefix":    "rate_limit",
				"token_bucket":   fields{"max_tokens": requests, "tokens_per_fill": requests, "fill_interval": seconds(meshbench.Duration(per))},
				"filter_enabled": always, "filter_enforced": always,
			}}},
		}},
	})
}

// seconds is a duration as the JSON of Protocol Buffers has it: "0.2s".
func seconds(d meshbench.Duration) string {
	return strconv.FormatFloat(time.Duration(d).Seconds(), 'f', -1, 64) + "s"
}
