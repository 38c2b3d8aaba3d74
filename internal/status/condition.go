package status

import (
	"slices"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
)

// Limits of the API for conditions.
const (
	maxConditions = 8
	maxMessage    = 32768
)

// The types of conditions that the controller of an object is responsible for. Those of them that it does not want are removed, whoever had written them; all
// other types are somebody else's.
var (
	classTypes   = []string{string(gatewayv1.GatewayClassConditionStatusAccepted), string(gatewayv1.GatewayClassConditionStatusSupportedVersion)}
	gatewayTypes = []string{
		string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayConditionResolvedRefs),
		string(gatewayv1.GatewayConditionInsecureFrontendValidationMode), "DefaultGateway", compile.CertificatesIssued,
	}
	setTypes      = []string{string(gatewayv1.ListenerSetConditionAccepted), string(gatewayv1.ListenerSetConditionProgrammed), compile.CertificatesIssued}
	listenerTypes = []string{
		string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerConditionProgrammed), string(gatewayv1.ListenerConditionResolvedRefs),
		string(gatewayv1.ListenerConditionConflicted), string(gatewayv1.ListenerConditionOverlappingTLSConfig),
	}
	ancestorTypes = []string{string(gatewayv1.PolicyConditionAccepted), string(gatewayv1.BackendTLSPolicyConditionResolvedRefs)}
	parentTypes   = []string{string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteConditionResolvedRefs), string(gatewayv1.RouteConditionPartiallyInvalid)}
)

// Merge returns have with the conditions of want put into it: each takes the place of the one of its type or comes last. All others stay as and where they are.
//
// LastTransitionTime is Merge's to decide: it stays as long as the status of a condition stays, and is now when that changes or when the condition is new. What
// want says about it is ignored. A condition in have that was made from a later generation than the one in want stays too: whoever wrote it knows more.
//
// Neither argument is modified. When there is nothing to change, have itself is returned.
func Merge(have, want []metav1.Condition, now metav1.Time) []metav1.Condition {
	out, cloned := have, false
	for j := range want {
		w := &want[j]
		if hasType(want[j+1:], w.Type) {
			continue // the last one counts
		}
		i := indexOf(out, w.Type)
		if i >= 0 && settled(&out[i], w) {
			continue
		}
		merged := newCondition(*w, now)
		if i >= 0 {
			if merged = mergeCondition(out[i], *w, now); merged == out[i] {
				continue
			}
		}
		if !cloned {
			out, cloned = slices.Grow(slices.Clone(have), len(want)), true
		}
		if i >= 0 {
			out[i] = merged
		} else {
			out = append(out, merged)
		}
	}
	return out
}

// settled tells whether h surely is what w says. It is the quick answer for what is so nearly always.
func settled(h, w *metav1.Condition) bool {
	return h.Status == w.Status && h.ObservedGeneration == w.ObservedGeneration && h.Reason == w.Reason && h.Message == w.Message && hasTransitioned(h)
}

// hasTransitioned tells whether the time in a condition means something. Those that the API server puts in by default are from 1970.
func hasTransitioned(h *metav1.Condition) bool { return h.LastTransitionTime.Unix() > 0 }

func newCondition(w metav1.Condition, now metav1.Time) metav1.Condition {
	w.LastTransitionTime = now
	w.Message = shorten(w.Message, maxMessage)
	return w
}

// mergeCondition returns what becomes of h when w is what it should be.
func mergeCondition(h, w metav1.Condition, now metav1.Time) metav1.Condition {
	if h.ObservedGeneration > w.ObservedGeneration {
		return h
	}
	w = newCondition(w, now)
	if h.Status == w.Status && hasTransitioned(&h) {
		w.LastTransitionTime = h.LastTransitionTime
	}
	return w
}

// shorten cuts s down to as many characters as the API takes.
func shorten(s string, limit int) string {
	if len(s) <= limit || utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}

// conditions notes what turns the conditions at path, which are have now, into what they should be. Of the types in ours, those that want does not have are
// removed. The object that have was read from has the given generation.
func (c *change) conditions(path string, have, want []metav1.Condition, ours []string, generation int64) {
	if len(have) == 0 {
		if len(want) > 0 {
			c.set(path, Merge(nil, want, c.now))
		}
		return
	}
	merged := Merge(believable(have, want, generation), want, c.now)
	var stale []int
	for i := range have {
		switch {
		case slices.Contains(ours, have[i].Type) && !hasType(want, have[i].Type):
			stale = append(stale, i)
		case &merged[0] != &have[0] && merged[i] != have[i]:
			c.replace(path, i, merged[i])
		}
	}
	added := merged[len(have):]
	if room := max(0, maxConditions-len(have)+len(stale)); len(added) > room {
		c.complain(path, "TooManyConditions", "the conditions of others take so much room that there is none for %s", added[room].Type)
		added = added[:room]
	}
	for _, a := range added {
		c.append(path, a)
	}
	c.remove(path, stale)
}

// indexOf returns where in list the condition of a type is, or -1.
func indexOf(list []metav1.Condition, typ string) int {
	for i := range list {
		if list[i].Type == typ {
			return i
		}
	}
	return -1
}

func hasType(list []metav1.Condition, typ string) bool { return indexOf(list, typ) >= 0 }

// believable returns have without the claim of a condition that want has, too, to have seen a later generation than the object has: such an object was restored
// from a backup, and the claim would keep the condition as it is for a long time.
func believable(have, want []metav1.Condition, generation int64) []metav1.Condition {
	out, cloned := have, false
	for i := range have {
		if have[i].ObservedGeneration <= generation || !hasType(want, have[i].Type) {
			continue
		}
		if !cloned {
			out, cloned = slices.Clone(have), true
		}
		out[i].ObservedGeneration = 0
	}
	return out
}
