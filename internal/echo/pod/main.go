// Command pod is the application of the end-to-end tests in conformance: an echo backend that can be told to be unready, writes down what it
// received, and ends as a well-behaved application does.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-io/fairlead/internal/echo"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// recordFile is where the numbers of requests that were received are written. In a volume it outlives the process, however that ends.
const recordFile = "/record/numbers"

// run serves requests on :8080, and the probe and its switch on :8081, until SIGTERM; then it finishes what was begun.
func run() error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	record, err := os.OpenFile(recordFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }()
	app := &http.Server{Addr: ":8080", Handler: noted(record, echo.New(os.Getenv("POD_NAME"))), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute}
	probe := &http.Server{Addr: ":8081", Handler: probes(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- app.ListenAndServe() }()
	go func() { ended <- probe.ListenAndServe() }()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(app.Shutdown(grace), probe.Close())
}

// noted writes down the header X-Number of each request that has one, before the request is read any further.
func noted(record io.Writer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if number := r.Header.Get("X-Number"); number != "" {
			if _, err := io.WriteString(record, number+"\n"); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// probes answers GET /readyz, and POST /ready and /unready change the answer. GET /numbers tells what was written down.
func probes() http.Handler {
	var unready atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			http.Error(w, "unready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /numbers", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, recordFile) })
	mux.HandleFunc("POST /ready", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	return mux
}
