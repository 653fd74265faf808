package node

import (
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of Linux, which package syscall does not name.
const tcpUserTimeout = 0x12

// giveUpUnacknowledged makes the kernel end a connection whose peer has acknowledged nothing
// for deadAfter. A stream is written to every few seconds, and while something is unacknowledged
// no keepalive is sent: without this a peer that vanished costs a stream for a quarter of an
// hour. Accepted connections inherit it.
func giveUpUnacknowledged(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadAfter/time.Millisecond))
	})
	if err != nil {
		return err
	}
	return failed
}
