package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

const day = 24 * time.Hour

// settled waits until nothing is left to do at this moment.
func settled(d time.Duration) { time.Sleep(d); synctest.Wait() }

func only(t *testing.T, m *Manager) State {
	t.Helper()
	states := m.States()
	if len(states) != 1 {
		t.Fatalf("there are %d states, want 1: %+v", len(states), states)
	}
	return states[0]
}

func TestACertificateIsOrderedPublishedAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(time.Second)
		first := mem.secrets[Secret{"shop", "tls"}]
		if s := only(t, m); s.Phase != Valid || len(ca.times()) != 1 || len(first.Chain) == 0 {
			t.Fatalf("got %+v after %d attempts, want one certificate", s, len(ca.times()))
		}
		settled(56 * day)
		if n := len(ca.times()); n != 1 {
			t.Errorf("%d orders in the first 56 of 90 days, want 1", n)
		}
		settled(5 * day) // a third of the life is 30 days, and a tenth of that the jitter
		if n := len(ca.times()); n != 2 || string(mem.secrets[Secret{"shop", "tls"}].Chain) == string(first.Chain) {
			t.Errorf("%d orders after 61 days, want 2 and another certificate", n)
		}
		settled(day)
		if n := len(ca.times()); n != 2 {
			t.Errorf("%d orders a day after a renewal, want 2", n)
		}
	})
}

func TestAFailureIsTriedAgainLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, err: errors.New("the CA says no")}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(3 * day)
		times := ca.times()
		if len(times) < 10 || len(times) > 25 {
			t.Errorf("%d attempts in three days, want between 10 and 25", len(times))
		}
		for i := 2; i < len(times); i++ {
			last, before := times[i].Sub(times[i-1]), times[i-1].Sub(times[i-2])
			if last < before-time.Second || last > 7*time.Hour {
				t.Errorf("attempt %d came after %s, the one before after %s", i, last, before)
			}
		}
		s := only(t, m)
		if s.Phase != Failed || !strings.Contains(s.Err, "ca: the CA says no") || s.Failures != len(times) || !s.Next.After(time.Now()) {
			t.Errorf("got %+v", s)
		}
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")}) // the same again is no reason to hurry
		settled(time.Second)
		if n := len(ca.times()); n != len(times) {
			t.Errorf("%d attempts after the same offer, want %d", n, len(times))
		}
		ca.set(func(f *fakeCA) { f.err = nil })
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "b.example.com")}) // another name is
		settled(time.Second)
		if s := only(t, m); s.Phase != Valid || s.Err != "" || s.Failures != 0 {
			t.Errorf("after a success: got %+v", s)
		}
	})
}

func TestAFailingRenewalKeepsTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(time.Second)
		first := string(mem.secrets[Secret{"shop", "tls"}].Chain)
		ca.set(func(f *fakeCA) { f.err = errors.New("away") })
		settled(70 * day)
		s := only(t, m)
		if s.Phase != Failed || s.Issuer != "ca" || s.NotAfter.IsZero() || string(mem.secrets[Secret{"shop", "tls"}].Chain) != first {
			t.Errorf("got %+v; want a failure, and the certificate that there was", s)
		}
		ca.set(func(f *fakeCA) { f.err = nil })
		settled(7 * time.Hour)
		if s := only(t, m); s.Phase != Valid || string(mem.secrets[Secret{"shop", "tls"}].Chain) == first {
			t.Errorf("got %+v; want a renewed certificate", s)
		}
	})
}

func TestRateLimitsAreRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := fmt.Errorf("new order: %w", acme.Problem{Type: acme.ProblemTypeRateLimited, Detail: "too many certificates"})
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, err: limited}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(59 * time.Minute)
		if n := len(ca.times()); n != 1 {
			t.Errorf("%d attempts within an hour of a rate limit, want 1", n)
		}
	})
}

func TestTheNextIssuerIsAskedWhenOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, up, mem := &fakeCA{name: "down", err: errors.New("away")}, &fakeCA{name: "up", lasts: 90 * day}, newMemory()
		m := newManager(t, mem, Options{}, down, up)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"down", "up"}, "a.example.com")})
		settled(time.Second)
		if s := only(t, m); s.Issuer != "up" || len(down.times()) != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestReplicasOrderACertificateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, takes: 5 * time.Second}, newMemory()
		var replicas []*Manager
		for range 3 { // none of them knows that it is not the leader
			replicas = append(replicas, newManager(t, mem, Options{}, ca))
		}
		for _, m := range replicas {
			m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		}
		settled(time.Minute)
		if n := len(ca.times()); n != 1 {
			t.Errorf("three replicas made %d orders, want 1", n)
		}
		for i, m := range replicas {
			if s := only(t, m); s.Phase != Valid {
				t.Errorf("replica %d: got %+v", i, s)
			}
		}
		settled(65 * day)
		if n := len(ca.times()); n != 2 {
			t.Errorf("three replicas made %d orders and renewals, want 2", n)
		}
	})
}

func TestOrdersAreStaggeredAndLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, takes: 30 * time.Second}, newMemory()
		m := newManager(t, mem, Options{Parallel: 4, Stagger: time.Second}, ca)
		var orders []route.CertificateOrder
		for i := range 20 {
			orders = append(orders, mem.order(fmt.Sprint("tls", i), []string{"ca"}, fmt.Sprintf("h%d.example.com", i)))
		}
		m.Offer(orders)
		settled(10 * time.Minute)
		times := ca.times()
		for i := 1; i < len(times); i++ {
			if gap := times[i].Sub(times[i-1]); gap < time.Second {
				t.Errorf("order %d came %s after the one before", i, gap)
			}
		}
		if len(times) != 20 || ca.most > 4 {
			t.Errorf("%d orders, %d at a time; want 20 and 4 at most", len(times), ca.most)
		}
	})
}

func TestANameIsProvedForOneSecretAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, takes: time.Minute}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("one", []string{"ca"}, "a.example.com"), mem.order("two", []string{"ca"}, "a.example.com", "b.example.com")})
		settled(10 * time.Minute)
		if ca.most != 1 || len(ca.times()) != 2 {
			t.Errorf("%d orders, %d at a time; want 2, one after the other", len(ca.times()), ca.most)
		}
	})
}

func TestTheAuthorityDecidesWhenToRenew(t *testing.T) {
	window := func(from, to time.Duration) func(*x509.Certificate) (acme.RenewalInfo, error) {
		return func(leaf *x509.Certificate) (info acme.RenewalInfo, _ error) {
			info.SuggestedWindow.Start, info.SuggestedWindow.End = leaf.NotBefore.Add(from), leaf.NotBefore.Add(to)
			info.SelectedTime = leaf.NotBefore.Add(from)
			return info, nil
		}
	}
	for _, test := range []struct {
		name                 string
		from, to, not, is    time.Duration
		ordersBefore, orders int
	}{
		{"early, for it revokes what it issued", 10 * day, 11 * day, 9 * day, 12 * day, 1, 2},
		{"later than we would", 70 * day, 71 * day, 69 * day, 72 * day, 1, 2},
		{"too late", 100 * day, 101 * day, 74 * day, 76 * day, 1, 2},
		{"at once, for ever", -day, 0, time.Hour, 3 * time.Hour, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, mem := &fakeCA{name: "ca", lasts: 90 * day, info: window(test.from, test.to)}, newMemory()
				m := newManager(t, mem, Options{}, ca)
				m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
				settled(test.not)
				if n := len(ca.times()); n != test.ordersBefore {
					t.Errorf("after %s: %d orders, want %d", test.not, n, test.ordersBefore)
				}
				settled(test.is - test.not)
				if n := len(ca.times()); n != test.orders {
					t.Errorf("after %s: %d orders, want %d", test.is, n, test.orders)
				}
			})
		})
	}
}

func TestShortLivedCertificatesAreRenewedAtHalfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 6 * day}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(2*day + 12*time.Hour)
		if n := len(ca.times()); n != 1 {
			t.Errorf("%d orders after 60 of 144 hours, want 1", n)
		}
		settled(14 * time.Hour)
		if n := len(ca.times()); n != 2 {
			t.Errorf("%d orders after 74 of 144 hours, want 2", n)
		}
	})
}

func TestWhatIsNotWantedAnyMoreIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day, takes: time.Hour}, newMemory()
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(time.Second)
		m.Offer(nil)
		settled(time.Second)
		if len(m.States()) != 0 || ca.inside != 0 || len(mem.secrets) != 0 {
			t.Errorf("an order that was withdrawn goes on: %+v, %d under way", m.States(), ca.inside)
		}
	})
}

func TestAForeignSecretIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, mem := &fakeCA{name: "ca", lasts: 90 * day}, newMemory()
		mem.foreign[Secret{"shop", "tls"}] = true // since the compiler looked
		m := newManager(t, mem, Options{}, ca)
		m.Offer([]route.CertificateOrder{mem.order("tls", []string{"ca"}, "a.example.com")})
		settled(time.Second)
		if s := only(t, m); s.Phase != Failed || !strings.Contains(s.Err, ErrForeign.Error()) || len(ca.times()) != 0 {
			t.Errorf("got %+v after %d orders; want a failure and none", s, len(ca.times()))
		}
	})
}
