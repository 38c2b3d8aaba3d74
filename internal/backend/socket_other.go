//go:build !linux

package backend

import "syscall"

// tuneSocket sets what net.Dialer cannot; here nothing.
func tuneSocket(syscall.RawConn) error { return nil }

// hungUp reports whether the other side of an idle connection has closed it although nobody has noticed yet; here it never knows.
func hungUp(syscall.RawConn) bool { return false }
