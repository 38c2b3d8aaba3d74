package compile

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// on puts an endpoint on a node in a zone, with the zones that it is meant for and, behind a slash, the nodes.
func on(node, zone, hints string, ep discoveryv1.Endpoint) discoveryv1.Endpoint {
	ep.NodeName, ep.Zone = &node, &zone
	zones, nodes, _ := strings.Cut(hints, "/")
	if hints == "" {
		return ep
	}
	ep.Hints = &discoveryv1.EndpointHints{}
	for z := range strings.FieldsSeq(zones) {
		ep.Hints.ForZones = append(ep.Hints.ForZones, discoveryv1.ForZone{Name: z})
	}
	for n := range strings.FieldsSeq(nodes) {
		ep.Hints.ForNodes = append(ep.Hints.ForNodes, discoveryv1.ForNode{Name: n})
	}
	return ep
}

func TestDistances(t *testing.T) {
	plain := []discoveryv1.Endpoint{on("n1", "a", "", at("10.0.0.1")), on("n2", "a", "", at("10.0.0.2")), on("n3", "b", "", at("10.0.0.3")), at("10.0.0.4")}
	hinted := []discoveryv1.Endpoint{on("n1", "a", "b", at("10.0.0.1")), on("n2", "a", "a c/n2", at("10.0.0.2")), on("n3", "b", "a/n1", at("10.0.0.3"))}
	nodes := []discoveryv1.Endpoint{on("n1", "a", "a/n2", at("10.0.0.1")), on("n2", "a", "a/n1", at("10.0.0.2")), on("n3", "b", "b/n3", at("10.0.0.3"))}
	partly := []discoveryv1.Endpoint{on("n1", "a", "b", at("10.0.0.1")), on("n2", "b", "", at("10.0.0.2"))}
	tests := []struct {
		name         string
		distribution string
		auto         bool
		node, zone   string
		endpoints    []discoveryv1.Endpoint
		want         string
	}{
		{"no preference", "", false, "n1", "a", plain, "0 0 0 0"},
		{"nobody knows where this is", "PreferSameZone", false, "", "", plain, "0 0 0 0"},
		{"same zone", "PreferSameZone", false, "n1", "a", plain, "0 0 1 1"},
		{"the old name", "PreferClose", false, "n1", "b", plain, "1 1 0 1"},
		{"same node, then zone", "PreferSameNode", false, "n1", "a", plain, "0 1 2 2"},
		{"same node without a zone", "PreferSameNode", false, "n3", "", plain, "2 2 0 2"},
		{"an unknown value", "PreferFast", false, "n1", "a", plain, "0 0 0 0"},
		{"hints that nobody asked for", "", false, "n1", "a", hinted, "0 0 0"},
		{"hints by annotation", "", true, "n1", "a", hinted, "1 0 0"},
		{"no hints by annotation", "", true, "n1", "a", plain, "0 0 0 0"},
		// as for kube-proxy, hints count only if every endpoint has one
		{"hints of some", "", true, "n1", "b", partly, "0 0"},
		{"zones by hints of some", "PreferSameZone", false, "n1", "b", partly, "1 0"},
		{"zones by hints", "PreferSameZone", false, "n1", "a", hinted, "1 0 0"},
		{"nodes by hints", "PreferSameNode", false, "n1", "a", nodes, "1 0 2"},
		{"a zone without hints for it", "PreferSameZone", false, "n9", "z", hinted, "1 1 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(webKey, corev1.ServicePort{Port: 80})
			if tt.distribution != "" {
				s.Spec.TrafficDistribution = &tt.distribution
			}
			if tt.auto {
				s.Annotations = map[string]string{corev1.AnnotationTopologyMode: "Auto"}
			}
			in := withService(s)
			in.EndpointSlices = map[object.Key][]*discoveryv1.EndpointSlice{webKey: {newSlice("", 8080, tt.endpoints...)}}
			key := route.PoolKey{Namespace: "shop", Service: "web", Port: 80}
			var got []string
			for _, ep := range Endpoints(in, Options{Node: tt.node, Zone: tt.zone}, []route.PoolKey{key})[key] {
				got = append(got, fmt.Sprint(ep.Distance))
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("distances are %s, want %s", text, tt.want)
			}
		})
	}
}

// The zone of this process is that of its node, as the slices of Fairlead's own namespace have it: anybody may write one in another namespace.
func TestZoneIsFoundInOwnNamespace(t *testing.T) {
	prefer := corev1.ServiceTrafficDistributionPreferSameZone
	s := newService(webKey, corev1.ServicePort{Port: 80})
	s.Spec.TrafficDistribution = &prefer
	in := withService(s)
	own := object.Key{Namespace: "fairlead", Name: "fairlead"}
	in.EndpointSlices = map[object.Key][]*discoveryv1.EndpointSlice{
		webKey: {newSlice("", 8080, on("n1", "b", "", at("10.0.0.1")), on("n2", "a", "", at("10.0.0.2")))},
		own:    {nil, newSlice("http", 8080, on("n9", "c", "", at("10.0.1.1")), on("n1", "a", "", at("10.0.1.2")))},
	}
	key := route.PoolKey{Namespace: "shop", Service: "web", Port: 80}
	for _, tt := range []struct {
		opt  Options
		want []uint8
	}{
		{Options{Node: "n1", Namespace: "fairlead"}, []uint8{1, 0}},
		{Options{Node: "n1", Zone: "b", Namespace: "fairlead"}, []uint8{0, 1}},
		{Options{Node: "n1"}, []uint8{0, 0}},
		{Options{Node: "n7", Namespace: "fairlead"}, []uint8{0, 0}},
	} {
		var got []uint8
		for _, ep := range Endpoints(in, tt.opt, []route.PoolKey{key})[key] {
			got = append(got, ep.Distance)
		}
		if diff := gocmp.Diff(tt.want, got); diff != "" {
			t.Errorf("node %s, zone %q (-want +got):\n%s", tt.opt.Node, tt.opt.Zone, diff)
		}
	}
}

func TestEndpointWeights(t *testing.T) {
	s := newService(webKey, corev1.ServicePort{Port: 80})
	s.Annotations = map[string]string{weightsAnnotation: " pod:web-canary-*=2, nonsense, zone:b=5,node:n3=7, address:::ffff:10.0.0.4=9, pod:*=3,"}
	in := withService(s)
	in.EndpointSlices = map[object.Key][]*discoveryv1.EndpointSlice{webKey: {newSlice("", 8080,
		on("n1", "b", "", pod("web-canary-x", "10.0.0.1")), on("n1", "b", "", pod("web-x", "10.0.0.2")), on("n3", "a", "", pod("web-y", "10.0.0.3")),
		on("n1", "a", "", at("10.0.0.4")), pod("web-z", "10.0.0.5"), at("10.0.0.6"))}}
	key := route.PoolKey{Namespace: "shop", Service: "web", Port: 80}
	var got []int32
	for _, ep := range Endpoints(in, Options{}, []route.PoolKey{key})[key] {
		got = append(got, ep.Weight)
	}
	// "*" stands for any name, and the last is no pod.
	if diff := gocmp.Diff([]int32{2, 5, 7, 9, 3, 0}, got); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}

func TestParsePolicy(t *testing.T) {
	tests := []struct {
		algorithm, key string
		want           string // the policy, or what the error says
	}{
		{"", "", ""},
		{"wrr", "", ""},
		{"nq", "", "never-queue"},
		{"consistent-hash", "cookie:user", "consistent-hash hash=cookie:user"},
		{"consistent-hash", "query:a b", `consistent-hash hash="query:a b"`},
		{"consistent-hash", "", "balancing.hashKey is of the algorithm consistent-hash, which needs one"},
		{"random", "path", "balancing.hashKey is of the algorithm consistent-hash, which needs one"},
		{"consistent-hash", "path:x", "path has no name"},
		{"consistent-hash", "header:a b", "must not contain"},
		{"consistent-hash", "cookie:", "is empty"},
		{"consistent-hash", "query:", "is empty"},
		{"best", "", "there are round-robin (rr, wrr), random"},
	}
	for _, tt := range tests {
		got, err := ParsePolicy(tt.algorithm, tt.key, 0)
		text := got.String()
		if err != nil {
			text = err.Error()
		}
		if text != tt.want && (err == nil || !strings.Contains(text, tt.want)) {
			t.Errorf("ParsePolicy(%q, %q) = %s, want %s", tt.algorithm, tt.key, text, tt.want)
		}
	}
	if _, err := ParsePolicy("", "", 2*maxSlowStart); err == nil {
		t.Error("a slow start of two hours was accepted")
	}
}
