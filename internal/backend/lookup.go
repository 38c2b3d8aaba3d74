package backend

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// lookup returns a function that asks a resolver, or that of the system if it is nil, for the addresses of a name, which is taken as absolute. Package net does not tell how
// long an answer is good for, so what the servers send is read along.
func lookup(resolver *net.Resolver) func(context.Context, string) resolution {
	dial := (&net.Dialer{}).DialContext
	if resolver != nil && resolver.Dial != nil {
		dial = resolver.Dial
	}
	return func(ctx context.Context, host string) resolution {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		heard := &lifetimes{}
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return heard.listen(c), nil
		}}
		addresses, err := r.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
		if err != nil {
			return resolution{err: err, ttl: heard.shortest(false)}
		}
		return resolution{addresses: routable(addresses), ttl: heard.shortest(true)}
	}
}

// routable returns the addresses that this machine has a way to, without a zone or IPv4 in IPv6; all of them if it has none to any. Asking the kernel for a way sends
// nothing.
func routable(all []netip.Addr) []netip.Addr {
	for i := range all {
		all[i] = all[i].Unmap()
	}
	ways := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
		if err != nil {
			return true
		}
		_ = c.Close()
		return false
	})
	if len(ways) == 0 {
		return all
	}
	return ways
}

// lifetimes are how long the answers that a resolver got are good for. Safe for concurrent use.
type lifetimes struct {
	mu               sync.Mutex
	addresses, never []uint32 // of records, and of the statement that there are none; in seconds
}

// shortest returns the shortest lifetime of the records, or of the statements that there are none; zero if there were no such. A server may say zero; that is one
// second here.
func (l *lifetimes) shortest(records bool) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.never
	if records {
		list = l.addresses
	}
	if len(list) == 0 {
		return 0
	}
	return time.Duration(max(slices.Min(list), 1)) * time.Second
}

// hear notes the lifetimes in a message of a server.
func (l *lifetimes) hear(message []byte) {
	var p dnsmessage.Parser
	if h, err := p.Start(message); err != nil || !h.Response || p.SkipAllQuestions() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			break
		}
		l.addresses = append(l.addresses, h.TTL)
		if p.SkipAnswer() != nil {
			return
		}
	}
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			return
		}
		l.never = append(l.never, min(h.TTL, soa.MinTTL)) // RFC 2308
	}
}

// listen returns the connection to a server with what it says listened to.
func (l *lifetimes) listen(c net.Conn) net.Conn {
	if p, ok := c.(net.PacketConn); ok {
		return &heardPackets{c, p, l}
	}
	return &heardStream{Conn: c, heard: l}
}

// heardPackets is a connection on which each Read is a message. Package net knows it by being a net.PacketConn.
type heardPackets struct {
	net.Conn
	packets net.PacketConn
	heard   *lifetimes
}

func (c *heardPackets) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		c.heard.hear(b[:n])
	}
	return n, err //nolint:wrapcheck // it is for package net, which looks at it
}

func (c *heardPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	return c.packets.ReadFrom(b) //nolint:wrapcheck // as Read
}

func (c *heardPackets) WriteTo(b []byte, a net.Addr) (int, error) {
	return c.packets.WriteTo(b, a) //nolint:wrapcheck // as Read
}

// heardStream is a connection on which each message has its length before it.
type heardStream struct {
	net.Conn
	heard *lifetimes
	held  []byte // a message that is not complete
}

func (c *heardStream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.held = append(c.held, b[:n]...)
	for len(c.held) >= 2 {
		size := 2 + int(binary.BigEndian.Uint16(c.held))
		if len(c.held) < size {
			break
		}
		c.heard.hear(c.held[2:size])
		c.held = c.held[size:]
	}
	return n, err //nolint:wrapcheck // it is for package net, which looks at it
}
