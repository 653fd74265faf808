package sdktest

import (
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
)

// server serves HTTP at one address for as long as the test lives, and can be killed, hung
// and brought back meanwhile.
type server struct {
	net     network
	address string // never changes
	handler http.Handler

	mu    sync.Mutex
	http  *http.Server // nil = killed
	ended chan struct{}
	conns map[*gated]struct{}
	hold  chan struct{} // while hung: closed at its end; else nil
}

// startServer listens at an address; "" is one that is free.
func startServer(n network, address string, h http.Handler) (*server, error) {
	l, err := n.listen(address)
	if err != nil {
		return nil, err
	}
	s := &server{net: n, address: l.Addr().String(), handler: h, conns: map[*gated]struct{}{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serveLocked(l)
	return s, nil
}

func (s *server) serveLocked(l net.Listener) {
	srv, ended := &http.Server{Handler: s.handler, ErrorLog: log.New(io.Discard, "", 0)}, make(chan struct{})
	s.http, s.ended = srv, ended
	go func() {
		defer close(ended)
		_ = srv.Serve(&gatedListener{l, s})
	}()
}

// kill ends the server as SIGKILL does: its listener is gone and its connections are reset.
// Handlers see their context end; kill does not wait for them.
func (s *server) kill() {
	s.mu.Lock()
	srv, ended := s.http, s.ended
	s.http = nil
	for c := range s.conns {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // reset, as what the kernel has for a dead process is
		}
	}
	s.releaseLocked()
	s.mu.Unlock()
	if srv == nil {
		return
	}
	_ = srv.Close()
	<-ended
	for _, c := range s.open() { // accepted in that moment, and not yet known to srv
		_ = c.Close()
	}
}

func (s *server) open() []*gated {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// hang makes the server silent, as SIGSTOP does: what is sent to it is taken and not read,
// new connections are accepted, and what it was about to answer does not leave it.
func (s *server) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil && s.hold == nil {
		s.hold = make(chan struct{})
	}
}

// heal ends what kill or hang began. After a kill it listens at the same address.
func (s *server) heal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked()
	if s.http != nil {
		return nil
	}
	l, err := s.net.listen(s.address)
	if err != nil {
		return err
	}
	s.serveLocked(l)
	return nil
}

func (s *server) releaseLocked() {
	if s.hold != nil {
		close(s.hold)
		s.hold = nil
	}
}

func (s *server) held() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hold
}

type gatedListener struct {
	net.Listener
	s *server
}

func (l *gatedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &gated{Conn: c, s: l.s, closed: make(chan struct{})}
	l.s.mu.Lock()
	l.s.conns[g] = struct{}{}
	l.s.mu.Unlock()
	return g, nil
}

// gated is the server's end of a connection. While the server hangs nothing passes it.
type gated struct {
	net.Conn
	s      *server
	closed chan struct{}
	once   sync.Once
}

// pass waits while the server hangs.
func (c *gated) pass() {
	for hold := c.s.held(); hold != nil; hold = c.s.held() {
		select {
		case <-hold:
		case <-c.closed:
			return
		}
	}
}

func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pass() // afterwards: a read that began before the hang ends in it
	return n, err
}

func (c *gated) Write(p []byte) (int, error) {
	c.pass()
	return c.Conn.Write(p)
}

func (c *gated) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.s.mu.Lock()
		delete(c.s.conns, c)
		c.s.mu.Unlock()
	})
	return c.Conn.Close()
}
