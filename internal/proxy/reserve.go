package proxy

import (
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Reserve opens the TCP sockets of binds before there is a table. The kernel takes connections from then on, as many as its backlog holds, and they wait for the
// first Install, which serves those whose bind the table has and closes the others: clients that come while a table is being made are not refused. If there is
// none after the time within, which must be positive, the sockets are closed, because clients that are refused can at least go elsewhere. A socket that cannot be
// opened is left to Install, which says so. After the first Install, Shutdown or Close nothing is done.
func (p *Proxy) Reserve(within time.Duration, binds ...route.Bind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.installed.Load() != nil {
		return
	}
	for _, b := range binds {
		if b.UDP || p.reserved[b] != nil {
			continue
		}
		ln, err := p.listen(p.addressOf(b))
		if err != nil {
			p.opt.Log.Debug("cannot open a socket before there is a table", "listener", b.String(), "error", err)
			continue
		}
		p.reserved[b] = ln
	}
	time.AfterFunc(within, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.closeReserved(func(route.Bind) bool { return true })
	})
}

// closeReserved closes reserved sockets. p.mu must be held.
func (p *Proxy) closeReserved(goes func(route.Bind) bool) {
	for b, ln := range p.reserved {
		if goes(b) {
			_ = ln.Close()
			delete(p.reserved, b)
		}
	}
}
