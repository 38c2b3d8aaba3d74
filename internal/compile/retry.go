package compile

import (
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// defaultAttempts is how often a request is sent again where a route wants that and does not say how often.
const defaultAttempts = 2

// retry compiles the retry policy of the rule; nil if it has none.
func (r *httpRule) retry() *route.Retry {
	spec := r.spec.Retry
	if spec == nil {
		return nil
	}
	out := &route.Retry{Attempts: orDefault(spec.Attempts, defaultAttempts), Codes: r.retryCodes(spec.Codes), Backoff: r.retryBackoff(spec.Backoff)}
	if out.Attempts < 0 {
		r.broken(".retry.attempts", gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("%d is not a number of attempts, such as 2; 0 is none", out.Attempts))
	}
	if out.Attempts == 0 && len(out.Codes) > 0 {
		r.problems.add(Warning, r.ref, r.field()+".retry.codes", "NeverRetried", "with attempts: 0 no request is sent again, whatever the codes")
	}
	return out
}

// retryCodes returns the codes in ascending order, each once.
func (r *httpRule) retryCodes(codes []gatewayv1.HTTPRouteRetryStatusCode) []int {
	out := make([]int, 0, len(codes))
	for i, c := range codes {
		if c < 400 || c > 599 {
			r.broken(indexed(".retry.codes", i), gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("%d is not a status between 400 and 599", c))
			continue
		}
		out = append(out, int(c))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// retryBackoff returns the least time between two tries. Zero in the API means zero, which is the least there is in the table.
func (r *httpRule) retryBackoff(d *gatewayv1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return max(r.timeout(".retry.backoff", d), 1)
}
