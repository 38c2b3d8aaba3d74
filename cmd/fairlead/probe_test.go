package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestProbe(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			if asked.Add(1) < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/no-content":
			w.WriteHeader(http.StatusNoContent)
		case "/unready":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/silent":
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		exit int
		out  string // in what is printed
	}{
		{"success", []string{srv.URL}, 0, srv.URL + ": 200 OK"},
		{"any success", []string{srv.URL + "/no-content"}, 0, "204 No Content"},
		{"asked again", []string{srv.URL + "/late"}, 0, "200 OK"},
		{"not ready", []string{srv.URL + "/unready", "--timeout=300ms"}, 1, "/unready did not answer with success within 300ms: 503 Service Unavailable"},
		{"a redirect is no success", []string{srv.URL + "/moved", "--timeout=300ms"}, 1, "302 Found"},
		{"no answer", []string{srv.URL + "/silent", "--timeout=300ms"}, 1, "/silent did not answer with success within 300ms: context deadline exceeded"},
		{"nobody there", []string{nobody, "--timeout=300ms"}, 1, "connection refused"},
		{"the password is not printed", []string{strings.Replace(srv.URL, "//", "//user:secret@", 1)}, 0, "//user:xxxxx@"},
		{"no URL", nil, 2, "accepts 1 arg(s)"},
		{"no scheme", []string{"127.0.0.1:9000/readyz"}, 2, "probe: "},
		{"no host", []string{"http:///readyz"}, 2, `probe: "http:///readyz" is not like http://host/path`},
		{"not HTTP", []string{"ftp://127.0.0.1/"}, 2, "is not like http://host/path"},
		{"no time", []string{srv.URL, "--timeout=0s"}, 2, "--timeout: 0s is not a time to wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, stdout, stderr := runCommand(t, append([]string{"probe"}, tt.args...)...)
			if status != tt.exit || !strings.Contains(stdout+stderr, tt.out) {
				t.Errorf("fairlead probe %s = %d, %q, %q; want %d and %q", tt.args, status, stdout, stderr, tt.exit, tt.out)
			}
		})
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("/late was asked %d times, want 3", n)
	}
}
