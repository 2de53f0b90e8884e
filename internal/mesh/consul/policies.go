package consul

import (
	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Where Consul says what it can do.
const (
	docsEntries    = "https://developer.hashicorp.com/consul/docs/reference/config-entry/"
	docsRouter     = docsEntries + "service-router"
	docsDefaults   = docsEntries + "service-defaults"
	docsIntentions = docsEntries + "service-intentions"
	docsSplitter   = docsEntries + "service-splitter"
	docsExtensions = "https://developer.hashicorp.com/consul/docs/envoy-extension"
	docsRateLimit  = "https://developer.hashicorp.com/consul/docs/manage-traffic/rate-limit"
	docsAuthority  = "https://developer.hashicorp.com/consul/docs/secure-mesh/certificate/built-in"
	docsBuiltin    = "https://developer.hashicorp.com/consul/docs/reference/proxy/built-in"
)

// capabilities are what a data plane can do.
func capabilities(plane string) []mesh.Capability {
	out := []mesh.Capability{
		{Policy: meshbench.PolicyMTLS, Supported: true, Source: docsDefaults,
			Note: "strict alone: permissive is for transparent proxies, and nothing turns it off"},
		{Policy: meshbench.PolicyAuthorization, Supported: true, Source: docsIntentions, Note: "service-intentions"},
		{Policy: meshbench.PolicyTimeout, Supported: true, Source: docsRouter, Note: "service-router"},
		{Policy: meshbench.PolicyRetry, Supported: true, Source: docsRouter, Note: "service-router, without a timeout per try"},
		{Policy: meshbench.PolicyFault, Source: docsExtensions,
			Note: "no configuration entry injects faults; an extension in Lua could answer in the application's place, but not delay"},
		{Policy: meshbench.PolicySplit, Supported: true, Source: docsSplitter, Note: "service-router and service-splitter, in steps of 0.01 %"},
		{Policy: meshbench.PolicyMirror, Source: docsRouter, Note: "no configuration entry copies requests"},
		{Policy: meshbench.PolicyHeaders, Supported: true, Source: docsRouter, Note: "service-router"},
		{Policy: meshbench.PolicyRateLimit, Source: docsRateLimit,
			Note: "RateLimits is for Consul Enterprise, and no extension of the community edition limits rates"},
		{Policy: meshbench.PolicyCircuitBreaker, Supported: true, Source: docsDefaults, Note: "limits of the caller's upstream"},
		{Policy: meshbench.PolicyOutlierDetection, Supported: true, Source: docsDefaults, Note: "passive health check of the caller's upstream"},
	}
	if plane == builtinProxy {
		for i, c := range out {
			switch c.Policy {
			case meshbench.PolicyMTLS:
			case meshbench.PolicyAuthorization:
				// Seen when the same two policies were applied in turn: sooner
				// or later the agent, which decides for the proxies, went on by
				// the intentions before for a minute and longer, also when they
				// were written again.
				out[i] = mesh.Capability{Policy: c.Policy, Source: docsBuiltin,
					Note: "the agent, which decides for built-in proxies, can go on by the intentions before for more than a minute: when a change is in force cannot be said"}
			default:
				out[i] = mesh.Capability{Policy: c.Policy, Source: docsBuiltin, Note: "the built-in proxy knows connections only"}
			}
		}
	}
	return out
}

// check finds policies that make no sense and those that Consul, or this data
// plane of it, cannot carry out. The error has the code Invalid.
func check(r mesh.Request) error {
	if err := mesh.CheckPolicies(Driver{}.DescribeSubject(r.Subject), r); err != nil {
		return err
	}
	for _, p := range r.Policies {
		kind, err := p.Kind()
		if err != nil {
			return err
		}
		label := p.Name
		if label == "" {
			label = string(kind)
		}
		refuse := func(source, format string, args ...any) error {
			return meshbench.Errorf(meshbench.Invalid, "policy "+label+": "+format, args...).WithHint("%s", source)
		}
		switch {
		case p.MTLS != nil && p.MTLS.Mode == meshbench.MTLSPermissive:
			return refuse(docsDefaults, "Consul lets plain text in beside mutual TLS for transparent proxies alone, and these are none")
		case p.MTLS != nil && p.MTLS.Mode == meshbench.MTLSOff:
			return refuse(docsDefaults, "Consul's proxies always speak mutual TLS")
		case p.Retry != nil && p.Retry.PerTryTimeout > 0:
			return refuse(docsRouter, "Consul's service-router has no timeout per try")
		}
	}
	return nil
}
