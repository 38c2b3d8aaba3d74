package compile

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Which nodes are shown is in the golden files; how many of them is here.
func TestAddressesOfManyNodes(t *testing.T) {
	c := &compiler{in: &object.Snapshot{Nodes: map[string]*corev1.Node{"nil": nil}}}
	nodes := map[string]bool{"unknown": true, "nil": true}
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		nodes[name] = true
		c.in.Nodes[name] = &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", i/2)}, {Type: corev1.NodeInternalIP, Address: "no address"},
		}}}
	}
	got := c.addressesOf(nodes, nil)
	if len(got) != maxNodeAddresses || got[0] != "10.0.0.0" || got[1] != "10.0.0.1" {
		t.Errorf("got %v", got)
	}
	c.opt.PublishNodes = true
	if got := c.addresses(&corev1.Service{}, corev1.ServiceTypeNodePort); len(got) != maxNodeAddresses {
		t.Errorf("when no node says that it is ready: got %v", got)
	}
}

// When only EndpointSlices change, the table need not be compiled again, unless they tell that a pod of Fairlead is on another node.
func TestSameAddresses(t *testing.T) {
	slice := func(namespace, service string) (object.Key, *discoveryv1.EndpointSlice) {
		return object.Key{Namespace: namespace, Name: service}, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service}}
	}
	snapshot := func(service object.Key, s *discoveryv1.EndpointSlice) *object.Snapshot {
		return &object.Snapshot{
			Services:       map[object.Key]*corev1.Service{service: {}},
			EndpointSlices: map[object.Key][]*discoveryv1.EndpointSlice{service: {s}},
		}
	}
	admin := object.Key{Namespace: "fairlead", Name: "admin"}
	host, nodePorts := Options{Namespace: "fairlead", HostService: admin}, Options{Namespace: "fairlead", PublishNodes: true}
	for _, tt := range []struct {
		opt                Options
		namespace, service string
		want               bool
	}{
		{Options{Namespace: "fairlead"}, "fairlead", "admin", true},
		{host, "fairlead", "admin", false},
		{host, "shop", "web", true},
		{nodePorts, "fairlead", "gw-web", false},
		{nodePorts, "shop", "web", true},
		{Options{PublishNodes: true, PublishService: object.Key{Namespace: "edge", Name: "front"}}, "edge", "front", false},
	} {
		key, first := slice(tt.namespace, tt.service)
		_, second := slice(tt.namespace, tt.service)
		if !SameAddresses(snapshot(key, first), snapshot(key, first), tt.opt) {
			t.Errorf("%s: the same slices have the same addresses", key)
		}
		if got := SameAddresses(snapshot(key, first), snapshot(key, second), tt.opt); got != tt.want {
			t.Errorf("%s with %+v: got %v", key, tt.opt, got)
		}
	}
}
