package proxy

import (
	"fmt"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

// A rule may belong to several listeners; each request is of one of them.
func TestRuleOfSeveralListeners(t *testing.T) {
	pool := service("web", route.HTTP)
	shared := rule("/", pool)
	listener := func(host string, port uint16) *route.Listener {
		return &route.Listener{Name: "infra/gw/" + host, Hostname: host, Port: port, Hosts: []*route.Host{{Name: host, Rules: []*route.Rule{shared}}}}
	}
	r := newRig(t, h1, world{
		listeners: []*route.Listener{listener("a.test", 8081), listener("b.test", 8082)},
		endpoints: map[*route.Pool][]string{pool: {serveHTTP(t, showHeader)}},
	})
	for host, port := range map[string]string{"a.test": "8081", "b.test": "8082"} {
		for range 2 {
			req := r.request("GET", "/", nil)
			req.Host = host
			if got := r.do(req).shown(t).Get("X-Forwarded-Port"); got != port {
				t.Errorf("%s: X-Forwarded-Port %q, want %q", host, got, port)
			}
		}
		if n := r.counter("fairlead_requests_total", "listener", "infra/gw/"+host); n != 2 {
			t.Errorf("%s: %v requests were counted", host, n)
		}
	}
}

func TestPick(t *testing.T) {
	for _, test := range []struct {
		weights []int32
		want    []int // that can be picked
	}{
		{nil, nil},
		{[]int32{0}, nil},
		{[]int32{0, 0}, nil},
		{[]int32{5}, []int{0}},
		{[]int32{0, 1}, []int{1}},
		{[]int32{1, 0, 1}, []int{0, 2}},
		{[]int32{-1, 1}, []int{1}},
		{[]int32{1 << 30, 1 << 30, 1 << 30, 1 << 30}, []int{0, 1, 2, 3}},
	} {
		t.Run(fmt.Sprint(test.weights), func(t *testing.T) {
			r := &route.Rule{}
			for _, w := range test.weights {
				r.Backends = append(r.Backends, route.WeightedPool{Weight: w})
			}
			b := binder{rules: make([]boundRule, 1), ends: make([]boundBackend, len(test.weights)), pools: map[*route.Pool]boundPool{}}
			bound := b.rule(&route.Listener{}, r)
			got := map[*route.WeightedPool]bool{}
			for range 1000 {
				if b := bound.pick(); b != nil {
					got[b.WeightedPool] = true
				} else if test.want != nil {
					t.Fatal("nothing was picked")
				}
			}
			for _, i := range test.want {
				if !got[&r.Backends[i]] {
					t.Errorf("backend %d was never picked", i)
				}
			}
			if len(got) != len(test.want) {
				t.Errorf("%d backends were picked, want %d", len(got), len(test.want))
			}
		})
	}
}
