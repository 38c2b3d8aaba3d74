package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitWrites has the kernel break a connection whose peer takes nothing of what was written for d. The kernel alone sees what happens while it copies from one
// socket to another. Not positive: no limit.
func limitWrites(c net.Conn, d time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok || d <= 0 {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a limit less, if it fails
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(d.Milliseconds(), 1<<31-1)))
	})
}
