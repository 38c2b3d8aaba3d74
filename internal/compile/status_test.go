package compile

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/consts"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Conditions carry the generation of their object, whatever else is wrong with it.
func TestObservedGenerationEverywhere(t *testing.T) {
	for _, dir := range goldenDirs(t) {
		in := readFile(t, dir+"/in.yaml")
		snapshot := load(t, in)
		generation := int64(2)
		for _, o := range snapshot.GatewayClasses {
			o.Generation, generation = generation, generation+1
		}
		for _, o := range snapshot.Gateways {
			o.Generation, generation = generation, generation+1
		}
		for _, o := range snapshot.HTTPRoutes {
			o.Generation, generation = generation, generation+1
		}
		checkConditions(t, snapshot, Compile(snapshot, parseOptions(t, in)).Status)
	}
}

// A GatewayClass says whether the definitions in the cluster are from the release that Fairlead is built for. Where they are not known, as in a folder, it says nothing.
func TestSupportedVersion(t *testing.T) {
	const gateways, routes = "gateways.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io"
	for _, test := range []struct {
		name        string
		definitions map[string]*object.Definition
		want        string
	}{
		{"none", nil, "GatewayClass fairlead: Accepted\n"},
		{"the same", map[string]*object.Definition{gateways: {Version: consts.BundleVersion}}, "GatewayClass fairlead: Accepted SupportedVersion\n"},
		{"another patch", map[string]*object.Definition{gateways: {Version: "v1.6.0"}, routes: {Version: "v1.6.99"}}, "GatewayClass fairlead: Accepted SupportedVersion\n"},
		{
			name:        "one is older",
			definitions: map[string]*object.Definition{gateways: {Version: "v1.6.3"}, routes: {Version: "v1.5.1"}},
			want:        "GatewayClass fairlead: Accepted; SupportedVersion=False UnsupportedVersion: Fairlead is built for v1.6.x of the Gateway API, and the cluster has definitions of other versions: httproutes.gateway.networking.k8s.io (v1.5.1);",
		},
		{"newer", map[string]*object.Definition{gateways: {Version: "v1.60.0"}}, "SupportedVersion=False UnsupportedVersion"},
		{"no annotation", map[string]*object.Definition{gateways: {}}, "gateways.gateway.networking.k8s.io (without a version)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := load(t, mustGateway)
			in.Definitions = test.definitions
			res := Compile(in, Options{})
			text := res.Status.String()
			if !strings.Contains(text, test.want) {
				t.Errorf("the status has no %q:\n%s", test.want, text)
			}
			if !strings.Contains(text, "Gateway infra/gw: Accepted Programmed") {
				t.Errorf("the Gateway is not served:\n%s", text)
			}
			if told := strings.Contains(statusText(res), "warning: GatewayClass fairlead spec.controllerName: Fairlead is built for"); told != strings.Contains(text, "UnsupportedVersion") {
				t.Errorf("the author is told: %t", told)
			}
		})
	}
}

// The status of a route names its parents exactly as the route does.
func TestParentRefIsEchoedVerbatim(t *testing.T) {
	parents := []gatewayv1.ParentReference{
		{Name: "gw", Namespace: new(gatewayv1.Namespace("infra")), SectionName: new(gatewayv1.SectionName("http"))},
		{Name: "gw", Namespace: new(gatewayv1.Namespace("infra")), Group: new(gatewayv1.Group(gatewayGroup)), Kind: new(gatewayv1.Kind("Gateway")), Port: new(int32(80))},
		{Name: "gw", Namespace: new(gatewayv1.Namespace("infra")), SectionName: new(gatewayv1.SectionName("no-such"))},
	}
	in := load(t, mustGateway+mustRoute("r", toV1)+mustServices)
	key := object.Key{Namespace: "shop", Name: "r"}
	in.HTTPRoutes[key].Spec.ParentRefs = parents
	var got []gatewayv1.ParentReference
	for _, p := range Compile(in, Options{GatewayController: GatewayController}).Status.HTTPRoutes[key].Parents {
		if p.ControllerName != GatewayController {
			t.Errorf("controllerName is %q", p.ControllerName)
		}
		got = append(got, p.ParentRef)
	}
	if diff := gocmp.Diff(parents, got); diff != "" {
		t.Errorf("parents differ (-spec +status):\n%s", diff)
	}
}

func TestSupportedFeaturesAreSorted(t *testing.T) {
	if !slices.IsSorted(supportedFeatures) {
		t.Errorf("not in alphabetical order: %v", supportedFeatures)
	}
	if n := len(slices.Compact(slices.Clone(supportedFeatures))); n != len(supportedFeatures) || n > 64 {
		t.Errorf("%d features of which %d are different; at most 64 are allowed", len(supportedFeatures), n)
	}
	for _, name := range supportedFeatures {
		if features.GetFeature(features.FeatureName(name)).Name == "" || strings.HasPrefix(string(name), "Mesh") {
			t.Errorf("%s is not the name of a feature of gateways", name)
		}
	}
	in := load(t, mustGateway)
	if got := len(Compile(in, Options{}).Status.GatewayClasses["fairlead"].SupportedFeatures); got != len(supportedFeatures) {
		t.Errorf("the status has %d features, want %d", got, len(supportedFeatures))
	}
}

// The name of a Gateway may have 253 characters.
func TestLongestGatewayName(t *testing.T) {
	name := strings.Repeat("a", 253)
	in := load(t, strings.ReplaceAll(mustGateway+mustRoute("r", toV1)+mustServices, "name: gw", "name: "+name))
	res := Compile(in, Options{})
	if got := answer(t, res.Table, Options{}, "GET http://a.example.com/"); !strings.Contains(got, "shop/v1:80") {
		t.Errorf("got %s", got)
	}
	if len(res.Status.Gateways[object.Key{Namespace: "infra", Name: name}].Conditions) == 0 {
		t.Error("the Gateway has no status")
	}
}

// A listener that appears or goes leaves its neighbours as they are.
func TestListenersComeAndGo(t *testing.T) {
	in := load(t, mustGateway+mustRouteOn("r", "{name: gw, namespace: infra, sectionName: http}", toV1)+mustServices)
	gateway := in.Gateways[object.Key{Namespace: "infra", Name: "gw"}]
	before := Compile(in, Options{})
	gateway.Spec.Listeners = append(gateway.Spec.Listeners, gatewayv1.Listener{Name: "more", Port: 81, Protocol: gatewayv1.HTTPProtocolType})
	during := Compile(in, Options{})
	gateway.Spec.Listeners = gateway.Spec.Listeners[:1]
	after := Compile(in, Options{})
	key := object.KeyOf(gateway)
	if diff := gocmp.Diff(before.Status.Gateways[key].Listeners[0], during.Status.Gateways[key].Listeners[0]); diff != "" {
		t.Errorf("the neighbour's status changed (-before +during):\n%s", diff)
	}
	if len(during.Status.Gateways[key].Listeners) != 2 || resultText(before) != resultText(after) {
		t.Error("the listener did not come and go")
	}
}

// A fault of ours in one object is a problem of that object.
func TestGuard(t *testing.T) {
	c := &compiler{}
	ref := object.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "r"}
	var none []int
	c.guard(ref, func() { none[3]++ })
	if len(c.problems.list) != 1 || c.problems.list[0].Object != ref || c.problems.list[0].Code != codeInternal {
		t.Errorf("problems: %v", c.problems.list)
	}
}

// An empty snapshot, and one with nothing but nil objects, compile to nothing.
func TestEmptySnapshots(t *testing.T) {
	key := object.Key{Namespace: "a", Name: "b"}
	for name, in := range map[string]*object.Snapshot{
		"empty": {},
		"nil objects": {
			GatewayClasses: map[string]*gatewayv1.GatewayClass{"c": nil}, Gateways: map[object.Key]*gatewayv1.Gateway{key: nil},
			HTTPRoutes: map[object.Key]*gatewayv1.HTTPRoute{key: nil}, ReferenceGrants: map[object.Key]*gatewayv1.ReferenceGrant{key: nil},
		},
	} {
		if text := strings.TrimSpace(resultText(Compile(in, Options{}))); text != "" {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// Explain says in words why a route does not get a request that it seems to be meant for.
func TestExplainTellsWhyARouteIsNotServed(t *testing.T) {
	in := load(t, readFile(t, "testdata/a-route-from-another-namespace-must-be-allowed/in.yaml"))
	e := Compile(in, Options{}).Table.Explain(route.Bind{Port: 80}, &route.Request{Host: "out.example.com", Path: "/", Method: "GET"})
	if want := "Gateway infra/gw allows routes from its own namespace only"; !strings.Contains(e.String(), want) {
		t.Errorf("the explanation does not say %q:\n%s", want, e)
	}
}

// The data plane counts requests by rule and listener, so that listeners must not share rules; the hosts of one listener do.
func TestListenersDoNotShareRules(t *testing.T) {
	in := load(t, mustListeners(`{name: a, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}},
    {name: b, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}`)+mustRoute("r", "hostnames: [x.example.com, y.example.com], "+toV1)+mustServices)
	ports := Compile(in, Options{}).Table.Ports
	a, b := ports[0].Listeners[0], ports[1].Listeners[0]
	if a.Hosts[0].Rules[0] == b.Hosts[0].Rules[0] {
		t.Error("two listeners share a rule")
	}
	if a.Hosts[0].Rules[0] != a.Hosts[1].Rules[0] {
		t.Error("two hosts of a listener have copies of a rule")
	}
}

func TestProblemsAreSortedAsPeopleCount(t *testing.T) {
	want := []string{"spec", "spec.hostnames", "spec.rules[2]", "spec.rules[2].backendRefs[10]", "spec.rules[2].filters[9]", "spec.rules[10]", "spec.rules[10].name", "spec.rules[11]"}
	var p problems
	for _, field := range slices.Backward(want) {
		p.add(Note, object.Ref{Kind: "HTTPRoute", Name: "r"}, field, "Code", "message")
	}
	var got []string
	for _, problem := range p.sorted() {
		got = append(got, problem.Field)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFieldPaths(t *testing.T) {
	for got, want := range map[string]string{
		ruleField(0): "spec.rules[0]", ruleField(16): "spec.rules[16]",
		matchField(15, 7): "spec.rules[15].matches[7]", matchField(2, 8): "spec.rules[2].matches[8]", matchField(16, 0): "spec.rules[16].matches[0]",
		backendField(3, 4): "spec.rules[3].backendRefs[4]", backendField(40, 50): "spec.rules[40].backendRefs[50]",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The conditions of routes have the reasons of Gateway API where it has one for what is wrong with a Service.
func TestReasonsOfBackends(t *testing.T) {
	in := load(t, mustGateway+mustServices+mustRoute("udp", toV1)+mustRoute("external", toV2))
	in.Services[object.Key{Namespace: "shop", Name: "v1"}].Spec.Ports[0].Protocol = "UDP"
	in.Services[object.Key{Namespace: "shop", Name: "v2"}].Spec.Type = "ExternalName"
	status := Compile(in, Options{}).Status.String()
	for _, want := range []string{
		"HTTPRoute shop/udp on infra/gw: Accepted; ResolvedRefs=False UnsupportedProtocol: port 80 of Service shop/v1",
		"HTTPRoute shop/external on infra/gw: Accepted; ResolvedRefs=False ExternalNameNotAllowed: Service shop/v2",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
}
