package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// dialer makes TCP connections and UDP sockets to endpoints, if their addresses are allowed.
type dialer struct {
	opt     Options
	numeric net.Dialer // to addresses
	named   net.Dialer // to names
}

func newDialer(opt Options) *dialer {
	d := &dialer{opt: opt}
	base := net.Dialer{
		Timeout:         opt.DialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3},
		Resolver:        opt.Resolver,
	}
	d.numeric, d.named = base, base
	d.numeric.ControlContext = d.control(opt.AllowLoopback)
	d.named.ControlContext = d.control(false)
	return d
}

// dial connects to an endpoint by TCP.
func (d *dialer) dial(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
	return d.dialOver(ctx, "tcp", ep)
}

// dialUDP makes a socket that sends to an endpoint and receives from it alone.
func (d *dialer) dialUDP(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
	return d.dialOver(ctx, "udp", ep)
}

func (d *dialer) dialOver(ctx context.Context, network string, ep route.Endpoint) (net.Conn, error) {
	if !ep.DNS {
		if _, err := netip.ParseAddrPort(ep.Address); err != nil {
			return nil, fmt.Errorf("%q is not an address and port", ep.Address)
		}
		return d.numeric.DialContext(ctx, network, ep.Address)
	}
	host, port, err := net.SplitHostPort(ep.Address)
	if err != nil {
		return nil, fmt.Errorf("%q is not a name and port", ep.Address)
	}
	if _, err := netip.ParseAddr(host); err != nil && !strings.HasSuffix(host, ".") {
		// The name is absolute: it must not be looked up in the domains of the machine's resolv.conf first.
		host += "."
	}
	return d.named.DialContext(ctx, network, net.JoinHostPort(host, port))
}

// DialOutside connects to a host and port that somebody else than the operator has named, and that is no endpoint. Addresses that no endpoint with a name may have
// are refused, whatever the name resolves to: loopback, link-local, multicast, metadata services of clouds, and Fairlead itself.
func (s *Set) DialOutside(ctx context.Context, network, address string) (net.Conn, error) {
	return s.outside(ctx, network, address)
}

// control returns a function that net.Dialer calls for each address before it connects to it, after all name resolution: what a name resolved to a moment ago
// does not count.
func (d *dialer) control(allowLoopback bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, network, address string, c syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse address: %w", err)
		}
		ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		if err := refuse(ap.Addr(), allowLoopback); err != nil {
			return err
		}
		udp, addresses := strings.HasPrefix(network, "udp"), d.opt.OwnAddresses
		if udp {
			addresses = d.opt.OwnUDP
		}
		if own(addresses, ap) {
			return &refusal{ap.Addr(), "an address of Fairlead itself"}
		}
		if udp {
			return nil
		}
		return tuneSocket(c)
	}
}

// refusal says that an address is one that no backend may have.
type refusal struct {
	address netip.Addr
	what    string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("address %s is not allowed: it is %s", r.address, r.what)
}

var (
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	thisHost = netip.MustParsePrefix("0.0.0.0/8")
	// metadata are the addresses at which clouds hand out credentials, beside those that are link-local.
	metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}
)

// refuse returns an error for addresses that are no backends, in whatever notation.
func refuse(a netip.Addr, allowLoopback bool) error {
	b := a.Unmap()
	if nat64.Contains(b) {
		// The gateway makes this the IPv4 address in the last four bytes.
		bytes := b.As16()
		b = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	what := ""
	switch {
	case b.IsUnspecified() || thisHost.Contains(b):
		what = "unspecified"
	case b.IsMulticast():
		what = "a multicast address"
	case isMetadata(b):
		what = "a cloud's metadata service"
	case b.IsLinkLocalUnicast():
		what = "link-local"
	case b.IsLoopback() && !allowLoopback:
		what = "loopback"
	default:
		return nil
	}
	return &refusal{a, what}
}

func isMetadata(a netip.Addr) bool {
	for _, m := range metadata {
		if a.WithZone("") == m {
			return true
		}
	}
	return false
}

// own reports whether this process listens on an address.
func own(addresses func() []netip.AddrPort, ap netip.AddrPort) bool {
	if addresses == nil {
		return false
	}
	for _, o := range addresses() {
		if o.Port() != ap.Port() {
			continue
		}
		if a := o.Addr().Unmap(); a == ap.Addr() || (!a.IsValid() || a.IsUnspecified()) && isOfThisMachine(ap.Addr()) {
			return true
		}
	}
	return false
}

// isOfThisMachine reports whether the machine has an address. If it cannot tell, the answer is yes.
func isOfThisMachine(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, i := range addrs {
		if n, ok := i.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a.WithZone("") {
				return true
			}
		}
	}
	return false
}

// isLocal reports whether a connection could not be made because this machine has run out of something. Another endpoint may still be reached: ephemeral
// ports, for one, are counted for each destination.
func isLocal(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
