package status

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// Limits of the API for Events, and ours.
const (
	maxNote   = 1024 // bytes
	maxReason = 128
	maxName   = 253

	eventBurst    = 50                     // Events at once, and then
	eventInterval = 100 * time.Millisecond // one each
	eventRetry    = 10 * time.Second
	// eventMemory is how long a problem that is gone is remembered: one that comes and goes all the time is told once.
	eventMemory = 10 * time.Minute
)

// notice is a problem of one object. Two objects of the same name, one after the other, are not one.
type notice struct {
	about   corev1.ObjectReference
	problem compile.Problem
}

// announcer tells problems to the authors of objects by Events, each once while it lasts. It belongs to the loop.
type announcer struct {
	w     *Writer
	told  map[notice]time.Time // when it was last there
	todo  []notice             // in the order of the problems
	busy  bool
	spent time.Time // the pace: when the allowance that was used so far is paid back
	quiet time.Time // nothing is sent before
	fates chan fate
}

// fate is how an attempt to tell a problem ended.
type fate struct {
	notice notice
	result Result
	err    error
}

func newAnnouncer(w *Writer) *announcer {
	return &announcer{w: w, told: map[notice]time.Time{}, fates: make(chan fate, 1)}
}

// take makes problems those that last.
func (a *announcer) take(snap *object.Snapshot, problems []compile.Problem, now time.Time) {
	if !a.w.opt.Events {
		return
	}
	a.todo = a.todo[:0]
	for _, p := range problems {
		if !newsworthy(p) {
			continue
		}
		about, ok := regarding(snap, p.Object)
		if !ok {
			continue
		}
		n := notice{about, p}
		if _, told := a.told[n]; told {
			a.told[n] = now
		} else {
			a.todo = append(a.todo, n)
		}
	}
	for n, last := range a.told {
		if now.Sub(last) > eventMemory {
			delete(a.told, n)
		}
	}
}

// newsworthy tells whether a problem is told by an Event: notes are not, but for what became of a certificate.
func newsworthy(p compile.Problem) bool {
	return p.Severity == compile.Error || p.Severity == compile.Warning || p.Code == compile.CodeOrdered || p.Code == compile.CodeIssued
}

// eventType is normal for notes.
func eventType(p compile.Problem) string {
	if p.Severity == compile.Note {
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeWarning
}

// start tells the next problem if it is time for that.
func (a *announcer) start(ctx context.Context, l *loop, now time.Time) {
	if a.busy || len(a.todo) == 0 {
		return
	}
	if at := latest(a.quiet, a.spent.Add(-(eventBurst-1)*eventInterval)); at.After(now) {
		l.wakeBy(at, now)
		return
	}
	a.spent = latest(a.spent, now).Add(eventInterval)
	n := a.todo[0]
	event := a.event(n)
	a.busy = true
	l.wg.Go(func() { a.fates <- a.w.tell(ctx, n, event) })
}

// settle notes how an attempt to tell a problem ended. Only when the API server could not be reached is it tried again: an Event that is refused today will be
// refused tomorrow.
func (a *announcer) settle(f fate, now time.Time) {
	a.busy = false
	if f.result == Failed {
		a.quiet = now.Add(eventRetry)
		return
	}
	a.told[f.notice] = now
	if i := slices.Index(a.todo, f.notice); i >= 0 { // the first, or a newer offer has put others before it or done without it
		a.todo = slices.Delete(a.todo, i, i+1)
	}
	if f.result == Refused {
		a.w.opt.Log.Debug("the API server refuses an Event", "object", f.notice.problem.Object.String(), "error", f.err)
	}
}

// tell creates an Event.
func (w *Writer) tell(ctx context.Context, n notice, event *eventsv1.Event) fate {
	ctx, cancel := context.WithTimeout(ctx, w.opt.Timeout)
	defer cancel()
	f := fate{notice: n, result: Written}
	if _, err := w.opt.Kubernetes.EventsV1().Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{FieldManager: fieldManager}); err != nil {
		f.err, f.result = err, judge(err)
		if apierrors.IsAlreadyExists(err) {
			f.result = Known
		}
	}
	w.opt.Hooks.Announced(f.result)
	return f
}

// event makes the Event for a problem. Its name follows from what it says and about which object, so that it cannot be there twice, whoever told it first.
func (a *announcer) event(n notice) *eventsv1.Event {
	about, p := n.about, n.problem
	note := p.Message
	if p.Field != "" {
		note = p.Field + ": " + note
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{string(about.UID), p.Code, p.Field, p.Message}, "\x00")))
	suffix := "." + hex.EncodeToString(sum[:8])
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where the API server wants Events about objects that are in no namespace
	}
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: strings.TrimRight(cut(about.Name, maxName-len(suffix)), ".-") + suffix},
		EventTime:           metav1.NewMicroTime(a.w.opt.Now()),
		ReportingController: a.w.opt.GatewayController,
		ReportingInstance:   cut(a.w.opt.Instance, maxReason),
		Action:              "Compile",
		Reason:              cut(p.Code, maxReason),
		Regarding:           about,
		Note:                cut(note, maxNote),
		Type:                eventType(p),
	}
}

// cut returns the beginning of s that has no more than limit bytes, without half a character at its end.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}

// regarding returns what an Event says to be about.
func regarding(s *object.Snapshot, ref object.Ref) (corev1.ObjectReference, bool) {
	key := ref.Key()
	switch ref.Kind {
	case "GatewayClass":
		return reference(s.GatewayClasses[ref.Name], ref, "gateway.networking.k8s.io/v1")
	case "Gateway":
		return reference(s.Gateways[key], ref, "gateway.networking.k8s.io/v1")
	case "ListenerSet":
		return reference(s.ListenerSets[key], ref, "gateway.networking.k8s.io/v1")
	case "BackendTLSPolicy":
		return reference(s.BackendTLSPolicies[key], ref, "gateway.networking.k8s.io/v1")
	case "XBackendTrafficPolicy":
		return reference(s.XBackendTrafficPolicies[key], ref, "gateway.networking.x-k8s.io/v1alpha1")
	case "XBackend":
		return reference(s.XBackends[key], ref, "gateway.networking.x-k8s.io/v1alpha1")
	case "ReferenceGrant":
		return reference(s.ReferenceGrants[key], ref, "gateway.networking.k8s.io/v1")
	case "IngressClass":
		return reference(s.IngressClasses[ref.Name], ref, "networking.k8s.io/v1")
	case "Ingress":
		return reference(s.Ingresses[key], ref, "networking.k8s.io/v1")
	case "Service":
		return reference(s.Services[key], ref, "v1")
	}
	return regardingRoute(s, ref)
}

func regardingRoute(s *object.Snapshot, ref object.Ref) (corev1.ObjectReference, bool) {
	const version = "gateway.networking.k8s.io/v1"
	switch key := ref.Key(); ref.Kind {
	case "HTTPRoute":
		return reference(s.HTTPRoutes[key], ref, version)
	case "GRPCRoute":
		return reference(s.GRPCRoutes[key], ref, version)
	case "TLSRoute":
		return reference(s.TLSRoutes[key], ref, version)
	case "TCPRoute":
		return reference(s.TCPRoutes[key], ref, version)
	case "UDPRoute":
		return reference(s.UDPRoutes[key], ref, version)
	}
	return corev1.ObjectReference{}, false
}

func reference[O any, P interface {
	*O
	metav1.Object
}](o P, ref object.Ref, apiVersion string) (corev1.ObjectReference, bool) {
	if o == nil {
		return corev1.ObjectReference{}, false
	}
	return corev1.ObjectReference{APIVersion: apiVersion, Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, UID: o.GetUID()}, true
}
