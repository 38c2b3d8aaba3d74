package compile

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// newSlice makes an EndpointSlice of IPv4 addresses with one port.
func newSlice(name string, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints:   endpoints,
	}
}

func at(address string) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address}}
}

// pod is an endpoint that stands for a pod.
func pod(name, address string) discoveryv1.Endpoint {
	ep := at(address)
	ep.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: name, ResourceVersion: address}
	return ep
}

// when sets conditions: each letter is ready, serving or terminating if true, upper case if false; what is not named is not set.
func when(conditions string, ep discoveryv1.Endpoint) discoveryv1.Endpoint {
	for _, letter := range conditions {
		v := letter >= 'a'
		switch letter {
		case 'r', 'R':
			ep.Conditions.Ready = &v
		case 's', 'S':
			ep.Conditions.Serving = &v
		case 't', 'T':
			ep.Conditions.Terminating = &v
		}
	}
	return ep
}

func TestEndpoints(t *testing.T) {
	named := newService(webKey, corev1.ServicePort{Port: 80, Name: "http"}, corev1.ServicePort{Port: 9090, Name: "metrics"})
	plain := newService(webKey, corev1.ServicePort{Port: 80})
	eager := newService(webKey, corev1.ServicePort{Port: 80})
	eager.Spec.PublishNotReadyAddresses = true
	six := newService(webKey, corev1.ServicePort{Port: 80})
	six.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	udp := corev1.ProtocolUDP
	zone, node := "eu-1a", "node-7"
	inZone := at("10.0.0.1")
	inZone.Zone, inZone.NodeName = &zone, &node
	v6 := func(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := newSlice("", 8080, endpoints...)
		s.AddressType = discoveryv1.AddressTypeIPv6
		return s
	}
	fqdn := newSlice("", 8080, at("B.example.com"), at("a_b"), at("10.0.0.9"))
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	unreadyName := newSlice("", 8080, when("R", at("c.example.com")))
	unreadyName.AddressType = discoveryv1.AddressTypeFQDN
	type slices = []*discoveryv1.EndpointSlice
	edit := func(s *discoveryv1.EndpointSlice, f func(*discoveryv1.EndpointPort)) *discoveryv1.EndpointSlice {
		f(&s.Ports[0])
		return s
	}
	tests := []struct {
		name    string
		service *corev1.Service
		slices  slices
		opt     Options
		want    []string
	}{
		{"none", plain, nil, Options{}, nil},
		{"no Service", nil, slices{newSlice("", 8080, at("10.0.0.1"))}, Options{}, nil},
		{"sorted as numbers", plain, slices{newSlice("", 8080, at("10.0.0.10"), at("10.0.0.9"), at("9.0.0.1"))}, Options{}, []string{"9.0.0.1:8080", "10.0.0.9:8080", "10.0.0.10:8080"}},
		{"several slices, each with a port of its own", plain, slices{newSlice("", 8080, at("10.0.0.2")), newSlice("", 3000, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:3000", "10.0.0.2:8080"}},
		{"the port by its name", named, slices{newSlice("metrics", 9090, at("10.0.0.1")), newSlice("http", 8080, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080"}},
		{"not the port by its number", named, slices{newSlice("", 80, at("10.0.0.1")), newSlice("metrics", 80, at("10.0.0.2"))}, Options{}, nil},
		{"no port name", plain, slices{edit(newSlice("", 8080, at("10.0.0.1")), func(p *discoveryv1.EndpointPort) { p.Name = nil })}, Options{}, []string{"10.0.0.1:8080"}},
		{"no port number", plain, slices{edit(newSlice("", 8080, at("10.0.0.1")), func(p *discoveryv1.EndpointPort) { p.Port = nil })}, Options{}, nil},
		{"impossible port number", plain, slices{newSlice("", 0, at("10.0.0.1")), newSlice("", -1, at("10.0.0.1")), newSlice("", 65536, at("10.0.0.1"))}, Options{}, nil},
		{"UDP port", plain, slices{edit(newSlice("", 8080, at("10.0.0.1")), func(p *discoveryv1.EndpointPort) { p.Protocol = &udp })}, Options{}, nil},
		{"no ports", plain, slices{{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{at("10.0.0.1")}}}, Options{}, nil},
		{"nil slice", plain, slices{nil, newSlice("", 8080, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080"}},

		// ready: A nil value should be interpreted as "true".
		{"conditions missing", plain, slices{newSlice("", 8080, at("10.0.0.1"), when("r", at("10.0.0.2")), when("R", at("10.0.0.3")))}, Options{}, []string{"10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080 unready"}},
		{"ready before terminating", plain, slices{newSlice("", 8080, when("Rst", at("10.0.0.1")), when("rsT", at("10.0.0.2")))}, Options{}, []string{"10.0.0.2:8080"}},
		{"terminating if none is ready", plain, slices{newSlice("", 8080, when("Rst", at("10.0.0.1")), when("RSt", at("10.0.0.2")), when("RsT", at("10.0.0.3")), when("Rt", at("10.0.0.4")))}, Options{}, []string{
			"10.0.0.1:8080 terminating",
		}},
		{"none is of use", plain, slices{newSlice("", 8080, when("RST", at("10.0.0.1")), when("RSt", at("10.0.0.2")))}, Options{}, []string{"10.0.0.1:8080 unready"}},
		{"unready after ready, names not at all", plain, slices{newSlice("", 8080, when("RS", at("10.0.0.1")), when("R", at("10.0.0.0")), at("10.0.0.2")), unreadyName}, Options{AllowExternalName: true}, []string{"10.0.0.2:8080", "10.0.0.0:8080 unready", "10.0.0.1:8080 unready"}},
		// publishNotReadyAddresses indicates that any agent which deals with endpoints for this Service should disregard any indications of ready/not-ready.
		{"publishNotReadyAddresses", eager, slices{newSlice("", 8080, when("RST", at("10.0.0.1")), when("r", at("10.0.0.2")))}, Options{}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}},

		{"the same address in two slices", plain, slices{newSlice("", 8080, at("10.0.0.1")), newSlice("", 8080, inZone, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080 eu-1a node-7"}},
		{"ready in one slice, not in another", plain, slices{newSlice("", 8080, when("R", at("10.0.0.1"))), newSlice("", 8080, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080", "10.0.0.1:8080 unready"}},
		{"the same address with two ports", plain, slices{newSlice("", 8080, at("10.0.0.1")), newSlice("", 8081, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080", "10.0.0.1:8081"}},
		// No semantics are defined for additional addresses beyond the first.
		{"more addresses", plain, slices{newSlice("", 8080, discoveryv1.Endpoint{Addresses: []string{"10.0.0.1", "10.0.0.2"}})}, Options{}, []string{"10.0.0.1:8080"}},
		{"useless addresses", plain, slices{newSlice("", 8080, discoveryv1.Endpoint{}, at(""), at("nonsense"), at("0.0.0.0"), at("::"), at("224.0.0.1"), at("fe80::1%eth0"), at("10.0.0.1"), at("10.0.0.2:80"))}, Options{}, []string{
			"10.0.0.1:8080",
		}},
		{"IPv6", plain, slices{v6(at("2001:DB8:0::1"))}, Options{}, []string{"[2001:db8::1]:8080"}},
		{"IPv4 in IPv6", plain, slices{v6(at("::ffff:10.0.0.1")), newSlice("", 8080, at("10.0.0.1"))}, Options{}, []string{"10.0.0.1:8080"}},
		{"both families, the same pods", plain, slices{newSlice("", 8080, pod("a", "10.0.0.1"), pod("b", "10.0.0.2")), v6(pod("a", "2001:db8::1"), pod("b", "2001:db8::2"))}, Options{}, []string{
			"10.0.0.1:8080", "10.0.0.2:8080",
		}},
		{"both families, IPv6 first", six, slices{newSlice("", 8080, pod("a", "10.0.0.1")), v6(pod("a", "2001:db8::1"))}, Options{}, []string{"[2001:db8::1]:8080"}},
		{"both families, different pods", plain, slices{newSlice("", 8080, pod("a", "10.0.0.1"), at("10.0.0.3")), v6(pod("b", "2001:db8::1"), at("2001:db8::3"))}, Options{}, []string{
			"10.0.0.1:8080", "10.0.0.3:8080", "[2001:db8::1]:8080", "[2001:db8::3]:8080",
		}},
		{"names", plain, slices{fqdn}, Options{}, nil},
		{"names, if allowed", plain, slices{fqdn, newSlice("", 8080, at("10.0.0.1"))}, Options{AllowExternalName: true}, []string{"10.0.0.1:8080", "b.example.com:8080 dns"}},

		{"ExternalName", externalService("Example.COM.", corev1.ServicePort{Port: 80}), nil, Options{AllowExternalName: true}, []string{"example.com:80 dns"}},
		{"ExternalName without ports", externalService("example.com"), nil, Options{AllowExternalName: true}, []string{"example.com:80 dns"}},
		{"ExternalName with another port", externalService("example.com", corev1.ServicePort{Port: 81}), nil, Options{AllowExternalName: true}, nil},
		{"ExternalName not allowed", externalService("example.com"), nil, Options{}, nil},
		{"ExternalName is an address", externalService("127.0.0.1"), nil, Options{AllowExternalName: true}, nil},
		{"ExternalName with slices", externalService("example.com"), slices{newSlice("", 8080, at("10.0.0.1"))}, Options{AllowExternalName: true}, []string{"example.com:80 dns"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := withService(tt.service)
			in.EndpointSlices = map[object.Key][]*discoveryv1.EndpointSlice{webKey: tt.slices, {Namespace: "bank", Name: "web"}: {newSlice("", 8080, at("10.9.9.9"))}}
			key := route.PoolKey{Namespace: "shop", Service: "web", Port: 80}
			all := Endpoints(in, tt.opt, []route.PoolKey{key})
			if _, ok := all[key]; !ok || len(all) != 1 {
				t.Errorf("pools = %v, want exactly %v", all, key)
			}
			var got []string
			for _, e := range all[key] {
				got = append(got, endpointText(e))
			}
			if diff := gocmp.Diff(tt.want, got); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
		})
	}
}

func endpointText(e route.Endpoint) string {
	s := e.Address
	if e.DNS {
		s += " dns"
	}
	if e.Terminating {
		s += " terminating"
	}
	if e.Unready {
		s += " unready"
	}
	if e.Zone != "" || e.Node != "" {
		s += " " + e.Zone + " " + e.Node
	}
	return s
}

func TestEndpointsDoNotModifyTheSnapshot(t *testing.T) {
	slice := newSlice("", 8080, at("10.0.0.2"), at("10.0.0.1"), at("10.0.0.2"))
	before := slice.DeepCopy()
	in := withService(newService(webKey, corev1.ServicePort{Port: 80}))
	in.EndpointSlices = map[object.Key][]*discoveryv1.EndpointSlice{webKey: {slice}}
	Endpoints(in, Options{}, []route.PoolKey{{Namespace: "shop", Service: "web", Port: 80}})
	if diff := gocmp.Diff(before, slice); diff != "" {
		t.Errorf("slice changed (-before +after):\n%s", diff)
	}
}

// BenchmarkEndpoints asks for 1,000 pools of 10 endpoints each.
func BenchmarkEndpoints(b *testing.B) {
	in := &object.Snapshot{Services: map[object.Key]*corev1.Service{}, EndpointSlices: map[object.Key][]*discoveryv1.EndpointSlice{}}
	var pools []route.PoolKey
	for i := range 1000 {
		key := object.Key{Namespace: "ns", Name: fmt.Sprintf("svc-%d", i)}
		in.Services[key] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		slice := newSlice("", 8080)
		for j := range 10 {
			slice.Endpoints = append(slice.Endpoints, when("rsT", pod(fmt.Sprintf("pod-%d", j), fmt.Sprintf("10.%d.%d.%d", i/250, i%250, (j*7)%10))))
		}
		in.EndpointSlices[key] = []*discoveryv1.EndpointSlice{slice}
		pools = append(pools, route.PoolKey{Namespace: key.Namespace, Service: key.Name, Port: 80})
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := Endpoints(in, Options{}, pools); len(got) != len(pools) {
			b.Fatal(len(got))
		}
	}
}
