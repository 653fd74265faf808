package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// network is an in-memory network of named hosts whose links can be cut, stalled and healed.
type network struct {
	mu    sync.Mutex
	hosts map[string]*host
}

type host struct {
	net     *network
	name    string
	accept  chan net.Conn
	mu      sync.Mutex
	conns   map[*conn]struct{}
	down    bool        // refuses connections
	stalled atomic.Bool // what it writes is lost without a word
}

func newNetwork() *network { return &network{hosts: map[string]*host{}} }

// serve runs handler as host name until the returned stop is called.
func (n *network) serve(name string, handler http.Handler) (h *host, stop func()) {
	n.mu.Lock()
	h = n.hosts[name]
	if h == nil {
		h = &host{net: n, name: name, conns: map[*conn]struct{}{}}
		n.hosts[name] = h
	}
	h.mu.Lock()
	h.accept = make(chan net.Conn)
	h.down = false
	h.mu.Unlock()
	n.mu.Unlock()
	l := &listener{host: h, accept: h.accept, closed: make(chan struct{})}
	srv := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return h, func() {
		h.kill()
		_ = srv.Close()
		<-done
	}
}

// kill closes every connection and refuses new ones, as a killed process does.
func (h *host) kill() {
	h.mu.Lock()
	h.down = true
	conns := h.conns
	h.conns = map[*conn]struct{}{}
	h.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// restore accepts connections again.
func (h *host) restore() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = false
}

// client returns a client whose connections end at this network's hosts.
func (n *network) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		name, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		h := n.hosts[name]
		n.mu.Unlock()
		if h == nil {
			return nil, errors.New("no such host")
		}
		return h.dial(ctx)
	}}}
}

func (h *host) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	h.mu.Lock()
	down, accept := h.down, h.accept
	c := &conn{Conn: theirs, host: h}
	if !down {
		h.conns[c] = struct{}{}
	}
	h.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	select {
	case accept <- c:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	host   *host
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, io.EOF
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
func (l *listener) Addr() net.Addr { return addr(l.host.name) }

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) + ":1" }

// conn is the server's end.
type conn struct {
	net.Conn
	host *host
}

func (c *conn) Write(b []byte) (int, error) {
	if c.host.stalled.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
