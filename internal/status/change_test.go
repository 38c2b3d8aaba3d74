package status

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/fairlead-io/fairlead/internal/object"
)

const ours, theirs = "fairlead.io/gateway-controller", "example.net/other"

// entryOf is an entry of the parents of a route as it is in JSON. Those of others have a field that we do not know.
func entryOf(controller, parent string, conditions ...string) string {
	extra := ""
	if controller != ours {
		extra = `,"unheardOf":{"deep":[1,null,"x"]}`
	}
	return fmt.Sprintf(`{"conditions":[%s],"controllerName":%q,"parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":%q}%s}`,
		strings.Join(conditions, ","), controller, parent, extra)
}

// jsonCond is a condition in JSON: as cond has it, from the time before or now.
func jsonCond(text string, at metav1.Time) string {
	c := cond(text, at)
	return fmt.Sprintf(`{"lastTransitionTime":%q,"message":"","observedGeneration":%d,"reason":%q,"status":%q,"type":%q}`,
		at.UTC().Format("2006-01-02T15:04:05Z"), c.ObservedGeneration, c.Reason, c.Status, c.Type)
}

func parentRef(name string) gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind("Gateway")
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(name)}
}

// parentsOf makes what the compiler says about the parents of a route: "gateway Type=Status Reason generation;...".
func parentsOf(texts ...string) gatewayv1.HTTPRouteStatus {
	var s gatewayv1.HTTPRouteStatus
	for _, text := range texts {
		name, conditions, _ := strings.Cut(text, " ")
		p := gatewayv1.RouteParentStatus{ParentRef: parentRef(name), ControllerName: ours}
		for c := range strings.SplitSeq(conditions, ";") {
			p.Conditions = append(p.Conditions, cond(strings.TrimSpace(c), metav1.Time{}))
		}
		s.Parents = append(s.Parents, p)
	}
	return s
}

func routeJSON(name string, generation int, parents ...string) string {
	status := ""
	if parents != nil {
		status = `,"status":{"parents":[` + strings.Join(parents, ",") + `]}`
	}
	return fmt.Sprintf(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"namespace":"shop","name":%q,"generation":%d},"spec":{}%s}`,
		name, generation, status)
}

// unconnected is a Writer whose clients lead to no API server.
func unconnected() *Writer {
	return New(Options{Kubernetes: kubernetes.New(nil), Gateway: versioned.New(nil)})
}

// kindOf returns a kind of a Writer that sends nothing.
func kindOf(t *testing.T, name string) *kind {
	t.Helper()
	for _, k := range unconnected().kinds {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("there is no kind %s", name)
	return nil
}

// apply does to an object in the API server what turns its status into want, as of now, and returns the change. It fails if that does not make it so.
func apply(t *testing.T, a *api, ref object.Ref, want any) *change {
	t.Helper()
	k := kindOf(t, ref.Kind)
	c := &change{about: ref, now: now}
	k.compare(c, a.object(ref), want)
	if c.empty() {
		return c
	}
	typ, body, err := c.patch(a.object(ref).GetResourceVersion())
	if err != nil {
		t.Fatal(err)
	}
	if resp := a.patch(pathOf(ref), string(typ), body); resp.StatusCode != http.StatusOK {
		t.Fatalf("the patch %s of %s is answered with %s", body, a.raw(ref), resp.Body)
	}
	again := &change{about: ref, now: before}
	if k.compare(again, a.object(ref), want); !again.empty() {
		t.Fatalf("after the patch %s of %s it is not as wanted, but wants %v", body, a.raw(ref), again.ops)
	}
	return c
}

// object returns an object as its type.
func (a *api) object(ref object.Ref) metav1.Object {
	s := a.snapshot()
	switch ref.Kind {
	case "GatewayClass":
		return s.GatewayClasses[ref.Name]
	case "Gateway":
		return s.Gateways[ref.Key()]
	case "BackendTLSPolicy":
		return s.BackendTLSPolicies[ref.Key()]
	case "XBackendTrafficPolicy":
		return s.XBackendTrafficPolicies[ref.Key()]
	case "XBackend":
		return s.XBackends[ref.Key()]
	case "ListenerSet":
		return s.ListenerSets[ref.Key()]
	case "HTTPRoute":
		return s.HTTPRoutes[ref.Key()]
	}
	return s.Ingresses[ref.Key()]
}

func TestListenerSet(t *testing.T) {
	const foreign = `{"lastTransitionTime":"2020-01-01T00:00:00Z","message":"","observedGeneration":1,"reason":"Odd","status":"True","type":"example.com/Odd"}`
	a := newAPI(t)
	ref := a.put(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"ListenerSet","metadata":{"namespace":"shop","name":"extra"},"spec":{},"status":{"conditions":[` +
		foreign + `],"listeners":[{"name":"gone","attachedRoutes":1,"conditions":[]},{"name":"web","attachedRoutes":1,"supportedKinds":[],"conditions":[` + foreign + `]}]}}`)
	want := gatewayv1.ListenerSetStatus{
		Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})},
		Listeners:  []gatewayv1.ListenerEntryStatus{gatewayv1.ListenerEntryStatus(listenerStatus("web", 2, "Accepted=True Accepted I"))},
	}
	apply(t, a, ref, want)
	for _, list := range [][]any{{"conditions", 0}, {"listeners", 0, "conditions", 0}} {
		if got := a.raw(ref, list...); got != foreign {
			t.Errorf("the condition of somebody else is %s", got)
		}
	}
	if got := a.raw(ref, "listeners", 0, "name") + a.raw(ref, "listeners", 0, "attachedRoutes"); got != `"web"2` {
		t.Errorf("the listener is %s", got)
	}
	want.Listeners[0].AttachedRoutes = 3
	if c := apply(t, a, ref, want); !c.minor() {
		t.Errorf("another number of routes is more than a number: %v", c.ops)
	}
	a.put(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"ListenerSet","metadata":{"namespace":"shop","name":"extra"},"spec":{}}`)
	if c := apply(t, a, ref, want); c.whole == nil {
		t.Errorf("a new status is written piece by piece: %v", c.ops)
	}
}

func TestPolicy(t *testing.T) {
	for kind, version := range map[string]string{"BackendTLSPolicy": "gateway.networking.k8s.io/v1", "XBackendTrafficPolicy": "gateway.networking.x-k8s.io/v1alpha1"} {
		t.Run(kind, func(t *testing.T) {
			testPolicy(t, `"apiVersion":"`+version+`","kind":"`+kind+`","metadata":{"namespace":"shop","name":"p"},"spec":{}`)
		})
	}
}

func testPolicy(t *testing.T, policy string) {
	const foreign = `{"ancestorRef":{"name":"a"},"conditions":[],"controllerName":"third.example/c","odd":1}`
	mine := func(name string) string {
		return `{"ancestorRef":{"name":"` + name + `"},"conditions":[],"controllerName":"` + ours + `"}`
	}
	a := newAPI(t)
	ref := a.put(`{` + policy + `,"status":{"ancestors":[` +
		mine("gone") + "," + foreign + "," + mine("a") + `]}}`)
	want := gatewayv1.PolicyStatus{Ancestors: []gatewayv1.PolicyAncestorStatus{
		{AncestorRef: gatewayv1.ParentReference{Name: "a"}, Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})}},
		{AncestorRef: gatewayv1.ParentReference{Name: "b"}, Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})}},
	}}
	apply(t, a, ref, want)
	if got := a.raw(ref, "ancestors", 0); got != foreign {
		t.Errorf("the entry of somebody else is %s", got)
	}
	for i, name := range []string{`"a"`, `"b"`} {
		if got := a.raw(ref, "ancestors", i+1, "ancestorRef", "name"); got != name || a.raw(ref, "ancestors", i+1, "conditions", 0, "type") != `"Accepted"` {
			t.Errorf("entry %d is %s", i+1, a.raw(ref, "ancestors", i+1))
		}
	}
	apply(t, a, ref, gatewayv1.PolicyStatus{})
	if got := a.raw(ref, "ancestors"); got != "["+foreign+"]" {
		t.Errorf("what is left is %s", got)
	}
	a.put(`{` + policy + `}`)
	if c := apply(t, a, ref, want); c.whole == nil {
		t.Errorf("a new status is written piece by piece: %v", c.ops)
	}
}

func TestBackend(t *testing.T) {
	const foreign = `{"conditions":[],"controllerName":"third.example/c","odd":1,"parentRef":{"name":"a"}}`
	a := newAPI(t)
	ref := a.put(`{"apiVersion":"gateway.networking.x-k8s.io/v1alpha1","kind":"XBackend","metadata":{"namespace":"shop","name":"b"},"spec":{},"status":{"parents":[` +
		entryOf(ours, "gone") + "," + foreign + "," + entryOf(ours, "a") + `]}}`)
	want := gatewayx.BackendStatus{Ancestors: []gatewayx.BackendAncestorStatus{
		{AncestorRef: gatewayv1.ParentReference{Name: "a"}, Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})}},
		{AncestorRef: gatewayv1.ParentReference{Name: "b"}, Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})}},
	}}
	apply(t, a, ref, want)
	if got := a.raw(ref, "parents", 0); got != foreign {
		t.Errorf("the entry of somebody else is %s", got)
	}
	for i, name := range []string{`"a"`, `"b"`} {
		if got := a.raw(ref, "parents", i+1, "parentRef", "name"); got != name || a.raw(ref, "parents", i+1, "conditions", 0, "type") != `"Accepted"` {
			t.Errorf("entry %d is %s", i+1, a.raw(ref, "parents", i+1))
		}
	}
	apply(t, a, ref, gatewayx.BackendStatus{})
	if got := a.raw(ref, "parents"); got != "["+foreign+"]" {
		t.Errorf("what is left is %s", got)
	}
}

func TestRoute(t *testing.T) {
	accepted, refused := jsonCond("Accepted=True Accepted I", before), jsonCond("Accepted=False NoMatchingParent I", before)
	foreign := entryOf(theirs, "a", jsonCond("Accepted=Unknown Odd I", before))
	third := entryOf("third.example/c", "a", accepted)
	tests := []struct {
		name       string
		generation int
		have       []string // nil: no status
		want       gatewayv1.HTTPRouteStatus
		then       []string
		idle       bool // nothing is written
	}{
		{
			name: "a route without a status gets one", want: parentsOf("a Accepted=True Accepted I"),
			then: []string{entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now))},
		},
		{
			name: "a route with an empty status gets one", have: []string{}, want: parentsOf("a Accepted=True Accepted I"),
			then: []string{entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now))},
		},
		{name: "a route that nobody serves is left alone", idle: true},
		{name: "a route that others serve is left alone", have: []string{foreign, third}, then: []string{foreign, third}, idle: true},
		{
			name: "what is as it should be is left alone", have: []string{foreign, entryOf(ours, "a", accepted)}, want: parentsOf("a Accepted=True Accepted I"),
			then: []string{foreign, entryOf(ours, "a", accepted)}, idle: true,
		},
		{
			name: "entries of others survive in order, ours comes last", have: []string{foreign, third}, want: parentsOf("a Accepted=True Accepted I"),
			then: []string{foreign, third, entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now))},
		},
		{
			name: "our entry changes where it is", have: []string{foreign, entryOf(ours, "a", refused), third}, want: parentsOf("a Accepted=True Accepted I"),
			then: []string{foreign, entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now)), third},
		},
		{
			name: "a new generation is noted and no transition", generation: 2, have: []string{entryOf(ours, "a", accepted), foreign},
			want: parentsOf("a Accepted=True Accepted II"), then: []string{entryOf(ours, "a", jsonCond("Accepted=True Accepted II", before)), foreign},
		},
		{
			name: "entries of ours that are not wanted go",
			have: []string{entryOf(ours, "x", accepted), foreign, entryOf(ours, "a", accepted), entryOf(ours, "y", accepted), third},
			want: parentsOf("a Accepted=True Accepted I"), then: []string{foreign, entryOf(ours, "a", accepted), third},
		},
		{
			name: "the last entry of ours goes", have: []string{entryOf(ours, "a", accepted)}, then: []string{},
		},
		{
			name: "entries of ours go from between those of others", have: []string{foreign, entryOf(ours, "a", accepted), third}, then: []string{foreign, third},
		},
		{
			name: "an entry that is there twice goes once", have: []string{entryOf(ours, "a", accepted), foreign, entryOf(ours, "a", refused)},
			want: parentsOf("a Accepted=True Accepted I"), then: []string{entryOf(ours, "a", accepted), foreign},
		},
		{
			name: "a condition of ours that is not wanted any more goes, one of somebody else in our entry stays",
			have: []string{entryOf(ours, "a", jsonCond("PartiallyInvalid=True UnsupportedValue I", before), jsonCond("policy.example/Affected=True Yes I", before), accepted)},
			want: parentsOf("a Accepted=True Accepted I;ResolvedRefs=True ResolvedRefs I"),
			then: []string{entryOf(ours, "a", jsonCond("policy.example/Affected=True Yes I", before), accepted, jsonCond("ResolvedRefs=True ResolvedRefs I", now))},
		},
		{
			name: "one of two parents is new", have: []string{entryOf(ours, "b", accepted), foreign},
			want: parentsOf("a Accepted=True Accepted I", "b Accepted=True Accepted I"),
			then: []string{entryOf(ours, "b", accepted), foreign, entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now))},
		},
		{
			name: "a condition from a generation that the object does not have is not believed",
			have: []string{entryOf(ours, "a", jsonCond("Accepted=False NoMatchingParent IIIII", before))}, want: parentsOf("a Accepted=True Accepted I"),
			then: []string{entryOf(ours, "a", jsonCond("Accepted=True Accepted I", now))},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			ref := a.put(routeJSON("r", max(1, tt.generation), tt.have...))
			if c := apply(t, a, ref, tt.want); c.empty() != tt.idle {
				t.Errorf("nothing to write: %t, want %t", c.empty(), tt.idle)
			}
			want := "null"
			if tt.have != nil || tt.then != nil {
				want = `{"parents":[` + strings.Join(tt.then, ",") + "]}"
			}
			if diff := cmp.Diff(want, a.raw(ref)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestRouteEchoesParentRefsVerbatim(t *testing.T) {
	a := newAPI(t)
	ref := a.put(routeJSON("r", 1, entryOf(ours, "a", jsonCond("Accepted=True Accepted I", before))))
	want := parentsOf("a Accepted=True Accepted I")
	namespace, section := gatewayv1.Namespace("shop"), gatewayv1.SectionName("")
	want.Parents[0].ParentRef.Namespace, want.Parents[0].ParentRef.SectionName = &namespace, &section // means the same, and is written otherwise
	apply(t, a, ref, want)
	if got := a.raw(ref, "parents", 0, "parentRef"); got != `{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"a","namespace":"shop","sectionName":""}` {
		t.Errorf("parentRef is %s", got)
	}
	if got := a.raw(ref, "parents", 0, "conditions", 0, "lastTransitionTime"); got != `"2026-01-02T03:04:05Z"` {
		t.Errorf("the condition transitioned at %s, since its parentRef is written otherwise", got)
	}
	port, section2 := gatewayv1.PortNumber(80), gatewayv1.SectionName("web")
	for _, p := range []gatewayv1.ParentReference{{Name: "a", Port: &port}, {Name: "a", SectionName: &section2}, {Name: "b"}} {
		other := parentsOf("a Accepted=True Accepted I", "a Accepted=True Accepted I")
		other.Parents[1].ParentRef = p
		apply(t, a, ref, other)
		if n := strings.Count(a.raw(ref), "controllerName"); n != 2 {
			t.Errorf("%d entries for two parents, one of which is %+v: %s", n, p, a.raw(ref))
		}
	}
}

func TestRouteKeepsWithinTheLimitOfParents(t *testing.T) {
	for _, tt := range []struct{ foreign, wanted, fit int }{{31, 1, 1}, {31, 3, 1}, {32, 2, 0}, {30, 2, 2}, {0, 32, 32}, {0, 40, 32}, {1, 70, 31}} {
		t.Run(fmt.Sprintf("%d of others and %d of ours", tt.foreign, tt.wanted), func(t *testing.T) {
			a := newAPI(t)
			have := make([]string, tt.foreign)
			for i := range have {
				have[i] = entryOf(theirs, fmt.Sprint(i), jsonCond("Accepted=True Accepted I", before))
			}
			ref := a.put(routeJSON("r", 1, have...))
			texts := make([]string, tt.wanted)
			for i := range texts {
				texts[i] = fmt.Sprintf("g%d Accepted=True Accepted I", i)
			}
			c := apply(t, a, ref, parentsOf(texts...))
			if tt.fit == 0 {
				if !c.empty() {
					t.Errorf("something is written though nothing fits: %v", c.ops)
				}
			}
			raw := a.raw(ref)
			if got := strings.Count(raw, `"controllerName":"`+ours); got != tt.fit {
				t.Errorf("%d of ours are in the status, want %d", got, tt.fit)
			}
			if !strings.Contains(raw, strings.Join(have, ",")) {
				t.Errorf("an entry of somebody else is not what it was: %.500s", raw)
			}
			if told := len(c.problems) == 1 && c.problems[0].Code == "TooManyParents" && c.problems[0].Object == ref; told != (tt.fit < tt.wanted) {
				t.Errorf("problems: %v", c.problems)
			}
		})
	}
}

func TestRouteTakesTheRoomThatItsOwnEntriesLeave(t *testing.T) {
	a := newAPI(t)
	have := []string{entryOf(ours, "old", jsonCond("Accepted=True Accepted I", before))}
	for i := range 31 {
		have = append(have, entryOf(theirs, fmt.Sprint(i)))
	}
	ref := a.put(routeJSON("r", 1, have...))
	if c := apply(t, a, ref, parentsOf("new Accepted=True Accepted I")); len(c.problems) > 0 {
		t.Errorf("problems: %v", c.problems)
	}
	if raw := a.raw(ref); strings.Contains(raw, `"old"`) || !strings.Contains(raw, `"new"`) {
		t.Errorf("the status is %.200s ... %s", raw, raw[len(raw)-200:])
	}
}

func gatewayJSON(status string) string {
	return `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"namespace":"infra","name":"web","generation":2},"spec":{}` + status + `}`
}

func listenerJSON(name string, attached int, extra string, conditions ...string) string {
	return fmt.Sprintf(`{"attachedRoutes":%d,"conditions":[%s],"name":%q,"supportedKinds":[{"group":"gateway.networking.k8s.io","kind":"HTTPRoute"}]%s}`,
		attached, strings.Join(conditions, ","), name, extra)
}

func gatewayStatus(listeners ...gatewayv1.ListenerStatus) gatewayv1.GatewayStatus {
	typ := gatewayv1.IPAddressType
	return gatewayv1.GatewayStatus{
		Addresses:  []gatewayv1.GatewayStatusAddress{{Type: &typ, Value: "192.0.2.1"}},
		Conditions: []metav1.Condition{cond("Accepted=True Accepted II", metav1.Time{}), cond("Programmed=True Programmed II", metav1.Time{})},
		Listeners:  listeners,
	}
}

func listenerStatus(name string, attached int32, conditions ...string) gatewayv1.ListenerStatus {
	group := gatewayv1.Group(gatewayv1.GroupName)
	s := gatewayv1.ListenerStatus{
		Name: gatewayv1.SectionName(name), AttachedRoutes: attached, SupportedKinds: []gatewayv1.RouteGroupKind{{Group: &group, Kind: "HTTPRoute"}},
	}
	for _, c := range conditions {
		s.Conditions = append(s.Conditions, cond(c, metav1.Time{}))
	}
	return s
}

const (
	gatewayAddresses = `"addresses":[{"type":"IPAddress","value":"192.0.2.1"}]`
	pending          = `{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller","reason":"Pending","status":"Unknown","type":"Accepted"},` +
		`{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller","reason":"Pending","status":"Unknown","type":"Programmed"}`
	strange = `{"lastTransitionTime":"2020-01-01T00:00:00Z","message":"","observedGeneration":1,"reason":"Because","status":"False","type":"example.com/Strange","unheardOf":[1]}`
)

func TestGateway(t *testing.T) {
	accepted, programmed := jsonCond("Accepted=True Accepted II", before), jsonCond("Programmed=True Programmed II", before)
	acceptedNow, programmedNow := jsonCond("Accepted=True Accepted II", now), jsonCond("Programmed=True Programmed II", now)
	settled := `"conditions":[` + accepted + "," + programmed + "]"
	web := func(n int, extra string) string {
		return listenerJSON("web", n, extra, jsonCond("Accepted=True Accepted II", before))
	}
	tests := []struct {
		name       string
		have       string // the status, without braces; "" for none
		want       gatewayv1.GatewayStatus
		then       string
		idle, less bool // nothing is written; only counts are
	}{
		{
			name: "a Gateway without a status gets one", want: gatewayStatus(listenerStatus("web", 0, "Accepted=True Accepted II")),
			then: gatewayAddresses + `,"conditions":[` + acceptedNow + "," + programmedNow + `],"listeners":[` +
				listenerJSON("web", 0, "", jsonCond("Accepted=True Accepted II", now)) + "]",
		},
		{
			name: "what the CRD puts in by default is overwritten", have: `"conditions":[` + pending + "]", want: gatewayStatus(),
			then: gatewayAddresses + `,"conditions":[` + acceptedNow + "," + programmedNow + "]",
		},
		{
			name: "what is as it should be is left alone", have: gatewayAddresses + "," + settled + `,"listeners":[` + web(3, "") + "]",
			want: gatewayStatus(listenerStatus("web", 3, "Accepted=True Accepted II")), idle: true,
			then: gatewayAddresses + "," + settled + `,"listeners":[` + web(3, "") + "]",
		},
		{
			name: "the order of conditions and listeners is no reason to write",
			have: gatewayAddresses + `,"conditions":[` + programmed + "," + accepted + `],"listeners":[` + listenerJSON("b", 0, "") + "," + listenerJSON("a", 0, "") + "]",
			want: gatewayStatus(listenerStatus("a", 0), listenerStatus("b", 0)), idle: true,
			then: gatewayAddresses + `,"conditions":[` + programmed + "," + accepted + `],"listeners":[` + listenerJSON("b", 0, "") + "," + listenerJSON("a", 0, "") + "]",
		},
		{
			name: "conditions of others survive on the Gateway and on its listeners",
			have: `"conditions":[` + strange + "," + pending + `],"listeners":[` + listenerJSON("web", 0, `,"unheardOf":{"a":1}`, strange, jsonCond("Accepted=False Invalid I", before), strange2) + `],"unheardOf":true`,
			want: gatewayStatus(listenerStatus("web", 1, "Accepted=True Accepted II")),
			then: gatewayAddresses + `,"conditions":[` + strange + "," + acceptedNow + "," + programmedNow + `],"listeners":[` +
				listenerJSON("web", 1, `,"unheardOf":{"a":1}`, strange, acceptedNow, strange2) + `],"unheardOf":true`,
		},
		{
			name: "conditions of ours that are not wanted any more go, on the Gateway and on its listeners",
			have: gatewayAddresses + `,"conditions":[` + jsonCond("ResolvedRefs=False InvalidClientCertificateRef II", before) + "," + accepted + "," + strange + "," + programmed +
				`],"listeners":[` + listenerJSON("web", 0, "", jsonCond("OverlappingTLSConfig=True OverlappingHostnames II", before), strange) + "]",
			want: gatewayStatus(listenerStatus("web", 0)),
			then: gatewayAddresses + `,"conditions":[` + accepted + "," + strange + "," + programmed + `],"listeners":[` + listenerJSON("web", 0, "", strange) + "]",
		},
		{
			name: "only counts", have: gatewayAddresses + "," + settled + `,"listeners":[` + web(3, "") + "]", less: true,
			want: gatewayStatus(listenerStatus("web", 4, "Accepted=True Accepted II")),
			then: gatewayAddresses + "," + settled + `,"listeners":[` + web(4, "") + "]",
		},
		{
			name: "listeners come, go, and are put into the order of the spec, and what others have in them survives",
			have: gatewayAddresses + "," + settled + `,"listeners":[` +
				strings.Join([]string{listenerJSON("a", 1, `,"x":"a"`), listenerJSON("gone", 1, ""), listenerJSON("b", 2, `,"x":"b"`, strange), listenerJSON("gone2", 2, ""), listenerJSON("c", 3, "")}, ",") + "]",
			want: gatewayStatus(listenerStatus("c", 5), listenerStatus("new", 0), listenerStatus("a", 1), listenerStatus("new2", 0), listenerStatus("b", 2)),
			then: gatewayAddresses + "," + settled + `,"listeners":[` +
				strings.Join([]string{listenerJSON("c", 5, ""), listenerNew("new"), listenerJSON("a", 1, `,"x":"a"`), listenerNew("new2"), listenerJSON("b", 2, `,"x":"b"`, strange)}, ",") + "]",
		},
		{
			name: "all listeners go", have: gatewayAddresses + "," + settled + `,"listeners":[` + web(3, "") + "]", want: gatewayStatus(),
			then: gatewayAddresses + "," + settled + `,"listeners":[]`,
		},
		{
			name: "kinds of a listener", have: gatewayAddresses + "," + settled + `,"listeners":[` + web(3, "") + "]",
			want: gatewayStatus(func() gatewayv1.ListenerStatus {
				s := listenerStatus("web", 3, "Accepted=True Accepted II")
				s.SupportedKinds = nil
				return s
			}()),
			then: gatewayAddresses + "," + settled + `,"listeners":[{"attachedRoutes":3,"conditions":[` + accepted + `],"name":"web","supportedKinds":[]}]`,
		},
		{
			name: "addresses change", have: `"addresses":[{"value":"192.0.2.7"}],` + settled, want: gatewayStatus(), then: gatewayAddresses + "," + settled,
		},
		{
			name: "an address without a type is an IP address", have: `"addresses":[{"value":"192.0.2.1"}],` + settled, want: gatewayStatus(), idle: true,
			then: `"addresses":[{"value":"192.0.2.1"}],` + settled,
		},
		{
			name: "addresses go", have: gatewayAddresses + "," + settled, want: gatewayv1.GatewayStatus{Conditions: gatewayStatus().Conditions}, then: settled,
		},
		{
			name: "attached ListenerSets are counted", have: gatewayAddresses + "," + settled, less: true,
			want: func() gatewayv1.GatewayStatus { s := gatewayStatus(); s.AttachedListenerSets = new(int32(0)); return s }(),
			then: gatewayAddresses + `,"attachedListenerSets":0,` + settled,
		},
		{
			name: "attached ListenerSets are not counted any more", have: gatewayAddresses + `,"attachedListenerSets":2,` + settled, want: gatewayStatus(),
			then: gatewayAddresses + "," + settled,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			status := ""
			if tt.have != "" {
				status = `,"status":{` + tt.have + "}"
			}
			ref := a.put(gatewayJSON(status))
			c := apply(t, a, ref, tt.want)
			if c.empty() != tt.idle || !tt.idle && c.minor() != tt.less {
				t.Errorf("nothing to write: %t, only counts: %t; want %t, %t", c.empty(), c.minor(), tt.idle, tt.less)
			}
			if diff := cmp.Diff("{"+tt.then+"}", a.raw(ref)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

const strange2 = `{"lastTransitionTime":"2021-01-01T00:00:00Z","message":"m","observedGeneration":9,"reason":"Because","status":"Unknown","type":"example.com/Stranger"}`

func listenerNew(name string) string {
	return fmt.Sprintf(`{"attachedRoutes":0,"conditions":null,"name":%q,"supportedKinds":[{"group":"gateway.networking.k8s.io","kind":"HTTPRoute"}]}`, name)
}

func TestConditionsKeepWithinTheLimit(t *testing.T) {
	a := newAPI(t)
	foreign := make([]string, 7)
	for i := range foreign {
		foreign[i] = jsonCond(fmt.Sprintf("example.com/C%d=True Yes I", i), before)
	}
	ref := a.put(gatewayJSON(`,"status":{` + gatewayAddresses + `,"conditions":[` + strings.Join(foreign, ",") + `]}`))
	c := apply(t, a, ref, gatewayStatus())
	want := `[` + strings.Join(append(foreign, jsonCond("Accepted=True Accepted II", now)), ",") + `]`
	if got := a.raw(ref, "conditions"); got != want {
		t.Errorf("conditions are %s, want %s", got, want)
	}
	if len(c.problems) != 1 || c.problems[0].Code != "TooManyConditions" || !strings.Contains(c.problems[0].Message, "Programmed") {
		t.Errorf("problems: %v", c.problems)
	}
	a.edit(ref, func(o map[string]any) { // one of the others goes: there is room
		status := o["status"].(map[string]any)
		status["conditions"] = slices.Delete(status["conditions"].([]any), 0, 1)
	})
	if apply(t, a, ref, gatewayStatus()); !strings.Contains(a.raw(ref), "Programmed") {
		t.Errorf("there is room now, but the status is %s", a.raw(ref))
	}
}

func TestGatewayClass(t *testing.T) {
	want := gatewayv1.GatewayClassStatus{
		Conditions:        []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})},
		SupportedFeatures: []gatewayv1.SupportedFeature{{Name: "HTTPRoute"}, {Name: "Gateway"}},
	}
	done := `{"conditions":[` + jsonCond("Accepted=True Accepted I", now) + `],"supportedFeatures":[{"name":"Gateway"},{"name":"HTTPRoute"}]}`
	for _, have := range []string{
		"",
		`,"status":{}`,
		`,"status":{"conditions":[` + pending[:strings.Index(pending, "},")+1] + `]}`,
		`,"status":{"conditions":[` + jsonCond("SupportedVersion=True SupportedVersion I", before) + `],"supportedFeatures":[{"name":"Gateway"}]}`,
		`,"status":{"conditions":[` + jsonCond("Accepted=False Invalid I", before) + `],"supportedFeatures":[{"name":"HTTPRoute"},{"name":"Gateway"}]}`,
	} {
		a := newAPI(t)
		ref := a.put(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"fairlead"},"spec":{}` + have + `}`)
		apply(t, a, ref, want)
		if diff := cmp.Diff(done, a.raw(ref)); diff != "" {
			t.Errorf("%s: -want +got\n%s", have, diff)
		}
	}
	if want.SupportedFeatures[0].Name != "HTTPRoute" {
		t.Error("the wanted status was modified")
	}
}

func TestIngress(t *testing.T) {
	status := func(addresses ...networkingv1.IngressLoadBalancerIngress) networkingv1.IngressStatus {
		return networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: addresses}}
	}
	ip := networkingv1.IngressLoadBalancerIngress{IP: "192.0.2.1"}
	name := networkingv1.IngressLoadBalancerIngress{Hostname: "lb.example.com"}
	tests := []struct {
		name, have string
		want       networkingv1.IngressStatus
		then       string
		idle       bool
	}{
		{"no status gets addresses", "", status(ip, name), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"lb.example.com"}]}}`, false},
		{"no addresses gets addresses", `,"status":{"loadBalancer":{}}`, status(ip), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, false},
		{"the same is left alone", `,"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, status(ip), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, true},
		{"others go", `,"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9","ports":[{"port":1,"protocol":"TCP"}]}]}}`, status(ip), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, false},
		{"another goes", `,"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}`, status(ip), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, false},
		{"ports go", `,"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ports":[{"port":1,"protocol":"TCP"}]}]}}`, status(ip), `{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}`, false},
		{"all go", `,"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}`, status(), `{"loadBalancer":{}}`, false},
		{"none stays none", "", status(), "null", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			ref := a.put(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"shop","name":"i"},"spec":{}` + tt.have + `}`)
			if c := apply(t, a, ref, tt.want); c.empty() != tt.idle {
				t.Errorf("nothing to write: %t, want %t", c.empty(), tt.idle)
			}
			if diff := cmp.Diff(tt.then, a.raw(ref)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// Whatever is in a status and whatever is wanted: after the patch what is ours is as wanted, and what is not ours is as it was, to the byte, in its order.
func TestRandomRoutes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	statuses := []string{"True", "False", "Unknown"}
	for range 500 {
		a := newAPI(t)
		var have, foreign []string
		for i := range r.IntN(6) {
			e := entryOf([]string{ours, theirs, "third.example/c"}[r.IntN(3)], fmt.Sprint("g", r.IntN(4)),
				jsonCond(fmt.Sprintf("Accepted=%s R%d I", statuses[r.IntN(3)], i), before), strange)
			have = append(have, e)
			if !strings.Contains(e, ours) {
				foreign = append(foreign, e)
			}
		}
		ref := a.put(routeJSON("r", 1, have...))
		var texts []string
		for _, g := range r.Perm(4)[:r.IntN(4)] {
			texts = append(texts, fmt.Sprintf("g%d Accepted=%s R%d I;ResolvedRefs=True R I", g, statuses[r.IntN(3)], r.IntN(3)))
		}
		want := parentsOf(texts...)
		apply(t, a, ref, want)
		checkParents(t, a.object(ref).(*gatewayv1.HTTPRoute).Status.Parents, want.Parents)
		var left []string
		if have != nil {
			for i := range a.object(ref).(*gatewayv1.HTTPRoute).Status.Parents {
				if e := a.raw(ref, "parents", i); !strings.Contains(e, ours) {
					left = append(left, e)
				}
			}
		}
		if diff := cmp.Diff(foreign, left); diff != "" {
			t.Fatalf("entries of others: -want +got\n%s", diff)
		}
	}
}

// checkParents checks that the entries of ours are those that are wanted, whatever their order.
func checkParents(t *testing.T, got, want []gatewayv1.RouteParentStatus) {
	t.Helper()
	n := 0
	for _, g := range got {
		if g.ControllerName != ours {
			continue
		}
		n++
		i := slices.IndexFunc(want, func(w gatewayv1.RouteParentStatus) bool { return w.ParentRef.Name == g.ParentRef.Name })
		if i < 0 {
			t.Fatalf("there is an entry for %s, which is not wanted", g.ParentRef.Name)
		}
		for _, w := range want[i].Conditions {
			if !slices.ContainsFunc(g.Conditions, func(c metav1.Condition) bool {
				return c.Type == w.Type && c.Status == w.Status && c.Reason == w.Reason && c.ObservedGeneration == w.ObservedGeneration
			}) {
				t.Fatalf("%s: the condition %v is not there: %v", g.ParentRef.Name, w, g.Conditions)
			}
		}
	}
	if n != len(want) {
		t.Fatalf("there are %d entries of ours, want %d", n, len(want))
	}
}

// The same for listeners: any order, any that come and go, with something of somebody else in each.
func TestRandomListeners(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		a := newAPI(t)
		var have []string
		for _, n := range r.Perm(6)[:r.IntN(6)] {
			have = append(have, listenerJSON(fmt.Sprint("l", n), n, fmt.Sprintf(`,"x":%d`, n), strange))
		}
		ref := a.put(gatewayJSON(`,"status":{"conditions":[` + strange + `],"listeners":[` + strings.Join(have, ",") + `]}`))
		var want []gatewayv1.ListenerStatus
		for _, n := range r.Perm(6)[:r.IntN(6)] {
			want = append(want, listenerStatus(fmt.Sprint("l", n), int32(r.IntN(3)), "Accepted=True Accepted II"))
		}
		apply(t, a, ref, gatewayStatus(want...))
		var expect []string
		for _, w := range want {
			was := slices.ContainsFunc(have, func(h string) bool { return strings.Contains(h, fmt.Sprintf("%q", w.Name)) })
			extra, conditions := "", []string{jsonCond("Accepted=True Accepted II", now)}
			if was {
				extra, conditions = `,"x":`+string(w.Name[1:]), append([]string{strange}, conditions...)
			}
			expect = append(expect, listenerJSON(string(w.Name), int(w.AttachedRoutes), extra, conditions...))
		}
		if diff := cmp.Diff("["+strings.Join(expect, ",")+"]", a.raw(ref, "listeners")); diff != "" && len(have)+len(want) > 0 {
			t.Fatalf("from %s: -want +got\n%s", have, diff)
		}
	}
}
