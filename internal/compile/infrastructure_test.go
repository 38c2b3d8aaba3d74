package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// made is the Service that fulfils a wish, as far as the compiler looks at it.
func made(s *Service) *corev1.Service {
	out := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name.Name, Namespace: s.Name.Namespace, Labels: s.Labels, Annotations: s.Annotations},
		Spec:       corev1.ServiceSpec{Type: s.Type, ExternalName: s.ExternalName, Selector: s.Selector, LoadBalancerIP: s.LoadBalancerIP},
	}
	if s.Seen != nil {
		out.CreationTimestamp, out.Status = s.Seen.CreationTimestamp, s.Seen.Status
	}
	for _, p := range s.Ports {
		protocol := corev1.ProtocolTCP
		if p.UDP {
			protocol = corev1.ProtocolUDP
		}
		out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{
			Name: p.Name, Port: int32(p.Port), TargetPort: intstr.FromInt32(int32(p.Bind)), Protocol: protocol, AppProtocol: &p.AppProtocol,
		})
	}
	return out
}

// checkInfrastructure checks what must be true of every Infrastructure: an API server would take it, no bind has two listener ports, what is unwanted is ours, and
// nothing is served elsewhere than a Service says.
func checkInfrastructure(t *testing.T, in *object.Snapshot, res Result) {
	t.Helper()
	binds := map[transportPort]string{}
	names := map[object.Key]bool{}
	for i := range res.Infrastructure.Services {
		s := &res.Infrastructure.Services[i]
		checkWish(t, in, s)
		if names[s.Name] {
			t.Errorf("two wishes for Service %s", s.Name)
		}
		names[s.Name] = true
		for _, p := range s.Ports {
			if other := binds[transportPort{p.Bind, p.UDP}]; other != "" || p.Bind == 0 {
				t.Errorf("bind %d is for port %d of %s and for %q", p.Bind, p.Port, s.Gateway, other)
			}
			binds[transportPort{p.Bind, p.UDP}] = fmt.Sprintf("%s:%d", s.Gateway.Key(), p.Port)
			if p.Recorded != lists(s.Seen, p) {
				t.Errorf("Service %s: port %d -> %d recorded is %v", s.Name, p.Port, p.Bind, p.Recorded)
			}
		}
	}
	for _, u := range res.Infrastructure.Unwanted {
		if names[object.KeyOf(u.Service)] || u.Why == "" {
			t.Errorf("Service %s is wanted and unwanted, or for no reason: %q", object.KeyOf(u.Service), u.Why)
		}
		for k, v := range res.Infrastructure.Owned {
			if v == "" || u.Service.Labels[k] != v {
				t.Errorf("Service %s is not ours to remove", object.KeyOf(u.Service))
			}
		}
	}
	if len(res.Infrastructure.Owned) > 0 {
		checkServed(t, in, res, binds)
		checkNewBinds(t, in, res.Infrastructure)
	}
}

// checkNewBinds checks that no bind is given that a Service of ours still leads to, whoever it is for.
func checkNewBinds(t *testing.T, in *object.Snapshot, n Infrastructure) {
	t.Helper()
	listed := map[transportPort]object.Key{}
	for key, s := range in.Services {
		if s == nil || s.Labels[instanceLabel] != n.Owned[instanceLabel] || s.Labels[managedByLabel] != n.Owned[managedByLabel] {
			continue
		}
		for i := range s.Spec.Ports {
			if port, bind, ok := recorded(&s.Spec.Ports[i]); ok && strings.HasPrefix(key.Namespace, "fairlead") {
				listed[transportPort{bind, port.udp}] = key
			}
		}
	}
	for i := range n.Services {
		for _, p := range n.Services[i].Ports {
			if by, taken := listed[transportPort{p.Bind, p.UDP}]; taken && !p.Recorded {
				t.Errorf("Service %s is given bind %d, to which Service %s leads", n.Services[i].Name, p.Bind, by)
			}
		}
	}
}

// checkServed checks that on each port that is bound for Gateways there is one of them only, for which a Service lists it. Where a newer Gateway than this picture has is
// known to have been served, its Service is not for us to change, and is not among the wishes.
func checkServed(t *testing.T, in *object.Snapshot, res Result, binds map[transportPort]string) {
	t.Helper()
	for _, p := range res.Table.Ports {
		for _, l := range p.Listeners {
			if l.LastResort {
				continue
			}
			key := gatewayOf(in, l.Source)
			if slices.ContainsFunc(res.Problems, func(p Problem) bool { return p.Code == "OldGateway" && p.Object.Key() == key }) {
				continue
			}
			own := fmt.Sprintf("%s:%d", key, l.Port)
			if binds[transportPort{p.Bind.Port, p.Bind.UDP}] != own || p.Bind.Address != "" {
				t.Errorf("%s is bound at %s, which is that of %s", own, p.Bind, binds[transportPort{p.Bind.Port, p.Bind.UDP}])
			}
		}
	}
	for _, s := range res.Infrastructure.Services {
		for _, p := range s.Ports {
			if port := res.Table.Port(route.Bind{Port: p.Bind, UDP: p.UDP}); port != nil && !p.Recorded {
				t.Errorf("%d is served, but Service %s does not lead there", p.Bind, s.Name)
			}
		}
	}
}

// gatewayOf is the Gateway at whose addresses a listener is.
func gatewayOf(in *object.Snapshot, of route.Source) object.Key {
	key := object.Key{Namespace: of.Namespace, Name: of.Name}
	if of.Kind != listenerSetKind {
		return key
	}
	to := &in.ListenerSets[key].Spec.ParentRef
	return object.Key{Namespace: string(orDefault(to.Namespace, gatewayv1.Namespace(of.Namespace))), Name: string(to.Name)}
}

func lists(s *corev1.Service, want ServicePort) bool {
	return s != nil && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		port, bind, ok := recorded(&p)
		return ok && port == transportPort{want.Port, want.UDP} && bind == want.Bind
	})
}

// checkWish checks that an API server would take a Service.
func checkWish(t *testing.T, in *object.Snapshot, s *Service) {
	t.Helper()
	if bad := validation.IsDNS1035Label(s.Name.Name); len(bad) > 0 {
		t.Errorf("Service %s: %v", s.Name, bad)
	}
	if s.Seen != in.Services[s.Name] {
		t.Errorf("Service %s: what was seen is not what is there", s.Name)
	}
	for k, v := range s.Labels {
		if bad := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(bad) > 0 {
			t.Errorf("Service %s: label %s=%s: %v", s.Name, k, v, bad)
		}
	}
	for k := range s.Annotations {
		if bad := validation.IsQualifiedName(strings.ToLower(k)); len(bad) > 0 {
			t.Errorf("Service %s: annotation %s: %v", s.Name, k, bad)
		}
	}
	names := map[string]bool{}
	for _, p := range s.Ports {
		if bad := validation.IsDNS1123Label(p.Name); len(bad) > 0 || names[p.Name] {
			t.Errorf("Service %s: port name %q, twice: %v, %v", s.Name, p.Name, names[p.Name], bad)
		}
		names[p.Name] = true
	}
	if s.Type != corev1.ServiceTypeExternalName && len(s.Ports) == 0 {
		t.Errorf("Service %s has no ports", s.Name)
	}
}

// clusterWorld is a cluster whose Gateways change, while wishes are fulfilled now and then, and not always all of them.
type clusterWorld struct {
	random *rand.Rand
	in     *object.Snapshot
	opt    Options
	clock  int
	uids   int
}

func newClusterWorld(seed uint64) *clusterWorld {
	w := &clusterWorld{
		random: rand.New(rand.NewPCG(seed, 7)),
		in: &object.Snapshot{
			GatewayClasses: map[string]*gatewayv1.GatewayClass{"fairlead": {
				ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: GatewayController},
			}},
			Gateways: map[object.Key]*gatewayv1.Gateway{},
			Services: map[object.Key]*corev1.Service{},
		},
	}
	w.opt = Options{Cluster: &ClusterOptions{Namespace: "fairlead", BindFrom: 20000, BindTo: 20000 + uint16(w.random.IntN(20))}}
	return w
}

// now advances the clock, which has seconds only, so that several things may happen at the same time.
func (w *clusterWorld) now() metav1.Time {
	w.clock += w.random.IntN(2)
	return metav1.NewTime(taken.Add(time.Duration(w.clock) * time.Second))
}

func (w *clusterWorld) listeners() []gatewayv1.Listener {
	var out []gatewayv1.Listener
	protocols := []gatewayv1.ProtocolType{gatewayv1.HTTPProtocolType, gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType, gatewayv1.TCPProtocolType}
	for i := range 1 + w.random.IntN(4) {
		name := fmt.Sprintf("l%d", i)
		host := gatewayv1.Hostname(name + ".example.com")
		out = append(out, gatewayv1.Listener{
			Name: gatewayv1.SectionName(name), Port: int32(80 + w.random.IntN(4)), Protocol: protocols[w.random.IntN(len(protocols))], Hostname: &host,
		})
	}
	return out
}

// step lets something happen.
func (w *clusterWorld) step() {
	keys := slices.SortedFunc(maps.Keys(w.in.Gateways), object.Key.Compare)
	key := object.Key{Namespace: fmt.Sprintf("ns-%d", w.random.IntN(3)), Name: fmt.Sprintf("gw-%d", w.random.IntN(3))}
	if len(keys) > 0 && w.random.IntN(2) == 0 {
		key = keys[w.random.IntN(len(keys))]
	}
	have := w.in.Gateways[key]
	switch n := w.random.IntN(10); {
	case have == nil:
		w.uids++
		w.in.Gateways[key] = &gatewayv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, UID: types.UID(fmt.Sprintf("uid-%d", w.uids)), CreationTimestamp: w.now()},
			Spec:       gatewayv1.GatewaySpec{GatewayClassName: "fairlead", Listeners: w.listeners()},
		}
	case n == 0:
		delete(w.in.Gateways, key)
	case n < 5:
		edited := have.DeepCopy()
		edited.Spec.Listeners = w.listeners()
		w.in.Gateways[key] = edited
	default:
		w.fulfil(Compile(w.in, w.opt).Infrastructure, 3)
	}
}

// fulfil fulfils about n-1 of n wishes, and removes as many of what is unwanted.
func (w *clusterWorld) fulfil(n Infrastructure, often int) {
	for i := range n.Services {
		if w.random.IntN(often) == 0 {
			continue
		}
		s := made(&n.Services[i])
		if n.Services[i].Seen == nil {
			s.CreationTimestamp = w.now()
		}
		w.in.Services[n.Services[i].Name] = s
	}
	for _, u := range n.Unwanted {
		if w.random.IntN(often) > 0 {
			delete(w.in.Services, object.KeyOf(u.Service))
		}
	}
}

// settle fulfils all wishes until there are none.
func (w *clusterWorld) settle(t *testing.T) Result {
	t.Helper()
	for range 4 {
		res := Compile(w.in, w.opt)
		done := len(res.Infrastructure.Unwanted) == 0
		for i := range res.Infrastructure.Services {
			s := &res.Infrastructure.Services[i]
			done = done && s.Seen != nil && !slices.ContainsFunc(s.Ports, func(p ServicePort) bool { return !p.Recorded }) && len(s.Ports) == len(s.Seen.Spec.Ports)
			w.in.Services[s.Name] = made(s)
		}
		for _, u := range res.Infrastructure.Unwanted {
			delete(w.in.Services, object.KeyOf(u.Service))
		}
		if done {
			return res
		}
	}
	t.Fatalf("wishes that were fulfilled change again and again:\n%s", Compile(w.in, w.opt).Infrastructure)
	return Result{}
}

// listenerPort is one port of one Gateway.
type listenerPort struct {
	uid  types.UID
	port uint16
}

// boundAt are the ports that are served, and where.
func (w *clusterWorld) boundAt(res Result) map[listenerPort]uint16 {
	out := map[listenerPort]uint16{}
	for _, p := range res.Table.Ports {
		for _, l := range p.Listeners {
			g := w.in.Gateways[object.Key{Namespace: l.Source.Namespace, Name: l.Source.Name}]
			out[listenerPort{g.UID, l.Port}] = p.Bind.Port
		}
	}
	return out
}

// Whatever happens to Gateways, and whichever of the wishes are fulfilled: two Gateways never share a bind, and a port is bound where it was for as long as a
// listener has it.
func TestBindsAreNeitherSharedNorMoved(t *testing.T) {
	served := 0
	for seed := range uint64(60) {
		w := newClusterWorld(seed)
		before := map[listenerPort]uint16{}
		for range 60 {
			w.step()
			res := Compile(w.in, w.opt)
			checkResult(t, w.in, res)
			bound := w.boundAt(res)
			for p, bind := range bound {
				if was, ok := before[p]; ok && was != bind {
					t.Errorf("port %d of Gateway %s moved from %d to %d", p.port, p.uid, was, bind)
				}
				before[p] = bind
			}
			w.forget(before)
			served += len(bound)
			if t.Failed() {
				t.Fatalf("seed %d:\n%s\n%s", seed, res.Table, res.Infrastructure)
			}
		}
		w.checkSettled(t, before)
	}
	if served < 4_000 {
		t.Errorf("only %d ports were served in all: the test tests little", served)
	}
}

// forget drops ports that no listener has any more: whoever asks for one again may get another bind.
func (w *clusterWorld) forget(before map[listenerPort]uint16) {
	exists := map[listenerPort]bool{}
	for _, g := range w.in.Gateways {
		for _, l := range g.Spec.Listeners {
			exists[listenerPort{g.UID, uint16(l.Port)}] = true
		}
	}
	maps.DeleteFunc(before, func(p listenerPort, _ uint16) bool { return !exists[p] })
}

// checkSettled checks that everything that can be served is served in the end, where it was.
func (w *clusterWorld) checkSettled(t *testing.T, before map[listenerPort]uint16) {
	t.Helper()
	res := w.settle(t)
	full := slices.ContainsFunc(res.Problems, func(p Problem) bool { return p.Code == "NoBindPort" })
	for key, status := range res.Status.Gateways {
		for _, l := range status.Listeners {
			accepted, programmed := l.Conditions[0], l.Conditions[1]
			if accepted.Status == metav1.ConditionTrue && programmed.Reason == "Pending" && !full {
				t.Errorf("listener %s of %s is not served: %s", l.Name, key, programmed.Message)
			}
		}
	}
	for p, bind := range w.boundAt(res) {
		if was, ok := before[p]; ok && was != bind {
			t.Errorf("port %d of Gateway %s moved from %d to %d", p.port, p.uid, was, bind)
		}
	}
}

// Somebody who edits the Services can move binds, but not bring two Gateways together, and in the end everything is served.
func TestEditedServicesAreSettled(t *testing.T) {
	for seed := range uint64(40) {
		w := newClusterWorld(seed)
		w.opt.Cluster.BindTo = 20100
		for range 30 {
			w.step()
			w.meddle()
			checkResult(t, w.in, Compile(w.in, w.opt))
		}
		w.checkSettled(t, nil)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// meddle edits one of the Services as nobody should.
func (w *clusterWorld) meddle() {
	keys := slices.SortedFunc(maps.Keys(w.in.Services), object.Key.Compare)
	if len(keys) == 0 {
		return
	}
	s := w.in.Services[keys[w.random.IntN(len(keys))]].DeepCopy()
	switch w.random.IntN(5) {
	case 0:
		s.Labels = nil
	case 1:
		s.Name += "-copy"
		s.CreationTimestamp = w.now()
	case 2:
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: int32(80 + w.random.IntN(9)), TargetPort: intstr.FromInt32(20000 + w.random.Int32N(9))})
	case 3:
		s.CreationTimestamp = metav1.Time{}
	default:
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].TargetPort = intstr.FromInt32(19999 + w.random.Int32N(9))
		}
	}
	w.in.Services[object.KeyOf(s)] = s
}

// The highest port there is can be bound too, and nothing comes after it.
func TestLastPortThatThereIs(t *testing.T) {
	p := bindPorts{from: 65534, to: 65535, taken: map[transportPort]bool{}, tcp: 65534}
	var got []uint16
	for range 4 {
		if port, ok := p.take(false); ok {
			got = append(got, port)
		}
	}
	if !slices.Equal(got, []uint16{65534, 65535}) {
		t.Errorf("got %v", got)
	}
}

// What a Gateway asks for in spec.addresses, and what a Service says to that; the conditions are in the golden files.
func TestIngressAddresses(t *testing.T) {
	balanced := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1"}}
	balanced.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}, {}, {Hostname: "lb.example.com"}}
	tests := []struct {
		name    string
		service *corev1.Service
		publish []string
		want    string
	}{
		{"load balancer", balanced, nil, "10.0.0.1 lb.example.com"},
		{"what is published comes first", balanced, []string{"192.0.2.1"}, "192.0.2.1"},
		{"no Service", nil, nil, ""},
		{"cluster IP", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1"}}, nil, "10.96.0.1"},
		{"headless", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "None", ClusterIPs: []string{"None"}}}, nil, ""},
		{"two cluster IPs", &corev1.Service{Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "fd00::1"},
		}}, nil, "10.96.0.1 fd00::1"},
		{"node port", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.1"}}, nil, ""},
	}
	for _, test := range tests {
		key := object.Key{Namespace: "fairlead", Name: "fairlead"}
		c := &compiler{
			in:  &object.Snapshot{Services: map[object.Key]*corev1.Service{key: test.service}},
			opt: Options{PublishAddresses: test.publish, PublishService: key},
		}
		if got := strings.Join(c.sharedAddresses(), " "); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// GEP-1762: "implementations MUST set the value of the label to the first 20 characters of the Gateway name with a - character appended and then the sha1
// checksum of the remainder of the name (40 characters long) appended", and this is its example.
func TestLabelOfALongName(t *testing.T) {
	got := labelOf("example-very-very-very-very-very-very-very-very-very-long-gateway-name")
	if want := "example-very-very-ve-65cb6f84bc9e50270d0a6c2f845fd98c6fe8d89f"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, name := range []string{"gw", strings.Repeat("x", 63)} {
		if got := labelOf(name); got != name {
			t.Errorf("%s became %s", name, got)
		}
	}
}

// Two installations in one cluster, or two in one namespace, must not take the Services of one another for their own.
func TestInstallationsAreToldApart(t *testing.T) {
	seen := map[string]bool{}
	for _, opt := range []Options{
		{Cluster: &ClusterOptions{Namespace: "a"}},
		{Cluster: &ClusterOptions{Namespace: "b"}},
		{Cluster: &ClusterOptions{Namespace: "a"}, GatewayController: "example.com/other"},
		{Cluster: &ClusterOptions{Namespace: strings.Repeat("a", 62) + "1"}},
		{Cluster: &ClusterOptions{Namespace: strings.Repeat("a", 62) + "2"}},
	} {
		got := opt.withDefaults().instance()
		if bad := validation.IsValidLabelValue(got); len(bad) > 0 || seen[got] {
			t.Errorf("instance %q: seen before: %v, %v", got, seen[got], bad)
		}
		seen[got] = true
	}
}

// The caller's options are not changed by what is filled in.
func TestOptionsAreNotModified(t *testing.T) {
	opt := Options{Cluster: &ClusterOptions{Namespace: "fairlead"}}
	Compile(load(t, mustGateway), opt)
	if opt.Cluster.BindFrom != 0 || opt.Cluster.ServiceType != "" {
		t.Errorf("options were modified: %+v", opt.Cluster)
	}
}

func BenchmarkCompileCluster(b *testing.B) {
	const n = 500
	w := newClusterWorld(1)
	w.opt.Cluster.BindTo = 29999
	for i := range n {
		key := object.Key{Namespace: "ns", Name: fmt.Sprintf("gw-%d", i)}
		w.in.Gateways[key] = &gatewayv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, UID: types.UID(key.Name)},
			Spec:       gatewayv1.GatewaySpec{GatewayClassName: "fairlead", Listeners: w.listeners()},
		}
	}
	w.fulfil(Compile(w.in, w.opt).Infrastructure, 1_000_000)
	for i := range 10_000 {
		key := object.Key{Namespace: "apps", Name: fmt.Sprintf("app-%d", i)}
		w.in.Services[key] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, Labels: map[string]string{managedByLabel: "Helm"}}}
	}
	b.ReportAllocs()
	for b.Loop() {
		Compile(w.in, w.opt)
	}
}
