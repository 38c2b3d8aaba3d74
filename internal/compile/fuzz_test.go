package compile

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// FuzzCompile takes one of the golden inputs, drops optional fields, repeats and cuts lists and puts in absurd values, whatever an API server would say to that.
// The compiler must not panic, must say the same twice, must not reach into namespaces without a grant, and must serve the neighbours as before.
func FuzzCompile(f *testing.F) {
	dirs := goldenDirs(f)
	inputs := make([]string, len(dirs))
	for i, dir := range dirs {
		inputs[i] = readFile(f, filepath.Join(dir, "in.yaml"))
		for seed := range uint64(3) {
			f.Add(uint16(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, dir uint16, seed uint64) {
		input := inputs[int(dir)%len(inputs)]
		opt := parseOptions(t, input)
		opt.GatewayController, opt.IngressController = "", ""
		in := load(t, input)
		random := rand.New(rand.NewPCG(seed, 1))
		mutateAll(random, in)
		addNeighbour(in)
		bind := route.Bind{Port: 9999}
		if opt.Cluster != nil {
			opt.Cluster.BindTo = cmp.Or(opt.Cluster.BindTo, 29999) + 10 // there must be room for one more
			bind.Port = addNeighbourService(in, opt)
		}
		first := Compile(in, opt)
		if again := Compile(in, opt); resultText(first) != resultText(again) {
			t.Fatal("compiled twice, the results differ")
		}
		checkResult(t, in, first)
		if opt.GatewayAddresses.IsValid() {
			bind.Address = opt.GatewayAddresses.Addr().Next().String()
		}
		checkNeighbour(t, first, bind)
	})
}

// absurd are values that nobody should write and somebody will.
var absurd = []string{
	"", " ", "*", "*.", "*.com", ".", "..", "a", "A", "a.example.com", "*.example.com", "-", "/", "//", "/a/../b", "/%2f", "/%zz", "/%00", "/a b", "\x00", "\xff", "a\r\nb: c",
	"0s", "1h", "99999h99999h99999h99999h", "-1s", "((((", "a{1000}{1000}", "127.0.0.1", "::1", "Service", "Secret", "HTTPRoute", "gateway.networking.k8s.io", "kubernetes.io/tls",
	"Content-Length", "Host", "RegularExpression", "ExtensionRef", "RequestRedirect", "URLRewrite", "RequestHeaderModifier", "HTTPS", "HTTP", "TLS", "Selector", "All",
	strings.Repeat("x", 300), strings.Repeat("a.", 127) + "a", strings.Repeat("/", 2000),
}

var absurdNumbers = []int64{0, 1, -1, 80, 443, 8080, 65535, 65536, 70000, 1 << 30, -1 << 31, 200, 301, 418, 1_000_001}

// mutateAll changes objects of every kind that a snapshot has: it is the type of the snapshot that says which there are.
func mutateAll(random *rand.Rand, in *object.Snapshot) {
	for field, v := range reflect.ValueOf(in).Elem().Fields() {
		if v.Kind() == reflect.Map && field.Name != "Origins" {
			mutateMap(random, v)
		}
	}
}

// mutateMap changes the objects of a map in place, in the order of their keys, so that a seed means the same each time.
func mutateMap(random *rand.Rand, m reflect.Value) {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	for _, k := range keys {
		v := reflect.New(m.Type().Elem()).Elem()
		v.Set(m.MapIndex(k))
		if random.IntN(40) == 0 {
			v.SetZero()
		} else {
			mutate(random, v, 0)
		}
		m.SetMapIndex(k, v)
	}
}

// mutate changes a value. Names and namespaces of objects stay, for the maps are keyed by them.
func mutate(random *rand.Rand, v reflect.Value, depth int) {
	rare := func(n int) bool { return random.IntN(n) == 0 }
	switch v.Kind() {
	case reflect.Pointer:
		switch {
		case v.IsNil() && depth > 0 && depth < 12 && rare(25):
			v.Set(reflect.New(v.Type().Elem()))
			mutate(random, v.Elem(), depth+1)
		case !v.IsNil() && depth > 0 && rare(25):
			v.SetZero()
		case !v.IsNil():
			mutate(random, v.Elem(), depth+1)
		}
	case reflect.Struct:
		switch v.Type() {
		case reflect.TypeFor[metav1.ObjectMeta](), reflect.TypeFor[metav1.TypeMeta](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[time.Time]():
			return
		}
		for _, field := range v.Fields() {
			if field.CanSet() {
				mutate(random, field, depth+1)
			}
		}
	case reflect.Slice:
		mutateSlice(random, v, depth, rare)
	case reflect.Map:
		if rare(25) {
			v.SetZero()
		}
	case reflect.String:
		if rare(20) {
			v.SetString(absurd[random.IntN(len(absurd))])
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if rare(15) {
			v.SetInt(absurdNumbers[random.IntN(len(absurdNumbers))])
		}
	case reflect.Bool:
		if rare(10) {
			v.SetBool(!v.Bool())
		}
	}
}

func mutateSlice(random *rand.Rand, v reflect.Value, depth int, rare func(int) bool) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return
	}
	for i := range v.Len() {
		mutate(random, v.Index(i), depth+1)
	}
	switch {
	case rare(25):
		v.SetZero()
	case rare(25) && v.Len() > 0:
		v.Set(reflect.Append(v, v.Index(random.IntN(v.Len()))))
	case rare(25) && depth < 12:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		mutate(random, v.Index(v.Len()-1), depth+1)
	}
}

// neighbour is who must not be affected: the oldest Gateway, with a port of its own, and a route.
const neighbour = "0-neighbour"

func addNeighbour(in *object.Snapshot) {
	set(&in.GatewayClasses, neighbour, &gatewayv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: neighbour}, Spec: gatewayv1.GatewayClassSpec{ControllerName: GatewayController},
	})
	meta := metav1.ObjectMeta{Name: neighbour, Namespace: neighbour}
	key := object.Key{Namespace: neighbour, Name: neighbour}
	set(&in.Gateways, key, &gatewayv1.Gateway{ObjectMeta: meta, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: neighbour,
		Listeners:        []gatewayv1.Listener{{Name: "http", Protocol: gatewayv1.HTTPProtocolType, Port: 9999}},
	}})
	r := &gatewayv1.HTTPRoute{ObjectMeta: meta}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: neighbour}}
	r.Spec.Rules = make([]gatewayv1.HTTPRouteRule, 1)
	r.Spec.Rules[0].BackendRefs = make([]gatewayv1.HTTPBackendRef, 1)
	r.Spec.Rules[0].BackendRefs[0].Name, r.Spec.Rules[0].BackendRefs[0].Port = neighbour, new(int32(80))
	set(&in.HTTPRoutes, key, r)
	set(&in.Services, key, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
}

// addNeighbourService makes the Service that the neighbour wishes for, and returns where it is bound then: at a port that none of the others had.
func addNeighbourService(in *object.Snapshot, opt Options) uint16 {
	for _, s := range Compile(in, opt).Infrastructure.Services {
		if s.Gateway.Name == neighbour && len(s.Ports) > 0 {
			service := made(&s)
			service.Spec.ClusterIP, service.Status.LoadBalancer.Ingress = "10.96.0.1", []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
			set(&in.Services, s.Name, service)
			return s.Ports[0].Bind
		}
	}
	return 0
}

func checkNeighbour(t *testing.T, res Result, bind route.Bind) {
	t.Helper()
	checkNeighbourStatus(t, res)
	p := res.Table.Port(bind)
	if p == nil {
		t.Fatalf("nothing is served on %s:\n%s", bind, res.Table)
	}
	_, rule, _ := p.Lookup(&route.Request{Host: "neighbour.test", Path: "/", Method: "GET"})
	if rule == nil || rule.Source.Namespace != neighbour || rule.Fault != nil || rule.Backends[0].Fault != nil {
		t.Fatalf("the neighbour is not served as it was: %v\n%s", rule, res.Table)
	}
	for _, p := range res.Problems {
		if p.Object.Namespace == neighbour {
			t.Errorf("the neighbour has a problem: %s", p)
		}
	}
}

// checkNeighbourStatus checks that the status of the neighbour is what it is without anybody else, but for the address.
func checkNeighbourStatus(t *testing.T, res Result) {
	t.Helper()
	alone := &object.Snapshot{Taken: taken}
	addNeighbour(alone)
	key, want := object.Key{Namespace: neighbour, Name: neighbour}, Compile(alone, Options{}).Status
	have, lonely := res.Status.Gateways[key], want.Gateways[key]
	have.Addresses, lonely.Addresses = nil, nil
	if diff := gocmp.Diff(lonely, have); diff != "" {
		t.Errorf("the neighbour's Gateway has another status:\n%s", diff)
	}
	if diff := gocmp.Diff(want.HTTPRoutes[key], res.Status.HTTPRoutes[key]); diff != "" {
		t.Errorf("the neighbour's route has another status:\n%s", diff)
	}
}

// checkResult checks what must be true of every result.
func checkResult(t *testing.T, in *object.Snapshot, res Result) {
	t.Helper()
	for _, p := range res.Problems {
		if p.Code == codeInternal {
			t.Errorf("internal error: %s", p)
		}
		if p.Message == "" || p.Code == "" || p.Object.Name == "" && p.Object.Kind == "" {
			t.Errorf("a problem says too little: %+v", p)
		}
	}
	for _, p := range res.Table.Ports {
		names := map[string]bool{}
		for _, l := range p.Listeners {
			if names[l.Hostname] && !l.LastResort {
				t.Errorf("two listeners of %s have the hostname %q", p.Bind, l.Hostname)
			}
			names[l.Hostname] = names[l.Hostname] || !l.LastResort
			for _, h := range l.Hosts {
				for _, r := range h.Rules {
					checkRule(t, in, r)
				}
			}
		}
	}
	for _, c := range res.Certificates {
		for _, pair := range c.Pairs {
			from := referrer{gatewayGroup, c.Source.Kind, c.Source.Namespace}
			if !allowedSlowly(in, from, secretReferent(object.Key{Namespace: pair.Namespace, Name: pair.Name})) {
				t.Errorf("%s uses Secret %s/%s without a grant", c.Source, pair.Namespace, pair.Name)
			}
		}
	}
	checkConditions(t, in, res.Status)
	checkInfrastructure(t, in, res)
}

func checkRule(t *testing.T, in *object.Snapshot, r *route.Rule) {
	t.Helper()
	if m := r.Match.Path; m.Kind != route.Regex && m.Value != "" {
		if normal, _, err := route.NormalizePath(m.Value); err != nil || normal != m.Value {
			t.Errorf("%s: path %q is not in normal form", r.Source, m.Value)
		}
	}
	for _, b := range r.Backends {
		if b.Weight < 0 || b.Pool == nil && b.Fault == nil {
			t.Errorf("%s: backend %+v", r.Source, b)
		}
		if b.Pool == nil || b.Fault != nil {
			continue
		}
		from := referrer{gatewayGroup, r.Source.Kind, r.Source.Namespace}
		if !allowedSlowly(in, from, serviceReferent(object.Key{Namespace: b.Pool.Key.Namespace, Name: b.Pool.Key.Service})) {
			t.Errorf("%s uses Service %s without a grant", r.Source, b.Pool.Key)
		}
	}
}

// checkConditions checks that every condition has a reason and the generation of its object, and each type once.
func checkConditions(t *testing.T, in *object.Snapshot, s Status) {
	t.Helper()
	check := func(what string, generation int64, conditions []metav1.Condition) {
		t.Helper()
		seen := map[string]bool{}
		for _, c := range conditions {
			if c.Reason == "" || c.ObservedGeneration != generation || seen[c.Type] || len(c.Message) > 32768 {
				t.Errorf("%s: condition %+v, want generation %d", what, c, generation)
			}
			if c.Status != metav1.ConditionTrue && c.Message == "" && c.Reason != "NoConflicts" {
				t.Errorf("%s: condition %+v has no message", what, c)
			}
			seen[c.Type] = true
		}
		if len(conditions) == 0 || len(conditions) > 8 {
			t.Errorf("%s: %d conditions", what, len(conditions))
		}
	}
	for name, status := range s.GatewayClasses {
		check("GatewayClass "+name, in.GatewayClasses[name].Generation, status.Conditions)
	}
	for key, status := range s.Gateways {
		generation := in.Gateways[key].Generation
		check("Gateway "+key.String(), generation, status.Conditions)
		for _, l := range status.Listeners {
			check("listener "+string(l.Name), generation, l.Conditions)
			if l.SupportedKinds == nil {
				t.Errorf("listener %s: supportedKinds is nil, which is not an empty list", l.Name)
			}
		}
	}
	for key, status := range s.ListenerSets {
		generation := in.ListenerSets[key].Generation
		check("ListenerSet "+key.String(), generation, status.Conditions)
		for _, l := range status.Listeners {
			check("listener "+string(l.Name), generation, l.Conditions)
		}
	}
	for key, status := range s.BackendTLSPolicies {
		if n := len(status.Ancestors); n == 0 || n > 16 {
			t.Errorf("BackendTLSPolicy %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("BackendTLSPolicy "+key.String(), in.BackendTLSPolicies[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.XBackendTrafficPolicies {
		if n := len(status.Ancestors); n == 0 || n > 16 {
			t.Errorf("XBackendTrafficPolicy %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("XBackendTrafficPolicy "+key.String(), in.XBackendTrafficPolicies[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.XBackends {
		if n := len(status.Ancestors); n == 0 || n > 32 {
			t.Errorf("XBackend %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("XBackend "+key.String(), in.XBackends[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.HTTPRoutes {
		if len(status.Parents) > 32 {
			t.Errorf("HTTPRoute %s: %d parents", key, len(status.Parents))
		}
		for _, p := range status.Parents {
			check("HTTPRoute "+key.String(), in.HTTPRoutes[key].Generation, p.Conditions)
		}
	}
}
