// Package admin is the operator's view of a running Fairlead: health, readiness, metrics, and what is being served and why.
//
// It only shows. The one exception is the demo, whose endpoints can be killed and revived, from this machine only.
package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what the pages show. A page whose source is nil does not exist. The functions are called concurrently.
type Options struct {
	// Build describes the program on the index page, such as "fairlead 1.0.0 (abc123)".
	Build string
	// Ready says whether requests can be served and, if not, why not. Nil means always.
	Ready func() (ready bool, why string)
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Table returns the routing table as text, for /debug/table.
	Table func() string
	// Explain answers /debug/explain: which rule would serve a request or a connection, and why not the others.
	Explain func(Question) (string, error)
	// Backends, Certificates, Orders and Problems return values that /debug/backends, /debug/certificates, /debug/orders and /debug/problems show as JSON.
	Backends     func() any
	Certificates func() any
	Orders       func() any
	Problems     func() any
	// Demo, if not nil, controls the endpoints of the demo.
	Demo *Demo
	// Log gets what goes wrong while a page is made. Nil discards it.
	Log *slog.Logger
}

// Question is a request to be explained, or a connection: then the scheme of the URL is tls, tcp or udp.
type Question struct {
	Method string
	URL    *url.URL // absolute, http or https
	Header http.Header
}

// Demo controls the endpoints of the demo.
type Demo struct {
	// Kill and Revive stop and start the endpoint of that name. They return ErrNoEndpoint if there is none.
	Kill, Revive func(name string) error
	// Endpoints returns a value that GET /demo/endpoints shows as JSON.
	Endpoints func() any
}

// ErrNoEndpoint says that the demo has no endpoint of the name.
var ErrNoEndpoint = errors.New("no endpoint of that name")

// maxScrapes is how many scrapes may run at the same time.
const maxScrapes = 4

// page is one line of the index.
type page struct{ path, what string }

// server is the handler being put together.
type server struct {
	opt   Options
	mux   *http.ServeMux
	pages []page
}

// New returns the handler of the admin address.
func New(opt Options) http.Handler {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Ready == nil {
		opt.Ready = func() (bool, string) { return true, "" }
	}
	s := &server{opt: opt, mux: http.NewServeMux()}
	s.show("/healthz", "200 while the process runs", http.HandlerFunc(s.health))
	s.show("/readyz", "200 while requests can be served", http.HandlerFunc(s.ready))
	if opt.Gatherer != nil {
		s.show("/metrics", "Prometheus metrics", promhttp.HandlerFor(opt.Gatherer, promhttp.HandlerOpts{
			EnableOpenMetrics:   true,
			MaxRequestsInFlight: maxScrapes,
			ErrorHandling:       promhttp.ContinueOnError,
			ErrorLog:            scrapeLog{opt.Log},
		}))
	}
	s.debugPages()
	s.demoPages()
	s.mux.HandleFunc("GET /{$}", s.index)
	return secure(s.mux)
}

func (s *server) debugPages() {
	if s.opt.Table != nil {
		s.show("/debug/table", "the routing table", http.HandlerFunc(s.table))
	}
	if s.opt.Explain != nil {
		s.show("/debug/explain", "which rule serves a request, or a connection: ?url=http://host/path&method=GET&header=Name:value, ?url=tls://host", http.HandlerFunc(s.explain))
	}
	s.showJSON("/debug/backends", "the backends, their endpoints and their health", s.opt.Backends)
	s.showJSON("/debug/certificates", "the certificates being presented", s.opt.Certificates)
	s.showJSON("/debug/orders", "the certificates on order, and what became of them", s.opt.Orders)
	s.showJSON("/debug/problems", "what is wrong with the objects that were read", s.opt.Problems)
}

// show adds a page that can be read.
func (s *server) show(path, what string, h http.Handler) {
	s.pages = append(s.pages, page{path, what})
	s.mux.Handle("GET "+path, h)
}

func (s *server) showJSON(path, what string, value func() any) {
	if value == nil {
		return
	}
	s.show(path, what, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { s.writeJSON(w, path, value()) }))
}

func (s *server) writeJSON(w http.ResponseWriter, path string, value any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		s.opt.Log.Error("admin page cannot be shown", "path", path, "error", err)
		writeText(w, http.StatusInternalServerError, "this page cannot be shown; see the log")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = b.WriteTo(w)
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	ready, why := s.opt.Ready()
	if ready {
		writeText(w, http.StatusOK, "ok")
		return
	}
	writeText(w, http.StatusServiceUnavailable, "not ready: "+why)
}

func (s *server) table(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, s.opt.Table())
}

func (s *server) index(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	if s.opt.Build != "" {
		b.WriteString(s.opt.Build + "\n\n")
	}
	for _, p := range s.pages {
		fmt.Fprintf(&b, "%-20s  %s\n", p.path, p.what)
	}
	writeText(w, http.StatusOK, b.String())
}

func (s *server) explain(w http.ResponseWriter, r *http.Request) {
	q, err := question(r.URL.Query())
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	answer, err := s.opt.Explain(q)
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	writeText(w, http.StatusOK, answer)
}

// question reads the parameters of /debug/explain.
func question(v url.Values) (Question, error) {
	u, err := url.Parse(v.Get("url"))
	if err != nil {
		return Question{}, fmt.Errorf("read parameter url: %w", err)
	}
	if !asksSomething(u) {
		return Question{}, fmt.Errorf("read parameter url: %q is not like http://host/path, tls://name:443, tcp://:5432 or udp://:53", v.Get("url"))
	}
	q := Question{Method: http.MethodGet, URL: u, Header: http.Header{}}
	if m := v.Get("method"); m != "" {
		q.Method = m
	}
	for _, h := range v["header"] {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return Question{}, fmt.Errorf("read parameter header: %q is not like Name: value", h)
		}
		q.Header.Add(name, strings.TrimSpace(value))
	}
	return q, nil
}

// asksSomething reports whether a URL is one of a request, or of a connection that is passed on as a whole: by name or by port, and without either for TLS without a
// server name.
func asksSomething(u *url.URL) bool {
	switch u.Scheme {
	case "http", "https", "tcp", "udp":
		return u.Host != ""
	case "tls":
		return u.Opaque == ""
	}
	return false
}

// writeText sends text that ends in a newline.
func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, _ = io.WriteString(w, text) // #nosec G705 -- plain text, and nosniff keeps it that
}

// secure sets headers that keep browsers from guessing, keeping, framing or lending out what they are shown.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// scrapeLog passes what goes wrong in a scrape to the log.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.log.Error("metrics cannot be gathered", "error", strings.TrimSuffix(fmt.Sprintln(v...), "\n"))
}

// NewServer returns a server for the handler with limits on what a client may take.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}
