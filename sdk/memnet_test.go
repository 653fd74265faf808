package nearside

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// memNet is a network in memory: it works inside a synctest bubble, and its listeners can
// be killed, hung and brought back.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	hung      map[string]bool // accepts, and never reads: a stopped process
	lost      map[string]bool // swallows who connects, and what is on its way: a cut line
	conns     map[string][]net.Conn
}

func newMemNet() *memNet {
	return &memNet{listeners: map[string]*memListener{}, hung: map[string]bool{}, lost: map[string]bool{}, conns: map[string][]net.Conn{}}
}

type memListener struct {
	addr memAddr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memListener) Addr() net.Addr { return l.addr }

func (n *memNet) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	hung, lost := n.hung[address], n.lost[address]
	n.mu.Unlock()
	if lost {
		ctx, cancel := context.WithTimeout(ctx, probeDial)
		defer cancel()
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: memAddr(address), Err: ctx.Err()}
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: memAddr(address), Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := net.Pipe()
	n.mu.Lock()
	n.conns[address] = append(n.conns[address], near, far)
	n.mu.Unlock()
	if hung {
		return near, nil
	}
	select {
	case l.ch <- far:
		return near, nil
	case <-l.done:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: memAddr(address), Err: ctx.Err()}
	}
}

// transport returns an http.Transport over the network.
func (n *memNet) transport(t *testing.T) *http.Transport {
	tr := &http.Transport{DialContext: n.DialContext, MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// serve starts an HTTP server at address, which ends with the test or with kill.
func (n *memNet) serve(t *testing.T, address string, h http.Handler) {
	t.Helper()
	l := &memListener{addr: memAddr(address), ch: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	n.mu.Lock()
	n.listeners[address] = l
	n.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		n.kill(address)
		_ = srv.Close()
		wg.Wait()
	})
}

// kill closes the listener and breaks every connection, like SIGKILL.
func (n *memNet) kill(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		if l := n.listeners[a]; l != nil {
			_ = l.Close()
			delete(n.listeners, a)
		}
		n.breakLocked(a)
	}
}

func (n *memNet) breakLocked(a string) {
	for _, c := range n.conns[a] {
		_ = c.Close()
	}
	delete(n.conns, a)
}

// hang makes new connections to address silent, and breaks the ones there are: what a
// caller sees of a stopped process once it has no idle connection to it.
func (n *memNet) hang(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung[address] = on
	n.breakLocked(address)
}

// lose makes the way to address swallow everything. What is connected already is broken at once, as if it
// had been idle for long.
func (n *memNet) lose(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[address] = on
	n.breakLocked(address)
}
