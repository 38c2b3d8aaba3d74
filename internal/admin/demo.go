package admin

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

func (s *server) demoPages() {
	d := s.opt.Demo
	if d == nil {
		return
	}
	s.showJSON("/demo/endpoints", "the endpoints of the demo; POST /demo/endpoints/NAME/kill or /revive", d.Endpoints)
	s.mux.Handle("POST /demo/endpoints/{name}/kill", ownMachineOnly(s.control(d.Kill, "killed")))
	s.mux.Handle("POST /demo/endpoints/{name}/revive", ownMachineOnly(s.control(d.Revive, "revived")))
}

func (s *server) control(act func(string) error, done string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		switch err := act(name); {
		case errors.Is(err, ErrNoEndpoint):
			writeText(w, http.StatusNotFound, err.Error())
		case err != nil:
			s.opt.Log.Error("demo endpoint cannot be changed", "endpoint", name, "error", err)
			writeText(w, http.StatusInternalServerError, err.Error())
		default:
			writeText(w, http.StatusOK, name+" "+done)
		}
	})
}

// ownMachineOnly refuses what a web page of somebody else could have sent through a browser on this machine: requests from another origin, and requests for a
// name that only pretends to be this machine (DNS rebinding). Clients that are no browsers send no origin and pass.
func ownMachineOnly(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			writeText(w, http.StatusForbidden, "this works only under the name localhost, 127.0.0.1 or [::1]")
			return
		}
		if err := origins.Check(r); err != nil {
			writeText(w, http.StatusForbidden, "refused: the request comes from another site")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback says whether a Host header names this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
