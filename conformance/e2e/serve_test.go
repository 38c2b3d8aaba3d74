package e2e_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// serves sends a request along every way in: Ingress and HTTPRoute, HTTP and HTTPS, through the load balancer and through a node's port.
func (f *field) serves(t *testing.T) {
	ports := func(ns, service string) []string {
		return strings.Fields(must(t, "", "kubectl", "get", "-n", ns, service, "-o", "jsonpath={.spec.ports[?(@.port==80)].nodePort} {.spec.ports[?(@.port==443)].nodePort}"))
	}
	own := ports(cluster.Namespace, "service/"+cluster.Release)
	gatewayService := strings.TrimSpace(must(t, "", "kubectl", "get", "services", "-n", cluster.Namespace, "-o", "name", "--field-selector=metadata.name!="+cluster.Release, "-l", "gateway.networking.k8s.io/gateway-name=web"))
	gateway := ports(cluster.Namespace, gatewayService)
	if len(own) != 2 || len(gateway) != 2 {
		t.Fatalf("the Services have the node ports %v and %v, want two each", own, gateway)
	}
	for _, way := range []struct {
		name, address, port, host string
		tls                       bool
	}{
		{"Ingress", f.ingress, "80", "ingress.e2e.test", false},
		{"Ingress, HTTPS", f.ingress, "443", "secure.e2e.test", true},
		{"Ingress, node port", "10.100.0.1", own[0], "ingress.e2e.test", false},
		{"Ingress, node port of the other node, HTTPS", "10.100.0.2", own[1], "secure.e2e.test", true},
		{"HTTPRoute", f.gateway, "80", "route.e2e.test", false},
		{"HTTPRoute, HTTPS", f.gateway, "443", "route.e2e.test", true},
		{"HTTPRoute, node port", "10.100.0.2", gateway[0], "route.e2e.test", false},
		{"HTTPRoute, node port of the other node, HTTPS", "10.100.0.1", gateway[1], "route.e2e.test", true},
	} {
		t.Run(way.name, func(t *testing.T) {
			var secure *tls.Config
			if way.tls {
				secure = trust(way.host)
			}
			eventually(t, 30*time.Second, func() error { return answersAt(t, net.JoinHostPort(way.address, way.port), way.host, secure) })
		})
	}
}

// answersAt complains unless the application answers.
func answersAt(t *testing.T, address, host string, secure *tls.Config) error {
	t.Helper()
	c := &client{address: address, host: host, tls: secure, fresh: true}
	a, err := c.do(t.Context(), "GET", "/", "", "")
	if err != nil {
		return err
	}
	if a.status != http.StatusOK || a.pod == "" {
		return fmt.Errorf("status %d from %q, reason %q", a.status, a.pod, a.header.Get("X-Fairlead-Reason"))
	}
	return nil
}

// statuses asks kubectl for what users look at.
func (f *field) statuses(t *testing.T) {
	for _, want := range []struct{ what, path, value string }{
		{"ingress/app", "{.status.loadBalancer.ingress[*].ip}", f.ingress},
		{"ingress/secure", "{.status.loadBalancer.ingress[*].ip}", f.ingress},
		{"gatewayclass/fairlead", `{.status.conditions[?(@.type=="Accepted")].status}`, "True"},
		{"gateway/web", `{.status.conditions[?(@.type=="Programmed")].status}`, "True"},
		{"gateway/web", `{.status.conditions[?(@.type=="Accepted")].status}`, "True"},
		{"gateway/web", "{.status.listeners[*].attachedRoutes}", "5 1"},
		{"httproute/app", `{.status.parents[*].conditions[?(@.type=="Accepted")].status}`, "True"},
		{"httproute/app", `{.status.parents[*].conditions[?(@.type=="ResolvedRefs")].status}`, "True"},
		{"listenerset/more", `{.status.conditions[?(@.type=="Accepted")].status}`, "True"},
		{"grpcroute/calls", `{.status.parents[*].conditions[?(@.type=="Accepted")].status}`, "True"},
		{"backendtlspolicy/verified", `{.status.ancestors[*].conditions[?(@.type=="Accepted")].status}`, "False"},
		{"xbackend/outside", `{.status.parents[*].conditions[?(@.type=="Accepted")].status}`, "False"}, // names outside of the cluster are not allowed here
		{"xbackendtrafficpolicy/budget", `{.status.ancestors[*].conditions[?(@.type=="Accepted")].status}`, "True"},
		{"httproute/app", "{.status.parents[*].controllerName}", "fairlead.io/gateway-controller"},
	} {
		eventually(t, 20*time.Second, func() error {
			if got := must(t, "", "kubectl", "get", "-n", space, want.what, "-o", "jsonpath="+want.path); got != want.value {
				return fmt.Errorf("%s: %s is %q, want %q", want.what, want.path, got, want.value)
			}
			return nil
		})
	}
	f.gatewaysComeAndGo(t)
	f.metrics(t)
	eventually(t, 20*time.Second, func() error {
		events := must(t, "", "kubectl", "get", "events", "-n", space, "--field-selector=involvedObject.kind=Ingress,involvedObject.name=rejected,type=Warning", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(events, "nothing") {
			return fmt.Errorf("the Ingress whose Service does not exist has the events %q", events)
		}
		return nil
	})
}

// gatewaysComeAndGo has a Gateway get a Service and an address, change, and go, and its Service with it.
func (f *field) gatewaysComeAndGo(t *testing.T) {
	t.Helper()
	const gateway = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: brief, namespace: e2e},
		spec: {gatewayClassName: fairlead, listeners: [{name: one, port: 80, protocol: HTTP}%s]}}`
	services := func() string {
		return must(t, "", "kubectl", "get", "services", "-A", "-l", "gateway.networking.k8s.io/gateway-name=brief", "-o", "jsonpath={.items[*].spec.ports[*].port}")
	}
	apply(t, fmt.Sprintf(gateway, ""))
	must(t, "", "kubectl", "wait", "-n", space, "gateway/brief", "--for=condition=Programmed", "--timeout=30s")
	apply(t, fmt.Sprintf(gateway, ", {name: two, port: 8080, protocol: HTTP}"))
	eventually(t, 20*time.Second, func() error {
		if ports := services(); !strings.Contains(ports, "8080") {
			return fmt.Errorf("the Services have the ports %q", ports)
		}
		return nil
	})
	must(t, "", "kubectl", "delete", "-n", space, "gateway/brief")
	eventually(t, 20*time.Second, func() error {
		if left := must(t, "", "kubectl", "get", "services", "-A", "-l", "gateway.networking.k8s.io/gateway-name=brief", "-o", "name"); left != "" {
			return fmt.Errorf("the Gateway is gone and its Services are not: %s", left)
		}
		return nil
	})
}

// metrics asks every replica what it did: each follows the cluster, and one of them writes.
func (f *field) metrics(t *testing.T) {
	t.Helper()
	var all strings.Builder
	for _, r := range f.replicas(t) {
		res, err := http.Get("http://" + r.ip + ":9000/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"fairlead_watch_synced 1\n", `fairlead_watch_events_total{event="list",kind="ingresses"}`, "fairlead_config_install_duration_seconds_count"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("the metrics of %s lack %q", r.name, want)
			}
		}
		all.Write(text)
	}
	if leaders := strings.Count(all.String(), "fairlead_leader 1\n"); leaders != 1 {
		t.Errorf("%d replicas say that they lead", leaders)
	}
	for _, want := range []string{`fairlead_status_updates_total{kind="HTTPRoute",result="written"}`, `fairlead_status_events_total{result="written"}`, `fairlead_gateway_service_writes_total{result="done",verb="create"}`} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no replica has the metric %s", want)
		}
	}
}
