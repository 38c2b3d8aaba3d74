package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// answerNames makes every name an alias of what address returns, until the test ends.
func answerNames(t *testing.T, address func(name string) netip.Addr) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(answerName(buf[:n], address), from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = before; _ = pc.Close(); <-done })
}

func answerName(query []byte, address func(name string) netip.Addr) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	q := m.Questions[0]
	if a := address(q.Name.String()); q.Type == dnsmessage.TypeA && a.Is4() {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: a.As4()}}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// outsideAddress is an address of this machine that a backend outside of the cluster could have.
func outsideAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is4() && ip.Unmap().IsGlobalUnicast() {
				return ip.Unmap()
			}
		}
	}
	t.Skip("this machine has no IPv4 address but loopback, at which no name outside of the cluster may be")
	return netip.Addr{}
}

const externalFolder = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: tcp, protocol: TCP, port: 443}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: raw, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: verified}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  rules:
`

// externalBackend is an XBackend of a name, and the rule that leads to it under a path of that name.
func externalBackend(name, hostname string, port int, tls string) (rule, object string) {
	return fmt.Sprintf("  - {matches: [{path: {value: /%[1]s}}], backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: %[1]s}]}\n", name),
		fmt.Sprintf("---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {name: %s, namespace: shop}\nspec: {type: ExternalHostname, port: {port: %d}, externalHostname: {hostname: %s}, tls: {%s}}\n",
			name, port, hostname, tls)
}

// XBackends are found by their names, at the addresses that they may have, and have to be who they say; a certificate is presented to those that want one.
func TestXBackendIsServed(t *testing.T) {
	address := outsideAddress(t)
	answerNames(t, func(name string) netip.Addr {
		switch {
		case strings.HasPrefix(name, "inside."):
			return netip.MustParseAddr("127.0.0.1")
		case strings.HasPrefix(name, "metadata."):
			return netip.MustParseAddr("169.254.169.254")
		}
		return address
	})
	ours := newIssuer(t)
	pair, _, _ := ours.issue(&x509.Certificate{DNSNames: []string{"api.example.net"}})
	port := outsideServer(t, address, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
	trust := `validation: {hostname: api.example.net, caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]}`
	rules, objects := "", ""
	for _, x := range []struct{ name, hostname, tls string }{
		{"verified", "api.example.net", "mode: ServerOnly, " + trust},
		{"mutual", "api.example.net", "mode: ClientAndServer, clientCertificateRef: {name: client}, " + trust},
		{"stranger", "other.example.net", "mode: ServerOnly, " + strings.Replace(trust, "api.example.net", "other.example.net", 1)},
		{"system", "api.example.net", "mode: ServerOnly"},
		{"plain", "api.example.net", "mode: None"},
		{"inside", "inside.example.net", "mode: ServerOnly, " + trust},
		{"metadata", "metadata.example.net", "mode: ServerOnly, " + trust},
	} {
		rule, object := externalBackend(x.name, x.hostname, port, x.tls)
		rules, objects = rules+rule, objects+object
	}
	dir := t.TempDir()
	client := ours.secret("shop", "client", &x509.Certificate{DNSNames: []string{"fairlead"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	writeFile(t, dir, "all.yaml", externalFolder+rules+objects+ours.configMap("ca")+client)
	r := serveWith(t, dir, quickDrain+"allowExternalName: true\n")
	const failed = "502 backend-connect-failed"
	for path, want := range map[string]string{
		"/verified": "200 sni=api.example.net host=client.example.com client=", "/mutual": "200 sni=api.example.net host=client.example.com client=fairlead",
		"/stranger": failed, "/system": failed, "/inside": failed, "/metadata": failed, "/plain": "400 ",
	} {
		eventually(t, path, func() error {
			a, err := get("http://"+r.http+path, "client.example.com")
			if err != nil {
				return err
			}
			got := fmt.Sprintf("%d %s", a.status, a.body)
			if reason := a.header.Get("X-Fairlead-Reason"); reason != "" {
				got = fmt.Sprintf("%d %s", a.status, reason)
			}
			if !strings.HasPrefix(got, want) {
				return fmt.Errorf("got %s, want %s", got, want)
			}
			return nil
		})
	}
	for _, why := range []string{"it is loopback", "it is a cloud's metadata service"} {
		if !strings.Contains(r.log.String(), why) {
			t.Errorf("nobody is told that %s", why)
		}
	}
	res, err := http.Get("http://" + r.https + "/") // a TCP listener: Fairlead speaks TLS for whoever passes through it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if body, _ := io.ReadAll(res.Body); !strings.HasPrefix(string(body), "sni=api.example.net") {
		t.Errorf("a connection that is passed on was answered with %q", body)
	}
	status, out, _ := runCommand(t, "explain", "-f", dir, "http://client.example.com/verified")
	if !strings.Contains(out, "must be allowed in the configuration") {
		t.Errorf("explain without leave, %d: %s", status, out)
	}
}

// outsideServer starts a backend that speaks TLS at an address, and returns its port. It answers with the server name and the host that it was asked for, and with the
// names of the client.
func outsideServer(t *testing.T, address netip.Addr, config *tls.Config) int {
	t.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names := ""
		if len(r.TLS.PeerCertificates) > 0 {
			names = strings.Join(r.TLS.PeerCertificates[0].DNSNames, ",")
		}
		_, _ = fmt.Fprintf(w, "sni=%s host=%s client=%s", r.TLS.ServerName, r.Host, names)
	}))
	_ = s.Listener.Close()
	s.Listener, s.TLS, s.EnableHTTP2 = ln, config, true
	s.Config.ErrorLog = discardLog
	s.StartTLS()
	t.Cleanup(s.Close)
	return ln.Addr().(*net.TCPAddr).Port
}
