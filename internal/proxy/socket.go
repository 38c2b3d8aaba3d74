package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what the times of this package that are kept as durations count from.
var epoch = time.Now()

func clock() time.Duration { return time.Since(epoch) }

// socket is an accepted TCP connection on which no read and no write ever waits without a deadline.
//
// Writes take care of themselves: each may wait for the write timeout, and again for as long as some bytes went out in the meantime, so that a slow client is served
// and one that takes nothing is not. For reads the owner says how long they may wait: see armRead. Deadlines that are set from outside hold beside that.
// To spare system work a deadline is moved only when the old one would be too early by a quarter, or too late.
type socket struct {
	net.Conn
	writeTimeout time.Duration // negative: none

	mode atomic.Int32 // how reads get their deadline

	// Of reads.
	mu       sync.Mutex
	readAt   time.Duration // the deadline that is set; 0 is none
	asked    time.Duration // the deadline that was asked for from outside; 0: nothing was asked; noDeadline: none is wanted
	aborted  bool          // from outside: reads fail until another deadline is asked for
	poked    bool          // by the owner: the read that waits, or the next one, fails once
	readWait time.Duration // of modeFrames and modeTunnel

	// Of writes.
	writeMu    sync.Mutex
	writeAt    time.Duration // the deadline that is set; 0 is none
	writeAsked time.Duration // the deadline that was asked for from outside; 0 is none
	lastWrite  atomic.Int64
}

const (
	modeOwner  = iota // the owner calls armRead before it reads
	modeFrames        // a read waits for readWait
	modeTunnel        // a read waits for readWait, and on while there are writes
)

const noDeadline time.Duration = -1

// forever stands for the timeout of those who asked for none: waiting is then a matter of waiting again.
const forever = 10 * time.Minute

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// setMode says how the reads to come get their deadline. A wait that is not positive means no limit.
func (s *socket) setMode(mode int32, wait time.Duration) {
	s.mu.Lock()
	s.readWait = wait
	s.mu.Unlock()
	s.mode.Store(mode)
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	mode := s.mode.Load()
	if mode == modeOwner {
		return s.Conn.Read(p)
	}
	for {
		s.armWait(mode)
		n, err := s.Conn.Read(p)
		if n > 0 || !isTimeout(err) || !s.waitOn(mode) {
			return n, err
		}
	}
}

func (s *socket) armWait(mode int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case mode == modeTunnel && s.asked > 0:
		s.armAtLocked(s.asked)
	case s.readWait <= 0:
		s.armLocked(forever)
	default:
		s.armLocked(s.readWait)
	}
}

// waitOn reports whether a read that has waited in vain should do so again.
func (s *socket) waitOn(mode int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	switch {
	case s.poked:
		s.poked = false
		return true
	case s.aborted:
		return false
	case mode == modeTunnel && s.asked > 0:
		return now < s.asked
	}
	return s.readWait <= 0 || mode == modeTunnel && now-time.Duration(s.lastWrite.Load()) < s.readWait
}

// armRead makes sure that the next read fails when it has waited for d, or up to a quarter less.
func (s *socket) armRead(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armLocked(d)
}

func (s *socket) armLocked(d time.Duration) {
	if s.aborted || s.poked {
		return
	}
	want := clock() + d
	if s.readAt > 0 && s.readAt <= want && s.readAt >= want-d/4 {
		return
	}
	s.setReadLocked(want)
}

// armReadAt makes sure that the next read fails at the time at.
func (s *socket) armReadAt(at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armAtLocked(at)
}

func (s *socket) armAtLocked(at time.Duration) {
	if !s.aborted && !s.poked && s.readAt != at {
		s.setReadLocked(at)
	}
}

func (s *socket) setReadLocked(at time.Duration) {
	s.readAt = at
	_ = s.Conn.SetReadDeadline(epoch.Add(at)) // fails on a closed connection only, and so will the read
}

// poke makes a read that waits look again at how long it should.
func (s *socket) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.aborted {
		s.poked = true
		s.setReadLocked(1)
	}
}

// wait is why a read has failed with a timeout.
type wait uint8

const (
	waitOver    wait = iota // the deadline of the owner has passed
	waitPoked               // the owner wants the deadline to be set anew
	waitAborted             // it was asked for from outside
)

// timedOut tells why a read failed with a timeout.
func (s *socket) timedOut() wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.poked:
		s.poked = false
		return waitPoked
	case s.aborted:
		return waitAborted
	}
	return waitOver
}

// askRead asks for a deadline from outside. One in the past makes reads fail until another is asked for. The zero time takes back what was asked, and with
// none says that the read may wait for as long as it wants.
func (s *socket) askRead(t time.Time, none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := t.Sub(epoch)
	switch {
	case t.IsZero() && none:
		s.aborted, s.asked = false, noDeadline
	case t.IsZero():
		s.aborted, s.asked = false, 0
	case at <= clock():
		s.aborted, s.asked = true, 0
		s.setReadLocked(1)
	default:
		s.aborted, s.asked = false, at
		if !s.poked {
			s.setReadLocked(at)
		}
	}
}

// askedRead returns the deadline that was asked for from outside.
func (s *socket) askedRead() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (n int, err error) {
	for {
		s.armWrite()
		var m int
		m, err = s.Conn.Write(p[n:])
		n += m
		if !isTimeout(err) || m == 0 && !s.writeOn() {
			return n, err
		}
	}
}

// writeOn reports whether a write that has waited in vain should do so again.
func (s *socket) writeOn() bool {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.writeTimeout < 0 && (s.writeAsked == 0 || clock() < s.writeAsked)
}

func (s *socket) armWrite() {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	now := clock()
	s.lastWrite.Store(int64(now))
	d := s.writeTimeout
	if d < 0 {
		d = forever
	}
	want := now + d
	if s.writeAsked > 0 {
		want = min(want, s.writeAsked)
	}
	if s.writeAt > 0 && s.writeAt <= want && s.writeAt >= want-d/4 {
		return
	}
	s.writeAt = want
	_ = s.Conn.SetWriteDeadline(epoch.Add(want))
}

// disarmWrite takes the deadline off writes until the next Write.
func (s *socket) disarmWrite() {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.writeAt = 0
	_ = s.Conn.SetWriteDeadline(time.Time{})
}

// SetWriteDeadline implements net.Conn. The deadline holds beside the write timeout.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if t.IsZero() {
		s.writeAsked = 0
		return nil
	}
	at := max(t.Sub(epoch), 1)
	s.writeAsked = at
	if at < s.writeAt { // a write may be waiting
		s.writeAt = at
		return s.Conn.SetWriteDeadline(epoch.Add(at))
	}
	return nil
}

// SetReadDeadline implements net.Conn. The deadline holds beside those of the owner.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.askRead(t, false)
	return nil
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error {
	s.askRead(t, false)
	return s.SetWriteDeadline(t)
}

// closeWrite sends the client a FIN: there is nothing more to come.
func (s *socket) closeWrite() {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// reset closes the connection with an RST and forgets what was not sent yet.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
