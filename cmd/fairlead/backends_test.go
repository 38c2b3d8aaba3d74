package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBackendsCommand(t *testing.T) {
	good, gone := newSoakBackend(t), newSoakBackend(t)
	_ = gone.srv.Close()
	s := &soak{dir: t.TempDir(), live: []*soakBackend{good, gone}}
	s.file(t, "services.yaml", strings.Replace(soakServices, "name: web, namespace: soak", `name: web, namespace: soak, annotations: {fairlead.io/max-connections: "9"}`, 1))
	s.file(t, "routes.yaml", strings.Replace(soakRoutes, "%d", "1", 1))
	s.endpoints(t)
	r := serveFolder(t, s.dir)
	for range 4 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.http+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "soak.example.com"
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		_ = res.Body.Close()
	}
	pools, err := askBackends(t.Context(), r.admin)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printBackends(&out, pools, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pool soak/web:80 http round-robin max-connections=9\n", good.addr + "  ok", gone.addr + "  out: no connection could be made, next trial in ", "connection refused ("} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	if _, err := askBackends(t.Context(), gone.addr); err == nil || !strings.HasPrefix(err.Error(), "ask for backends: ") {
		t.Errorf("of nobody: %v", err)
	}
}
