package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const shop = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop-%[1]d
  namespace: shop
  labels:
    app: shop
spec:
  ingressClassName: fairlead
  rules:
  - host: shop-%[1]d.example.com
    http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: web-%[1]d
            port:
              number: 80
---
apiVersion: v1
kind: Service
metadata:
  name: web-%[1]d
  namespace: shop
spec:
  ports:
  - name: http
    port: 80
    targetPort: 8080
`

// shops writes a folder of n files with two documents each, all of them old enough for their times to be trusted.
func shops(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	old := time.Now().Add(-time.Hour)
	for i := range n {
		name := filepath.Join(fmt.Sprintf("team-%d", i%10), fmt.Sprintf("shop-%d.yaml", i))
		write(b, dir, name, fmt.Sprintf(shop, i))
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func BenchmarkLoad1000Files(b *testing.B) {
	fsys := os.DirFS(shops(b, 1000))
	b.ReportAllocs()
	for b.Loop() {
		if snap, issues := Load(fsys, Options{}); len(snap.Ingresses) != 1000 || len(issues) > 0 {
			b.Fatal(len(snap.Ingresses), issues)
		}
	}
}

func BenchmarkReadOneChangedOf5000(b *testing.B) {
	dir := shops(b, 5000)
	f := openFolder(b, dir)
	f.Read()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		write(b, dir, "team-0/shop-0.yaml", fmt.Sprintf(shop, 10000+i))
		if snap, issues := f.Read(); len(snap.Ingresses) != 5000 || len(issues) > 0 {
			b.Fatal(len(snap.Ingresses), issues)
		}
	}
}

func BenchmarkReadNothingChangedOf5000(b *testing.B) {
	f := openFolder(b, shops(b, 5000))
	f.Read()
	b.ReportAllocs()
	for b.Loop() {
		f.Read()
	}
}

func BenchmarkDocument(b *testing.B) {
	c := chunk{text: fmt.Appendf(nil, shop, 1)[:400]}
	b.ReportAllocs()
	for b.Loop() {
		c.read()
	}
}
