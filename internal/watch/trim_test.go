package watch

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// full is the metadata of an object that was applied by kubectl and belongs to another.
func full() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: "x", GenerateName: "x-", UID: "u", ResourceVersion: "7", Generation: 3,
		Labels:          map[string]string{"a": "b", discoveryv1.LabelServiceName: "web"},
		Annotations:     map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "keep": "me"},
		OwnerReferences: []metav1.OwnerReference{{Name: "owner"}}, Finalizers: []string{"f"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
	}
}

// Of what is kept, nothing changes; the rest is gone.
func TestTrim(t *testing.T) {
	common := func() metav1.ObjectMeta {
		m := full()
		m.GenerateName, m.ManagedFields, m.Annotations = "", nil, map[string]string{"keep": "me"}
		return m
	}
	without := func(change func(*metav1.ObjectMeta)) metav1.ObjectMeta {
		m := common()
		m.OwnerReferences, m.Finalizers = nil, nil
		change(&m)
		return m
	}
	bare := func(m *metav1.ObjectMeta) { m.Annotations, m.Labels = nil, nil }
	status := gatewayv1.HTTPRouteStatus{RouteStatus: gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{{ControllerName: "example.com/other"}}}}
	ready, zone, node, name := true, "z", "n", "pod-1"
	tests := []struct {
		name     string
		in, want any
	}{
		{
			"Namespace", &corev1.Namespace{ObjectMeta: full(), Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: "Active"}},
			&corev1.Namespace{ObjectMeta: without(func(m *metav1.ObjectMeta) { m.Annotations = nil })},
		},
		{
			"Node", &corev1.Node{ObjectMeta: full(), Spec: corev1.NodeSpec{PodCIDR: "10.1.0.0/24"}, Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now()}},
				Images:     []corev1.ContainerImage{{Names: []string{"a"}}},
			}},
			&corev1.Node{ObjectMeta: without(bare), Status: corev1.NodeStatus{
				Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			}},
		},
		{
			"Node that is excluded", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelNodeExcludeBalancers: "yes", "a": "b"}}},
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}},
		},
		{
			"Service", &corev1.Service{ObjectMeta: full(), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}, Status: corev1.ServiceStatus{Conditions: []metav1.Condition{{}}, LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "1.2.3.4"}}}}},
			&corev1.Service{ObjectMeta: common(), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}, Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "1.2.3.4"}}}}},
		},
		{
			"Secret for TLS", &corev1.Secret{ObjectMeta: full(), Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": {1}, "tls.key": {2}, "ca.crt": {3}, "password": {4}}},
			&corev1.Secret{ObjectMeta: without(bare), Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": {1}, "tls.key": {2}, "ca.crt": {3}}},
		},
		{
			"other Secret", &corev1.Secret{ObjectMeta: full(), Type: "Opaque", Data: map[string][]byte{"tls.crt": {1}, "password": {4}}, StringData: map[string]string{"a": "b"}},
			&corev1.Secret{ObjectMeta: without(bare), Type: "Opaque"},
		},
		{
			"ConfigMap", &corev1.ConfigMap{ObjectMeta: full(), Data: map[string]string{"ca.crt": "x"}, BinaryData: map[string][]byte{"b": {1}}},
			&corev1.ConfigMap{ObjectMeta: without(bare), Data: map[string]string{"ca.crt": "x"}},
		},
		{
			"EndpointSlice", &discoveryv1.EndpointSlice{ObjectMeta: full(), Ports: []discoveryv1.EndpointPort{{Name: &name}}, Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1", "10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, Hostname: &name, NodeName: &node, Zone: &zone,
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "pod-1", UID: "u", ResourceVersion: "8"}, Hints: &discoveryv1.EndpointHints{},
			}}},
			&discoveryv1.EndpointSlice{
				ObjectMeta: without(func(m *metav1.ObjectMeta) {
					m.Annotations, m.Generation, m.Labels = nil, 0, map[string]string{discoveryv1.LabelServiceName: "web"}
				}),
				Ports: []discoveryv1.EndpointPort{{Name: &name}}, Endpoints: []discoveryv1.Endpoint{{
					Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &node, Zone: &zone,
					TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "pod-1"},
				}},
			},
		},
		{
			"EndpointSlice with hints", &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}, ForNodes: []discoveryv1.ForNode{{Name: "n"}}}}}},
			&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}, ForNodes: []discoveryv1.ForNode{{Name: "n"}}}}}},
		},
		{"EndpointSlice of nobody", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Endpoints: []discoveryv1.Endpoint{{}}}, &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{}}}},
		{
			"IngressClass", &networkingv1.IngressClass{ObjectMeta: full(), Spec: networkingv1.IngressClassSpec{Controller: "c"}},
			&networkingv1.IngressClass{ObjectMeta: without(func(*metav1.ObjectMeta) {}), Spec: networkingv1.IngressClassSpec{Controller: "c"}},
		},
		{
			"Ingress", &networkingv1.Ingress{ObjectMeta: full(), Status: networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{IP: "1.2.3.4"}}}}},
			&networkingv1.Ingress{ObjectMeta: common(), Status: networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{IP: "1.2.3.4"}}}}},
		},
		{"HTTPRoute", &gatewayv1.HTTPRoute{ObjectMeta: full(), Status: status}, &gatewayv1.HTTPRoute{ObjectMeta: common(), Status: status}},
		{"GRPCRoute", &gatewayv1.GRPCRoute{ObjectMeta: full(), Status: gatewayv1.GRPCRouteStatus(status)}, &gatewayv1.GRPCRoute{ObjectMeta: common(), Status: gatewayv1.GRPCRouteStatus(status)}},
		{
			"ReferenceGrant", &gatewayv1.ReferenceGrant{ObjectMeta: full(), Spec: gatewayv1.ReferenceGrantSpec{To: []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}}}},
			&gatewayv1.ReferenceGrant{ObjectMeta: without(bare), Spec: gatewayv1.ReferenceGrantSpec{To: []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}}}},
		},
		{
			"older ReferenceGrant", &gatewayv1beta1.ReferenceGrant{ObjectMeta: full(), Spec: gatewayv1.ReferenceGrantSpec{To: []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}}}},
			&gatewayv1.ReferenceGrant{ObjectMeta: without(bare), Spec: gatewayv1.ReferenceGrantSpec{To: []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}}}},
		},
		{"only kubectl's annotation", &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}}}, &gatewayv1.Gateway{}},
		{"no object", "x", "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // once is as good as twice
				got, err := trim(test.in)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Fatal(diff)
				}
				test.in = got
			}
		})
	}
}

// Every field that an API server may leave out can be missing.
func TestTrimEmpty(t *testing.T) {
	for _, o := range []runtime.Object{
		&corev1.Namespace{}, &corev1.Node{}, &corev1.Service{}, &corev1.Secret{}, &corev1.ConfigMap{}, &discoveryv1.EndpointSlice{}, &networkingv1.IngressClass{},
		&networkingv1.Ingress{}, &gatewayv1.GatewayClass{}, &gatewayv1.Gateway{}, &gatewayv1.HTTPRoute{}, &gatewayv1.ReferenceGrant{},
		&gatewayv1.TLSRoute{}, &gatewayv1.TCPRoute{}, &gatewayv1.UDPRoute{}, &gatewayx.XBackend{},
	} {
		want := o.DeepCopyObject()
		if got, err := trim(o); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%T: %v, %v", o, got, err)
		}
	}
}

func TestStoreRefusesWhatIsNoObject(t *testing.T) {
	s := &source{}
	if err := s.Add("x"); err == nil {
		t.Error("a string was added")
	}
	if err := s.Replace([]any{1}, ""); err == nil {
		t.Error("a number was stored")
	}
	if err := s.Resync(); err != nil {
		t.Error(err)
	}
}
