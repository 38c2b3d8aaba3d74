package provision

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
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// world is a cluster with three replicas of Fairlead. Each of them sees Gateways and Services by a watch of its own, and each watch may lag behind. Any of them may
// be the leader, whatever it sees, and its writes may be cut short.
type world struct {
	*testing.T
	random *rand.Rand
	api    *api
	clock  *clock
	opt    compile.Options

	// Every state that there was, the newest last. A watch shows one of them after the other.
	services []map[object.Key]*corev1.Service
	gateways []map[object.Key]*gatewayv1.Gateway
	replicas []*replica
	uids     int
	ports    int32

	bound  map[listenerPort]uint16 // where each port of a listener that exists was served first
	served int
}

type replica struct {
	writer             *Writer
	services, gateways int // how much it has seen
}

// listenerPort is one port of one Gateway.
type listenerPort struct {
	uid  types.UID
	port uint16
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		T: t, random: rand.New(rand.NewPCG(seed, 3)), api: newAPI(t), clock: &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		opt:      compile.Options{Cluster: &compile.ClusterOptions{Namespace: "fairlead"}},
		services: []map[object.Key]*corev1.Service{{}}, gateways: []map[object.Key]*gatewayv1.Gateway{{}},
		ports: 1000, bound: map[listenerPort]uint16{},
	}
	w.api.now = func() metav1.Time { return metav1.NewTime(w.clock.time().Truncate(time.Second)) }
	w.api.written = func() { w.services = append(w.services, maps.Clone(w.api.services)) }
	for range 3 {
		w.replicas = append(w.replicas, &replica{writer: w.api.writer(Options{Now: w.clock.time, Workers: 1})})
	}
	return w
}

// step lets something happen.
func (w *world) step() {
	w.clock.advance(time.Duration(w.random.IntN(2000)) * time.Millisecond)
	r := w.replicas[w.random.IntN(3)]
	switch n := w.random.IntN(10); {
	case n < 3:
		w.changeGateway()
	case n < 6:
		r.services += w.random.IntN(len(w.services) - r.services)
		r.gateways += w.random.IntN(len(w.gateways) - r.gateways)
	case n == 6:
		r.services = len(w.services) - 1
	case n == 7:
		r.gateways = len(w.gateways) - 1
	default:
		w.lead(r)
	}
}

// changeGateway makes, edits or deletes a Gateway. A new listener has a port that there never was before: so a port either exists or does not, and is the same.
func (w *world) changeGateway() {
	now := maps.Clone(w.gateways[len(w.gateways)-1])
	key := object.Key{Namespace: "ns", Name: fmt.Sprintf("gw-%d", w.random.IntN(5))}
	have := now[key]
	switch {
	case have == nil:
		w.uids++
		g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, UID: types.UID(fmt.Sprintf("uid-%d", w.uids)), Generation: 1, CreationTimestamp: w.api.now(),
		}}
		g.Spec.GatewayClassName = "fairlead"
		w.addListener(g)
		now[key] = g
	case w.random.IntN(4) == 0:
		delete(now, key)
	default:
		g := have.DeepCopy()
		g.Generation++
		if n := len(g.Spec.Listeners); n > 1 && w.random.IntN(2) == 0 {
			i := w.random.IntN(n)
			g.Spec.Listeners = slices.Delete(g.Spec.Listeners, i, i+1)
		} else {
			w.addListener(g)
		}
		now[key] = g
	}
	w.gateways = append(w.gateways, now)
	w.api.mu.Lock()
	w.api.gateways = now
	w.api.mu.Unlock()
}

func (w *world) addListener(g *gatewayv1.Gateway) {
	w.ports++
	name := gatewayv1.SectionName(fmt.Sprintf("l%d", w.ports))
	g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{Name: name, Port: w.ports, Protocol: gatewayv1.HTTPProtocolType})
}

// compile compiles what a replica sees.
func (w *world) compile(r *replica) compile.Result {
	return compile.Compile(&object.Snapshot{
		GatewayClasses: map[string]*gatewayv1.GatewayClass{"fairlead": {
			ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: compile.GatewayController},
		}},
		Gateways: w.gateways[r.gateways], Services: w.services[r.services],
	}, w.opt)
}

// lead lets a replica write what it wants, as far as it gets.
func (w *world) lead(r *replica) {
	left := w.random.IntN(8)
	w.api.before = func(call string) *metav1.Status {
		if strings.HasPrefix(call, "GET") {
			return nil
		}
		if left--; left < 0 {
			return status(500, metav1.StatusReasonInternalError, "out of order")
		}
		return nil
	}
	_ = r.writer.Apply(w.Context(), w.compile(r).Infrastructure) // the rest is for later
	w.api.before = nil
}

// check checks what every replica serves: for each listener that exists, the same bind as ever and as everywhere, and that of no other.
func (w *world) check() {
	w.Helper()
	exists := map[listenerPort]bool{}
	for _, g := range w.gateways[len(w.gateways)-1] {
		for _, l := range g.Spec.Listeners {
			exists[listenerPort{g.UID, uint16(l.Port)}] = true
		}
	}
	maps.DeleteFunc(w.bound, func(p listenerPort, _ uint16) bool { return !exists[p] })
	for i, r := range w.replicas {
		for _, port := range w.compile(r).Table.Ports {
			owners := map[types.UID]bool{}
			for _, l := range port.Listeners {
				g := w.gateways[r.gateways][object.Key{Namespace: l.Source.Namespace, Name: l.Source.Name}]
				owners[g.UID] = true
				p := listenerPort{g.UID, l.Port}
				if was, ok := w.bound[p]; ok && was != port.Bind.Port {
					w.Errorf("replica %d: port %d of %s moved from %d to %d", i, p.port, p.uid, was, port.Bind.Port)
				}
				if exists[p] {
					w.bound[p] = port.Bind.Port
					w.served++
				}
			}
			if len(owners) != 1 {
				w.Errorf("replica %d: bind %d is shared by %v", i, port.Bind.Port, owners)
			}
		}
	}
	w.checkUnique()
}

func (w *world) checkUnique() {
	w.Helper()
	owner := map[uint16]listenerPort{}
	for p, bind := range w.bound {
		if other, ok := owner[bind]; ok {
			w.Errorf("bind %d is that of %v and of %v", bind, p, other)
		}
		owner[bind] = p
	}
}

// settle lets everybody see everything, and the leader write until there is nothing to write.
func (w *world) settle() {
	w.Helper()
	for range 6 {
		w.clock.advance(2 * time.Minute)
		for _, r := range w.replicas {
			r.services, r.gateways = len(w.services)-1, len(w.gateways)-1
		}
		if err := w.replicas[0].writer.Apply(w.Context(), w.compile(w.replicas[0]).Infrastructure); err != nil {
			w.Error(err)
		}
		w.check()
	}
	for _, r := range w.replicas {
		r.services, r.gateways = len(w.services)-1, len(w.gateways)-1
	}
	gateways, listeners := w.gateways[len(w.gateways)-1], 0
	for _, g := range gateways {
		listeners += len(g.Spec.Listeners)
	}
	for i, r := range w.replicas {
		if got := len(w.compile(r).Table.Ports); got != listeners {
			w.Errorf("replica %d serves %d listeners of %d in the end", i, got, listeners)
		}
	}
	if got := len(w.api.services); got != 2*len(gateways) {
		w.Errorf("%d Services for %d Gateways", got, len(gateways))
	}
	w.api.taken()
	if err := w.replicas[0].writer.Apply(w.Context(), w.compile(w.replicas[0]).Infrastructure); err != nil || len(w.api.taken()) > 0 {
		w.Errorf("there is always more to write: %v", err)
	}
}

// However far behind a replica is, and whichever of them writes: a bind never has two Gateways, and no listener that exists moves. In the end all is served.
func TestReplicasAgree(t *testing.T) {
	worlds := uint64(25)
	if testing.Short() {
		worlds = 10
	}
	served := 0
	for seed := range worlds {
		w := newWorld(t, seed)
		for range 200 {
			w.step()
			w.check()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		w.settle()
		served += w.served
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if served < int(worlds)*200 {
		t.Errorf("only %d ports were served in all: the test tests little", served)
	}
}
