// Package dns01 puts the records into the DNS by which certificate authorities let a name be proved (DNS-01), by three ways that everybody's DNS can be reached
// by: dynamic updates (RFC 2136), an acme-dns server, and a webhook of the operator's own.
//
// Each is a libdns provider, of which certmagic knows when to call it. Their methods are safe for concurrent use.
package dns01

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// Provider adds and removes records.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Secret reads what must be kept secret, each time that it is needed. Nil is an empty one.
type Secret func(ctx context.Context) (string, error)

func (s Secret) read(ctx context.Context) (string, error) {
	if s == nil {
		return "", nil
	}
	v, err := s(ctx)
	return strings.TrimSpace(v), err
}

// ttl is how long others may remember a record that says nothing about it.
const ttl = time.Minute

// day is the longest time to live that is believed.
const day = 24 * time.Hour

// timeout limits one exchange with a server.
const timeout = 30 * time.Second

// Update changes records by dynamic updates (RFC 2136), signed with a key if there is one (TSIG, RFC 8945).
type Update struct {
	Server    string // HOST or HOST:PORT of the primary
	KeyName   string // of the key; empty: updates are not signed
	Algorithm string // such as hmac-sha256, which is the default
	Key       Secret // base64
	// Exchange sends a message; nil means by TCP.
	Exchange func(ctx context.Context, m *dns.Msg, server string, secrets map[string]string) (*dns.Msg, error)
}

// AppendRecords implements libdns.RecordAppender.
func (u *Update) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, u.send(ctx, zone, records, (*dns.Msg).Insert)
}

// DeleteRecords implements libdns.RecordDeleter.
func (u *Update) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, u.send(ctx, zone, records, (*dns.Msg).Remove)
}

func (u *Update) send(ctx context.Context, zone string, records []libdns.Record, change func(*dns.Msg, []dns.RR)) error {
	rrs, err := resourceRecords(zone, records)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	change(m, rrs)
	secrets, err := u.sign(ctx, m)
	if err != nil {
		return err
	}
	server := u.Server
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "53")
	}
	exchange := u.Exchange
	if exchange == nil {
		exchange = overTCP
	}
	answer, err := exchange(ctx, m, server, secrets)
	if err != nil {
		return fmt.Errorf("update zone %s at %s: %w", zone, server, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("update zone %s at %s: the server says %s", zone, server, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

func overTCP(ctx context.Context, m *dns.Msg, server string, secrets map[string]string) (*dns.Msg, error) {
	c := &dns.Client{Net: "tcp", Timeout: timeout, TsigSecret: secrets}
	answer, _, err := c.ExchangeContext(ctx, m, server)
	return answer, err
}

// sign asks for a signature, and returns the keys for it.
func (u *Update) sign(ctx context.Context, m *dns.Msg) (map[string]string, error) {
	if u.KeyName == "" {
		return nil, nil
	}
	key, err := u.Key.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the TSIG key: %w", err)
	}
	algorithm := u.Algorithm
	if algorithm == "" {
		algorithm = dns.HmacSHA256
	}
	name := dns.CanonicalName(u.KeyName)
	m.SetTsig(name, dns.CanonicalName(algorithm), 300, time.Now().Unix())
	return map[string]string{name: key}, nil
}

// resourceRecords are the TXT records as a message has them.
func resourceRecords(zone string, records []libdns.Record) ([]dns.RR, error) {
	var out []dns.RR
	for _, r := range records {
		rr := r.RR()
		if rr.Type != "TXT" {
			return nil, fmt.Errorf("change record %s: its type is %s, not TXT", rr.Name, rr.Type)
		}
		if rr.TTL <= 0 || rr.TTL > day {
			rr.TTL = ttl
		}
		out = append(out, &dns.TXT{
			Hdr: dns.RR_Header{Name: dns.Fqdn(libdns.AbsoluteName(rr.Name, zone)), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(rr.TTL / time.Second)}, // #nosec G115 -- a day at most
			Txt: []string{rr.Data},
		})
	}
	return out, nil
}

// ACMEDNS changes the record of an account at an acme-dns server, to which the name's own _acme-challenge record is an alias (CNAME).
type ACMEDNS struct {
	URL       string // of the server
	Username  string
	Password  Secret
	Subdomain string
	Client    *http.Client // required
}

// AppendRecords implements libdns.RecordAppender.
func (a *ACMEDNS) AppendRecords(ctx context.Context, _ string, records []libdns.Record) ([]libdns.Record, error) {
	password, err := a.Password.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the password of acme-dns: %w", err)
	}
	header := http.Header{"X-Api-User": {a.Username}, "X-Api-Key": {password}}
	for _, r := range records {
		body := map[string]string{"subdomain": a.Subdomain, "txt": r.RR().Data}
		if err := post(ctx, a.Client, strings.TrimSuffix(a.URL, "/")+"/update", header, body); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// DeleteRecords implements libdns.RecordDeleter. The server keeps the last two records, and forgets older ones by itself.
func (*ACMEDNS) DeleteRecords(_ context.Context, _ string, records []libdns.Record) ([]libdns.Record, error) {
	return records, nil
}

// Webhook tells a program of the operator's which record to add or to remove: by a POST with a JSON object of action ("present" or "cleanup"), fqdn, zone and
// value. Any 2xx is success.
type Webhook struct {
	URL    string
	Token  Secret       // of the header Authorization, behind "Bearer "; empty: none is sent
	Client *http.Client // required
}

// AppendRecords implements libdns.RecordAppender.
func (w *Webhook) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, w.tell(ctx, "present", zone, records)
}

// DeleteRecords implements libdns.RecordDeleter.
func (w *Webhook) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, w.tell(ctx, "cleanup", zone, records)
}

func (w *Webhook) tell(ctx context.Context, action, zone string, records []libdns.Record) error {
	token, err := w.Token.read(ctx)
	if err != nil {
		return fmt.Errorf("read the token of the webhook: %w", err)
	}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	for _, r := range records {
		body := map[string]string{"action": action, "zone": zone, "fqdn": dns.Fqdn(libdns.AbsoluteName(r.RR().Name, zone)), "value": r.RR().Data}
		err = errors.Join(err, post(ctx, w.Client, w.URL, header, body))
	}
	return err
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 4 << 10

// post sends a JSON object, and wants success.
func post(ctx context.Context, client *http.Client, url string, header http.Header, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Header = header.Clone()
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) //nolint:forbidigo // with a limit
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("POST %s: %s: %s", url, resp.Status, strings.TrimSpace(string(answer)))
	}
	return nil
}
