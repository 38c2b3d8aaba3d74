// Package loadbalancer is the piece that a bare cluster lacks: a controller that gives Services of type LoadBalancer an address from a pool. kube-proxy makes the
// address work on the nodes; this only says which it is. Tests are its only users.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Controller hands out the addresses of Pool. A Service that asks for one (spec.loadBalancerIP) gets that one if it is in the pool and free, and none otherwise.
type Controller struct {
	Client kubernetes.Interface
	Pool   netip.Prefix
	Log    *slog.Logger

	services listers.ServiceLister
	queue    workqueue.TypedRateLimitingInterface[cache.ObjectName]
	given    map[netip.Addr]cache.ObjectName
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(c.Client, 30*time.Second) // a Service may wait for an address that another gives back
	informer := factory.Core().V1().Services()
	c.services = informer.Lister()
	c.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	c.given = map[netip.Addr]cache.ObjectName{}
	add := func(obj any) {
		if key, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			c.queue.Add(key)
		}
	}
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }, DeleteFunc: add}); err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return errors.New("watch services: no answer from the API server")
	}
	if err := c.adopt(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	for c.work(ctx) {
	}
	return nil
}

// adopt takes over what a predecessor gave.
func (c *Controller) adopt() error {
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, svc := range all {
		for _, in := range svc.Status.LoadBalancer.Ingress {
			if a, err := netip.ParseAddr(in.IP); err == nil {
				c.given[a] = cache.MetaObjectToName(svc)
			}
		}
	}
	return nil
}

func (c *Controller) work(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	if err := c.sync(ctx, key); err != nil && ctx.Err() == nil {
		c.Log.Warn("will try again", "service", key.String(), "error", err)
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	svc, err := c.services.Services(key.Namespace).Get(key.Name)
	if err != nil || svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		c.release(key)
		if err != nil || len(svc.Status.LoadBalancer.Ingress) == 0 {
			return nil //nolint:nilerr // gone
		}
		return c.publish(ctx, svc, nil)
	}
	want, ok := c.address(svc, key)
	have := svc.Status.LoadBalancer.Ingress
	switch {
	case !ok && len(have) == 0, ok && len(have) == 1 && have[0].IP == want.String():
		return nil
	case !ok:
		c.release(key)
		return c.publish(ctx, svc, nil)
	}
	return c.publish(ctx, svc, []corev1.LoadBalancerIngress{{IP: want.String()}})
}

func (c *Controller) release(key cache.ObjectName) {
	for a, owner := range c.given {
		if owner == key {
			delete(c.given, a)
		}
	}
}

// address decides which address a Service has.
func (c *Controller) address(svc *corev1.Service, key cache.ObjectName) (netip.Addr, bool) {
	if asked := svc.Spec.LoadBalancerIP; asked != "" {
		a, err := netip.ParseAddr(asked)
		owner, taken := c.given[a]
		if err != nil || !c.Pool.Contains(a) || taken && owner != key {
			return netip.Addr{}, false
		}
		c.release(key)
		c.given[a] = key
		return a, true
	}
	for a, owner := range c.given {
		if owner == key {
			return a, true
		}
	}
	for a := c.Pool.Addr().Next(); c.Pool.Contains(a); a = a.Next() {
		if _, taken := c.given[a]; !taken {
			c.given[a] = key
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (c *Controller) publish(ctx context.Context, svc *corev1.Service, ingress []corev1.LoadBalancerIngress) error {
	svc = svc.DeepCopy()
	svc.Status.LoadBalancer.Ingress = slices.Clone(ingress)
	_, err := c.Client.CoreV1().Services(svc.Namespace).UpdateStatus(ctx, svc, metav1.UpdateOptions{})
	return err
}
