package backend

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// userTimeout is how long data may stay unacknowledged, in milliseconds, until the connection counts as broken. Keep-alive probes find dead connections that are
// silent; this finds those that are not.
const userTimeout = 30_000

// tuneSocket sets what net.Dialer cannot.
func tuneSocket(c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	}); cerr != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", cerr)
	}
	if err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}

// hungUp reports whether the other side of an idle connection has closed it, or has sent something that nobody asked for, although nobody has noticed yet.
func hungUp(c syscall.RawConn) bool {
	gone := false
	// Control and not Read: whoever waits for the connection to become readable holds the lock that Read wants.
	err := c.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err != unix.EAGAIN
	})
	return gone || err != nil
}
