package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// tries is how often a write is tried that others come before.
const tries = 5

// wish sees to one Service that should exist.
func (p *pass) wish(ctx context.Context, s *compile.Service) {
	j := job{key: s.Name, seen: s.Seen, why: s.Gateway.String()}
	switch {
	case s.Seen == nil:
		service := newService(s)
		j.verb, j.body = Create, text(service)
		j.do = func(ctx context.Context) (Result, error) { return p.create(ctx, s, service) }
	case s.Seen.DeletionTimestamp != nil:
		return // it is made anew once it is gone
	default:
		change := changes(s.Seen, s)
		if change == nil {
			return
		}
		j.verb, j.body = Patch, text(change)
		j.do = func(ctx context.Context) (Result, error) { return p.patch(ctx, s) }
	}
	p.start(ctx, j)
}

// text is what a write is known by.
func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error() // what it is made of can all be written as JSON
	}
	return string(data)
}

func (w *Writer) services(key object.Key) typed.ServiceInterface {
	return w.opt.Kubernetes.CoreV1().Services(key.Namespace)
}

func (p *pass) create(ctx context.Context, s *compile.Service, service *corev1.Service) (Result, error) {
	if result, err := p.mayClaim(s); result != Done {
		return result, err
	}
	_, err := p.services(s.Name).Create(ctx, service, metav1.CreateOptions{})
	switch {
	case err == nil:
		return Done, nil
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return Stale, nil // the Service is there, or its namespace is not or will not be for long
	}
	return Failed, fmt.Errorf("create Service %s: %w", s.Name, err)
}

// patch makes the Service that was seen what it should be. When somebody else wrote it since, that is looked at: a change of its status, or of what is not ours,
// does not matter.
func (p *pass) patch(ctx context.Context, s *compile.Service) (Result, error) {
	if result, err := p.mayClaim(s); result != Done {
		return result, err
	}
	have := s.Seen
	for range tries {
		change := changes(have, s)
		if change == nil {
			return Done, nil
		}
		_, err := p.services(s.Name).Patch(ctx, s.Name.Name, types.MergePatchType, []byte(text(change.onto(have))), metav1.PatchOptions{})
		switch {
		case err == nil:
			return Done, nil
		case apierrors.IsNotFound(err):
			return Stale, nil
		case !apierrors.IsConflict(err):
			return Failed, fmt.Errorf("patch Service %s: %w", s.Name, err)
		}
		live, result, err := p.lookAgain(ctx, s.Seen)
		if live == nil {
			return result, err
		}
		if !sameBinds(live, s.Seen) {
			return Stale, nil
		}
		have = live
	}
	return Failed, fmt.Errorf("patch Service %s: others changed it %d times in a row", s.Name, tries)
}

// lookAgain returns a Service as it is now; nil when it is gone, or another by now, or cannot be had.
func (w *Writer) lookAgain(ctx context.Context, seen *corev1.Service) (*corev1.Service, Result, error) {
	key := object.KeyOf(seen)
	live, err := w.services(key).Get(ctx, key.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, Stale, nil
	case err != nil:
		return nil, Failed, fmt.Errorf("get Service %s: %w", key, err)
	case live.UID != seen.UID || live.DeletionTimestamp != nil:
		return nil, Stale, nil
	}
	return live, Done, nil
}

// mayClaim looks whether the binds that a Service is to lead to for the first time are still free. The snapshot that said so may be older than what another
// leader wrote a moment ago.
func (p *pass) mayClaim(s *compile.Service) (Result, error) {
	if !slices.ContainsFunc(s.Ports, func(port compile.ServicePort) bool { return !port.Recorded }) {
		return Done, nil
	}
	claims, err := p.claims()
	if err != nil {
		return Failed, err
	}
	for _, port := range s.Ports {
		others := func(name string) bool { return name != s.Name.Name }
		if !port.Recorded && slices.ContainsFunc(claims[bind{int32(port.Bind), protocolOf(port)}], others) {
			return Stale, nil
		}
	}
	return Done, nil
}

// bind is a port of Fairlead's pods that a Service leads to.
type bind struct {
	port int32
	over corev1.Protocol
}

// listClaims asks the API server, and no cache, which binds the Services lead to that this installation has in its own namespace.
func (w *Writer) listClaims(ctx context.Context, want compile.Infrastructure) (map[bind][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opt.Timeout)
	defer cancel()
	own := w.services(object.Key{Namespace: want.Namespace})
	list, err := own.List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(want.Owned).String()})
	if err != nil {
		return nil, fmt.Errorf("list Services of namespace %s: %w", want.Namespace, err)
	}
	claims := make(map[bind][]string)
	for i := range list.Items {
		for j := range list.Items[i].Spec.Ports {
			port := &list.Items[i].Spec.Ports[j]
			at := bind{port.TargetPort.IntVal, transport(port)}
			claims[at] = append(claims[at], list.Items[i].Name)
		}
	}
	return claims, nil
}

// unwanted sees to a Service that should not exist.
func (p *pass) unwanted(ctx context.Context, u compile.Unwanted, owned map[string]string) {
	s := u.Service
	if s.DeletionTimestamp != nil || !ours(s, owned) {
		return
	}
	p.start(ctx, job{
		key: object.KeyOf(s), verb: Delete, seen: s, why: u.Why,
		do: func(ctx context.Context) (Result, error) {
			if exists, err := p.exists(ctx, u); exists || err != nil {
				return resultOf(err), err
			}
			return p.remove(ctx, s)
		},
	})
}

func resultOf(err error) Result {
	if err != nil {
		return Failed
	}
	return Stale
}

// exists asks the API server whether a Gateway that seems to be gone is there: the snapshot may not show it yet.
func (w *Writer) exists(ctx context.Context, u compile.Unwanted) (bool, error) {
	if u.Gone.Name == "" || w.opt.Gateway == nil {
		return false, nil
	}
	g, err := w.opt.Gateway.GatewayV1().Gateways(u.Gone.Namespace).Get(ctx, u.Gone.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("delete Service %s: get Gateway %s: %w", object.KeyOf(u.Service), u.Gone, err)
	}
	return string(g.UID) == u.GoneUID, nil
}

// RemoveAll deletes all Services that have the labels in owned (see compile.Infrastructure), for when Fairlead is uninstalled: those of the given namespaces, or
// of all if there are none.
func (w *Writer) RemoveAll(ctx context.Context, owned map[string]string, namespaces ...string) error {
	if len(owned) == 0 {
		return errors.New("delete the Services of Gateways: there are no labels to know them by")
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var errs []error
	for _, ns := range namespaces {
		list, err := w.services(object.Key{Namespace: ns}).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(owned).String()})
		if err != nil {
			errs = append(errs, fmt.Errorf("list Services: %w", err))
			continue
		}
		for i := range list.Items {
			if s := &list.Items[i]; s.DeletionTimestamp == nil && ours(s, owned) {
				_, err := w.remove(ctx, s)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// ours tells whether a Service has all labels that say so.
func ours(s *corev1.Service, owned map[string]string) bool {
	for k, v := range owned {
		if s.Labels[k] != v {
			return false
		}
	}
	return len(owned) > 0
}

// remove deletes the very Service that was seen.
func (w *Writer) remove(ctx context.Context, seen *corev1.Service) (Result, error) {
	key, have := object.KeyOf(seen), seen
	for range tries {
		err := w.services(key).Delete(ctx, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID, ResourceVersion: &have.ResourceVersion}})
		switch {
		case err == nil, apierrors.IsNotFound(err):
			return Done, nil
		case !apierrors.IsConflict(err):
			return Failed, fmt.Errorf("delete Service %s: %w", key, err)
		}
		live, result, err := w.lookAgain(ctx, seen)
		if live == nil {
			return result, err
		}
		if !sameLabels(live, seen) {
			return Stale, nil // it may be somebody else's by now
		}
		have = live
	}
	return Failed, fmt.Errorf("delete Service %s: others changed it %d times in a row", key, tries)
}
