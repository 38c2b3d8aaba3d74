package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/acmestore"
	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/watch"
)

// cleanupPause is the time between two looks for what is left: the pods that are ending may have written something after the first.
const cleanupPause = 3 * time.Second

// newCleanup is what the chart runs after it was uninstalled. It is for charts rather than for people.
func newCleanup() *cobra.Command {
	var flags clusterFlags
	cmd := &cobra.Command{
		Use:    "cleanup",
		Short:  "Take back what an installation wrote in a cluster: the Services of Gateways, its part of statuses, and its Leases",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			return cleanup(ctx, flags, newLogger(serveOptions{logLevel: slog.LevelWarn}, cmd.ErrOrStderr()))
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// cleanup looks twice, and each time takes back what it finds. It is run when no replica may write any more.
func cleanup(ctx context.Context, flags clusterFlags, log *slog.Logger) error {
	opt, err := flags.options(compile.Options{}, false)
	if err != nil {
		return err
	}
	live, err := openCluster(flags, opt, new(acmeConfig), nil, log)
	if err != nil {
		return err
	}
	defer live.Close()
	writing, stop := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() { defer close(written); live.status.Run(writing) }()
	defer func() { stop(); <-written }()
	for range 2 {
		snap, err := live.leftovers(ctx, flags.watchNamespaces)
		if err != nil {
			return err
		}
		result := compile.Compile(snap, opt)
		live.status.Write(ctx, snap, farewell(result.Status), nil)
		if err := live.provision.RemoveAll(ctx, result.Infrastructure.Owned, withOwn(flags.watchNamespaces, flags.namespace)...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cleanupPause):
		}
	}
	return live.removeLeases(ctx)
}

// withOwn adds Fairlead's own namespace to a list of namespaces, unless the list is empty and means all.
func withOwn(namespaces []string, own string) []string {
	if len(namespaces) == 0 || slices.Contains(namespaces, own) {
		return namespaces
	}
	return append(slices.Clip(namespaces), own)
}

// leftovers lists the objects whose statuses may have something of ours. The class of the release is gone by now; its name stands for it.
func (l *liveCluster) leftovers(ctx context.Context, namespaces []string) (*object.Snapshot, error) {
	snap := &object.Snapshot{Taken: time.Now(), IngressClasses: map[string]*networkingv1.IngressClass{}}
	if l.ingressClass != nil {
		snap.IngressClasses[l.ingressClass.Name] = l.ingressClass
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	gateway := l.gateway.GatewayV1()
	for _, ns := range namespaces {
		if err := errors.Join(
			collect(ctx, &snap.Ingresses, l.clients.NetworkingV1().Ingresses(ns).List, func(list *networkingv1.IngressList) []networkingv1.Ingress { return list.Items }),
			collect(ctx, &snap.HTTPRoutes, gateway.HTTPRoutes(ns).List, func(list *gatewayv1.HTTPRouteList) []gatewayv1.HTTPRoute { return list.Items }),
			collect(ctx, &snap.GRPCRoutes, gateway.GRPCRoutes(ns).List, func(list *gatewayv1.GRPCRouteList) []gatewayv1.GRPCRoute { return list.Items }),
			collect(ctx, &snap.TLSRoutes, gateway.TLSRoutes(ns).List, func(list *gatewayv1.TLSRouteList) []gatewayv1.TLSRoute { return list.Items }),
			collect(ctx, &snap.TCPRoutes, gateway.TCPRoutes(ns).List, func(list *gatewayv1.TCPRouteList) []gatewayv1.TCPRoute { return list.Items }),
			collect(ctx, &snap.UDPRoutes, gateway.UDPRoutes(ns).List, func(list *gatewayv1.UDPRouteList) []gatewayv1.UDPRoute { return list.Items }),
			collect(ctx, &snap.BackendTLSPolicies, gateway.BackendTLSPolicies(ns).List, func(list *gatewayv1.BackendTLSPolicyList) []gatewayv1.BackendTLSPolicy { return list.Items }),
			collect(ctx, &snap.XBackendTrafficPolicies, l.gateway.ExperimentalV1alpha1().XBackendTrafficPolicies(ns).List, func(list *gatewayx.XBackendTrafficPolicyList) []gatewayx.XBackendTrafficPolicy { return list.Items }),
			collect(ctx, &snap.XBackends, l.gateway.ExperimentalV1alpha1().XBackends(ns).List, func(list *gatewayx.XBackendList) []gatewayx.XBackend { return list.Items }),
		); err != nil {
			return nil, fmt.Errorf("list what has a status: %w", err)
		}
	}
	return snap, nil
}

// collect lists the objects of a kind and adds them to a map of the snapshot, which is made if it is not there. A kind that the cluster does not know has none.
func collect[O any, P interface {
	*O
	metav1.Object
}, L any](ctx context.Context, into *map[object.Key]P, list func(context.Context, metav1.ListOptions) (L, error), items func(L) []O) error {
	got, err := list(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if *into == nil {
		*into = map[object.Key]P{}
	}
	all := items(got)
	for i := range all {
		o := P(&all[i])
		(*into)[object.KeyOf(o)] = o
	}
	return nil
}

// farewell is the status without what Fairlead has to say: no addresses for the Ingresses that it served, and no parents of its own for routes. Those of Gateways
// stay as they are, for whoever serves them next.
func farewell(was compile.Status) compile.Status {
	out := compile.Status{Ingresses: make(map[object.Key]networkingv1.IngressStatus, len(was.Ingresses))}
	for key := range was.Ingresses {
		out.Ingresses[key] = networkingv1.IngressStatus{}
	}
	return out
}

// removeLeases removes the Lease of the leader, and those of orders of certificates: who held one when the release went could not give it back any more.
func (l *liveCluster) removeLeases(ctx context.Context) error {
	api := l.clients.CoordinationV1().Leases(l.namespace)
	names := []string{watch.LeaseName}
	locks, err := api.List(ctx, metav1.ListOptions{LabelSelector: acmestore.LockSelector})
	if err != nil {
		return fmt.Errorf("list the Leases of orders: %w", err)
	}
	for i := range locks.Items {
		names = append(names, locks.Items[i].Name)
	}
	for _, name := range names {
		if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the Lease %s: %w", name, err)
		}
	}
	return nil
}
