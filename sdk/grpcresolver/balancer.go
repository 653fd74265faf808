package grpcresolver

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/nearside/nearside/sdk/api"
)

// Name is the balancer's in service configs. The resolver names it by itself.
const Name = "nearside"

// gRPC knows balancers by name only, from a table of the process that may be written in init
// alone. So this one registers there; it has no state, a channel's client and options come
// with the resolver's state.
func init() { balancer.Register(balancerBuilder{}) }

type balancerBuilder struct{}

func (balancerBuilder) Name() string { return Name }

func (balancerBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &tierBalancer{cc: cc, conns: map[key]*conn{}}
}

// tierBalancer keeps the connections of one channel: which ones there should be is plan's
// word, which of them a call takes the client's. gRPC calls it one call at a time; its timer
// comes beside.
type tierBalancer struct {
	cc balancer.ClientConn

	mu     sync.Mutex
	closed bool
	told   *told // nil before the first answer
	rank   func(key) uint64
	conns  map[key]*conn
	view   map[key]*conn // what pickers look at: conns as it was when one came or went last; nil = make it
	err    error         // why there is no connection, or no answer yet
	timer  *time.Timer
}

// UpdateClientConnState takes over what the resolver tells.
func (b *tierBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	t, _ := s.ResolverState.Attributes.Value(toldKey{}).(*told)
	if t == nil {
		b.ResolverError(errors.New("grpcresolver: the balancer works with the resolver of this package only: give the channel DialOptions or NewBuilder"))
		return nil
	}
	b.change(func(time.Time) func() {
		if b.told == nil {
			b.rank, b.err = rankBy(t.set.seed), nil
		}
		b.told = t
		return nil
	})
	return nil
}

// ResolverError tells why there is no answer (any more). One that was given stays.
func (b *tierBalancer) ResolverError(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.told != nil {
		return
	}
	b.err = err
	b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: base.NewErrPicker(err)})
}

// UpdateSubConnState is not called: every connection has a listener.
func (b *tierBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle does nothing: what is wanted is connected to all the time.
func (b *tierBalancer) ExitIdle() {}

// Close gives up all connections; calls that run on them may end.
func (b *tierBalancer) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	for _, c := range b.conns {
		c.sc.Shutdown()
	}
	b.conns = nil
}

// change makes a change under the lock and draws the consequences. What do returns is called
// afterwards, without the lock.
func (b *tierBalancer) change(do func(now time.Time) (after func())) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	now := time.Now()
	after := do(now)
	if b.told != nil {
		b.settle(now)
		b.show(now)
		b.wake(now)
	}
	b.mu.Unlock()
	if after != nil {
		after()
	}
}

// moved takes over the state of a connection.
func (b *tierBalancer) moved(c *conn, s balancer.SubConnState) {
	b.change(func(now time.Time) func() {
		if b.conns[keyOf(&c.endpoint)] != c {
			return nil // replaced or dropped
		}
		failed := c.move(s.ConnectivityState, now)
		if s.ConnectivityState == connectivity.Idle && c.left.IsZero() {
			c.sc.Connect()
		}
		if !failed {
			return nil
		}
		b.err = s.ConnectionError
		return b.dialFailed(c)
	})
}

// dialFailed returns what tells the client that an instance cannot be connected to.
func (b *tierBalancer) dialFailed(c *conn) func() {
	t, e, address := b.told, c.endpoint, c.address
	return func() { t.set.client.DialFailed(t.service, e, address) }
}

// tick lets time pass: connections that take too long, and ones left for long enough.
func (b *tierBalancer) tick() {
	b.change(func(now time.Time) func() {
		var late []func()
		for _, c := range b.conns {
			if c.left.IsZero() && c.connecting() && now.Sub(c.since) >= connectLimit {
				c.failed = true
				b.err = fmt.Errorf("%s did not finish the handshake within %s", c.address, connectLimit)
				late = append(late, b.dialFailed(c))
			}
		}
		return func() {
			for _, f := range late {
				f()
			}
		}
	})
}

// settle makes the connections what they should be.
func (b *tierBalancer) settle(now time.Time) {
	lost := func(k key) bool { c := b.conns[k]; return c != nil && c.stalled(now) }
	set, res := b.told.set, &b.told.res
	w := plan(res, lost, set.warm, set.maxConns, b.rank)
	for _, c := range b.conns {
		c.needed, c.warm = false, false
	}
	for _, e := range w.needed {
		b.want(e, res, now).needed = true
	}
	// Warm connections wait for the needed ones: while those are being made nothing else
	// should be taken, and the network is theirs.
	if len(w.warm) > 0 && b.served(now) {
		for _, e := range w.warm {
			b.want(e, res, now).warm = true
		}
	}
	for k, c := range b.conns {
		switch {
		case c.needed || c.warm:
			continue
		case c.left.IsZero():
			c.left = now
		}
		if !c.ready || now.Sub(c.left) >= leaveAfter {
			b.drop(k, c)
		}
	}
}

// served reports that calls need not wait for a connection.
func (b *tierBalancer) served(now time.Time) bool {
	fresh := false
	for _, c := range b.conns {
		if c.needed && c.ready {
			return true
		}
		fresh = fresh || (c.needed && !c.stalled(now))
	}
	return !fresh
}

// want returns the connection to an endpoint, and makes it if there is none. One that failed
// while the endpoint was a last resort is made anew when that is over: the client has dialed
// it with success, and gRPC's backoff would let it wait.
func (b *tierBalancer) want(e *api.Endpoint, res *api.Resolution, now time.Time) *conn {
	k, address := keyOf(e), addressOf(e)
	lastResort := res.Decision.Tiers[e.Tier].Kind == api.TierOverflow
	if c := b.conns[k]; c != nil {
		if c.address == address && !(c.failed && c.lastResort && !lastResort) {
			c.endpoint, c.lastResort, c.left = *e, lastResort, time.Time{}
			return c
		}
		b.drop(k, c)
	}
	c := &conn{endpoint: *e, address: address, since: now, lastResort: lastResort}
	//lint:ignore SA1019 there is no other way to make one, and each of ours has one address
	sc, err := b.cc.NewSubConn([]resolver.Address{{Addr: address}}, balancer.NewSubConnOptions{
		HealthCheckEnabled: true, // if the service config has a healthCheckConfig
		StateListener:      func(s balancer.SubConnState) { b.moved(c, s) },
	})
	if err != nil { // the channel is closing
		b.err = err
		return c
	}
	c.sc = sc
	b.conns[k], b.view = c, nil
	sc.Connect()
	return c
}

func (b *tierBalancer) drop(k key, c *conn) {
	c.usable.Store(false)
	c.sc.Shutdown()
	delete(b.conns, k)
	b.view = nil
}

// show gives gRPC a picker of what there is now.
func (b *tierBalancer) show(now time.Time) {
	served := b.served(now)
	p := &picker{set: b.told.set, service: b.told.service}
	for _, c := range b.conns {
		usable := c.ready && (c.needed || served)
		c.usable.Store(usable)
		p.serves = p.serves || (usable && c.needed)
		p.waiting = p.waiting || (c.needed && c.connecting())
	}
	state := connectivity.Ready
	switch {
	case p.serves:
	case p.waiting:
		state = connectivity.Connecting
	default:
		state, p.reason = connectivity.TransientFailure, b.reason()
	}
	if b.view == nil {
		b.view = maps.Clone(b.conns)
	}
	p.conns = b.view
	p.ok = p.usable
	b.cc.UpdateState(balancer.State{ConnectivityState: state, Picker: p})
}

// reason says why a call finds no connection.
func (b *tierBalancer) reason() error {
	res := &b.told.res
	if len(res.Endpoints) == 0 {
		return fmt.Errorf("nearside: service %s: %s: %s", b.told.service, res.Decision.Reason, res.Decision.Detail)
	}
	err := b.err
	if err == nil {
		err = errors.New("none was made")
	}
	// Not wrapped: an error that is a status would end calls that wait for ready.
	return fmt.Errorf("nearside: service %s: no connection to any of its %d instances (%s); the last error: %v",
		b.told.service, len(res.Endpoints), res.Decision.Detail, err)
}

// wake sets the timer for what comes next by itself.
func (b *tierBalancer) wake(now time.Time) {
	var next time.Time
	for _, c := range b.conns {
		if at := c.due(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	switch {
	case next.IsZero():
		if b.timer != nil {
			b.timer.Stop()
		}
	case b.timer == nil:
		b.timer = time.AfterFunc(next.Sub(now), b.tick)
	default:
		b.timer.Reset(next.Sub(now))
	}
}
