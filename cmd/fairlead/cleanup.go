package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

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
		Short:  "Take back what an installation wrote in a cluster: the Services of Gateways, its part of statuses, and its Lease",
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
	return live.removeLease(ctx)
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
	snap := &object.Snapshot{
		Taken: time.Now(), IngressClasses: map[string]*networkingv1.IngressClass{}, Ingresses: map[object.Key]*networkingv1.Ingress{},
		HTTPRoutes: map[object.Key]*gatewayv1.HTTPRoute{}, GRPCRoutes: map[object.Key]*gatewayv1.GRPCRoute{},
	}
	if l.ingressClass != nil {
		snap.IngressClasses[l.ingressClass.Name] = l.ingressClass
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, ns := range namespaces {
		ingresses, err := l.clients.NetworkingV1().Ingresses(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list Ingresses: %w", err)
		}
		for i := range ingresses.Items {
			snap.Ingresses[object.KeyOf(&ingresses.Items[i])] = &ingresses.Items[i]
		}
		routes, err := l.gateway.GatewayV1().HTTPRoutes(ns).List(ctx, metav1.ListOptions{})
		if err := known(err); err != nil {
			return nil, fmt.Errorf("list HTTPRoutes: %w", err)
		}
		for i := range routes.Items {
			snap.HTTPRoutes[object.KeyOf(&routes.Items[i])] = &routes.Items[i]
		}
		calls, err := l.gateway.GatewayV1().GRPCRoutes(ns).List(ctx, metav1.ListOptions{})
		if err := known(err); err != nil {
			return nil, fmt.Errorf("list GRPCRoutes: %w", err)
		}
		for i := range calls.Items {
			snap.GRPCRoutes[object.KeyOf(&calls.Items[i])] = &calls.Items[i]
		}
	}
	return snap, nil
}

// known is err, unless it says that the cluster does not know the kind.
func known(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
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

// removeLease removes what the replicas agreed on a leader with.
func (l *liveCluster) removeLease(ctx context.Context) error {
	err := l.clients.CoordinationV1().Leases(l.namespace).Delete(ctx, watch.LeaseName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the Lease: %w", err)
	}
	return nil
}
