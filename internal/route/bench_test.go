package route

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// hostsTable has n hosts with one rule each, on one listener.
func hostsTable(n int) *Table {
	l := &Listener{Name: "infra/gw/http", Port: 80}
	for i := range n {
		rule := &Rule{Source: Source{"HTTPRoute", "shop", fmt.Sprint("r", i), "spec.rules[0].matches[0]"}}
		l.Hosts = append(l.Hosts, &Host{Name: fmt.Sprintf("host-%d.example.com", i), Rules: []*Rule{rule}})
	}
	return oneListener(l)
}

// pathsTable has one host with n rules, in all depths.
func pathsTable(n int) *Table {
	h := &Host{Name: "a.example.com"}
	for i := range n {
		m := PathMatch{Kind: Prefix, Value: fmt.Sprintf("/api/v%d/service-%d/things", i%7, i)}
		if i%3 == 0 {
			m = PathMatch{Kind: Exact, Value: fmt.Sprintf("/api/v%d/service-%d/status", i%7, i)}
		}
		h.Rules = append(h.Rules, &Rule{Match: Match{Path: m}, Source: Source{"HTTPRoute", "shop", fmt.Sprint("r", i), "spec.rules[0].matches[0]"}})
	}
	return oneListener(&Listener{Name: "infra/gw/http", Port: 80, Hosts: []*Host{h}})
}

func oneListener(l *Listener) *Table {
	return NewTable([]*Port{{Bind: Bind{Port: 80}, Protocol: HTTP, Listeners: []*Listener{l}}}, nil, nil)
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("%d-hosts", n), func(b *testing.B) {
			p := hostsTable(n).Port(Bind{Port: 80})
			requests := make([]Request, n)
			for i := range requests {
				requests[i] = Request{Host: fmt.Sprintf("host-%d.example.com", i*7919%n), Path: "/a/b/c", Method: "GET", Header: http.Header{}}
			}
			benchmarkLookup(b, p, requests)
		})
	}
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("%d-rules-on-a-host", n), func(b *testing.B) {
			p := pathsTable(n).Port(Bind{Port: 80})
			requests := make([]Request, n)
			for i := range requests {
				k := i * 7919 % n
				requests[i] = Request{Host: "a.example.com", Path: fmt.Sprintf("/api/v%d/service-%d/%s/x", k%7, k, "things"), Method: "GET"}
				if k%3 == 0 {
					requests[i].Path = fmt.Sprintf("/api/v%d/service-%d/status", k%7, k)
				}
			}
			benchmarkLookup(b, p, requests)
		})
	}
}

func benchmarkLookup(b *testing.B, p *Port, requests []Request) {
	b.Helper()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, rule, _ := p.Lookup(&requests[i%len(requests)]); rule == nil {
			b.Fatal("no rule for ", requests[i%len(requests)])
		}
		i++
	}
}

// The worst that a client can do to the table: as many path elements and labels as fit into a request.
func BenchmarkLookupWorst(b *testing.B) {
	long := &Listener{Hosts: []*Host{
		{Name: "*.a.a.a.a.a.a", Rules: []*Rule{{Match: Match{Path: PathMatch{Value: strings.Repeat("/a", 511)}}}}},
		{Name: "*.a", Rules: []*Rule{{}}},
	}}
	p := oneListener(long).Port(Bind{Port: 80})
	for _, c := range []struct{ name, host, path string }{
		{"slashes", "x.a", strings.Repeat("/", 16000)},
		{"elements", strings.Repeat("a.", 126) + "a", strings.Repeat("/a", 8000)},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkLookup(b, p, []Request{{Host: c.host, Path: c.path}}) })
	}
}

func BenchmarkLookupConditions(b *testing.B) {
	h := &Host{}
	for i := range 8 {
		h.Rules = append(h.Rules, &Rule{Match: Match{
			Headers: []ValueMatch{{Name: "X-Tenant", Value: fmt.Sprint("t", i)}},
			Query:   []ValueMatch{{Name: "version", Value: fmt.Sprint(i)}},
		}})
	}
	p := oneListener(&Listener{Hosts: []*Host{h}}).Port(Bind{Port: 80})
	r := Request{Host: "a", Path: "/", Header: http.Header{"X-Tenant": {"t7"}}, RawQuery: "q=something&page=2&version=7"}
	benchmarkLookup(b, p, []Request{r})
}

func BenchmarkNormalizePath(b *testing.B) {
	for _, c := range []struct{ name, path string }{
		{"normal", "/api/v1/namespaces/default/pods"},
		{"escapes", "/api/%7euser/a%2fb"},
		{"dots", "/api/v1/../v2/./x"},
		{"long", strings.Repeat("/element", 2000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.path)))
			for b.Loop() {
				if _, _, err := NormalizePath(c.path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNormalizeHost(b *testing.B) {
	for _, host := range []string{"shop.example.com", "shop.example.com:8080", "SHOP.example.com", "[2001:db8::1]:443"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NormalizeHost(host); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	f := &PathChange{Prefix: new("/v2")}
	m := PathMatch{Value: "/v1"}
	b.ReportAllocs()
	for b.Loop() {
		if f.Apply(m, "/v1/things/7") != "/v2/things/7" {
			b.Fatal("wrong")
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, c := range []struct {
		name  string
		table func(n int) *Table
	}{{"hosts", hostsTable}, {"rules-on-a-host", pathsTable}} {
		const n = 10000
		b.Run("new/"+c.name, func(b *testing.B) {
			var table *Table
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for b.Loop() {
				table = c.table(n)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/route")
			runtime.KeepAlive(table)
		})
		b.Run("string/"+c.name, func(b *testing.B) {
			table := c.table(n)
			b.ReportAllocs()
			for b.Loop() {
				if len(table.String()) < n {
					b.Fatal("short")
				}
			}
		})
	}
}
