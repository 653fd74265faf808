package wan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of a Config.
const (
	DefaultBuffer   = 1 << 20
	DefaultMaxConns = 1024
)

// Config configures a Link. Listener and Dial are required.
type Config struct {
	// Listener gives the connections that are relayed; Run closes it.
	Listener net.Listener
	// Dial connects to the target; its ctx ends with the connection that it is for.
	Dial    func(ctx context.Context) (net.Conn, error)
	Profile Profile
	// Buffer bounds the bytes that are on their way, per connection and direction; whoever
	// sends more waits. Default DefaultBuffer. With a delay it bounds the throughput, as the
	// window of TCP does: Buffer / delay.
	Buffer int
	// MaxConns bounds the connections; more are reset. Default DefaultMaxConns.
	MaxConns int
	// Seed of jitter, loss and reset; 0 = one of its own.
	Seed   uint64
	Logger *slog.Logger // nil = none
}

// Link is a relay. Safe for concurrent use.
type Link struct {
	cfg     Config
	running atomic.Bool

	open, accepted, refused, failed, broken atomic.Int64

	mu      sync.Mutex
	profile Profile
	changed chan struct{} // closed and replaced when profile is
	dice    *rand.Rand
	conns   map[*conn]struct{}
	up      line
	down    line
}

// line is one direction of the link. free belongs to the link's mutex.
type line struct {
	free    time.Time
	bytes   atomic.Int64 // delivered
	chunks  atomic.Int64
	repeats atomic.Int64
	waiting atomic.Int64 // bytes on their way
}

// New returns a link; nothing is accepted before Run.
func New(cfg Config) (*Link, error) {
	if cfg.Listener == nil || cfg.Dial == nil {
		return nil, errors.New("a link needs a listener and a way to its target")
	}
	if err := cfg.Profile.Check(); err != nil {
		return nil, err
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = DefaultBuffer
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{
		cfg: cfg, profile: cfg.Profile, changed: make(chan struct{}), dice: rand.New(rand.NewPCG(cfg.Seed, 0)),
		conns: make(map[*conn]struct{}),
	}, nil
}

// Listen returns a link that listens on a TCP address and leads to another one.
func Listen(address, target string, p Profile) (*Link, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("link to %s: %s is in use by another program; choose another port, or 0 for a free one", target, address)
		}
		return nil, fmt.Errorf("link to %s: %w", target, err)
	}
	link, err := New(Config{Listener: l, Profile: p, Dial: DialTCP(target)})
	if err != nil {
		_ = l.Close() // never used
	}
	return link, err
}

// DialTCP returns a Config's Dial.
func DialTCP(target string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", target)
	}
}

// Addr returns where the link listens.
func (l *Link) Addr() string { return l.cfg.Listener.Addr().String() }

// Run relays until ctx ends, and then returns nil once every connection is closed. Another
// error is that of the listener. It may be called once.
func (l *Link) Run(ctx context.Context) error {
	if l.running.Swap(true) {
		return errors.New("a link runs once")
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.cfg.Listener.Close() })
	var pumps sync.WaitGroup
	defer pumps.Wait()
	defer cancel()
	defer func() {
		if stop() {
			_ = l.cfg.Listener.Close()
		}
	}()
	for {
		near, err := l.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				breakOff(near)
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, or gone before we came: neither is ours to end for
			l.cfg.Logger.Warn("no connection could be accepted", "error", err)
			wait(ctx, 20*time.Millisecond)
			continue
		}
		c := l.admit(ctx, near)
		if c == nil {
			breakOff(near)
			continue
		}
		pumps.Go(func() {
			c.run()
			l.forget(c)
		})
	}
}

func (l *Link) admit(ctx context.Context, near net.Conn) *conn {
	l.accepted.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.profile.Refuse || len(l.conns) >= l.cfg.MaxConns {
		l.refused.Add(1)
		return nil
	}
	c := newConn(ctx, l, near)
	l.conns[c] = struct{}{}
	l.open.Add(1)
	return c
}

func (l *Link) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.open.Add(-1)
}

// Profile returns what the link does now.
func (l *Link) Profile() Profile {
	p, _ := l.now()
	return p
}

// now returns the profile, and a channel that is closed when it changes.
func (l *Link) now() (Profile, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.profile, l.changed
}

// Set changes what the link does, for open connections too. What is on its way arrives when
// it was planned to; a blackhole holds that up as well. It returns an *api.Error and changes
// nothing when p is out of range.
func (l *Link) Set(p Profile) error {
	if err := p.Check(); err != nil {
		return err
	}
	l.Update(func(now *Profile) { *now = p })
	return nil
}

// Update changes the profile in place: of several callers none undoes another's change. What
// change makes of it must be in range.
func (l *Link) Update(change func(*Profile)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.profile
	change(&p)
	if p == l.profile || p.Check() != nil {
		return
	}
	l.profile = p
	close(l.changed)
	l.changed = make(chan struct{})
}

// Cut resets all open connections; what is on its way in them is lost.
func (l *Link) Cut() { l.each((*conn).abort) }

// HalfOpen closes the target's end of all open connections, and tells those who connected
// nothing: as when a machine between them forgets the connection, or the target loses its power.
func (l *Link) HalfOpen() { l.each((*conn).halve) }

func (l *Link) each(f func(*conn)) {
	l.mu.Lock()
	all := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}

// plan decides about one chunk of a direction.
func (l *Link) plan(up bool, on *line, n int, now, last time.Time) flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.profile.direction(up).send(n, now, on.free, last, draw(l.dice))
	on.free = f.free
	return f
}

// Flow is what went one way.
type Flow struct {
	Bytes    int64 `json:"bytes"`    // delivered
	Chunks   int64 `json:"chunks"`   // that they came in
	Repeated int64 `json:"repeated"` // packets that counted as lost
	Waiting  int64 `json:"waiting"`  // bytes on their way now
}

// Stats are a link's figures since its begin.
type Stats struct {
	Open     int64 `json:"open"`     // connections now
	Accepted int64 `json:"accepted"` // connections at all
	Refused  int64 `json:"refused"`  // of these: reset at once, by Profile.Refuse or the limit
	Failed   int64 `json:"failed"`   // of these: the target could not be reached
	Broken   int64 `json:"broken"`   // of these: reset by Cut, by chance, or by one of its ends
	Up       Flow  `json:"up"`
	Down     Flow  `json:"down"`
}

// Stats returns the figures.
func (l *Link) Stats() Stats {
	flow := func(n *line) Flow {
		return Flow{Bytes: n.bytes.Load(), Chunks: n.chunks.Load(), Repeated: n.repeats.Load(), Waiting: n.waiting.Load()}
	}
	return Stats{
		Open: l.open.Load(), Accepted: l.accepted.Load(), Refused: l.refused.Load(), Failed: l.failed.Load(), Broken: l.broken.Load(),
		Up: flow(&l.up), Down: flow(&l.down),
	}
}

// wait returns when d is over or ctx ends, whichever comes first.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
