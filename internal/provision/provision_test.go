package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// clock is a clock that stands still until it is told not to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a cluster with one Gateway, and a Writer.
type fixture struct {
	*api
	*testing.T
	clock  *clock
	writer *Writer
	opt    compile.Options
}

var gatewayKey = object.Key{Namespace: "infra", Name: "gw"}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		api: newAPI(t), T: t, clock: &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		opt: compile.Options{Cluster: &compile.ClusterOptions{Namespace: "fairlead", Selector: map[string]string{"app": "fairlead"}}},
	}
	f.now = func() metav1.Time { return metav1.NewTime(f.clock.time()) }
	f.writer = f.api.writer(Options{Now: f.clock.time})
	f.gateway(gatewayKey, "uid-1", 80)
	return f
}

// gateway puts a Gateway there, or changes it.
func (f *fixture) gateway(key object.Key, uid types.UID, ports ...int32) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, UID: uid, Generation: 1}}
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.gateways[key]; have != nil && have.UID == uid {
		g.Generation = have.Generation + 1
	}
	g.Spec.GatewayClassName = "fairlead"
	for _, p := range ports {
		g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprintf("l%d", p)), Port: p, Protocol: gatewayv1.HTTPProtocolType})
	}
	f.gateways[key] = g
	return g
}

// see compiles what a watch would have seen by now.
func (f *fixture) see() compile.Infrastructure {
	in := f.snapshot()
	in.GatewayClasses = map[string]*gatewayv1.GatewayClass{"fairlead": {
		ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: compile.GatewayController},
	}}
	return compile.Compile(in, f.opt).Infrastructure
}

// apply applies what is seen, and returns the calls that this took.
func (f *fixture) apply() []string {
	f.Helper()
	if err := f.writer.Apply(f.Context(), f.see()); err != nil {
		f.Error(err)
	}
	return f.taken()
}

func (f *fixture) wantCalls(got []string, want ...string) {
	f.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		f.Errorf("calls (-want +got):\n%s", diff)
	}
}

// record returns the Service that leads to the Gateway.
func (f *fixture) record() *corev1.Service {
	f.Helper()
	for key, s := range f.snapshot().Services {
		if key.Namespace == "fairlead" {
			return s
		}
	}
	f.Fatal("no Service leads to the Gateway")
	return nil
}

var localKey = object.Key{Namespace: "infra", Name: "gw-fairlead"}

const (
	listCall   = "GET services fairlead/"
	createCall = "POST services fairlead/"
	createName = "POST services infra/"
)

func TestServicesAreMadeAndThenLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.wantCalls(f.apply(), listCall, createCall, createName)

	s := f.record()
	want := corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "fairlead"}, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
		ClusterIP: s.Spec.ClusterIP,
		Ports: []corev1.ServicePort{{
			Name: "http-80", Port: 80, TargetPort: intstr.FromInt32(20000), Protocol: corev1.ProtocolTCP, AppProtocol: new("http"), NodePort: s.Spec.Ports[0].NodePort,
		}},
	}
	if diff := gocmp.Diff(want, s.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	local := f.snapshot().Services[localKey]
	if got, want := local.Spec.ExternalName, s.Name+".fairlead.svc.cluster.local"; got != want || local.Spec.Type != corev1.ServiceTypeExternalName || local.Spec.Ports != nil {
		t.Errorf("the name in the Gateway's namespace is of type %s and stands for %s, want %s", local.Spec.Type, got, want)
	}
	if got := local.Labels[gatewayv1.GatewayNameLabelKey]; got != "gw" {
		t.Errorf("label %s is %q", gatewayv1.GatewayNameLabelKey, got)
	}
	for range 3 {
		f.wantCalls(f.apply())
	}
	f.gateway(gatewayKey, "uid-1", 80) // a new generation that asks for the same
	f.wantCalls(f.apply())
}

func TestOnlyTheDifferenceIsWritten(t *testing.T) {
	f := newFixture(t)
	f.apply()
	nodePort := f.record().Spec.Ports[0].NodePort
	patchCall := "PATCH services fairlead/" + f.record().Name + " "

	f.gateway(gatewayKey, "uid-1", 80, 8080)
	f.wantCalls(f.apply(), listCall, patchCall+fmt.Sprintf(`{"metadata":{"annotations":{"fairlead.io/gateway-generation":"2"}},"spec":{"ports":[`+
		`{"appProtocol":"http","name":"http-80","nodePort":%d,"port":80,"protocol":"TCP","targetPort":20000},`+
		`{"appProtocol":"http","name":"http-8080","port":8080,"protocol":"TCP","targetPort":20001}]}}`, nodePort))
	if got := f.record().Spec.Ports; got[0].NodePort != nodePort || got[1].NodePort == 0 {
		t.Errorf("node ports were not kept or given: %+v", got)
	}

	f.gateway(gatewayKey, "uid-1", 8080)
	f.apply()
	if got := f.record().Spec.Ports; len(got) != 1 || got[0].TargetPort.IntVal != 20001 {
		t.Errorf("the port of a listener that is gone was not removed: %+v", got)
	}

	// Labels and annotations come and go, and others stay.
	f.edit(object.KeyOf(f.record()), func(s *corev1.Service) { s.Labels["theirs"], s.Annotations["theirs"] = "yes", "yes" })
	g := f.gateway(gatewayKey, "uid-1", 8080)
	g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{
		Labels:      map[gatewayv1.LabelKey]gatewayv1.LabelValue{"team": "edge"},
		Annotations: map[gatewayv1.AnnotationKey]gatewayv1.AnnotationValue{"note": "a b"},
	}
	f.apply()
	for _, s := range []*corev1.Service{f.record(), f.snapshot().Services[localKey]} {
		if s.Labels["team"] != "edge" || s.Annotations["note"] != "a b" {
			t.Errorf("Service %s: labels %v, annotations %v", s.Name, s.Labels, s.Annotations)
		}
	}
	f.gateway(gatewayKey, "uid-1", 8080)
	f.apply()
	s := f.record()
	if _, ok := s.Labels["team"]; ok || s.Labels["theirs"] != "yes" || s.Annotations["note"] != "" || s.Annotations["theirs"] != "yes" {
		t.Errorf("labels %v, annotations %v", s.Labels, s.Annotations)
	}
	f.wantCalls(f.apply())
}

// A port of UDP and one of TCP with the same number are two ports: each keeps its node port and its bind when the other comes or goes.
func TestPortsOfBothProtocols(t *testing.T) {
	f := newFixture(t)
	listen := func(protocols ...gatewayv1.ProtocolType) {
		g := f.gateway(gatewayKey, "uid-1")
		for _, p := range protocols {
			g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{Name: gatewayv1.SectionName(strings.ToLower(string(p))), Port: 53, Protocol: p})
		}
	}
	listen(gatewayv1.TCPProtocolType)
	f.apply()
	first := f.record().Spec.Ports[0]
	if first.Protocol != corev1.ProtocolTCP || first.NodePort == 0 {
		t.Fatalf("got %+v", first)
	}

	listen(gatewayv1.UDPProtocolType, gatewayv1.TCPProtocolType)
	f.apply()
	both := f.record().Spec.Ports
	find := func(p corev1.Protocol) corev1.ServicePort {
		i := slices.IndexFunc(both, func(s corev1.ServicePort) bool { return s.Protocol == p })
		if i < 0 {
			t.Fatalf("no port of %s: %+v", p, both)
		}
		return both[i]
	}
	tcp, udp := find(corev1.ProtocolTCP), find(corev1.ProtocolUDP)
	if diff := gocmp.Diff(first, tcp); diff != "" {
		t.Errorf("the port of TCP changed (-before +after):\n%s", diff)
	}
	if len(both) != 2 || udp.Port != 53 || udp.Name == tcp.Name || udp.NodePort == 0 || udp.NodePort == tcp.NodePort {
		t.Errorf("got %+v", both)
	}
	f.wantCalls(f.apply())
	for _, edit := range []func(p *corev1.ServicePort){
		func(p *corev1.ServicePort) { p.TargetPort = intstr.FromInt32(22) },
		func(p *corev1.ServicePort) { p.Name = "theirs" },
	} {
		f.edit(object.KeyOf(f.record()), func(s *corev1.Service) {
			edit(&s.Spec.Ports[slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolUDP })])
		})
		f.apply()
		if diff := gocmp.Diff(both, f.record().Spec.Ports); diff != "" {
			t.Errorf("what was edited at the port of UDP is not put right (-want +got):\n%s", diff)
		}
	}

	listen(gatewayv1.UDPProtocolType)
	f.apply()
	if diff := gocmp.Diff([]corev1.ServicePort{udp}, f.record().Spec.Ports); diff != "" {
		t.Errorf("after the port of TCP has gone (-want +got):\n%s", diff)
	}
}

// A port of which nothing but the protocol changes is not taken for what was there.
func TestAPortThatChangesItsProtocol(t *testing.T) {
	f := newFixture(t)
	for _, p := range []gatewayv1.ProtocolType{gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType, gatewayv1.TCPProtocolType} {
		g := f.gateway(gatewayKey, "uid-1")
		g.Spec.Listeners = []gatewayv1.Listener{{Name: "l", Port: 5000, Protocol: p}}
		f.apply()
		if got := f.record().Spec.Ports; len(got) != 1 || string(got[0].Protocol) != string(p) {
			t.Errorf("%s: got %+v", p, got)
		}
		f.wantCalls(f.apply())
	}
}

func TestALoadBalancerAddressIsAskedForAndGivenUp(t *testing.T) {
	f := newFixture(t)
	f.apply()
	asked := func() string { return f.record().Spec.LoadBalancerIP }

	f.edit(object.KeyOf(f.record()), func(s *corev1.Service) { s.Spec.LoadBalancerIP = "10.0.0.9" })
	f.wantCalls(f.apply()) // some load balancers write there what they gave
	if asked() != "10.0.0.9" {
		t.Errorf("the address that somebody else wrote became %q", asked())
	}
	g := f.gateway(gatewayKey, "uid-1", 80)
	g.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Value: "10.0.0.1"}}
	f.apply()
	if asked() != "10.0.0.1" {
		t.Errorf("the Service asks for %q", asked())
	}
	f.gateway(gatewayKey, "uid-1", 80)
	f.apply()
	if asked() != "" {
		t.Errorf("the Service still asks for %q", asked())
	}
	f.wantCalls(f.apply())
}

func TestWhatSomebodyEditedIsPutRight(t *testing.T) {
	tests := []struct {
		name string
		edit func(s *corev1.Service)
		kept bool // it is not ours
	}{
		{"selector", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "other", "more": "yes"} }, false},
		{"no selector", func(s *corev1.Service) { s.Spec.Selector = nil }, false},
		{"type", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, false},
		{"type without ports", func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", Ports: s.Spec.Ports, ClusterIP: s.Spec.ClusterIP}
		}, false},
		{"traffic policy", func(s *corev1.Service) {
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, false},
		{"name of a port", func(s *corev1.Service) { s.Spec.Ports[0].Name = "web" }, false},
		{"protocol of a port", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }, false},
		{"app protocol", func(s *corev1.Service) { s.Spec.Ports[0].AppProtocol = nil }, false},
		{"named target", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("http") }, false},
		{"another port", func(s *corev1.Service) {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "x", Port: 81, TargetPort: intstr.FromInt32(22)})
		}, false},
		{"label of ours", func(s *corev1.Service) { s.Labels["fairlead.io/gateway-uid"] = "other" }, false},
		{"all labels", func(s *corev1.Service) { s.Labels = nil }, false},
		{"all annotations", func(s *corev1.Service) { s.Annotations = nil }, false},
		{"label of others", func(s *corev1.Service) { s.Labels["x"] = "y" }, true},
		{"node port", func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 31234 }, true},
		{"session affinity", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, true},
		{"source ranges", func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.apply()
			before := f.record()
			f.edit(object.KeyOf(before), test.edit)
			edited := f.record()
			calls := f.apply()
			want := before
			if test.kept {
				want = edited
				f.wantCalls(calls)
			} else if len(calls) == 0 || len(calls) > 2 {
				t.Errorf("calls: %v", calls)
			}
			ignore := gocmp.FilterPath(func(p gocmp.Path) bool {
				field := p.Last().String()
				return field == ".ResourceVersion" || test.name == "protocol of a port" && field == ".NodePort" ||
					test.name == "type without ports" && field == ".ClusterIP"
			}, gocmp.Ignore())
			if diff := gocmp.Diff(want, f.record(), ignore); diff != "" {
				t.Errorf("after the edit (-want +got):\n%s", diff)
			}
			f.wantCalls(f.apply())
		})
	}
}

func TestALocalNameThatSomebodyEditedIsPutRight(t *testing.T) {
	f := newFixture(t)
	f.apply()
	before := f.snapshot().Services[localKey]
	f.edit(localKey, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeClusterIP, ""
		s.Spec.Ports = []corev1.ServicePort{{Port: 1}}
	})
	f.apply()
	after := f.snapshot().Services[localKey]
	if after.Spec.Type != before.Spec.Type || after.Spec.ExternalName != before.Spec.ExternalName {
		t.Errorf("spec: %+v", after.Spec)
	}
	f.wantCalls(f.apply())
}

func TestServicesOfAGatewayThatIsGoneAreDeleted(t *testing.T) {
	f := newFixture(t)
	f.apply()
	name := f.record().Name
	foreign := f.record().DeepCopy()
	foreign.Name, foreign.Labels, foreign.UID = "foreign", map[string]string{"fairlead.io/gateway-uid": "uid-1"}, ""
	f.mu.Lock()
	f.store(foreign)
	delete(f.gateways, gatewayKey)
	f.mu.Unlock()
	f.wantCalls(f.apply(), "DELETE services fairlead/"+name, "DELETE services infra/gw-fairlead", "GET gateways infra/gw", "GET gateways infra/gw")
	if len(f.snapshot().Services) != 1 {
		t.Errorf("left: %v", f.snapshot().Services)
	}
	f.wantCalls(f.apply())
}

// A snapshot may show a Service whose Gateway it does not show yet, when the watch of Gateways is slow. Its address must not be given back.
func TestAGatewayThatIsOnlyNotSeenKeepsItsServices(t *testing.T) {
	f := newFixture(t)
	f.apply()
	seen := f.snapshot()
	seen.Gateways = nil
	want := compile.Compile(seen, f.opt).Infrastructure
	if len(want.Unwanted) != 2 {
		t.Fatalf("unwanted: %v", want)
	}
	if err := f.writer.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken(), "GET gateways infra/gw", "GET gateways infra/gw")
	f.gateway(gatewayKey, "uid-2", 80) // the same name is not the same Gateway
	f.clock.advance(time.Minute)
	if err := f.writer.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	if got := len(f.snapshot().Services); got != 0 {
		t.Errorf("%d Services are left", got)
	}
}

func TestAGatewayThatCannotBeAskedForKeepsItsServices(t *testing.T) {
	f := newFixture(t)
	f.apply()
	f.mu.Lock()
	delete(f.gateways, gatewayKey)
	f.mu.Unlock()
	f.before = func(call string) *metav1.Status {
		if strings.HasPrefix(call, "GET gateways") {
			return status(500, metav1.StatusReasonInternalError, "etcd is away")
		}
		return nil
	}
	if err := f.writer.Apply(t.Context(), f.see()); err == nil || !strings.Contains(err.Error(), "get Gateway infra/gw") {
		t.Errorf("error %v", err)
	}
	if got := len(f.snapshot().Services); got != 2 {
		t.Errorf("%d Services are left", got)
	}
}

// However wrong the wishes are, a Service without our labels is never deleted.
func TestAServiceWithoutOurLabelsIsNeverDeleted(t *testing.T) {
	f := newFixture(t)
	f.apply()
	want := f.see()
	for _, l := range []map[string]string{nil, {"app.kubernetes.io/managed-by": "fairlead"}, {"app.kubernetes.io/managed-by": "fairlead", "fairlead.io/instance": "other"}} {
		s := f.record().DeepCopy()
		s.Labels = l
		want.Unwanted = append(want.Unwanted, compile.Unwanted{Service: s})
	}
	if err := f.writer.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	want.Owned, want.Services = nil, nil
	if err := f.writer.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken())
	if err := f.writer.RemoveAll(t.Context(), nil); err == nil {
		t.Error("everything was removed that has no labels at all")
	}
}

func TestAServiceThatIsBeingDeletedIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.apply()
	f.edit(object.KeyOf(f.record()), func(s *corev1.Service) {
		s.DeletionTimestamp, s.Spec.Selector = new(metav1.NewTime(f.clock.time())), nil
	})
	f.wantCalls(f.apply())
	f.mu.Lock()
	delete(f.gateways, gatewayKey)
	f.mu.Unlock()
	f.wantCalls(f.apply(), "DELETE services infra/gw-fairlead", "GET gateways infra/gw")
}

// What the snapshot does not show yet is not written a second time.
func TestOwnWritesAreWaitedFor(t *testing.T) {
	f := newFixture(t)
	old := f.see()
	f.apply()
	apply := func(want compile.Infrastructure) error {
		f.Helper()
		return f.writer.Apply(t.Context(), want)
	}
	if err := apply(old); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken())

	f.gateway(gatewayKey, "uid-1", 80, 81) // the Gateway is seen to change, the Service not yet
	in := f.snapshot()
	in.Services = nil
	in.GatewayClasses = map[string]*gatewayv1.GatewayClass{"fairlead": {ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: compile.GatewayController}}}
	if err := apply(compile.Compile(in, f.opt).Infrastructure); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken())

	// When it takes too long, it is looked at again; when it stays so, that is an error.
	f.clock.advance(11 * time.Second)
	if err := apply(old); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken(), listCall, createCall, createName)
	f.clock.advance(11 * time.Second)
	err := apply(old)
	if err == nil || !strings.Contains(err.Error(), "is its namespace watched?") {
		t.Errorf("error %v", err)
	}
}

// Another leader may have given the bind away a moment ago.
func TestABindThatAnotherServiceHasIsNotTaken(t *testing.T) {
	f := newFixture(t)
	want := f.see()
	other := object.Key{Namespace: "infra", Name: "other"}
	f.gateway(other, "uid-2", 80)
	f.mu.Lock()
	delete(f.gateways, gatewayKey)
	f.mu.Unlock()
	f.apply() // the other Gateway has 20000 now
	f.gateway(gatewayKey, "uid-1", 80)

	if err := f.writer.Apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	f.wantCalls(f.taken(), listCall, createName) // the name in the DNS is independent of binds
	f.apply()
	var binds []int32
	for key, s := range f.snapshot().Services {
		if key.Namespace == "fairlead" {
			binds = append(binds, s.Spec.Ports[0].TargetPort.IntVal)
		}
	}
	if slices.Sort(binds); !slices.Equal(binds, []int32{20000, 20001}) {
		t.Errorf("binds %v", binds)
	}
}

func TestConflicts(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(f *fixture, key object.Key) // in the moment before the write
		want  string                           // what becomes of the wish for a selector
		fails bool
	}{
		{"the status changed", func(f *fixture, key object.Key) {
			f.edit(key, func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
			})
		}, "written", false},
		{"somebody put it right already", func(f *fixture, key object.Key) {
			f.edit(key, func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "fairlead"} })
		}, "written", false},
		{"another leader wrote other binds", func(f *fixture, key object.Key) {
			f.edit(key, func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(20007) })
		}, "dropped", false},
		{"it is another Service now", func(f *fixture, key object.Key) {
			f.edit(key, func(s *corev1.Service) { s.UID = "another" })
		}, "dropped", false},
		{"it is being deleted", func(f *fixture, key object.Key) {
			f.edit(key, func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.NewTime(f.clock.time())) })
		}, "dropped", false},
		{"it is gone", func(f *fixture, key object.Key) {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.services, key)
		}, "gone", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.apply()
			key := object.KeyOf(f.record())
			f.edit(key, func(s *corev1.Service) { s.Spec.Selector = nil })
			want := f.see()
			var once sync.Once
			f.before = func(call string) *metav1.Status {
				if strings.HasPrefix(call, "PATCH") {
					once.Do(func() { test.edit(f, key) })
				}
				return nil
			}
			if err := f.writer.Apply(t.Context(), want); (err != nil) != test.fails {
				t.Errorf("error %v", err)
			}
			got := "gone"
			if s := f.snapshot().Services[key]; s != nil {
				got = "dropped"
				if s.Spec.Selector["app"] == "fairlead" {
					got = "written"
				}
			}
			if got != test.want {
				t.Errorf("the wish is %s, want %s", got, test.want)
			}
		})
	}
}

// A Service that changes all the time is given up for now, and not for ever.
func TestAServiceThatOthersChangeAllTheTime(t *testing.T) {
	f := newFixture(t)
	f.apply()
	key := object.KeyOf(f.record())
	f.edit(key, func(s *corev1.Service) { s.Spec.Selector = nil })
	n := 0
	f.before = func(call string) *metav1.Status {
		if strings.HasPrefix(call, "PATCH") {
			n++
			f.edit(key, func(s *corev1.Service) { s.Annotations["count"] = fmt.Sprint(n) })
		}
		return nil
	}
	if err := f.writer.Apply(t.Context(), f.see()); err == nil || n != tries {
		t.Errorf("%d tries, error %v", n, err)
	}
	f.before = nil
	f.apply()
	if f.record().Spec.Selector == nil {
		t.Error("nobody tried again")
	}
}

func TestDeletionOfAServiceThatChanges(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(s *corev1.Service)
		left int
	}{
		{"its status changed", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
		}, 0},
		{"it is somebody else's", func(s *corev1.Service) { s.Labels["fairlead.io/instance"] = "other" }, 1},
		{"it was made anew", func(s *corev1.Service) { s.UID = "another" }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.apply()
			f.mu.Lock()
			delete(f.gateways, gatewayKey)
			f.mu.Unlock()
			want := f.see()
			var once sync.Once
			f.before = func(call string) *metav1.Status {
				if strings.HasPrefix(call, "DELETE services infra") {
					once.Do(func() { f.edit(localKey, test.edit) })
				}
				return nil
			}
			if err := f.writer.Apply(t.Context(), want); err != nil {
				t.Error(err)
			}
			if got := len(f.snapshot().Services); got != test.left {
				t.Errorf("%d Services are left, want %d", got, test.left)
			}
		})
	}
}

// A namespace on its way out takes no new Services. That is nobody's fault.
func TestNamespaceOnItsWayOut(t *testing.T) {
	f := newFixture(t)
	f.before = func(call string) *metav1.Status {
		if call != createName {
			return nil
		}
		s := status(403, metav1.StatusReasonForbidden, "is being terminated")
		s.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}}
		return s
	}
	f.wantCalls(f.apply(), listCall, createCall, createName)
}

// What fails is tried again later and later, at once when something about it changed, and does not hold up the others.
func TestFailuresAreTriedAgainLater(t *testing.T) {
	f := newFixture(t)
	broken := true
	f.before = func(call string) *metav1.Status {
		if broken && call == createName {
			return status(403, metav1.StatusReasonForbidden, "exceeded quota")
		}
		return nil
	}
	err := f.writer.Apply(t.Context(), f.see())
	if !apierrors.IsForbidden(unjoin(err)) || !strings.Contains(err.Error(), "create Service infra/gw-fairlead: ") {
		t.Errorf("error %v", err)
	}
	f.wantCalls(f.taken(), listCall, createCall, createName)
	tried := 0
	for range 300 {
		f.clock.advance(time.Second)
		_ = f.writer.Apply(t.Context(), f.see())
		tried += len(f.taken())
	}
	if tried < 8 || tried > 11 { // after 1, 2, 4, ... 32 seconds, and every minute
		t.Errorf("tried %d times in five minutes", tried)
	}
	g := f.gateway(gatewayKey, "uid-1", 80)
	g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{Labels: map[gatewayv1.LabelKey]gatewayv1.LabelValue{"a": "b"}}
	broken = false
	if calls := f.apply(); !slices.Contains(calls, createName) {
		t.Errorf("what changed was not tried at once: %v", calls)
	}
}

func unjoin(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) == 1 {
		return errors.Unwrap(joined.Unwrap()[0])
	}
	return err
}

// A list of claims that cannot be had stops what would take a bind, and nothing else.
func TestNoBindIsTakenWithoutAList(t *testing.T) {
	f := newFixture(t)
	f.before = func(call string) *metav1.Status {
		if call == listCall {
			return status(503, metav1.StatusReasonServiceUnavailable, "later")
		}
		return nil
	}
	if err := f.writer.Apply(t.Context(), f.see()); err == nil {
		t.Error("no error")
	}
	f.wantCalls(f.taken(), listCall, createName)
}

func TestManyServicesAreWrittenAtATime(t *testing.T) {
	f := newFixture(t)
	for i := range 50 {
		f.gateway(object.Key{Namespace: "infra", Name: fmt.Sprintf("gw-%d", i)}, types.UID(fmt.Sprintf("uid-%d", i+2)), 80)
	}
	gate := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Add(8)
	var mu sync.Mutex
	n := 0
	f.before = func(call string) *metav1.Status {
		if !strings.HasPrefix(call, "POST") {
			return nil
		}
		mu.Lock()
		n++
		early := n <= 8
		mu.Unlock()
		if early {
			waiting.Done()
			<-gate
		}
		return nil
	}
	go func() { waiting.Wait(); close(gate) }()
	f.apply()
	if got := len(f.snapshot().Services); got != 102 {
		t.Errorf("%d Services", got)
	}
	if f.busiest > 9 {
		t.Errorf("%d requests at a time", f.busiest)
	}
}

func TestRemoveAll(t *testing.T) {
	f := newFixture(t)
	f.apply()
	foreign := f.record().DeepCopy()
	foreign.Name, foreign.Labels, foreign.UID = "foreign", map[string]string{"app.kubernetes.io/managed-by": "Helm"}, ""
	f.mu.Lock()
	f.store(foreign)
	f.mu.Unlock()
	owned := compile.Compile(&object.Snapshot{}, f.opt).Infrastructure.Owned
	if err := f.writer.RemoveAll(t.Context(), owned, "elsewhere", "infra"); err != nil {
		t.Error(err)
	}
	if got := len(f.snapshot().Services); got != 2 {
		t.Errorf("%d Services are left", got)
	}
	if err := f.writer.RemoveAll(t.Context(), owned); err != nil {
		t.Error(err)
	}
	if left := f.snapshot().Services; len(left) != 1 || left[object.KeyOf(foreign)] == nil {
		t.Errorf("left: %v", left)
	}
}

func TestHooks(t *testing.T) {
	f := newFixture(t)
	var mu sync.Mutex
	got := map[string]int{}
	f.writer = f.api.writer(Options{Now: f.clock.time, Hooks: Hooks{Tried: func(verb Verb, result Result) {
		mu.Lock()
		defer mu.Unlock()
		got[fmt.Sprint(verb, " ", result)]++
	}}})
	old := f.see()
	f.apply()
	f.clock.advance(time.Minute)
	_ = f.writer.Apply(t.Context(), old)
	f.mu.Lock()
	delete(f.gateways, gatewayKey)
	f.mu.Unlock()
	f.apply()
	if diff := gocmp.Diff(map[string]int{"create done": 2, "create stale": 2, "delete done": 2}, got); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
}

// Run applies what is offered, tries again what failed, and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writer = f.api.writer(Options{})
		failures := 3
		f.before = func(call string) *metav1.Status {
			f.mu.Lock()
			defer f.mu.Unlock()
			if call == createName && failures > 0 {
				failures--
				return status(500, metav1.StatusReasonInternalError, "not yet")
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.writer.Run(ctx) })
		synctest.Wait()
		f.wantCalls(f.taken())

		f.writer.Offer(f.see())
		synctest.Wait()
		if got := len(f.snapshot().Services); got != 1 {
			t.Errorf("%d Services at once, want 1", got)
		}
		f.writer.Offer(f.see())
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if got := len(f.snapshot().Services); got != 2 {
			t.Errorf("%d Services after a while, want 2", got)
		}
		f.taken()
		f.writer.Offer(f.see())
		time.Sleep(time.Hour)
		f.wantCalls(f.taken()) // nothing is to be done, and nobody asks
		cancel()
		wg.Wait()
	})
}

// What was offered before this process became the leader is applied when it does.
func TestRunAppliesWhatWasOfferedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.writer = f.api.writer(Options{})
		f.writer.Offer(f.see())
		for range 2 { // it may lose that office and get it again
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			f.writer.Run(ctx)
			cancel()
		}
		if got := len(f.snapshot().Services); got != 2 {
			t.Errorf("%d Services", got)
		}
	})
}
