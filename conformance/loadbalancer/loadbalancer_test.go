package loadbalancer

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func service(name, asked string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: name}, Spec: corev1.ServiceSpec{Type: kind, LoadBalancerIP: asked}}
}

func TestController(t *testing.T) {
	client := fake.NewClientset(
		service("asked", "10.100.1.7", corev1.ServiceTypeLoadBalancer), service("outside", "192.0.2.1", corev1.ServiceTypeLoadBalancer),
		service("any", "", corev1.ServiceTypeLoadBalancer), service("cluster", "", corev1.ServiceTypeClusterIP),
	)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := &Controller{Client: client, Pool: netip.MustParsePrefix("10.100.1.0/29"), Log: slog.New(slog.DiscardHandler)}
	go func() { ended <- c.Run(ctx) }()
	address := func(name string) string {
		svc, err := client.CoreV1().Services("test").Get(ctx, name, metav1.GetOptions{})
		if err != nil || len(svc.Status.LoadBalancer.Ingress) == 0 {
			return ""
		}
		return svc.Status.LoadBalancer.Ingress[0].IP
	}
	within := func(name, want string) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); address(name) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s has the address %q, want %q", name, address(name), want)
			}
		}
	}
	within("asked", "10.100.1.7")
	within("any", "10.100.1.1")
	for _, name := range []string{"outside", "cluster"} {
		if got := address(name); got != "" {
			t.Errorf("%s has the address %q, want none", name, got)
		}
	}
	if err := client.CoreV1().Services("test").Delete(ctx, "any", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond) // the address must have been given back
	if _, err := client.CoreV1().Services("test").Create(ctx, service("next", "", corev1.ServiceTypeLoadBalancer), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within("next", "10.100.1.1")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
