package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

func newExplain() *cobra.Command {
	var src source
	var dir, method string
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain -f DIR [-X METHOD] [-H 'Name: value']... URL",
		Short: "Say which rule of a folder of YAML would serve a request, and why the others would not",
		Long: `Say which rule of a folder of YAML would serve a request, and why the others would not. Of connections that are passed on as a whole, tls://name:port,
tcp://:port and udp://:port can be asked about.

Exits with 0 when something would serve the request, with 1 when nothing would, and with 2 when the question cannot be understood.`,
		Example: "  fairlead explain -f ./k8s http://shop.example.com/cart\n  fairlead explain -f ./k8s -X POST -H 'X-Canary: yes' https://api.example.com/v1\n  fairlead explain -f ./k8s tls://db.example.com",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseQuestion(args[0], method, headers)
			if err != nil {
				return err
			}
			snap, result, issues, err := src.look(dir)
			if err != nil {
				return err
			}
			warn(cmd.ErrOrStderr(), issues)
			set, err := src.settings()
			if err != nil {
				return err
			}
			served, err := explain(cmd.OutOrStdout(), snap, set.compile, result, q)
			if err == nil && !served {
				return exitError(1)
			}
			return err
		},
	}
	f := cmd.Flags()
	src.register(f)
	f.StringVarP(&dir, "filename", "f", ".", "the `DIR` with the YAML")
	f.StringVarP(&method, "request", "X", http.MethodGet, "the request's `METHOD`")
	f.StringArrayVarP(&headers, "header", "H", nil, "a header of the request, as `'Name: value'`; repeatable")
	return cmd
}

// question is a request that somebody asks about, and the port that they would send it to.
type question struct {
	scheme  string // http, https, or one of connections: tls, tcp, udp
	port    uint16
	request route.Request
}

// parseQuestion understands a question as curl users ask it.
func parseQuestion(raw, method string, headers []string) (question, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return question{}, fmt.Errorf("explain: %w", err)
	}
	header := http.Header{}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return question{}, fmt.Errorf("explain: header %q is not of the form 'Name: value'", h)
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return newQuestion(method, u, header)
}

// newQuestion brings a request into the form in which the table is asked. A Host header names the host, as it does for curl.
func newQuestion(method string, u *url.URL, header http.Header) (question, error) {
	if passedOn(u.Scheme) {
		return connectionQuestion(u)
	}
	q := question{scheme: u.Scheme, request: route.Request{Method: method, RawQuery: u.RawQuery, Header: header}}
	var err error
	if q.port, err = questionPort(u); err != nil {
		return question{}, err
	}
	host := cmp.Or(header.Get("Host"), u.Host)
	header.Del("Host")
	if q.request.Host, err = route.NormalizeHost(host); err != nil {
		return question{}, fmt.Errorf("explain: host %q: %w", host, err)
	}
	path := cmp.Or(u.EscapedPath(), "/")
	if q.request.Path, _, err = route.NormalizePath(path); err != nil {
		return question{}, fmt.Errorf("explain: path %q: %w", path, err)
	}
	return q, nil
}

// passedOn tells whether a scheme asks about a connection, or a datagram, as a whole.
func passedOn(scheme string) bool { return scheme == "tls" || scheme == "tcp" || scheme == "udp" }

// connectionQuestion asks about tls://name:port, tcp://:port or udp://:port. Only TLS has names.
func connectionQuestion(u *url.URL) (question, error) {
	port, err := questionPort(u)
	q := question{scheme: u.Scheme, port: port}
	if _, notName := netip.ParseAddr(u.Hostname()); err != nil || u.Scheme != "tls" || u.Hostname() == "" || notName == nil {
		return q, err
	}
	if q.request.Host, err = route.NormalizeHost(u.Hostname()); err != nil {
		return question{}, fmt.Errorf("explain: server name %q: %w", u.Hostname(), err)
	}
	return q, nil
}

func questionPort(u *url.URL) (uint16, error) {
	if p := u.Port(); p != "" {
		n, err := parsePort(p)
		if err != nil {
			return 0, fmt.Errorf("explain: port %q is not a number from 1 to 65535", p)
		}
		return n, nil
	}
	switch u.Scheme {
	case "http":
		return 80, nil
	case "https", "tls":
		return 443, nil
	case "tcp", "udp":
		return 0, fmt.Errorf("explain: which port of %s is meant? %s://:5432 would be one", u.Scheme, u.Scheme)
	}
	return 0, fmt.Errorf("explain: scheme %q is none of http, https, tls, tcp and udp", u.Scheme)
}

// explain answers the question and reports whether something would serve the request.
func explain(w io.Writer, snap *object.Snapshot, opt compile.Options, result compile.Result, q question) (served bool, err error) {
	say := func(format string, args ...any) {
		_, e := fmt.Fprintf(w, format, args...)
		err = errors.Join(err, e)
	}
	ports := portsFor(result.Table, q, say)
	for i, p := range ports {
		if i > 0 {
			say("\n")
		}
		e := q.ask(result.Table, p.Bind)
		say("%s", e)
		switch {
		case e.Winner != nil:
			served = explainBackends(snap, opt, e.Winner, e.Connection, say) || served
		case e.Connection && e.Listener != nil && e.Listener.Mode == route.Requests:
			served = true
		}
	}
	return served, err
}

// ask asks the table.
func (q *question) ask(t *route.Table, b route.Bind) route.Explanation {
	if passedOn(q.scheme) {
		return t.ExplainConnection(b, q.request.Host)
	}
	return t.Explain(b, &q.request)
}

// spoken tells whether what is asked about can be spoken on a port.
func (q *question) spoken(p *route.Port) bool {
	secure := func(s string) bool { return s == string(route.HTTPS) || s == string(route.TLS) }
	return string(p.Protocol) == q.scheme || secure(string(p.Protocol)) && secure(q.scheme)
}

// portsFor finds the sockets that the request could arrive on: those with its port number, and if there are none the only ones of its scheme, so that
// http://shop.localhost:8080/ can be asked about a folder whose listeners say port 80.
func portsFor(t *route.Table, q question, say func(string, ...any)) []*route.Port {
	var exact, scheme []*route.Port
	for _, p := range t.Ports {
		if p.Bind.Port == q.port && p.Bind.UDP == (q.scheme == string(route.UDP)) {
			exact = append(exact, p)
		}
		if q.spoken(p) {
			scheme = append(scheme, p)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	say("nothing listens on port %d", q.port)
	if len(t.Ports) == 0 {
		say(": the folder has no Gateway listener and no Ingress that Fairlead serves\n")
		return nil
	}
	if len(scheme) == 0 {
		say(" and no listener speaks %s\n", q.scheme)
		return nil
	}
	say("; answering for the %s listeners\n\n", q.scheme)
	return scheme
}

// explainBackends prints the endpoints behind a rule and reports whether any of its backends could answer.
func explainBackends(snap *object.Snapshot, opt compile.Options, rule *route.Rule, connection bool, say func(string, ...any)) bool {
	if rule.Fault != nil {
		say("answer: %s: %s\n", rule.Fault, rule.Fault.Why)
		return false
	}
	none := "no endpoints: 503 " + string(route.NoEndpoints)
	if connection {
		none = "no endpoints: closed " + string(route.NoEndpoints)
	}
	if redirects(rule.Filters) {
		say("answer: a redirect\n")
		return true
	}
	served := false
	for _, b := range rule.Backends {
		switch {
		case b.Fault != nil:
			say("backend with weight %d: %s: %s (%s)\n", b.Weight, b.Fault, b.Fault.Why, b.Source)
		case redirects(b.Filters):
			say("backend with weight %d: a redirect\n", b.Weight)
			served = served || b.Weight > 0
		default:
			endpoints := slices.DeleteFunc(compile.Endpoints(snap, opt, []route.PoolKey{b.Pool.Key})[b.Pool.Key], func(e route.Endpoint) bool { return e.Unready })
			say("backend %s with weight %d%s: %s\n", b.Pool.Key, b.Weight, policyText(b.Pool.Policy), endpointsText(endpoints, none))
			if b.Pool.TLS != nil {
				say("  by TLS: %s\n", b.Pool.TLS)
			}
			served = served || b.Weight > 0 && len(endpoints) > 0
		}
	}
	return served
}

// policyText says how a pool chooses an endpoint, if not in turn.
func policyText(p route.Policy) string {
	if text := p.String(); text != "" {
		return " by " + text
	}
	return ""
}

func redirects(filters []route.Filter) bool {
	for _, f := range filters {
		if _, ok := f.(*route.Redirect); ok {
			return true
		}
	}
	return false
}

func endpointsText(endpoints []route.Endpoint, none string) string {
	if len(endpoints) == 0 {
		return none
	}
	texts := make([]string, 0, len(endpoints))
	for _, e := range endpoints {
		text := e.Address
		if e.Weight > 1 {
			text += fmt.Sprintf(" (weight %d)", e.Weight)
		}
		if e.Distance > 0 {
			text += " (far)"
		}
		if e.Terminating {
			text += " (terminating)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
