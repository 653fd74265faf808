package sdktest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// network is where servers listen and clients dial.
type network interface {
	// listen listens at an address; "" is one that is free.
	listen(address string) (net.Listener, error)
	dial(ctx context.Context, network, address string) (net.Conn, error)
}

// loopback is the machine's own.
type loopback struct{}

func (loopback) listen(address string) (net.Listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	return net.Listen("tcp", address)
}

func (loopback) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// memory is a network of pipes, without sockets: all that waits in it waits for a channel,
// so it works in a bubble of testing/synctest.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
	free      int // of the addresses that were given out
}

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

type memoryListener struct {
	n    *memory
	addr memoryAddr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func (n *memory) listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if address == "" {
		n.free++
		address = fmt.Sprintf("program-%d.memory:80", n.free)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("listen at %q: use HOST:PORT, any name and number: %w", address, err)
	}
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: memoryAddr(address), Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{n: n, addr: memoryAddr(address), ch: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

func (n *memory) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	failed := func(err error) error {
		return &net.OpError{Op: "dial", Net: "memory", Addr: memoryAddr(address), Err: err}
	}
	if l == nil {
		return nil, failed(syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	select {
	case l.ch <- far:
		return near, nil
	case <-l.done:
		return nil, failed(syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, failed(ctx.Err())
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.mu.Lock()
		delete(l.n.listeners, string(l.addr))
		l.n.mu.Unlock()
	})
	return nil
}

func (l *memoryListener) Addr() net.Addr { return l.addr }

// transportOver returns a transport that dials in n; no proxy takes part.
func transportOver(n network) *http.Transport {
	return &http.Transport{DialContext: n.dial, MaxIdleConnsPerHost: 64}
}
