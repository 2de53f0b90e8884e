package meshbench

import "strconv"

// Policies is a list of policies as people write it in a file, the same for
// every mesh. A driver turns it into the mesh's own configuration.
type Policies struct {
	APIVersion string   `json:"api_version"`
	Kind       string   `json:"kind"` // "Policies"
	Policies   []Policy `json:"policies"`
}

// Policy is one wish about requests to a service. Exactly one of the fields
// after Match is set: that is its kind.
type Policy struct {
	Name string `json:"name,omitempty"`
	// To is the service that the requests go to; empty: every service.
	To string `json:"to,omitempty"`
	// Match narrows the policies of a route (timeout, retry, fault, split,
	// mirror, headers) to some requests; nil: all of them.
	Match *Match `json:"match,omitempty"`

	MTLS             *MTLSPolicy       `json:"mtls,omitempty"`
	Authorization    *Authorization    `json:"authorization,omitempty"`
	Timeout          *TimeoutPolicy    `json:"timeout,omitempty"`
	Retry            *RetryPolicy      `json:"retry,omitempty"`
	Fault            *FaultPolicy      `json:"fault,omitempty"`
	Split            *SplitPolicy      `json:"split,omitempty"`
	Mirror           *MirrorPolicy     `json:"mirror,omitempty"`
	Headers          *HeadersPolicy    `json:"headers,omitempty"`
	RateLimit        *RateLimitPolicy  `json:"rate_limit,omitempty"`
	CircuitBreaker   *CircuitBreaker   `json:"circuit_breaker,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlier_detection,omitempty"`
}

// PolicyKind names what a policy is about, in the word of its field.
type PolicyKind string

// The kinds of policies.
const (
	PolicyMTLS             PolicyKind = "mtls"
	PolicyAuthorization    PolicyKind = "authorization"
	PolicyTimeout          PolicyKind = "timeout"
	PolicyRetry            PolicyKind = "retry"
	PolicyFault            PolicyKind = "fault"
	PolicySplit            PolicyKind = "split"
	PolicyMirror           PolicyKind = "mirror"
	PolicyHeaders          PolicyKind = "headers"
	PolicyRateLimit        PolicyKind = "rate_limit"
	PolicyCircuitBreaker   PolicyKind = "circuit_breaker"
	PolicyOutlierDetection PolicyKind = "outlier_detection"
)

// PolicyKinds returns all kinds, in the order of the documentation.
func PolicyKinds() []PolicyKind {
	return []PolicyKind{PolicyMTLS, PolicyAuthorization, PolicyTimeout, PolicyRetry, PolicyFault, PolicySplit,
		PolicyMirror, PolicyHeaders, PolicyRateLimit, PolicyCircuitBreaker, PolicyOutlierDetection}
}

// Match says which requests a policy is for: all that it names must fit.
type Match struct {
	PathPrefix string            `json:"path_prefix,omitempty"` // whole elements: /a fits /a and /a/b; empty: every path
	Method     string            `json:"method,omitempty"`      // empty: every method
	Headers    map[string]string `json:"headers,omitempty"`     // name -> its exact value
}

// MTLSMode is whether proxies demand mutual TLS of each other.
type MTLSMode string

// The modes of mutual TLS.
const (
	MTLSStrict     MTLSMode = "strict"     // plain text is refused
	MTLSPermissive MTLSMode = "permissive" // plain text is let in beside it
	MTLSOff        MTLSMode = "off"        // proxies speak plain text
)

// MTLSPolicy sets how a service's proxy may be reached.
type MTLSPolicy struct {
	Mode MTLSMode `json:"mode"`
}

// Action is what an authorization does with the requests that it fits.
type Action string

// The actions of an authorization.
const (
	Allow Action = "allow" // and everything else is denied
	Deny  Action = "deny"
)

// Authorization allows or denies requests by who sends them. Where a service
// has several, a denial wins; with at least one that allows, what none of
// them allows is denied.
type Authorization struct {
	Action  Action   `json:"action"`
	From    []string `json:"from,omitempty"`    // identities by the name of their service, "client"; empty: anybody
	Paths   []string `json:"paths,omitempty"`   // prefixes; empty: every path
	Methods []string `json:"methods,omitempty"` // empty: every method
}

// TimeoutPolicy bounds the time until the whole answer is there, retries included.
type TimeoutPolicy struct {
	Request Duration `json:"request"`
}

// RetryOn is a reason for which a request is sent again.
type RetryOn string

// The reasons for a retry.
const (
	RetryOn5xx            RetryOn = "5xx"             // any answer of 500 to 599, and no answer at all
	RetryOnGatewayError   RetryOn = "gateway_error"   // 502, 503, 504
	RetryOnConnectFailure RetryOn = "connect_failure" // no connection could be made
	RetryOnReset          RetryOn = "reset"           // the connection ended without an answer
)

// RetryPolicy sends a failed request again.
type RetryPolicy struct {
	Attempts      int       `json:"attempts"` // at most, after the first
	On            []RetryOn `json:"on"`
	PerTryTimeout Duration  `json:"per_try_timeout,omitempty"` // 0: none of its own
}

// FaultPolicy injects failures; at least one of its parts is set.
type FaultPolicy struct {
	Abort *Abort `json:"abort,omitempty"`
	Delay *Delay `json:"delay,omitempty"`
}

// Abort answers with a status instead of forwarding.
type Abort struct {
	Status  int     `json:"status"`
	Percent float64 `json:"percent"` // of the requests, above 0 to 100
}

// Delay holds a request back before it is forwarded.
type Delay struct {
	Duration Duration `json:"duration"`
	Percent  float64  `json:"percent"` // of the requests, above 0 to 100
}

// SplitPolicy shares requests out among services.
type SplitPolicy struct {
	Backends []WeightedBackend `json:"backends"`
}

// WeightedBackend is a service with its share.
type WeightedBackend struct {
	Service string `json:"service"`
	Weight  int    `json:"weight"` // of the sum of all weights; 0 gets nothing
}

// MirrorPolicy sends a copy of requests to a service, whose answer is dropped.
type MirrorPolicy struct {
	Service string  `json:"service"`
	Percent float64 `json:"percent"` // of the requests, above 0 to 100
}

// HeadersPolicy changes headers of requests and answers.
type HeadersPolicy struct {
	Request  *HeaderChange `json:"request,omitempty"`
	Response *HeaderChange `json:"response,omitempty"`
}

// HeaderChange is made in this order: set, add, remove.
type HeaderChange struct {
	Set    map[string]string `json:"set,omitempty"`    // replaces what is there
	Add    map[string]string `json:"add,omitempty"`    // beside what is there
	Remove []string          `json:"remove,omitempty"` // names
}

// RateLimitPolicy bounds the requests that a service's proxy lets in, per
// instance; what is above gets 429.
type RateLimitPolicy struct {
	Requests int      `json:"requests"` // in each Per
	Per      Duration `json:"per"`
}

// CircuitBreaker bounds what is under way from one proxy to a service at the
// same time; what is above gets an error at once. 0 bounds nothing.
type CircuitBreaker struct {
	MaxConnections     int `json:"max_connections,omitempty"`
	MaxPendingRequests int `json:"max_pending_requests,omitempty"` // waiting for a connection
	MaxRequests        int `json:"max_requests,omitempty"`
}

// OutlierDetection leaves instances of a service out for a while that answer
// with errors.
type OutlierDetection struct {
	ConsecutiveErrors  int      `json:"consecutive_errors"` // answers of 500 to 599 in a row
	Interval           Duration `json:"interval,omitempty"` // between looks; 0: the mesh's own
	BaseEjection       Duration `json:"base_ejection"`      // how long an instance stays out the first time
	MaxEjectionPercent int      `json:"max_ejection_percent,omitempty"`
}

// Kind returns which field is set, and an error of code Invalid where none or
// several are.
func (p Policy) Kind() (PolicyKind, error) {
	var kinds []PolicyKind
	for _, k := range []struct {
		kind PolicyKind
		set  bool
	}{
		{PolicyMTLS, p.MTLS != nil}, {PolicyAuthorization, p.Authorization != nil}, {PolicyTimeout, p.Timeout != nil},
		{PolicyRetry, p.Retry != nil}, {PolicyFault, p.Fault != nil}, {PolicySplit, p.Split != nil}, {PolicyMirror, p.Mirror != nil},
		{PolicyHeaders, p.Headers != nil}, {PolicyRateLimit, p.RateLimit != nil}, {PolicyCircuitBreaker, p.CircuitBreaker != nil},
		{PolicyOutlierDetection, p.OutlierDetection != nil},
	} {
		if k.set {
			kinds = append(kinds, k.kind)
		}
	}
	if len(kinds) == 1 {
		return kinds[0], nil
	}
	label := "a policy"
	if p.Name != "" {
		label = "policy " + strconv.Quote(p.Name)
	}
	if len(kinds) == 0 {
		return "", Errorf(Invalid, "%s says nothing", label).WithHint("give it one of %v", PolicyKinds())
	}
	return "", Errorf(Invalid, "%s is of several kinds: %v", label, kinds).WithHint("write a policy for each")
}

// OfRoute tells whether policies of a kind can be narrowed by a Match.
func (k PolicyKind) OfRoute() bool {
	switch k {
	case PolicyTimeout, PolicyRetry, PolicyFault, PolicySplit, PolicyMirror, PolicyHeaders:
		return true
	}
	return false
}
