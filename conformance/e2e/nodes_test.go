package e2e_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// edge is a second release, in a namespace of its own, which serves what names classes of this name. No object has it, so that nobody else serves that.
const (
	edge      = "edge"
	edgeSpace = "fairlead-edge"
	edgePods  = "edge-fairlead"
)

// nodeIPs are the addresses of the nodes, as statuses show them.
var nodeIPs = []string{"10.100.0.1", "10.100.0.2"}

// nodes has requests come in through ports of the nodes: through host ports, on the network of the node, and through Services of type NodePort. Statuses show the
// addresses of the nodes, and these answer.
func (f *field) nodes(t *testing.T) {
	apply(t, edgeManifest)
	defer f.withoutEdge(t)
	t.Run("host ports", f.hostPorts)
	t.Run("the network of the nodes", f.hostNetwork)
	t.Run("node ports", f.nodePorts)
	used, refused := f.used(t, accountOf(edgeSpace, edgePods))
	granted := f.granted(t, edge)
	for r := range refused {
		if !granted[r] {
			t.Errorf("not granted, and needed: %s", r)
		}
	}
	if watch := (right{"watch", "", "nodes"}); !granted[watch] || !used[watch] {
		t.Errorf("%s: granted %v, used %v", watch, granted[watch], used[watch])
	}
}

const edgeManifest = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: edge, namespace: e2e, annotations: {fairlead.io/ssl-redirect: "true"}}
spec:
  ingressClassName: edge
  tls: [{hosts: [edge-secure.e2e.test], secretName: pair}]
  rules:
  - host: edge.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
  - host: edge-secure.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: e2e}
spec:
  gatewayClassName: edge
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: "*.e2e.test", tls: {certificateRefs: [{name: pair}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge, namespace: e2e}
spec:
  parentRefs: [{name: edge}]
  hostnames: [edge-route.e2e.test]
  rules:
  - matches: [{path: {value: /elsewhere}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other.e2e.test}}]
  - backendRefs: [{name: app, port: 80}]
`

// edgeRelease makes the second release be as the values say.
func (f *field) edgeRelease(t *testing.T, values ...string) {
	t.Helper()
	args, err := f.cluster.HelmArgsOf(*checkout, edge, edgeSpace)
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"upgrade", "--install", "--create-namespace", "--reset-values"}, args...)
	for _, v := range append(values, "ingressClass.create=false", "ingressClass.name="+edge, "ingressClass.exclusive=true", "gatewayClass.create=false", "gatewayClass.name="+edge,
		"gatewayClass.exclusive=true", "config.drain.delay=1s", "config.drain.grace=2s") {
		args = append(args, "--set="+v)
	}
	must(t, "", "helm", args...)
}

// withoutEdge removes the second release and what it served.
func (f *field) withoutEdge(t *testing.T) {
	t.Helper()
	must(t, "", "helm", "uninstall", edge, "-n", edgeSpace, "--wait", "--timeout=120s")
	if left := must(t, "", "kubectl", "get", "-n", space, "ingress/edge", "-o", "jsonpath={.status.loadBalancer.ingress}"); left != "" && left != "[]" {
		t.Errorf("helm uninstall leaves in the status of the Ingress: %s", left)
	}
	must(t, edgeManifest, "kubectl", "delete", "-f", "-")
	must(t, "", "kubectl", "delete", "namespace", edgeSpace, "--wait=false")
}

// hostPorts has a DaemonSet take the ports 80 and 443 of the nodes, whose ports in the pods are others.
func (f *field) hostPorts(t *testing.T) {
	values := []string{"kind=DaemonSet", "ports.http.hostPort=80", "ports.https.hostPort=443", "service.enabled=false", "gateway.addresses=host"}
	f.edgeRelease(t, values...)
	f.showsNodes(t, nodeIPs...)
	f.nodesAnswer(t, "80", "443", "80", "443")
	for _, r := range []struct{ host, path, want string }{
		{"edge-secure.e2e.test", "/cart", "https://edge-secure.e2e.test/cart"},
		{"edge-route.e2e.test", "/elsewhere", "http://other.e2e.test/elsewhere"},
	} {
		c := &client{address: nodeIPs[0] + ":80", host: r.host, fresh: true}
		a, err := c.do(t.Context(), "GET", r.path, "", "")
		if got := a.header.Get("Location"); err != nil || got != r.want {
			t.Errorf("http://%s%s is redirected to %q, want %q (%v)", r.host, r.path, got, r.want, err)
		}
	}
	f.edgeRelease(t, append(values, `nodeSelector.kubernetes\.io/hostname=node2`)...)
	f.showsNodes(t, nodeIPs[1])
}

// hostNetwork has the pods be on the network of the nodes.
func (f *field) hostNetwork(t *testing.T) {
	f.edgeRelease(t, "kind=DaemonSet", "hostNetwork=true", "service.enabled=false", "gateway.addresses=host", "ports.admin.containerPort=9100")
	f.showsNodes(t, nodeIPs...)
	f.nodesAnswer(t, "80", "443", "80", "443")
}

// nodePorts has Services of type NodePort lead to one pod.
func (f *field) nodePorts(t *testing.T) {
	f.edgeRelease(t, "replicas=1", "service.type=NodePort")
	f.showsNodes(t, nodeIPs...)
	find := func(args ...string) []string {
		return strings.Fields(must(t, "", "kubectl", append([]string{"get", "services", "-n", edgeSpace, "-o", `jsonpath={.items[0].spec.ports[?(@.port==80)].nodePort} {.items[0].spec.ports[?(@.port==443)].nodePort}`}, args...)...))
	}
	own, gateway := find("--field-selector=metadata.name="+edgePods), find("-l", "gateway.networking.k8s.io/gateway-name=edge")
	if len(own) != 2 || len(gateway) != 2 {
		t.Fatalf("the Services have the node ports %v and %v, want two each", own, gateway)
	}
	f.nodesAnswer(t, own[0], own[1], gateway[0], gateway[1])
	f.edgeRelease(t, "replicas=1", "service.type=NodePort", "service.externalTrafficPolicy=Local")
	var left []replica
	eventually(t, 30*time.Second, func() error { // until the one before it is gone
		if left = pods(t, edgeSpace, "app.kubernetes.io/instance="+edge); len(left) != 1 {
			return fmt.Errorf("there are %d pods, want 1", len(left))
		}
		return nil
	})
	f.showsNodes(t, map[string]string{"node1": nodeIPs[0], "node2": nodeIPs[1]}[left[0].node])
}

// showsNodes waits until the statuses of the Ingress and of the Gateway show these addresses and no others.
func (f *field) showsNodes(t *testing.T, want ...string) {
	t.Helper()
	for what, path := range map[string]string{"ingress/edge": "{.status.loadBalancer.ingress[*].ip}", "gateway/edge": "{.status.addresses[*].value}"} {
		eventually(t, 30*time.Second, func() error {
			if got := strings.Fields(must(t, "", "kubectl", "get", "-n", space, what, "-o", "jsonpath="+path)); !slices.Equal(got, want) {
				return fmt.Errorf("%s shows %v, want %v", what, got, want)
			}
			return nil
		})
	}
}

// nodesAnswer sends requests to every node, at the ports for the Ingress and at those for the Gateway, in clear text and by TLS.
func (f *field) nodesAnswer(t *testing.T, http, https, gatewayHTTP, gatewayHTTPS string) {
	t.Helper()
	for _, ip := range nodeIPs {
		for _, way := range []struct {
			port, host string
			secure     *tls.Config
		}{
			{http, "edge.e2e.test", nil},
			{https, "edge-secure.e2e.test", trust("edge-secure.e2e.test")},
			{gatewayHTTP, "edge-route.e2e.test", nil},
			{gatewayHTTPS, "edge-route.e2e.test", trust("edge-route.e2e.test")},
		} {
			eventually(t, 20*time.Second, func() error {
				if err := answersAt(t, ip+":"+way.port, way.host, way.secure); err != nil {
					return fmt.Errorf("%s at %s:%s: %w", way.host, ip, way.port, err)
				}
				return nil
			})
		}
	}
}
