package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// The controllers of the classes that are implied.
const (
	gatewayController = "fairlead.io/gateway-controller"
	ingressController = "fairlead.io/ingress-controller"
)

// builder makes one snapshot.
type builder struct {
	snap    *object.Snapshot
	held    map[object.Ref]placed
	before  map[object.Ref]placed // what the last snapshot held
	refused map[refusal]bool
	issues  []Issue
}

// assemble makes the snapshot and the issues from what was read.
func (r *reader) assemble() {
	n := len(r.held)
	b := &builder{
		snap: &object.Snapshot{
			Namespaces:              map[string]*corev1.Namespace{},
			Services:                map[object.Key]*corev1.Service{},
			Secrets:                 map[object.Key]*corev1.Secret{},
			ConfigMaps:              map[object.Key]*corev1.ConfigMap{},
			IngressClasses:          map[string]*networkingv1.IngressClass{},
			Ingresses:               map[object.Key]*networkingv1.Ingress{},
			GatewayClasses:          map[string]*gatewayv1.GatewayClass{},
			Gateways:                map[object.Key]*gatewayv1.Gateway{},
			ListenerSets:            map[object.Key]*gatewayv1.ListenerSet{},
			HTTPRoutes:              map[object.Key]*gatewayv1.HTTPRoute{},
			GRPCRoutes:              map[object.Key]*gatewayv1.GRPCRoute{},
			TLSRoutes:               map[object.Key]*gatewayv1.TLSRoute{},
			TCPRoutes:               map[object.Key]*gatewayv1.TCPRoute{},
			UDPRoutes:               map[object.Key]*gatewayv1.UDPRoute{},
			ReferenceGrants:         map[object.Key]*gatewayv1.ReferenceGrant{},
			BackendTLSPolicies:      map[object.Key]*gatewayv1.BackendTLSPolicy{},
			XBackendTrafficPolicies: map[object.Key]*gatewayx.XBackendTrafficPolicy{},
			XBackends:               map[object.Key]*gatewayx.XBackend{},
			EndpointSlices:          map[object.Key][]*discoveryv1.EndpointSlice{},
			Origins:                 make(map[object.Ref]string, n),
		},
		held:    make(map[object.Ref]placed, n),
		before:  r.held,
		refused: map[refusal]bool{},
		issues:  slices.Clone(r.walked),
	}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		b.file(r.files[name], r.refused)
	}
	for _, p := range b.held {
		b.put(p)
	}
	b.backends(r.opt.Backends)
	b.implied(r.opt.Class)
	for _, list := range b.snap.EndpointSlices {
		slices.SortFunc(list, func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	}
	r.snap, r.held, r.refused, r.issues = b.snap, b.held, b.refused, sortIssues(b.issues)
}

// file takes the objects of one file. Files come in the order of their names; the first one to declare an object keeps it.
func (b *builder) file(f *file, refusedBefore map[refusal]bool) {
	b.issues = append(b.issues, f.issues...)
	for i := range f.entries {
		e := &f.entries[i]
		have, taken := b.held[e.ref]
		switch {
		case !taken || have.kept && !refusedBefore[refusal{f.path, e.ref}]:
			// The version that is kept for a broken document gives way to a good one, unless the good one had lost to it before.
			e.object = b.same(e.ref, e.object)
			b.held[e.ref] = *e
		default:
			b.refuse(f, *e)
		}
	}
	for _, e := range f.kept {
		if _, taken := b.held[e.ref]; !taken {
			b.held[e.ref] = e
		}
	}
}

func (b *builder) refuse(f *file, e placed) {
	b.refused[refusal{f.path, e.ref}] = true
	b.issues = append(b.issues, Issue{
		File: f.path, Line: e.line, Object: e.ref, Fatal: true,
		Message: fmt.Sprintf("already declared at %s; this one is not used", b.held[e.ref].origin),
	})
}

// same returns the object that the last snapshot held if it is equal, so that who compares pointers sees no change.
func (b *builder) same(ref object.Ref, o metav1.Object) metav1.Object {
	if old, ok := b.before[ref]; ok && old.object != o && reflect.DeepEqual(old.object, o) {
		return old.object
	}
	return o
}

// add puts an object that no file declares into the snapshot. origin may be empty.
func (b *builder) add(e entry, origin string) {
	p := placed{ref: e.ref, object: b.same(e.ref, e.object), origin: origin, implied: true}
	b.held[e.ref] = p
	b.put(p)
}

// put puts an object into the map of its kind.
func (b *builder) put(p placed) { //nolint:gocyclo // one case for each kind
	s := b.snap
	if p.origin != "" {
		s.Origins[p.ref] = p.origin
	}
	key := p.ref.Key()
	switch o := p.object.(type) {
	case *corev1.Namespace:
		s.Namespaces[key.Name] = o
	case *corev1.Service:
		s.Services[key] = o
	case *corev1.Secret:
		s.Secrets[key] = o
	case *corev1.ConfigMap:
		s.ConfigMaps[key] = o
	case *networkingv1.IngressClass:
		s.IngressClasses[key.Name] = o
	case *networkingv1.Ingress:
		s.Ingresses[key] = o
	case *gatewayv1.GatewayClass:
		s.GatewayClasses[key.Name] = o
	case *gatewayv1.Gateway:
		s.Gateways[key] = o
	case *gatewayv1.ListenerSet:
		s.ListenerSets[key] = o
	case *gatewayv1.HTTPRoute:
		s.HTTPRoutes[key] = o
	case *gatewayv1.GRPCRoute:
		s.GRPCRoutes[key] = o
	case *gatewayv1.TLSRoute:
		s.TLSRoutes[key] = o
	case *gatewayv1.TCPRoute:
		s.TCPRoutes[key] = o
	case *gatewayv1.UDPRoute:
		s.UDPRoutes[key] = o
	case *gatewayv1.ReferenceGrant:
		s.ReferenceGrants[key] = o
	case *gatewayv1.BackendTLSPolicy:
		s.BackendTLSPolicies[key] = o
	case *gatewayx.XBackendTrafficPolicy:
		s.XBackendTrafficPolicies[key] = o
	case *gatewayx.XBackend:
		s.XBackends[key] = o
	case *discoveryv1.EndpointSlice:
		if name := o.Labels[discoveryv1.LabelServiceName]; name != "" {
			of := object.Key{Namespace: key.Namespace, Name: name}
			s.EndpointSlices[of] = append(s.EndpointSlices[of], o)
		}
	}
}

// implied adds what a short folder leaves out: the classes, and the namespaces that its objects are in.
func (b *builder) implied(class string) {
	if len(b.snap.GatewayClasses) == 0 {
		c := &gatewayv1.GatewayClass{}
		c.Name = class
		c.Spec.ControllerName = gatewayController
		b.imply(kindGatewayClass, c)
	}
	if len(b.snap.IngressClasses) == 0 {
		c := &networkingv1.IngressClass{}
		c.Name = class
		c.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
		c.Spec.Controller = ingressController
		b.imply(kindIngressClass, c)
	}
	missing := map[string]bool{}
	for ref := range b.held {
		if ref.Namespace != "" && b.snap.Namespaces[ref.Namespace] == nil {
			missing[ref.Namespace] = true
		}
	}
	for name := range missing {
		n := &corev1.Namespace{}
		n.Name = name
		b.imply(kindNamespace, n)
	}
}

func (b *builder) imply(name string, o metav1.Object) {
	k := kindOf(name)
	setDefaults(o, k)
	b.add(entry{ref: k.ref(object.KeyOf(o)), object: o}, "")
}
