package behavior

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
)

// Probes returns all of them, in the order of the matrix.
func Probes() []Probe {
	return slices.Concat(identityProbes(), authorizationProbes(), timeoutProbes(), retryProbes(), faultProbes(),
		splitProbes(), mirrorProbes(), matchProbes(), headersProbes(), limitProbes(), httpProbes(), smugglingProbes(), ruinProbes())
}

func rfc(number int, section string) string {
	return fmt.Sprintf("RFC %d, section %s: https://www.rfc-editor.org/rfc/rfc%d#section-%s", number, section, number, section)
}

const (
	gatewayPath   = "Gateway API, HTTPPathMatch: https://gateway-api.sigs.k8s.io/reference/spec/#httppathmatch"
	gatewayMatch  = "Gateway API, HTTPRouteMatch: https://gateway-api.sigs.k8s.io/reference/spec/#httproutematch"
	gatewayHeader = "Gateway API, HTTPHeaderFilter: https://gateway-api.sigs.k8s.io/reference/spec/#httpheaderfilter"
	gatewaySplit  = "Gateway API, HTTPBackendRef: https://gateway-api.sigs.k8s.io/reference/spec/#httpbackendref"
	gatewayMirror = "Gateway API, HTTPRequestMirrorFilter: https://gateway-api.sigs.k8s.io/reference/spec/#httprequestmirrorfilter"
	gepTimeout    = "Gateway API, GEP-1742: https://gateway-api.sigs.k8s.io/geps/gep-1742/"
	gepRetry      = "Gateway API, GEP-1731: https://gateway-api.sigs.k8s.io/geps/gep-1731/"
	envoyDocs     = "https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/"
	envoyFault    = "Envoy, fault injection: " + envoyDocs + "fault_filter"
	envoyRBAC     = "Envoy, RBAC: " + envoyDocs + "rbac_filter"
	envoyCircuit  = "Envoy, circuit breaking: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/circuit_breaking"
	envoyOutlier  = "Envoy, outlier detection: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier"
	envoyXFCC     = "Envoy, x-forwarded-client-cert: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert"
	istioMTLS     = "Istio, mutual TLS: https://istio.io/latest/docs/concepts/security/#mutual-tls-authentication"
	istioAuthz    = "Istio, authorization: https://istio.io/latest/docs/concepts/security/#authorization"
	istioPaths    = "Istio, path normalization: https://istio.io/latest/docs/ops/best-practices/security/#understand-path-normalization"
	spiffe        = "SPIFFE, X.509-SVID, section 5: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#5-validation"
)

// seen tells how many requests arrived, and where.
func seen(records []origin.Record) string {
	if len(records) == 0 {
		return "nothing arrived"
	}
	byPlace := map[string]int{}
	var order []string
	for _, r := range records {
		place := processName(r.Service, r.Instance)
		if byPlace[place] == 0 {
			order = append(order, place)
		}
		byPlace[place]++
	}
	slices.Sort(order)
	var parts []string
	for _, p := range order {
		parts = append(parts, fmt.Sprintf("%s got %d", p, byPlace[p]))
	}
	return strings.Join(parts, ", ")
}

func count(records []origin.Record, service string) int {
	n := 0
	for _, r := range records {
		if r.Service == service {
			n++
		}
	}
	return n
}

// judge looks at an answer and what arrived, and says what it saw.
type judge func(a Answer, records []origin.Record) (ok bool, saw string)

// exchange is a probe of one request. sent describes it.
func exchange(name, question, expected, reference, sent string, r Request, answers []origin.Answer, j judge) Probe {
	return Probe{
		Name: name, Question: question, Expected: expected, Reference: reference,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			r := r
			r.Key = b.Key()
			if err := b.Script(ctx, r.Key, answers); err != nil {
				return Finding{}, err
			}
			a, records, err := b.Ask(ctx, r)
			if err != nil {
				return Finding{}, err
			}
			ok, saw := j(a, records)
			return decide(ok, "sent: %s; seen: %s", sent, saw)
		},
	}
}

// withProxy says that a probe has no sense without one.
func withProxy(p Probe) Probe {
	p.Needs |= Proxy
	return p
}

// arrived is a judge for what the one request that arrives must be like.
func arrived(look func(m wire.Message, r origin.Record) (ok bool, saw string)) judge {
	return func(a Answer, records []origin.Record) (bool, string) {
		if len(records) != 1 {
			return false, fmt.Sprintf("%s; answer %s", seen(records), a)
		}
		ok, saw := look(records[0].Message, records[0])
		if a.Status != 200 || a.Err != nil {
			return false, saw + "; answer " + a.String()
		}
		return ok, saw
	}
}

// answered is a judge for the answer, where the request must have arrived.
func answered(look func(a Answer) (ok bool, saw string)) judge {
	return func(a Answer, records []origin.Record) (bool, string) {
		ok, saw := look(a)
		if len(records) != 1 {
			return false, saw + "; " + seen(records)
		}
		return ok, saw
	}
}

// refused is a judge for a request that must not reach the application.
func refused(a Answer, records []origin.Record) (bool, string) {
	return (a.Status/100 == 4 || a.Status == 501) && len(records) == 0, fmt.Sprintf("answer %s; %s", a, seen(records))
}

func quoted(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	var out []string
	for _, v := range values {
		if len(v) > 60 {
			v = v[:60] + "..."
		}
		out = append(out, fmt.Sprintf("%q", v))
	}
	return strings.Join(out, ", ")
}
