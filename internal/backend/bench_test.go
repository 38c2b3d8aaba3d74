package backend

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// BenchmarkPick picks an endpoint and lets go of it, with each algorithm.
func BenchmarkPick(b *testing.B) {
	for _, policy := range policies {
		for _, n := range []int{3, 100, 5000} {
			for _, goroutines := range []int{1, 2, 8} {
				b.Run(fmt.Sprintf("%s/endpoints=%d/goroutines=%d", nameOf(policy), n, goroutines), func(b *testing.B) {
					_, p, _ := policyPool(b, policy, ones(n)...)
					var wg sync.WaitGroup
					b.ReportAllocs()
					b.ResetTimer()
					for g := range uint64(goroutines) {
						wg.Go(func() {
							w := wish{safe: true, key: g}
							for range b.N / goroutines {
								w.key = mix(w.key)
								e, _, _ := p.acquire(w, nil)
								e.release()
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}

// BenchmarkWish finds out what a request wants: its key, its session, or where its client was.
func BenchmarkWish(b *testing.B) {
	req := &http.Request{Host: "a.example.com", URL: &url.URL{Opaque: "/a/path/of/some/length"}, Header: http.Header{"Cookie": {"first=1; second=2; s=0123456789abcdef"}}}
	keep := &route.Persistence{Name: "s"}
	for name, policy := range map[string]route.Policy{"round-robin": {}, "source-hash": {Algorithm: route.SourceHash}, "destination-hash": {Algorithm: route.DestinationHash}, "cookie-hash": hashOf(route.HashCookie, "s"), "client-ip": byAddress} {
		b.Run(name, func(b *testing.B) {
			_, p, _ := policyPool(b, policy, ones(100)...)
			a := from(client(1))
			visit(p, a)
			b.ReportAllocs()
			for b.Loop() {
				p.wishFor(req, a, true)
			}
		})
	}
	for name, lifetime := range map[string]time.Duration{"session": 0, "session-with-lifetime": time.Hour} {
		b.Run(name, func(b *testing.B) {
			_, p, _ := policyPool(b, route.Policy{}, ones(100)...)
			keep.Lifetime = lifetime
			a := sessionOf(keep, "")
			visit(p, a)
			a.Session = a.NewSession
			b.ReportAllocs()
			for b.Loop() {
				p.wishFor(req, a, true)
			}
		})
	}
}

// BenchmarkTable makes the table of the algorithms that hash.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{3, 100, 5000} {
		b.Run(fmt.Sprint("endpoints=", n), func(b *testing.B) {
			_, p, _ := policyPool(b, route.Policy{Algorithm: route.SourceHash}, ones(n)...)
			b.ReportAllocs()
			for b.Loop() {
				newMaglev(p.places.members)
			}
		})
	}
}

// BenchmarkPickWithEjected is BenchmarkPick with a tenth of the endpoints left out.
func BenchmarkPickWithEjected(b *testing.B) {
	p := poolOfMany(b, 100)
	for _, e := range p.list.Load().all[:10] {
		p.failed(e, p.set.now(), unreachable, io.EOF)
	}
	b.ReportAllocs()
	for b.Loop() {
		e, _, _ := p.acquire(wish{safe: true}, nil)
		e.release()
	}
}

// BenchmarkUpdate changes one of many endpoints.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprint("endpoints=", n), func(b *testing.B) {
			s, _ := newPoolOf(b, Options{}, route.HTTP)
			eps := manyEndpoints(n + 1)
			a, c := map[route.PoolKey][]route.Endpoint{testKey: eps[1:]}, map[route.PoolKey][]route.Endpoint{testKey: eps[:n]}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					s.Update(a)
				} else {
					s.Update(c)
				}
			}
		})
	}
}

// BenchmarkEject leaves one of many endpoints out and takes it back.
func BenchmarkEject(b *testing.B) {
	p := poolOfMany(b, 5000)
	e := p.list.Load().all[2500]
	b.ReportAllocs()
	for b.Loop() {
		p.failed(e, p.set.now(), unreachable, io.EOF)
		p.answered(e, p.set.now()+1, p.set.now()+1, 0, 200)
	}
}

// BenchmarkDo compares a request over loopback with the same over a bare http.Transport that has the same timeouts.
func BenchmarkDo(b *testing.B) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		srv := serve(b, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "hello")
		}))
		_, p := newPoolOf(b, Options{}, protocol, srv.Address)
		bare := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: 4 * time.Second, ResponseHeaderTimeout: time.Minute}
		bare.Protocols.SetHTTP1(protocol == route.HTTP)
		bare.Protocols.SetUnencryptedHTTP2(protocol == route.H2C)
		b.Cleanup(bare.CloseIdleConnections)
		for _, method := range []string{"GET", "POST"} {
			body := strings.Repeat("x", map[string]int{"POST": 1000}[method])
			run := func(name string, send func(*http.Request) (*http.Response, error)) {
				b.Run(fmt.Sprintf("%s/%s/%s", protocol, method, name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						req := newRequest(b, method, "a.example.com", body)
						res, err := send(req)
						if err != nil {
							b.Fatal(err)
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				})
			}
			run("pool", func(req *http.Request) (*http.Response, error) { return p.Do(req, new(Attempt)) })
			run("bare", func(req *http.Request) (*http.Response, error) {
				req.URL.Host = srv.Address
				return bare.RoundTrip(req)
			})
		}
	}
}

// BenchmarkMemory reports what an endpoint costs that was never used, and one that was and has no connections any more.
func BenchmarkMemory(b *testing.B) {
	const n = 5000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		b.Run(string(protocol), func(b *testing.B) {
			for b.Loop() {
				s, p := newPoolOf(b, Options{}, protocol)
				before := heap()
				s.Update(map[route.PoolKey][]route.Endpoint{testKey: manyEndpoints(n)})
				b.ReportMetric(float64(heap()-before)/n, "B/endpoint-unused")
				for _, e := range p.list.Load().all {
					e.speaks(&http.Request{}).CloseIdleConnections() // makes it set itself up
				}
				b.ReportMetric(float64(heap()-before)/n, "B/endpoint-used")
				runtime.KeepAlive(p)
			}
		})
	}
}
