package dns01

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

func secret(s string) Secret { return func(context.Context) (string, error) { return s, nil } }

var record = []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", Text: "proof"}}

// primary is a DNS server that takes updates signed with a key, and keeps TXT records.
type primary struct {
	address string
	mu      sync.Mutex
	txt     map[string][]string
}

func newPrimary(t *testing.T) *primary {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{address: ln.Addr().String(), txt: map[string][]string{}}
	srv := &dns.Server{Listener: ln, Handler: p, TsigSecret: map[string]string{"key.": "c2VjcmV0"}, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.ActivateAndServe() })
	t.Cleanup(func() { _ = srv.Shutdown(); wg.Wait() })
	return p
}

func (p *primary) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(m)
	if tsig := m.IsTsig(); tsig == nil || w.TsigStatus() != nil {
		answer.Rcode = dns.RcodeNotAuth
	} else {
		answer.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, int64(tsig.TimeSigned))
		p.mu.Lock()
		for _, rr := range m.Ns {
			txt, name := rr.(*dns.TXT), rr.Header().Name
			if rr.Header().Class == dns.ClassNONE {
				p.txt[name] = slices.DeleteFunc(p.txt[name], func(s string) bool { return s == txt.Txt[0] })
			} else {
				p.txt[name] = append(p.txt[name], txt.Txt[0])
			}
		}
		p.mu.Unlock()
	}
	_ = w.WriteMsg(answer)
}

func TestUpdatesAddAndRemoveRecords(t *testing.T) {
	p := newPrimary(t)
	u := &Update{Server: p.address, KeyName: "key", Key: secret("c2VjcmV0\n")}
	name := "_acme-challenge.www.example.com."
	other := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", Text: "other"}}
	for _, r := range [][]libdns.Record{record, other} {
		if got, err := u.AppendRecords(t.Context(), "example.com.", r); err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	if got := p.txt[name]; !slices.Equal(got, []string{"proof", "other"}) {
		t.Errorf("after two additions: got %v", got)
	}
	if _, err := u.DeleteRecords(t.Context(), "example.com.", record); err != nil {
		t.Fatal(err)
	}
	if got := p.txt[name]; !slices.Equal(got, []string{"other"}) {
		t.Errorf("after a removal: got %v, want the other record alone", got)
	}
}

func TestAnUpdateThatIsRefusedSaysWhy(t *testing.T) {
	p := newPrimary(t)
	for _, u := range []*Update{{Server: p.address}, {Server: p.address, KeyName: "key", Key: secret("d3Jvbmc=")}} {
		if _, err := u.AppendRecords(t.Context(), "example.com.", record); err == nil {
			t.Errorf("%+v: got no error", u)
		}
	}
	broken := &Update{Server: p.address, KeyName: "key", Key: func(context.Context) (string, error) { return "", errors.New("no such Secret") }}
	if _, err := broken.AppendRecords(t.Context(), "example.com.", record); err == nil || !strings.Contains(err.Error(), "no such Secret") {
		t.Errorf("got %v, want the reason why the key cannot be read", err)
	}
	if _, err := (&Update{Server: p.address}).AppendRecords(t.Context(), "example.com.", []libdns.Record{libdns.RR{Type: "A", Name: "www", Data: "192.0.2.1"}}); err == nil {
		t.Error("a record that is not TXT was sent")
	}
}

// recorder is an HTTP server that notes what it is sent.
func recorder(t *testing.T, status int) (url string, seen func() []string) {
	t.Helper()
	var mu sync.Mutex
	var list []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		list = append(list, fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("X-Api-User"), r.Header.Get("X-Api-Key"), r.Header.Get("Authorization"), " ", body))
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, "said so")
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []string { mu.Lock(); defer mu.Unlock(); return list }
}

func TestACMEDNSIsTold(t *testing.T) {
	url, seen := recorder(t, 200)
	a := &ACMEDNS{URL: url + "/", Username: "user", Password: secret("pass"), Subdomain: "8e57", Client: &http.Client{}}
	if _, err := a.AppendRecords(t.Context(), "auth.example.org.", record); err != nil {
		t.Fatal(err)
	}
	if _, err := a.DeleteRecords(t.Context(), "auth.example.org.", record); err != nil {
		t.Fatal(err)
	}
	if got, want := seen(), []string{"POST /update userpass map[subdomain:8e57 txt:proof]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAWebhookIsTold(t *testing.T) {
	url, seen := recorder(t, 204)
	w := &Webhook{URL: url + "/dns", Token: secret("t"), Client: &http.Client{}}
	_, err := w.AppendRecords(t.Context(), "example.com.", record)
	_, err2 := w.DeleteRecords(t.Context(), "example.com.", record)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"POST /dns Bearer t map[action:present fqdn:_acme-challenge.www.example.com. value:proof zone:example.com.]",
		"POST /dns Bearer t map[action:cleanup fqdn:_acme-challenge.www.example.com. value:proof zone:example.com.]",
	}
	if got := seen(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAServerThatRefusesIsQuoted(t *testing.T) {
	url, _ := recorder(t, 403)
	for _, p := range []Provider{&ACMEDNS{URL: url, Client: &http.Client{}}, &Webhook{URL: url, Client: &http.Client{}}} {
		if _, err := p.AppendRecords(t.Context(), "example.com.", record); err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "said so") {
			t.Errorf("%T: got %v, want the status and what the server said", p, err)
		}
	}
}
