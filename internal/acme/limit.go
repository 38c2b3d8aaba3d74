package acme

import (
	"time"

	"github.com/caddyserver/certmagic"
)

// KeyType names a type of keys for certificates, such as p256. The zero value is p256.
type KeyType = certmagic.KeyType

// Storage is what replicas share.
type Storage = certmagic.Storage

// LimitOrders limits how many orders an authority gets from an account in a time. Zero leaves what is: 10 in 10 s. It is for the whole process, and must be
// called before the first Manager runs.
func LimitOrders(orders int, per time.Duration) {
	if orders > 0 {
		certmagic.RateLimitEvents = orders
	}
	if per > 0 {
		certmagic.RateLimitEventsWindow = per
	}
}
