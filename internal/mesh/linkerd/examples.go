package linkerd

import (
	"time"

	"github.com/meshbench/meshbench"
)

// Examples are policies of the kinds of which Linkerd has a part: rates are
// per second, and no share of the endpoints is kept in.
func Examples() []meshbench.Policy {
	return []meshbench.Policy{
		{RateLimit: &meshbench.RateLimitPolicy{Requests: 1, Per: meshbench.Duration(time.Second)}},
		{OutlierDetection: &meshbench.OutlierDetection{ConsecutiveErrors: 5, BaseEjection: meshbench.Duration(time.Second)}},
	}
}
