package wan

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one relayed connection. Four goroutines at most, all of them within run: a reader
// and a writer for each direction.
type conn struct {
	link   *Link
	ctx    context.Context // ends the connection, without ceremony
	cancel context.CancelFunc
	near   net.Conn // who connected
	half   atomic.Bool
	broke  atomic.Bool

	mu  sync.Mutex
	far net.Conn // the target, once connected
}

func newConn(ctx context.Context, l *Link, near net.Conn) *conn {
	c := &conn{link: l, near: near}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// abort resets both ends.
func (c *conn) abort() {
	if !c.broke.Swap(true) {
		c.link.broken.Add(1)
	}
	c.cancel()
}

// halve resets the far end only.
func (c *conn) halve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.half.Store(true)
	if c.far != nil {
		breakOff(c.far)
	}
}

func (c *conn) run() {
	var group sync.WaitGroup
	defer group.Wait()
	defer c.cancel()
	group.Go(func() { // so that nobody stays in a read or a write
		<-c.ctx.Done()
		breakOff(c.near)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.far != nil {
			breakOff(c.far)
		}
	})
	up := newWay(c, &c.link.up, true)
	p := c.link.Profile()
	began := time.Now()
	// Nothing arrives before the two ends have shaken hands.
	up.notBefore = began.Add(p.Up.Delay.D() + p.Down.Delay.D())
	gone := make(chan struct{})
	group.Go(func() {
		defer close(gone)
		up.fill(c.near)
	})
	far := c.dial(began, gone)
	if far == nil {
		up.clear()
		return
	}
	down := newWay(c, &c.link.down, false)
	group.Go(func() { down.fill(far) })
	var ways sync.WaitGroup
	ways.Go(func() { up.drain(far) })
	ways.Go(func() { down.drain(c.near) })
	ways.Wait()
	if c.ctx.Err() == nil { // both directions ended in good order
		_ = c.near.Close()
		_ = far.Close()
	}
}

// dial connects to the target when the wish to do so would have arrived there. Who gives up
// before, in a blackhole, was never heard of.
func (c *conn) dial(began time.Time, gone <-chan struct{}) net.Conn {
	for {
		p, changed := c.link.now()
		if !p.Up.Blackhole {
			wait(c.ctx, time.Until(began.Add(p.Up.Delay.D())))
			break
		}
		select {
		case <-changed:
		case <-gone:
			return nil
		case <-c.ctx.Done():
			return nil
		}
	}
	if c.ctx.Err() != nil {
		return nil
	}
	far, err := c.link.cfg.Dial(c.ctx)
	if err != nil {
		c.link.failed.Add(1)
		c.link.cfg.Logger.Debug("the target cannot be reached", "error", err)
		p := c.link.Profile()
		wait(c.ctx, p.Down.Delay.D())
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.far = far
	if c.ctx.Err() != nil || c.half.Load() {
		breakOff(far)
	}
	return far
}

// chunk is some bytes on their way, or the end of them.
type chunk struct {
	bytes  []byte
	leaves time.Time
	end    bool // the sender has no more
	reset  bool // the connection breaks
}

// weight is what the chunk costs of the buffer: small ones are not free.
func (c *chunk) weight() int { return len(c.bytes) + 64 }

// way is one direction of a connection: a bounded queue between its reader (fill) and its
// writer (drain).
type way struct {
	conn      *conn
	line      *line
	up        bool
	notBefore time.Time // belongs to fill
	last      time.Time // belongs to fill
	more      chan struct{}
	room      chan struct{}

	mu     sync.Mutex
	queue  []chunk
	weight int
}

func newWay(c *conn, on *line, up bool) *way {
	return &way{conn: c, line: on, up: up, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// fill reads until the sender ends or the connection does.
func (w *way) fill(from net.Conn) {
	buf := make([]byte, ChunkBytes)
	for {
		n, err := from.Read(buf)
		if n > 0 && !w.push(chunk{bytes: append([]byte(nil), buf[:n]...)}) {
			return
		}
		if err != nil {
			w.push(chunk{end: errors.Is(err, io.EOF), reset: !errors.Is(err, io.EOF)})
			return
		}
	}
}

// push puts a chunk into the queue once there is room; false when the connection has ended.
func (w *way) push(c chunk) bool {
	now := time.Now()
	if now.Before(w.notBefore) {
		now = w.notBefore
	}
	f := w.conn.link.plan(w.up, w.line, len(c.bytes), now, w.last)
	c.leaves, w.last = f.leaves, f.leaves
	if len(c.bytes) > 0 {
		c.reset = f.reset
		w.line.repeats.Add(int64(f.repeats))
	}
	for {
		w.mu.Lock()
		fits := w.weight == 0 || w.weight+c.weight() <= w.conn.link.cfg.Buffer
		if fits {
			w.queue = append(w.queue, c)
			w.weight += c.weight()
			w.line.waiting.Add(int64(len(c.bytes)))
		}
		w.mu.Unlock()
		if fits {
			signal(w.more)
			return true
		}
		select {
		case <-w.room:
		case <-w.conn.ctx.Done():
			return false
		}
	}
}

// drain writes what is due until the end was passed on or the connection ends.
func (w *way) drain(to net.Conn) {
	defer w.clear()
	for {
		c, ok := w.head()
		if !ok {
			return
		}
		half := w.conn.half.Load()
		switch {
		case half && !w.up: // the far end is gone, and nobody is told
			<-w.conn.ctx.Done()
			return
		case c.reset, c.end && half:
			w.conn.abort()
			return
		case c.end:
			w.pop()
			closeWrite(to)
			return
		}
		_, err := to.Write(c.bytes)
		w.pop()
		switch {
		case err == nil:
			w.line.bytes.Add(int64(len(c.bytes)))
			w.line.chunks.Add(1)
		case !w.conn.half.Load():
			w.conn.abort()
			return
		}
	}
}

// head waits for the first chunk to be due; false when the connection has ended.
func (w *way) head() (chunk, bool) {
	for w.conn.ctx.Err() == nil {
		w.mu.Lock()
		var first chunk
		any := len(w.queue) > 0
		if any {
			first = w.queue[0]
		}
		w.mu.Unlock()
		if !any {
			select {
			case <-w.more:
			case <-w.conn.ctx.Done():
			}
			continue
		}
		p, changed := w.conn.link.now()
		if p.direction(w.up).Blackhole {
			select {
			case <-changed:
			case <-w.conn.ctx.Done():
			}
			continue
		}
		left := time.Until(first.leaves)
		if left <= 0 {
			return first, true
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-changed:
		case <-w.conn.ctx.Done():
		}
		t.Stop()
	}
	return chunk{}, false
}

func (w *way) pop() {
	w.mu.Lock()
	c := w.queue[0]
	w.queue[0] = chunk{}
	w.queue = w.queue[1:]
	w.weight -= c.weight()
	w.mu.Unlock()
	w.line.waiting.Add(-int64(len(c.bytes)))
	signal(w.room)
}

// clear forgets what was on its way when the connection ended.
func (w *way) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.queue {
		w.line.waiting.Add(-int64(len(c.bytes)))
	}
	w.queue, w.weight = nil, w.conn.link.cfg.Buffer+1 // nothing fits any more
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// closeWrite says that no more comes, where the connection can say so by itself.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

// breakOff closes a connection so that its other end meets a reset, not an end in good
// order. One that ended in good order before keeps that.
func breakOff(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
