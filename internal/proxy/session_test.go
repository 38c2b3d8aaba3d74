package proxy

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// backendsNamed starts backends that answer with their names.
func backendsNamed(t testing.TB, names ...string) (addresses []string) {
	for _, name := range names {
		addresses = append(addresses, serveHTTP(t, named(name)))
	}
	return addresses
}

// keptPool is a pool whose secret all replicas know.
func keptPool(name string) *route.Pool {
	p := service(name, route.HTTP)
	p.Secret = "5d1f8f5e-37f8-4a8f-9f43-" + name
	return p
}

// keeping is a world with one rule that keeps sessions.
func keeping(p *route.Persistence, pool *route.Pool, addresses ...string) world {
	r := rule("/", pool)
	r.Persistence = p
	return world{rules: []*route.Rule{r}, endpoints: map[*route.Pool][]string{pool: addresses}}
}

// asking sends a request with a header, unless its value is empty.
func (r *rig) asking(name, value string) answer {
	req := r.request("GET", "/", nil)
	if value != "" {
		req.Header.Set(name, value)
	}
	return r.do(req)
}

// sessionFrom is the cookie that an answer sets, as a client sends it back; "" if it sets none.
func sessionFrom(a answer) string {
	if c := a.Cookies(); len(c) == 1 {
		return c[0].Name + "=" + c[0].Value
	}
	return ""
}

func TestCookieKeepsAClientAtItsEndpoint(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		backends := backendsNamed(t, "a", "b", "c", "d")
		p := &route.Persistence{Name: "SHOP"}
		w := keeping(p, keptPool("web"), backends[:3]...)
		r := newRig(t, m, w)
		first := r.get("/")
		cookie := sessionFrom(first)
		header := first.Header.Get("Set-Cookie")
		if want := map[bool]string{false: "; Path=/; HttpOnly; SameSite=Lax", true: "; Path=/; HttpOnly; Secure; SameSite=Lax"}[m.tls]; !strings.HasSuffix(header, want) || cookie == "" {
			t.Errorf("Set-Cookie: %s, want %s", header, want)
		}
		for range 10 {
			if a := r.asking("Cookie", "x=y; "+cookie); a.body != first.body || len(a.Cookies()) != 0 {
				t.Fatalf("answered by %s with %v, want %s without a cookie", a.body, a.Cookies(), first.body)
			}
		}
		for _, address := range backends {
			if strings.Contains(cookie, address) {
				t.Errorf("the cookie %s tells the address", cookie)
			}
		}

		// Another replica, one that was started later, and one that knows more endpoints, find the same.
		w.endpoints = map[*route.Pool][]string{w.rules[0].Backends[0].Pool: {backends[3], backends[2], backends[1], backends[0]}}
		other := newRig(t, m, w)
		for range 5 {
			if a := other.asking("Cookie", cookie); a.body != first.body || len(a.Cookies()) != 0 {
				t.Fatalf("another replica answered by %s with %v, want %s without a cookie", a.body, a.Cookies(), first.body)
			}
		}

		// When the endpoint is gone, the session moves once.
		var left []string
		for i, name := range []string{"a", "b", "c"} {
			if name != first.body {
				left = append(left, backends[i])
			}
		}
		r.swap(keeping(p, keptPool("web"), left...))
		moved := r.asking("Cookie", cookie)
		again := sessionFrom(moved)
		if moved.StatusCode != 200 || again == "" || again == cookie {
			t.Fatalf("after its endpoint went: %d, cookie %q", moved.StatusCode, again)
		}
		for range 5 {
			if a := r.asking("Cookie", again); a.body != moved.body || len(a.Cookies()) != 0 {
				t.Fatalf("answered by %s, want %s", a.body, moved.body)
			}
		}
	})
}

// A session whose endpoint cannot be reached goes on elsewhere, in the same request, and stays there.
func TestSessionMovesWhenItsEndpointIsDown(t *testing.T) {
	p := &route.Persistence{Name: "s"}
	up := backendsNamed(t, "up")[0]
	down := httptest.NewServer(named("down"))
	address := down.Listener.Addr().String()
	r := newRig(t, h1, keeping(p, keptPool("web"), address))
	cookie := sessionFrom(r.get("/"))
	r.swap(keeping(p, keptPool("web"), up, address))
	if a := r.asking("Cookie", cookie); a.body != "down" {
		t.Fatalf("answered by %s while its endpoint was there", a.body)
	}
	down.Close()
	a := r.asking("Cookie", cookie)
	moved := sessionFrom(a)
	if a.StatusCode != 200 || a.body != "up" || moved == "" || moved == cookie {
		t.Errorf("answered with %d by %s and the cookie %q, want another than %q", a.StatusCode, a.body, moved, cookie)
	}
	if a := r.asking("Cookie", moved); a.body != "up" || sessionFrom(a) != "" {
		t.Errorf("then answered by %s with the cookie %q", a.body, sessionFrom(a))
	}
}

func TestHeaderKeepsAClientAtItsEndpoint(t *testing.T) {
	p := &route.Persistence{Name: "X-Session", Header: true}
	r := newRig(t, h1, keeping(p, keptPool("web"), backendsNamed(t, "a", "b", "c")...))
	first := r.get("/")
	token := first.Header.Get("X-Session")
	if token == "" || len(first.Cookies()) != 0 {
		t.Fatalf("header %q, cookies %v", token, first.Cookies())
	}
	for range 10 {
		if a := r.asking("X-Session", token); a.body != first.body || a.Header.Get("X-Session") != token {
			t.Fatalf("answered by %s with %s, want %s with %s", a.body, a.Header.Get("X-Session"), first.body, token)
		}
	}
	for _, made := range []string{"x", strings.Repeat("A", 22), strings.Repeat("A", 5000), token[:21], token + "A", "ÿÿ"} {
		if a := r.asking("X-Session", made); a.StatusCode != 200 || a.Header.Get("X-Session") == made {
			t.Errorf("%.40q was taken for a session: %d", made, a.StatusCode)
		}
	}
}

// A session that has a lifetime ends, whatever the client says of it.
func TestSessionEndsAfterItsLifetime(t *testing.T) {
	p := &route.Persistence{Name: "s", Lifetime: time.Hour, Cookie: route.CookieAttributes{MaxAge: time.Hour}}
	addresses := backendsNamed(t, "a", "b", "c")
	r := newRig(t, h1, keeping(p, keptPool("web"), addresses...))
	first := r.get("/")
	cookie := sessionFrom(first)
	if !strings.Contains(first.Header.Get("Set-Cookie"), "; Max-Age=3600;") {
		t.Errorf("Set-Cookie: %s", first.Header.Get("Set-Cookie"))
	}
	if a := r.asking("Cookie", cookie); a.body != first.body || sessionFrom(a) != "" {
		t.Errorf("a session that goes on: %s %v", a.body, a.Cookies())
	}
	p.Lifetime = time.Nanosecond // time passes
	if a := r.asking("Cookie", cookie); sessionFrom(a) == "" {
		t.Error("a session that has ended goes on")
	}
	p.Lifetime = time.Hour
	tampered := cookie[:len("s=")+20] + "AAAA" + cookie[len("s=")+24:]
	if a := r.asking("Cookie", tampered); sessionFrom(a) == "" {
		t.Error("a session with another beginning goes on")
	}
	// A session without a beginning does not last for ever.
	p.Lifetime = 0
	timeless := sessionFrom(r.get("/"))
	p.Lifetime = time.Hour
	if a := r.asking("Cookie", timeless); sessionFrom(a) == "" {
		t.Error("a session that does not say when it began goes on")
	}
}

// Of several backends a session stays with the one that it began at, also when that gets no new ones any more; and affinity of a Service does the same.
func TestSessionStaysWithItsBackend(t *testing.T) {
	for _, byService := range []bool{false, true} {
		old, young := keptPool("old"), keptPool("young")
		r := rule("/", old)
		r.Backends = append(r.Backends, route.WeightedPool{Pool: young, Weight: 1})
		if byService {
			old.Policy.Persistence.Name, young.Policy.Persistence.Name = "old", "young"
		} else {
			r.Persistence = &route.Persistence{Name: "s"}
		}
		addresses := backendsNamed(t, "old", "young")
		rig := newRig(t, h1, world{rules: []*route.Rule{r}, endpoints: map[*route.Pool][]string{old: addresses[:1], young: addresses[1:]}})
		cookies := map[string]string{}
		for len(cookies) < 2 {
			a := rig.get("/")
			cookies[a.body] = sessionFrom(a)
		}
		check := func(when string) {
			t.Helper()
			for body, cookie := range cookies {
				for range 20 {
					if a := rig.asking("Cookie", cookie); a.body != body || sessionFrom(a) != "" {
						t.Fatalf("%s, by Service %v: a session of %s was answered by %s", when, byService, body, a.body)
					}
				}
			}
		}
		check("both have a weight")
		draining := *r
		draining.Backends = []route.WeightedPool{r.Backends[0], r.Backends[1]}
		draining.Backends[0].Weight = 0
		rig.swap(world{rules: []*route.Rule{&draining}, endpoints: map[*route.Pool][]string{old: addresses[:1], young: addresses[1:]}})
		check("old has the weight 0")
		for range 20 {
			if a := rig.get("/"); a.body != "young" {
				t.Fatal("a new session went to a backend of weight 0")
			}
		}
	}
}

func TestSessionCookieAttributes(t *testing.T) {
	pool := keptPool("web")
	pool.Policy.Persistence = route.Persistence{Name: "s", Cookie: route.CookieAttributes{Path: "/a", Domain: "example.com", MaxAge: time.Minute, SameSite: "None", Secure: route.Yes, Scripts: true}}
	r := newRig(t, h1, one(pool, backendsNamed(t, "a")[0]))
	if got, want := r.get("/").Header.Get("Set-Cookie"), "; Path=/a; Domain=example.com; Max-Age=60; Secure; SameSite=None"; !strings.HasSuffix(got, want) {
		t.Errorf("Set-Cookie: %s, want %s", got, want)
	}
	strict := keptPool("web")
	strict.Policy.Persistence = route.Persistence{Name: "s", Cookie: route.CookieAttributes{SameSite: "Strict", Secure: route.No}}
	s := newRig(t, h1s, one(strict, backendsNamed(t, "a")[0]))
	if got, want := s.get("/").Header.Get("Set-Cookie"), "; Path=/; HttpOnly; SameSite=Strict"; !strings.HasSuffix(got, want) {
		t.Errorf("Set-Cookie: %s, want %s", got, want)
	}
}

// The address that is hashed is the one that cannot be made up: what a client says of itself counts for nothing unless it is a trusted proxy.
func TestSourceHashIsOfTheRealAddress(t *testing.T) {
	pool := keptPool("web")
	pool.Policy.Algorithm = route.SourceHash
	w := world{rules: []*route.Rule{rule("/", pool)}, endpoints: map[*route.Pool][]string{pool: backendsNamed(t, "a", "b", "c", "d")}}
	seen := func(r *rig) map[string]bool {
		out := map[string]bool{}
		for _, from := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"} {
			out[r.asking("X-Forwarded-For", "192.0.2."+from).body] = true
		}
		return out
	}
	if got := seen(newRig(t, h1, w)); len(got) != 1 {
		t.Errorf("one client met %v", got)
	}
	if got := seen(newRig(t, h1, w, trusting("127.0.0.1/32"))); len(got) < 2 {
		t.Errorf("twelve clients behind a trusted proxy met %v", got)
	}
}

func TestRequestsToFarEndpointsAreCounted(t *testing.T) {
	pool := keptPool("web")
	w := one(pool, backendsNamed(t, "a")[0])
	r := newRig(t, h1, w)
	r.get("/")
	r.set.Update(map[route.PoolKey][]route.Endpoint{pool.Key: {{Address: w.endpoints[pool][0], Distance: 1}}})
	r.get("/")
	r.stop()
	if n := r.counter("fairlead_backend_spilled_total"); n != 1 {
		t.Errorf("%v requests were counted, want 1", n)
	}
}
