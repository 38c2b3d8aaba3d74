// Command pod is the application of the end-to-end tests in conformance: an echo backend that can be told to be unready, and that ends as a well-behaved application does.
package main

import (
	"context"
	"errors"
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
	// Most applications take a while to start; START_DELAY is how long.
	if delay, err := time.ParseDuration(os.Getenv("START_DELAY")); err == nil {
		time.Sleep(delay)
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// run serves requests on :8080, and the probe and its switch on :8081, until SIGTERM; then it finishes what was begun.
func run() error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	app := &http.Server{Addr: ":8080", Handler: echo.New(os.Getenv("POD_NAME")), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute}
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

// probes answers GET /readyz, and POST /ready and /unready change the answer.
func probes() http.Handler {
	var unready atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			http.Error(w, "unready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /ready", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	return mux
}
