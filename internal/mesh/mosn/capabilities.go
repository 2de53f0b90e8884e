package mosn

import (
	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// source is the version of MOSN's code that the capabilities were read from;
// most of it has no other documentation.
const source = "https://github.com/mosn/mosn/blob/v1.6.1/"

// capabilities tells what MOSN makes of each kind of policy. What it cannot do
// to the letter is in the notes, and where it would do something else silently,
// configurations refuses it.
func capabilities() []mesh.Capability {
	yes := func(kind meshbench.PolicyKind, note, file string) mesh.Capability {
		return mesh.Capability{Policy: kind, Supported: true, Note: note, Source: source + file}
	}
	no := func(kind meshbench.PolicyKind, why, file string) mesh.Capability {
		return mesh.Capability{Policy: kind, Note: why, Source: source + file}
	}
	return []mesh.Capability{
		yes(meshbench.PolicyMTLS, "a service's proxy lets in whoever has a certificate of the authority, whatever its name; the caller's proxy does verify the service's name", "pkg/mtls/tls_context.go"),
		yes(meshbench.PolicyAuthorization, "by identity, 403; not by path or method; a plain-text caller in mode permissive has no identity, so a denial does not meet it", "istio/istio1106/filter/stream/rbac"),
		yes(meshbench.PolicyTimeout, "", "pkg/proxy/downstream.go"),
		yes(meshbench.PolicyRetry, "never fewer than three more attempts, 10 ms apart; failed connections are tried again without a policy, too", "pkg/proxy/retrystate.go"),
		yes(meshbench.PolicyFault, "percentages are whole numbers", "pkg/filter/stream/faultinject/faultinject.go"),
		yes(meshbench.PolicySplit, "", "pkg/router/base_rule.go"),
		yes(meshbench.PolicyMirror, "percentages are whole numbers; not with upstream=http2", "pkg/filter/stream/mirror/mirror.go"),
		yes(meshbench.PolicyHeaders, "an added value is joined to the one that is there by a comma", "pkg/router/header_parser.go"),
		yes(meshbench.PolicyRateLimit, "flow control by Sentinel, in each proxy of the service", "pkg/filter/stream/flowcontrol/stream_filter.go"),
		yes(meshbench.PolicyCircuitBreaker, "no request waits for a connection, so max_pending_requests bounds nothing", "pkg/upstream/cluster/resource_manager.go"),
		no(meshbench.PolicyOutlierDetection, "MOSN ejects hosts only by active health checks", "pkg/config/v2/upstream.go"),
	}
}
