package compile

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// findOverlaps finds HTTPS listeners of one bind whose hostnames or certificates overlap. That is allowed, the more specific hostname gets the request, but clients
// that reuse a connection for another name may meet the wrong listener (GEP-3567), so that their status says so.
func findOverlaps(gateways []*gateway) {
	for _, same := range sharedBinds(gateways) {
		overlappingHostnames(same)
		overlappingCertificates(same)
	}
}

// sharedBinds returns the HTTPS listeners that are open, those of one bind together.
func sharedBinds(gateways []*gateway) (groups [][]*listener) {
	number := make(map[route.Bind]int)
	for _, g := range gateways {
		for _, l := range g.listeners {
			if l.protocol != route.HTTPS || len(l.open) == 0 {
				continue
			}
			for _, address := range g.binds {
				bind := route.Bind{Address: address, Port: l.port}
				n, known := number[bind]
				if !known {
					n = len(groups)
					number[bind], groups = n, append(groups, nil)
				}
				groups[n] = append(groups[n], l)
			}
		}
	}
	return groups
}

// overlappingHostnames marks each listener with a hostname that is part of another's, and the other.
func overlappingHostnames(same []*listener) {
	hostnames := make(map[string]*listener, len(same))
	for _, l := range same {
		hostnames[l.hostname] = l
	}
	for _, l := range same {
		for name := range wider(l.hostname) {
			if other := hostnames[name]; other != nil {
				noteOverlap(&l.overlap.hostname, l, other)
				noteOverlap(&other.overlap.hostname, other, l)
			}
		}
	}
}

// overlappingCertificates marks the listeners that present certificates for a name in common: a client that was shown one of them may send requests for the
// hosts of the other on the same connection. A wildcard of a certificate stands for one label (RFC 6125 section 6.4.3).
func overlappingCertificates(same []*listener) {
	bearers := make(map[string][]*listener)
	for _, l := range same {
		for _, name := range slices.Compact(slices.Sorted(slices.Values(l.certified))) {
			bearers[name] = append(bearers[name], l)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(bearers)) {
		markBearers(bearers[name], bearers[name])
		if _, parent, _ := strings.Cut(name, "."); !strings.HasPrefix(name, "*") {
			markBearers(bearers[name], bearers["*."+parent])
			markBearers(bearers["*."+parent], bearers[name])
		}
	}
}

// markBearers marks each of some listeners, unless it is marked already, with the first of others that is not itself.
func markBearers(some, others []*listener) {
	for _, l := range some {
		if i := slices.IndexFunc(others, func(o *listener) bool { return o != l }); i >= 0 {
			noteOverlap(&l.overlap.certificate, l, others[i])
		}
	}
}

// noteOverlap remembers the first listener that another overlaps with.
func noteOverlap(with *string, l, other *listener) {
	if *with == "" {
		*with = other.toldTo(l.parent)
	}
}

// overlap names another listener of its port that a listener overlaps with, "" when there is none.
type overlap struct{ hostname, certificate string }

// condition says with what a listener overlaps; nil when it does not, for the condition must not be there then. Of two reasons the certificate is the one to give.
func (o overlap) condition(generation int64) *metav1.Condition {
	c := metav1.Condition{Type: string(gatewayv1.ListenerConditionOverlappingTLSConfig), Status: metav1.ConditionTrue, ObservedGeneration: generation}
	switch {
	case o.certificate != "":
		c.Reason, c.Message = string(gatewayv1.ListenerReasonOverlappingCertificates), "its certificates have a name in common with those of "+o.certificate
	case o.hostname != "":
		c.Reason, c.Message = string(gatewayv1.ListenerReasonOverlappingHostnames), "its hostname overlaps with that of "+o.hostname
	default:
		return nil
	}
	return &c
}

// wider yields the wildcards that stand for hostname and more, and then the empty hostname, which stands for all.
func wider(hostname string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if hostname == "" {
			return
		}
		rest := strings.TrimPrefix(hostname, "*")
		rest = strings.TrimPrefix(rest, ".")
		for {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				break
			}
			if !yield("*" + rest[dot:]) {
				return
			}
			rest = rest[dot+1:]
		}
		yield("")
	}
}
