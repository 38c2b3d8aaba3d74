package acmestore

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// api is the fake clientset with what it lacks of an API server, and what locks live by: versions of objects, conflicts, preconditions.
type api struct {
	*fake.Clientset
	tracker clienttesting.ObjectTracker
	mu      sync.Mutex
	version int
	// before, if not nil, may refuse a request.
	before func(verb, resource, name string) error
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{Clientset: &fake.Clientset{}, tracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
	a.AddReactor("*", "*", a.react)
	a.AddReactor("*", "*", clienttesting.ObjectReaction(a.tracker))
	a.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := a.tracker.Watch(action.GetResource(), action.GetNamespace())
		return true, w, err
	})
	return a
}

func (a *api) react(action clienttesting.Action) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.before != nil {
		if err := a.before(action.GetVerb(), action.GetResource().Resource, nameIn(action)); err != nil {
			return true, nil, err
		}
	}
	gvr, ns := action.GetResource(), action.GetNamespace()
	switch action := action.(type) {
	case clienttesting.DeleteActionImpl:
		have, err := a.tracker.Get(gvr, ns, action.Name)
		if err != nil {
			return true, nil, err
		}
		if p := action.DeleteOptions.Preconditions; p != nil && !matches(have, p.UID, p.ResourceVersion) {
			return true, nil, apierrors.NewConflict(gvr.GroupResource(), action.Name, fmt.Errorf("precondition failed"))
		}
		return true, nil, a.tracker.Delete(gvr, ns, action.Name)
	case clienttesting.UpdateActionImpl:
		return a.update(action)
	case clienttesting.CreateActionImpl:
		obj := a.stamp(action.Object)
		must(meta.Accessor(obj)).SetUID(types.UID("uid-" + strconv.Itoa(a.version)))
		if err := a.tracker.Create(gvr, obj, ns); err != nil {
			return true, nil, err
		}
		return true, obj, nil
	}
	return false, nil, nil
}

func (a *api) update(action clienttesting.UpdateActionImpl) (bool, runtime.Object, error) {
	gvr, ns := action.GetResource(), action.GetNamespace()
	next := must(meta.Accessor(action.Object))
	have, err := a.tracker.Get(gvr, ns, next.GetName())
	if err != nil {
		return true, nil, err
	}
	version := next.GetResourceVersion()
	if version == "" || !matches(have, nil, &version) {
		return true, nil, apierrors.NewConflict(gvr.GroupResource(), next.GetName(), fmt.Errorf("the object has been modified"))
	}
	obj := a.stamp(action.Object)
	return true, obj, a.tracker.Update(gvr, obj, ns)
}

// stamp returns a copy with a version that no object has had.
func (a *api) stamp(obj runtime.Object) runtime.Object {
	obj = obj.DeepCopyObject()
	a.version++
	must(meta.Accessor(obj)).SetResourceVersion(strconv.Itoa(a.version))
	return obj
}

func matches(obj runtime.Object, uid *types.UID, version *string) bool {
	have := must(meta.Accessor(obj))
	return (uid == nil || *uid == have.GetUID()) && (version == nil || *version == have.GetResourceVersion())
}

func nameIn(action clienttesting.Action) string {
	switch action := action.(type) {
	case interface{ GetName() string }:
		return action.GetName()
	case interface{ GetObject() runtime.Object }:
		return must(meta.Accessor(action.GetObject())).GetName()
	}
	return ""
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
