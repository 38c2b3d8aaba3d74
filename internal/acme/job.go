package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"hash/fnv"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Phase is how far an order is.
type Phase string

// The phases of an order.
const (
	Pending Phase = "pending" // not asked for yet, or being asked for
	Valid   Phase = "issued"  // there is a certificate, and it is not time to renew it
	Failed  Phase = "failed"  // the last attempt failed. There may be an older certificate, which serves.
)

// State is how an order stands.
type State struct {
	Secret   Secret
	Hosts    []string
	Issuer   string // whose certificate there is
	Source   route.Source
	Phase    Phase
	NotAfter time.Time // of the certificate; zero if there is none
	Next     time.Time // when the next attempt is due
	LastTry  time.Time
	Err      string // of the last attempt, in the authority's words; empty after a success
	Failures int    // in a row
}

// job is an order on its way. It belongs to Run; what State shows is guarded by Manager.mu.
type job struct {
	order    route.CertificateOrder
	secret   Secret
	leaf     *x509.Certificate // nil: there is none that is good for the order
	issuer   string            // of leaf
	phase    Phase
	next     time.Time // when to act
	lastTry  time.Time
	err      string
	failures int
	running  context.CancelFunc // nil: nothing is being done

	info    acme.RenewalInfo
	infoAt  time.Time // when to ask for info again
	infoFor *x509.Certificate
}

func (j *job) state() State {
	s := State{
		Secret: j.secret, Hosts: j.order.Hosts, Issuer: j.issuer, Source: j.order.Source, Phase: j.phase, Next: j.next, LastTry: j.lastTry, Err: j.err, Failures: j.failures,
	}
	if j.leaf != nil {
		s.NotAfter = j.leaf.NotAfter
	}
	return s
}

// take makes order the order of the job. One that asks for something else begins anew.
func (j *job) take(order route.CertificateOrder, now time.Time) {
	same := slices.Equal(order.Hosts, j.order.Hosts) && slices.Equal(order.Issuers, j.order.Issuers)
	j.order = order
	if !same {
		j.leaf, j.issuer, j.failures, j.err = nil, "", 0, ""
	}
	leaf, issuer := usable(order, order.Chain, order.Issuer)
	if leaf != nil && (j.leaf == nil || leaf.NotBefore.After(j.leaf.NotBefore)) {
		j.leaf, j.issuer = leaf, issuer
		if j.failures > 0 && now.Before(renewAt(leaf, j.secret)) { // another replica was luckier
			j.failures, j.err = 0, ""
		}
	}
	if !same || j.failures == 0 {
		j.schedule(now)
	}
}

// schedule decides when to act next, after nothing has failed.
func (j *job) schedule(now time.Time) {
	if j.leaf == nil {
		j.phase, j.next = Pending, now
		return
	}
	j.phase, j.next = Valid, j.renewal()
}

// renewal is when the certificate should be renewed: when the authority says so, but not later than the last sixth of its life.
func (j *job) renewal() time.Time {
	at := renewAt(j.leaf, j.secret)
	if j.infoFor == j.leaf && j.info.HasWindow() {
		latest := j.leaf.NotAfter.Add(-lifetime(j.leaf) / 6)
		if at = j.info.SelectedTime; at.After(latest) {
			at = latest
		}
		// An authority that wants a certificate renewed as soon as it was issued would have it renewed for ever.
		if earliest := j.leaf.NotBefore.Add(min(lifetime(j.leaf)/10, youth)); at.Before(earliest) {
			at = earliest
		}
	}
	return at
}

// youth is how old a certificate is at least before it is renewed because its authority says so. Authorities date certificates back by an hour.
const youth = 2 * time.Hour

func lifetime(leaf *x509.Certificate) time.Duration { return leaf.NotAfter.Sub(leaf.NotBefore) }

// shortLived is the lifetime below which a certificate is renewed when half of it is left.
const shortLived = 10 * 24 * time.Hour

// renewAt is when a certificate should be renewed if its authority has nothing to say: with a third of its life left, sooner by up to a tenth of that, so
// that certificates that came together do not go together. It is the same for every replica.
func renewAt(leaf *x509.Certificate, s Secret) time.Time {
	left := lifetime(leaf) / 3
	if lifetime(leaf) < shortLived {
		left = lifetime(leaf) / 2
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.String()))
	_, _ = h.Write(leaf.SerialNumber.Bytes())
	jitter := left / 10 * time.Duration(h.Sum32()%1000) / 1000
	return leaf.NotAfter.Add(-left - jitter)
}

// fail notes that an attempt failed.
func (j *job) fail(err error, wait time.Duration, now time.Time) {
	j.failures++
	j.phase, j.err, j.next = Failed, err.Error(), now.Add(wait)
}

// backoff is how long to wait after a number of failures in a row: twice as long each time, up to six hours. seed varies it by a tenth.
func backoff(first time.Duration, failures int, seed uint32) time.Duration {
	const longest = 6 * time.Hour
	wait := longest
	if shift := failures - 1; shift < 12 {
		wait = min(first<<shift, longest)
	}
	return wait + wait/10*time.Duration(seed%1000)/1000
}

// usable returns the certificate of a chain if it is good for an order: for its names and no others, and from one of its issuers.
func usable(order route.CertificateOrder, chain []byte, issuer string) (*x509.Certificate, string) {
	block, _ := pem.Decode(chain)
	if block == nil || !slices.Contains(order.Issuers, issuer) {
		return nil, ""
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, ""
	}
	have, want := slices.Sorted(slices.Values(leaf.DNSNames)), slices.Sorted(slices.Values(order.Hosts))
	if !slices.Equal(have, want) {
		return nil, ""
	}
	return leaf, issuer
}
