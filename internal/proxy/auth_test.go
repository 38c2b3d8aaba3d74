package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// askedBy writes down what an authorization server of HTTP was asked.
func askedBy(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	var headers []string
	for name := range r.Header {
		headers = append(headers, name)
	}
	slices.Sort(headers)
	return fmt.Sprintf("%s %s %s %d %q %s", r.Method, r.Host, r.RequestURI, r.ContentLength, body, strings.Join(headers, ","))
}

func TestHTTPAuth(t *testing.T) {
	asked := make(chan string, 10)
	auth, web := service("auth", route.HTTP), service("web", route.HTTP)
	server := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- askedBy(r)
		switch {
		case strings.Contains(r.RequestURI, "/denied"):
			w.Header().Set("Www-Authenticate", "Basic")
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set(ReasonHeader, "forged")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "who are you?")
		case strings.Contains(r.RequestURI, "/login"):
			http.Redirect(w, r, "https://login.example.com/", http.StatusFound)
		case strings.Contains(r.RequestURI, "/created"):
			w.WriteHeader(http.StatusCreated)
		case strings.Contains(r.RequestURI, "/broken"):
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.Header().Set("X-User", "alice")
			w.Header().Set("X-Role", "admin")
			w.Header().Set("Host", "evil.example.com")
		}
	})
	filter := func(change func(*route.ExternalAuth)) *route.ExternalAuth {
		f := &route.ExternalAuth{Pool: auth, PathPrefix: "/verify", RequestHeaders: []string{"X-A"}, ResponseHeaders: []string{"X-User", "X-Team"}}
		if change != nil {
			change(f)
		}
		return f
	}
	atBackend := rule("/backend", web)
	atBackend.Backends[0].Filters = []route.Filter{filter(nil)}
	w := world{
		rules: []*route.Rule{
			rule("/", web, filter(nil)), rule("/body", web, filter(func(f *route.ExternalAuth) { f.MaxBody = 10 })), atBackend,
			rule("/every", web, &route.ExternalAuth{Pool: auth}),
			rule("/missing", web, &route.ExternalAuth{Fault: &route.Fault{Status: 500, Reason: route.NoBackend, Why: "Service shop/auth does not exist"}}),
			rule("/moved", web, filter(nil), &route.Redirect{Hostname: "other.example.com", Status: 302}),
		},
		endpoints: map[*route.Pool][]string{
			auth: {server},
			web: {serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(w, "user=%q role=%q team=%q host=%v %q", r.Header["X-User"], r.Header["X-Role"], r.Header["X-Team"], r.Host == "evil.example.com", body)
			})},
		},
	}
	const passed = `user=["alice"] role=[] team=[] host=false `
	tests := []struct {
		name, method, target, body string
		status                     int
		reason                     route.Reason
		answer, asked              string
	}{
		{"passes", "GET", "/ok//x%2F?q=1", "", 200, "", passed + `""`, `GET HOST /verify/ok//x%2F?q=1 0 "" Authorization,X-A`},
		{"passes with a body that the server does not get", "POST", "/ok", "hello world", 200, "", passed + `"hello world"`, `POST HOST /verify/ok 0 "" Authorization,Content-Length,X-A`},
		{"passes with a body", "POST", "/body", "0123456789", 200, "", passed + `"0123456789"`, `POST HOST /verify/body 10 "0123456789" Authorization,Content-Length,X-A`},
		{"a body that is too large", "POST", "/body", "0123456789x", 413, route.BodyTooLarge, "", ""},
		{"for a backend", "GET", "/backend", "", 200, "", passed + `""`, `GET HOST /verify/backend 0 "" Authorization,X-A`},
		{"every header that is about the client", "GET", "/every", "", 200, "", `user=["alice"] role=["admin"] team=["forged"] host=false ""`, `GET HOST /every 0 "" Authorization`},
		{"denied", "GET", "/denied", "", 401, route.AuthDenied, "who are you?", `GET HOST /verify/denied 0 "" Authorization,X-A`},
		{"sent to log in", "GET", "/login", "", 302, route.AuthDenied, "<a href=\"https://login.example.com/\">Found</a>.\n\n", `GET HOST /verify/login 0 "" Authorization,X-A`},
		{"only 200 lets pass", "GET", "/created", "", 403, route.AuthDenied, "403 Forbidden: auth-denied\n", `GET HOST /verify/created 0 "" Authorization,X-A`},
		{"server broken", "GET", "/broken", "", 503, route.AuthFailed, "503 Service Unavailable: auth-failed\n", `GET HOST /verify/broken 0 "" Authorization,X-A`},
		{"server missing", "GET", "/missing", "", 500, route.NoBackend, "500 Internal Server Error: no-backend\n", ""},
		{"before a redirect", "GET", "/moved/denied", "", 401, route.AuthDenied, "who are you?", `GET HOST /verify/moved/denied 0 "" Authorization,X-A`},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		for _, test := range tests {
			var body io.Reader
			if test.body != "" {
				body = struct{ io.Reader }{strings.NewReader(test.body)} // of unknown length
			}
			req := r.request(test.method, test.target, body)
			for _, name := range []string{"Authorization", "X-A", "X-User", "X-Team", "X-Other"} {
				req.Header.Set(name, "forged")
			}
			res, err := r.client.Transport.RoundTrip(req)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			text, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != test.status || res.Header.Get(ReasonHeader) != string(test.reason) || test.answer != "" && string(text) != test.answer || err != nil {
				t.Errorf("%s: got %d %q %q, %v; want %d %q %q", test.name, res.StatusCode, res.Header.Get(ReasonHeader), text, err, test.status, test.reason, test.answer)
			}
			got := ""
			select {
			case got = <-asked:
			default:
			}
			if want := strings.Replace(test.asked, "HOST", req.Host, 1); got != want {
				t.Errorf("%s: the server was asked\n%s, want\n%s", test.name, got, want)
			}
			if test.name == "denied" && (res.Header.Get("Www-Authenticate") != "Basic" || res.Header.Get("Set-Cookie") != "a=b") {
				t.Errorf("denied: header %v", res.Header)
			}
		}
		// gRPC clients are told in their own words.
		for target, want := range map[string]string{"/denied": "16", "/created": "7", "/broken": "14", "/missing": "14"} {
			req := r.request("POST", target, strings.NewReader("x"))
			req.Header.Set("Content-Type", "application/grpc")
			if res := r.do(req); res.StatusCode != 200 || res.Header.Get("Grpc-Status") != want || res.body != "" {
				t.Errorf("gRPC %s: got %d %v %q", target, res.StatusCode, res.Header, res.body)
			}
			if target != "/missing" {
				<-asked
			}
		}
	})
}

// Nothing passes while the server hangs, is gone, or says too much.
func TestAuthFailsClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hung, gone, talks, web := service("hung", route.HTTP), service("gone", route.HTTP), service("talks", route.HTTP), service("web", route.HTTP)
	hurried := rule("/hung", web, &route.ExternalAuth{Pool: hung})
	hurried.Timeouts.Request = 50 * time.Millisecond
	reached := false
	w := world{
		rules: []*route.Rule{
			hurried, rule("/gone", web, &route.ExternalAuth{Pool: gone}), rule("/grpc", web, &route.ExternalAuth{Pool: talks, GRPC: true}),
			rule("/talks", web, &route.ExternalAuth{Pool: talks}),
		},
		endpoints: map[*route.Pool][]string{
			hung: {l.Addr().String()}, gone: nil, web: {serveHTTP(t, func(http.ResponseWriter, *http.Request) { reached = true })},
			talks: {serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, strings.Repeat("x", maxAuthReply+1))
			})},
		},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		for _, target := range []string{"/hung", "/gone", "/grpc", "/talks"} {
			if res := r.get(target); res.StatusCode != 503 || res.Header.Get(ReasonHeader) != string(route.AuthFailed) {
				t.Errorf("%s: got %d %q", target, res.StatusCode, res.Header.Get(ReasonHeader))
			}
		}
	})
	if reached {
		t.Error("the backend was reached")
	}
}

// protoFields is a message of protocol buffers as text: every field by its path, such as 1.4.2.2=GET.
func protoFields(t *testing.T, prefix string, m []byte, messages ...string) (out []string) {
	t.Helper()
	err := readProto(m, func(f protoField) error {
		path := strings.TrimPrefix(fmt.Sprintf("%s.%d", prefix, f.field), ".")
		switch {
		case slices.Contains(messages, path):
			out = append(out, protoFields(t, path, f.data, messages...)...)
		case f.data != nil:
			out = append(out, path+"="+string(f.data))
		default:
			out = append(out, fmt.Sprintf("%s=%d", path, int64(f.number)))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

// option is a HeaderValueOption.
func option(name, value string, add bool) (m protoWriter) {
	var header, yes protoWriter
	header.text(1, name)
	header.text(2, value)
	m.message(1, header)
	if add {
		yes.number(1, 1)
		m.message(2, yes)
	}
	return m
}

func TestGRPCAuth(t *testing.T) {
	asked := make(chan []byte, 10)
	var answers struct{ ok, denied, query, refused protoWriter }
	var ok, status, code, denied, query protoWriter
	ok.message(2, option("x-user", "alice", false))
	ok.message(2, option("x-added", "more", true))
	ok.message(2, option("host", "evil.example.com", false))
	ok.message(2, option("content-length", "0", false))
	ok.message(2, option("x-bad", "a\r\nb", false))
	ok.bytes(5, []byte("authorization"))
	ok.message(6, option("x-session", "new", false))
	answers.ok.message(1, nil) // code 0
	answers.ok.message(3, ok)
	status.number(1, 16)
	code.number(1, 401)
	denied.message(1, code)
	denied.message(2, option("www-authenticate", "Bearer", false))
	denied.text(3, "no token")
	answers.denied.message(1, status)
	answers.denied.message(2, denied)
	answers.refused.message(1, status)
	query.bytes(8, []byte("token"))
	answers.query.message(3, query)
	server := serveBackend(t, route.H2C, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != checkMethod || r.Header.Get("Te") != "trailers" || r.Method != "POST" || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			t.Errorf("%s %s %v %q", r.Method, r.URL, r.Header, body)
		}
		asked <- body[5:]
		answer := answers.ok
		for name, a := range map[string]protoWriter{"/denied": answers.denied, "/query": answers.query, "/refused": answers.refused, "/garbage": {0xff, 0xff}} {
			if bytes.Contains(body, []byte(name)) {
				answer = a
			}
		}
		w.Header().Set("Content-Type", "application/grpc")
		if bytes.Contains(body, []byte("/unavailable")) {
			w.Header().Set("Grpc-Status", "14")
			return
		}
		_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer))), answer...))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	auth, web := service("auth", route.HTTP), service("web", route.HTTP)
	w := world{
		rules: []*route.Rule{
			rule("/", web, &route.ExternalAuth{Pool: auth, GRPC: true, RequestHeaders: []string{"X-A", "Host"}, MaxBody: 100}),
			rule("/all", web, &route.ExternalAuth{Pool: auth, GRPC: true}),
		},
		endpoints: map[*route.Pool][]string{auth: {server}, web: {serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "user=%q added=%q authorization=%q bad=%q host=%v %q", r.Header["X-User"], r.Header["X-Added"], r.Header["Authorization"], r.Header["X-Bad"],
				strings.HasPrefix(r.Host, "evil"), body)
		})}},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		send := func(target string) answer {
			req := r.request("POST", target, strings.NewReader("hello"))
			for name, value := range map[string]string{"Authorization": "secret", "X-A": "1", "X-User": "forged", "X-Added": "first", "X-Forwarded-For": "6.6.6.6"} {
				req.Header.Set(name, value)
			}
			return r.do(req)
		}
		res := send("/ok?q=1")
		if want := `user=["alice"] added=["first" "more"] authorization=[] bad=[] host=false "hello"`; res.StatusCode != 200 || res.body != want || res.Header.Get("X-Session") != "new" {
			t.Errorf("got %d %s %v, want %s", res.StatusCode, res.body, res.Header, want)
		}
		messages := []string{"1", "1.1", "1.1.1", "1.1.1.1", "1.4", "1.4.2", "1.4.2.3"}
		got := protoFields(t, "", <-asked, messages...)
		host := r.request("GET", "/", nil).Host
		for _, want := range []string{
			"1.1.1.1.2=127.0.0.1", "1.4.2.2=POST", "1.4.2.4=/ok?q=1", "1.4.2.5=" + host, "1.4.2.6=" + m.scheme(), "1.4.2.9=5", "1.4.2.11=hello",
			"1.4.2.3.1=x-a", "1.4.2.3.2=1", "1.4.2.3.1=host",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("the server was not told %s:\n%s", want, strings.Join(got, "\n"))
			}
		}
		if text := strings.Join(got, "\n"); strings.Contains(text, "secret") || strings.Contains(text, "forged") {
			t.Errorf("the server was told more than is allowed:\n%s", text)
		}
		send("/all")
		if text := strings.Join(protoFields(t, "", <-asked, messages...), "\n"); !strings.Contains(text, "secret") || strings.Contains(text, "6.6.6.6") || strings.Contains(text, "hello") {
			t.Errorf("the server should be told every header and no body:\n%s", text)
		}
		for _, test := range []struct {
			target, body string
			status       int
			reason       route.Reason
		}{
			{"/denied", "no token", 401, route.AuthDenied},
			{"/refused", "403 Forbidden: auth-denied\n", 403, route.AuthDenied},
			{"/query", "", 503, route.AuthFailed},
			{"/garbage", "", 503, route.AuthFailed},
			{"/unavailable", "", 503, route.AuthFailed},
		} {
			res := send(test.target)
			if res.StatusCode != test.status || res.Header.Get(ReasonHeader) != string(test.reason) || test.body != "" && res.body != test.body {
				t.Errorf("%s: got %d %q %v", test.target, res.StatusCode, res.body, res.Header)
			}
			if test.target == "/denied" && res.Header.Get("Www-Authenticate") != "Bearer" {
				t.Errorf("denied: %v", res.Header)
			}
			<-asked
		}
	})
}

// Whatever an authorization server says, it is read without a panic, and no header comes of it that must not be set.
func FuzzCheckResponse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x02, 0x08, 0x07})
	f.Add([]byte{0x1a, 0x0c, 0x12, 0x0a, 0x0a, 0x08, 0x0a, 0x04, 'h', 'o', 's', 't', 0x12, 0x00})
	f.Fuzz(func(t *testing.T, m []byte) {
		g, d, err := readCheckResponse(m)
		if err != nil && (d != nil || len(g.request) > 0) {
			t.Fatalf("an error and %v, %v", g, d)
		}
		if d != nil && (d.status < 300 || d.status > 599) {
			t.Fatalf("denied with %d", d.status)
		}
		for _, op := range slices.Concat(g.request, g.response) {
			if !grantable(op.name) {
				t.Fatalf("sets %s", op.name)
			}
		}
	})
}
