package compile

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// endpointWeight gives endpoints a weight. Endpoints are chosen by what an EndpointSlice says of them: a Service's author knows no addresses, and pods do not say
// themselves what share they should have, because Fairlead reads no pods.
type endpointWeight struct {
	by      string // pod, zone, node or address
	pattern string
	weight  int32
}

// maxEndpointWeight is that of IPVS.
const maxEndpointWeight = 65535

// parseWeights reads "pod:web-canary-*=1, zone:eu-1a=3". Of several that fit an endpoint the first counts. A part that is wrong is an error and nothing else.
func parseWeights(text string) (out []endpointWeight, errs []error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		w, err := parseWeight(part)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, w)
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("nothing has a weight; a weight is like pod:web-canary-*=1, zone:NAME=2, node:NAME=3 or address:10.0.0.1=4"))
	}
	return out, errs
}

func parseWeight(part string) (w endpointWeight, err error) {
	i := strings.LastIndexByte(part, '=')
	by, pattern, ok := strings.Cut(part[:max(i, 0)], ":")
	w = endpointWeight{by: by, pattern: pattern}
	known := by == "pod" || by == "zone" || by == "node" || by == "address"
	if !ok || !known || pattern == "" {
		return w, fmt.Errorf("%.64q is not like pod:web-canary-*=1, zone:NAME=2, node:NAME=3 or address:10.0.0.1=4", part)
	}
	n, err := strconv.ParseInt(part[i+1:], 10, 32)
	if err != nil || n < 1 || n > maxEndpointWeight {
		return w, fmt.Errorf("the weight of %.64q is not between 1 and %d", part, maxEndpointWeight)
	}
	w.weight = int32(n)
	if by == "address" {
		a, err := netip.ParseAddr(pattern)
		if err != nil {
			return w, fmt.Errorf("%.64q is no address", pattern)
		}
		w.pattern = a.Unmap().String()
	}
	if _, err := path.Match(w.pattern, ""); err != nil {
		return w, fmt.Errorf("the pattern %.64q is malformed: * stands for any characters", pattern)
	}
	return w, nil
}

// weigh returns the weight of an endpoint, and 0 if nothing is said of it.
func weigh(weights []endpointWeight, x *endpoint) int32 {
	for _, w := range weights {
		if has := w.of(x); has == "" {
			continue
		} else if ok, _ := path.Match(w.pattern, has); ok {
			return w.weight
		}
	}
	return 0
}

// of is what of an endpoint the pattern is for.
func (w endpointWeight) of(x *endpoint) string {
	switch {
	case w.by == "zone":
		return x.zone
	case w.by == "node":
		return x.node
	case w.by == "pod" && x.target != nil && x.target.Kind == "Pod":
		return x.target.Name
	case w.by == "address" && x.name == "":
		return x.addr.String()
	}
	return ""
}
