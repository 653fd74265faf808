package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// deadAfter is how long a peer may acknowledge nothing before its connection is given up.
const deadAfter = 10 * time.Second

// listen binds one address and says clearly why it cannot.
func listen(ctx context.Context, flag, addr string, tlsConfig *tls.Config) (net.Listener, error) {
	lc := net.ListenConfig{
		Control:         giveUpUnacknowledged,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter, Interval: deadAfter / 3, Count: 3},
	}
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another program; stop it, choose another port, or use port 0 for a free one", flag, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: no permission to listen on %s; choose a port from 1024 up", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this machine; use one that is, or leave the host out", flag, addr)
	default:
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if tlsConfig != nil {
		l = tls.NewListener(l, tlsConfig)
	}
	return l, nil
}

// advertised returns HOST:PORT under which others reach l.
func (c *Config) advertised(l net.Listener) string {
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if c.Advertise != "" {
		return net.JoinHostPort(c.Advertise, port)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if name, err := os.Hostname(); err == nil && name != "" {
			host = name
		}
	}
	return net.JoinHostPort(host, port)
}

// localURL is the address for programs on this machine: the ready file's.
func localURL(scheme string, l net.Listener) string {
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
