package acmestore

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// WatchChallenges tells learn about every challenge that is in the store, by key, and with nil when it is gone, until ctx ends. So each replica knows what any
// other has begun, and has to ask for nothing when somebody looks.
func (s *Store) WatchChallenges(ctx context.Context, learn func(key string, value []byte)) {
	secrets := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace)
	only := kindLabel + "=" + kindChallenge
	tell := func(obj any, gone bool) {
		if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		secret, ok := obj.(*corev1.Secret)
		switch {
		case !ok || secret.Labels[kindLabel] != kindChallenge:
		case gone:
			learn(secret.Annotations[keyAnnotation], nil)
		default:
			learn(secret.Annotations[keyAnnotation], secret.Data[valueKey])
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, opt metav1.ListOptions) (runtime.Object, error) {
				opt.LabelSelector = only
				return secrets.List(ctx, opt)
			},
			WatchFuncWithContext: func(ctx context.Context, opt metav1.ListOptions) (watch.Interface, error) {
				opt.LabelSelector = only
				return secrets.Watch(ctx, opt)
			},
		}, s.opt.Kubernetes),
		ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { tell(obj, false) },
			UpdateFunc: func(_, obj any) { tell(obj, false) },
			DeleteFunc: func(obj any) { tell(obj, true) },
		},
	})
	informer.RunWithContext(ctx)
}
