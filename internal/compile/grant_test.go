package compile

import (
	"fmt"
	"math/rand/v2"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// allowedSlowly is what the documentation of ReferenceGrant says, read word by word and without an index.
func allowedSlowly(in *object.Snapshot, from referrer, to referent) bool {
	if from.Namespace == to.Namespace {
		return true
	}
	for _, g := range in.ReferenceGrants {
		if g == nil || g.Namespace != to.Namespace {
			continue
		}
		for _, f := range g.Spec.From {
			if string(f.Group) != from.Group || string(f.Kind) != from.Kind || string(f.Namespace) != from.Namespace {
				continue
			}
			for _, t := range g.Spec.To {
				if string(t.Group) == to.Group && string(t.Kind) == to.Kind && (t.Name == nil || string(*t.Name) == to.Name) {
					return true
				}
			}
		}
	}
	return false
}

// Names that would be the same if somebody joined them with a hyphen, a dot or a slash.
var tricky = []string{"a", "a-b", "b", "b-c", "a-b-c", "c", ""}

// 10,000 questions about random grants must have the answers that the documentation gives.
func TestMayReferAgreesWithTheDocumentation(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	yes := 0
	for range 200 {
		in := &object.Snapshot{ReferenceGrants: map[object.Key]*gatewayv1.ReferenceGrant{}}
		for i := range random.IntN(12) {
			g := &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: pick(tricky...), Name: fmt.Sprint(i)}}
			for range random.IntN(5) {
				g.Spec.From = append(g.Spec.From, gatewayv1.ReferenceGrantFrom{
					Group: gatewayv1.Group(pick(gatewayGroup, "")), Kind: gatewayv1.Kind(pick("Gateway", "HTTPRoute")), Namespace: gatewayv1.Namespace(pick(tricky...)),
				})
			}
			for range random.IntN(5) {
				to := gatewayv1.ReferenceGrantTo{Group: gatewayv1.Group(pick(gatewayGroup, "")), Kind: gatewayv1.Kind(pick("Secret", "Service"))}
				if random.IntN(2) == 0 {
					to.Name = new(gatewayv1.ObjectName(pick(tricky...)))
				}
				g.Spec.To = append(g.Spec.To, to)
			}
			in.ReferenceGrants[object.KeyOf(g)] = g
		}
		c := &compiler{in: in}
		for range 200 {
			from := referrer{pick(gatewayGroup, ""), pick("Gateway", "HTTPRoute"), pick(tricky...)}
			to := referent{pick(gatewayGroup, ""), pick("Secret", "Service"), pick(tricky...), pick(tricky...)}
			got, want := c.mayRefer(from, to), allowedSlowly(in, from, to)
			if got != want {
				t.Fatalf("mayRefer(%+v, %+v) = %t, want %t", from, to, got, want)
			}
			if got && from.Namespace != to.Namespace {
				yes++
			}
		}
	}
	if yes < 50 {
		t.Errorf("only %d of the answers were yes: the test asks nothing", yes)
	}
}

// "MUST respond to the removal of a grant by revoking the access that the grant allowed."
func TestRemovedGrantRevokesAccess(t *testing.T) {
	in := load(t, readFile(t, "testdata/a-grant-opens-a-cross-namespace-secret/in.yaml"))
	if res := Compile(in, Options{}); len(res.Certificates[0].Pairs) != 1 {
		t.Fatalf("with the grant: %+v", res.Certificates)
	}
	in.ReferenceGrants = nil
	if res := Compile(in, Options{}); len(res.Certificates[0].Pairs) != 0 {
		t.Errorf("without the grant the certificate is still served: %+v", res.Certificates)
	}
}
