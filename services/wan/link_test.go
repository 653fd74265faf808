package wan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// inMemory runs f with a link between two pipes: who connects to near talks to who accepts
// at far. Time is that of synctest.
func inMemory(t *testing.T, cfg Config, f func(t *testing.T, l *Link, near, far *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newPipes(), newPipes()
		cfg.Listener, cfg.Dial = near, far.dial
		l, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		f(t, l, near, far)
		stop()
		if err := <-ran; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		_ = far.Close()
		synctest.Wait()
		if s := l.Stats(); s.Open != 0 || s.Up.Waiting != 0 || s.Down.Waiting != 0 {
			t.Errorf("P8: something is left: %+v", s)
		}
	})
}

// both returns the ends of a new connection.
func both(t *testing.T, near, far *pipes) (a, b net.Conn) {
	t.Helper()
	a, err := near.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b = <-far.conns
	return a, b
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("received %q, %v; want %q", got, err, want)
	}
}

// silent fails unless nothing comes for d.
func silent(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes came, %v", n, err)
	}
	_ = c.SetReadDeadline(time.Time{})
}

func took(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(began); got != want {
		t.Errorf("it took %s, want %s", got, want)
	}
}

// Each direction has its own delay; the first byte of a connection waits for the handshake.
func TestDelayOfEachDirection(t *testing.T) {
	cfg := Config{Profile: Profile{Up: Direction{Delay: dur(40 * ms)}, Down: Direction{Delay: dur(70 * ms)}}}
	inMemory(t, cfg, func(t *testing.T, l *Link, near, far *pipes) {
		began := time.Now()
		a, b := both(t, near, far)
		took(t, began, 40*ms) // the wish to connect
		send(t, a, "first")
		receive(t, b, "first")
		took(t, began, 150*ms) // there and back, and there
		began = time.Now()
		send(t, a, "ping")
		receive(t, b, "ping")
		took(t, began, 40*ms)
		send(t, b, "pong")
		receive(t, a, "pong")
		took(t, began, 110*ms)
		if err := l.Set(Profile{}); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		send(t, a, "ping")
		receive(t, b, "ping")
		took(t, began, 0)
		began = time.Now()
		_ = a.Close()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the end is not passed on: %v", err)
		}
		took(t, began, 0)
		s := l.Stats()
		if s.Accepted != 1 || s.Up.Bytes != 13 || s.Down.Bytes != 4 || s.Up.Chunks != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

// All connections share the rate of a direction.
func TestRateIsShared(t *testing.T) {
	inMemory(t, Config{Profile: Profile{Up: Direction{Rate: 1000}}}, func(t *testing.T, _ *Link, near, far *pipes) {
		began := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			a, b := both(t, near, far)
			wg.Go(func() { send(t, a, string(make([]byte, 500))) })
			wg.Go(func() { receive(t, b, string(make([]byte, 500))) })
		}
		wg.Wait()
		took(t, began, 2*time.Second)
	})
}

// A blackhole of one direction: the other goes on; what was taken arrives at its end, in
// order, the end of a connection too.
func TestBlackholeOfOneDirection(t *testing.T) {
	inMemory(t, Config{}, func(t *testing.T, l *Link, near, far *pipes) {
		a, b := both(t, near, far)
		c, d := both(t, near, far)
		send(t, a, "1")
		receive(t, b, "1")
		l.Update(func(p *Profile) { p.Up.Blackhole = true })
		send(t, a, "2")
		send(t, c, "x")
		_ = c.Close()
		silent(t, b, time.Minute)
		silent(t, d, time.Minute) // half-open: it is not told
		send(t, b, "answer")
		receive(t, a, "answer")
		l.Update(func(p *Profile) { p.Up.Blackhole = false })
		receive(t, b, "2")
		receive(t, d, "x")
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the end did not arrive: %v", err)
		}
	})
}

// Who connects into a blackhole is accepted and told nothing; the target never hears of those
// who gave up meanwhile.
func TestConnectIntoABlackhole(t *testing.T) {
	inMemory(t, Config{Profile: Both(Direction{Blackhole: true})}, func(t *testing.T, l *Link, near, far *pipes) {
		for range 10 {
			gaveUp, err := near.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			send(t, gaveUp, "hello?")
			silent(t, gaveUp, time.Second)
			_ = gaveUp.Close()
		}
		synctest.Wait()
		if s := l.Stats(); s.Open != 0 || s.Accepted != 10 {
			t.Errorf("P8: %+v", s)
		}
		patient, err := near.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		send(t, patient, "hello")
		silent(t, patient, time.Hour)
		_ = l.Set(Profile{})
		receive(t, <-far.conns, "hello")
		select {
		case <-far.conns:
			t.Error("somebody who gave up arrived")
		default:
		}
	})
}

// P8: what is on its way is bounded; who sends more waits, and the others do not.
func TestBufferIsBounded(t *testing.T) {
	const buffer = 64 << 10
	inMemory(t, Config{Buffer: buffer, Profile: Profile{Up: Direction{Blackhole: true}}}, func(t *testing.T, l *Link, near, far *pipes) {
		a, err := near.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 1<<20)
		for i := range text {
			text[i] = byte(rand.Uint32())
		}
		go func() { _, _ = a.Write(text) }()
		synctest.Wait()
		if w := l.Stats().Up.Waiting; w == 0 || w > buffer {
			t.Errorf("%d bytes wait, %d are allowed", w, buffer)
		}
		_ = l.Set(Both(Direction{Delay: dur(40 * ms), Jitter: dur(30 * ms), Loss: 0.05}))
		b := <-far.conns
		got := make([]byte, len(text))
		if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, text) {
			t.Errorf("not the same bytes in the same order: %v", err)
		}
		if l.Stats().Up.Repeated == 0 {
			t.Error("of a megabyte at 5 % no packet was lost")
		}
	})
}

// HalfOpen: the target's end is gone; who connected is told nothing, and its bytes vanish.
func TestHalfOpen(t *testing.T) {
	inMemory(t, Config{Buffer: 1000}, func(t *testing.T, l *Link, near, far *pipes) {
		a, b := both(t, near, far)
		send(t, a, "1")
		receive(t, b, "1")
		l.HalfOpen()
		if _, err := b.Read(make([]byte, 1)); err == nil {
			t.Error("the target's end lives")
		}
		for range 10 {
			send(t, a, string(make([]byte, 1000)))
		}
		silent(t, a, time.Hour)
		l.Cut()
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("still told nothing after Cut")
		}
		synctest.Wait()
		a, b = both(t, near, far) // newcomers are served
		send(t, b, "2")
		receive(t, a, "2")
		l.HalfOpen()
		_ = a.Close()
		synctest.Wait()
		if s := l.Stats(); s.Open != 0 {
			t.Errorf("P8: kept for nobody: %+v", s)
		}
	})
}

// Refuse, the limit, and a target that is not there: who connects is let go at once.
func TestNobodyIsKeptWaiting(t *testing.T) {
	ended := func(t *testing.T, near *pipes) {
		t.Helper()
		c, err := near.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("served")
		}
		synctest.Wait()
	}
	inMemory(t, Config{MaxConns: 1}, func(t *testing.T, l *Link, near, far *pipes) {
		_ = l.Set(Profile{Refuse: true})
		ended(t, near)
		_ = l.Set(Profile{})
		a, b := both(t, near, far)
		ended(t, near) // one too many
		_ = a.Close()
		_, _ = b.Read(make([]byte, 1))
		_ = b.Close()
		synctest.Wait()
		_ = far.Close()
		ended(t, near)
		if s := l.Stats(); s.Refused != 2 || s.Failed != 1 || s.Accepted != 4 || s.Open != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// overTCP runs a link to a real listener.
func overTCP(t *testing.T, p Profile) (l *Link, target net.Listener) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err = Listen("127.0.0.1:0", target.Addr().String(), p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		_ = target.Close()
	})
	return l, target
}

func tcpPair(t *testing.T, l *Link, target net.Listener) (a, b *net.TCPConn) {
	t.Helper()
	x, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	y, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close(); _ = y.Close() })
	send(t, x, "hello")
	receive(t, y, "hello") // the link has both ends by now
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// Over TCP: one direction may end while the other goes on, and a long answer is not cut short
// by the end of its connection.
func TestHalfCloseOverTCP(t *testing.T) {
	l, target := overTCP(t, Profile{})
	a, b := tcpPair(t, l, target)
	send(t, a, "question")
	_ = a.CloseWrite()
	if q, err := io.ReadAll(b); err != nil || string(q) != "question" {
		t.Fatalf("%q, %v", q, err)
	}
	text := bytes.Repeat([]byte("answer "), 1<<18)
	go func() {
		_, _ = b.Write(text)
		_ = b.Close()
	}()
	if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d of %d bytes, %v", len(got), len(text), err)
	}
}

// Over TCP: a reset is a reset on both sides, be it asked for, by chance or passed on.
func TestResetsOverTCP(t *testing.T) {
	l, target := overTCP(t, Profile{})
	isReset := func(what string, c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", what, err)
		}
	}
	a, b := tcpPair(t, l, target)
	l.Cut()
	isReset("cut, near", a)
	isReset("cut, far", b)
	a, b = tcpPair(t, l, target)
	_ = a.SetLinger(0)
	_ = a.Close()
	isReset("passed on", b)
	a, b = tcpPair(t, l, target)
	_ = l.Set(Profile{Up: Direction{Reset: 1}})
	send(t, a, "x")
	isReset("by chance, near", a)
	isReset("by chance, far", b)
	if s := l.Stats(); s.Broken != 3 {
		t.Errorf("%+v", s)
	}
}
