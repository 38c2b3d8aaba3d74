package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-io/fairlead/examples"
	"github.com/fairlead-io/fairlead/internal/admin"
	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/echo"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
)

// replicas is how many echo endpoints the demo runs for each Service.
const replicas = 3

func newDemo() *cobra.Command {
	o := serveOptions{source: source{portMap: "80:8080,443:8443"}, bindAddress: "127.0.0.1"}
	var printYAML bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Serve the embedded examples, with backends inside the process",
		Long: `Serve the embedded examples, with backends inside the process.

Needs no cluster. --print-yaml writes the same YAML, which can be applied to a cluster or served with fairlead serve --manifests.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDemoFiles(time.Now())
			if err != nil {
				return err
			}
			if printYAML {
				return d.print(cmd.OutOrStdout())
			}
			return d.run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&printYAML, "print-yaml", false, "write the demo's YAML and exit")
	o.register(cmd)
	if f := cmd.Flags().Lookup("log-level"); f != nil {
		_ = f.Value.Set(slog.LevelWarn.String())
		f.DefValue = slog.LevelWarn.String()
	}
	return cmd
}

// demo is the embedded examples, written to a folder of their own, and the echo endpoints that play the Pods.
type demo struct {
	files     map[string][]byte // the examples and the generated certificates, by file name
	dir       string
	endpoints []*echo.Server
	ports     map[uint16]uint16
	adminAddr string
	out       io.Writer
}

// newDemoFiles assembles the YAML of the demo: the embedded files and a Secret for every certificate that they name.
func newDemoFiles(now time.Time) (*demo, error) {
	d := &demo{files: map[string][]byte{}}
	names, err := fs.Glob(examples.Demo, "demo/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("read examples: %w", err)
	}
	for _, name := range names {
		if d.files[path.Base(name)], err = fs.ReadFile(examples.Demo, name); err != nil {
			return nil, fmt.Errorf("read examples: %w", err)
		}
	}
	var buf bytes.Buffer
	buf.WriteString("# Generated for this run: a self-signed certificate for each host.\n")
	for _, s := range []struct{ namespace, name, host string }{{"api", "api-tls", "api.localhost"}, {"shop", "shop-tls", "shop.localhost"}} {
		secret, err := selfSigned(s.namespace, s.name, s.host, now)
		if err != nil {
			return nil, fmt.Errorf("make certificate for %s: %w", s.host, err)
		}
		if err := writeDocument(&buf, secret); err != nil {
			return nil, err
		}
	}
	d.files["certificates.yaml"] = buf.Bytes()
	return d, nil
}

// writeDocument appends an object to a YAML stream.
func writeDocument(buf *bytes.Buffer, object metav1.Object) error {
	data, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", object.GetNamespace(), object.GetName(), err)
	}
	if buf.Len() > 0 {
		buf.WriteString("---\n")
	}
	buf.Write(data)
	return nil
}

// print writes the demo's files as one stream.
func (d *demo) print(w io.Writer) error {
	for i, name := range slices.Sorted(maps.Keys(d.files)) {
		sep := "---\n"
		if i == 0 {
			sep = ""
		}
		if _, err := fmt.Fprintf(w, "%s%s", sep, d.files[name]); err != nil {
			return fmt.Errorf("print %s: %w", name, err)
		}
	}
	return nil
}

// selfSigned makes a Secret with a certificate that is valid for host for 30 days.
func selfSigned(namespace, name, host string, now time.Time) (*corev1.Secret, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: host, Organization: []string{"Fairlead demo"}}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 30),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Type:       corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		},
	}, nil
}

// run writes the files, starts the endpoints and serves until ctx ends.
func (d *demo) run(ctx context.Context, o serveOptions, out, errOut io.Writer) (err error) {
	set, err := o.settings()
	if err != nil {
		return err
	}
	if o.configFile == "" {
		set.config.Drain.Delay = &metav1.Duration{} // nobody balances load over demos
	}
	d.ports, d.adminAddr, d.out = set.compile.PortMap, o.adminAddress, out
	if d.dir, err = os.MkdirTemp("", "fairlead-demo-"); err != nil {
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	defer func() { d.close(); err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if err := d.write(); err != nil {
		return err
	}
	folder, err := manifest.Open(d.dir, set.manifest)
	if err != nil {
		return err
	}
	o.inProcess = true
	err = serve(ctx, o, set, folder, out, errOut, d)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w\nanother program has the port: choose others with --port-map 80:8081,443:8444 and --admin-address 127.0.0.1:9001", err)
	}
	return err
}

// write fills the folder: the files, and the EndpointSlices that a cluster would have for endpoints that are started here.
func (d *demo) write() error {
	for name, data := range d.files {
		if err := os.WriteFile(filepath.Join(d.dir, name), data, 0o600); err != nil {
			return fmt.Errorf("write the demo's folder: %w", err)
		}
	}
	folder, err := manifest.Open(d.dir, manifest.Options{})
	if err != nil {
		return err
	}
	snap, issues := folder.Read()
	if len(issues) > 0 {
		return fmt.Errorf("read the demo's own files: %v", issues)
	}
	buf := bytes.NewBufferString("# Generated for this run: the endpoints inside this process.\n")
	for _, svc := range object.Sorted(snap.Services) {
		for i := range replicas {
			slice, err := d.play(svc, i)
			if err != nil {
				return err
			}
			if err := writeDocument(buf, slice); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, "endpoints.yaml"), buf.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the demo's folder: %w", err)
	}
	return nil
}

// play starts the i-th endpoint of a Service and returns the EndpointSlice that a cluster would have for it. Each has a slice of its own because each has a
// port of its own, which Pods have no need of.
func (d *demo) play(svc *corev1.Service, i int) (*discoveryv1.EndpointSlice, error) {
	name := fmt.Sprintf("%s-%d", svc.Name, i)
	server := echo.New(name)
	if err := server.Listen("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start endpoint %s: %w", name, err)
	}
	d.endpoints = append(d.endpoints, server)
	addr, err := netip.ParseAddrPort(server.Addr())
	if err != nil {
		return nil, fmt.Errorf("start endpoint %s: %w", name, err)
	}
	port := int32(addr.Port())
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &svc.Spec.Ports[0].Name, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{addr.Addr().String()}}},
	}, nil
}

func (d *demo) close() {
	for _, e := range d.endpoints {
		_ = e.Close()
	}
}

// control lets the admin address kill and revive endpoints. It is nil without a demo.
func (d *demo) control() *admin.Demo {
	if d == nil {
		return nil
	}
	return &admin.Demo{
		Kill: func(name string) error {
			e, err := d.endpoint(name)
			if err == nil {
				e.Kill()
			}
			return err
		},
		Revive: func(name string) error {
			e, err := d.endpoint(name)
			if err == nil {
				err = e.Revive()
			}
			return err
		},
		Endpoints: func() any {
			alive := map[string]bool{}
			for _, e := range d.endpoints {
				alive[e.Name()] = e.Alive()
			}
			return alive
		},
	}
}

func (d *demo) endpoint(name string) (*echo.Server, error) {
	for _, e := range d.endpoints {
		if e.Name() == name {
			return e, nil
		}
	}
	return nil, admin.ErrNoEndpoint
}

// started prints what to do next. d may be nil.
func (d *demo) started(result compile.Result) {
	if d == nil {
		return
	}
	http, https := d.mapped(80), d.mapped(443)
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }
	p("%s", result.Table)
	p("Each Service has %d endpoints inside this process. Try, in another terminal:\n", replicas)
	p("  curl http://shop.localhost:%d/                            # an Ingress; repeat it and the endpoints take turns", http)
	p("  curl http://shop.localhost:%d/cart                        # another path, another Service", http)
	p("  curl http://api.localhost:%d/                             # an HTTPRoute: one request in ten goes to the canary", http)
	p("  curl -H 'X-Canary: yes' http://api.localhost:%d/          # and this one always does", http)
	p("  curl -i http://api.localhost:%d/v1/users                  # a redirect", http)
	p("  curl -k https://shop.localhost:%d/                        # TLS, with a certificate made for this run", https)
	if d.adminAddr != "" {
		p("  curl -X POST http://%s/demo/endpoints/web-0/kill   # kill an endpoint: no request fails", d.adminAddr)
		p("  curl -X POST http://%s/demo/endpoints/web-0/revive # and bring it back", d.adminAddr)
		p("  curl http://%s/debug/backends                      # what Fairlead thinks of the endpoints", d.adminAddr)
	}
	p("\nThe YAML is in %s: change a file and the change is served at once. The access log follows. Ctrl-C stops.", d.dir)
}

func (d *demo) mapped(p uint16) uint16 {
	if m, ok := d.ports[p]; ok {
		return m
	}
	return p
}
