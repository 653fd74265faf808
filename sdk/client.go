package nearside

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/node"
	"github.com/nearside/nearside/sdk/internal/view"
)

// Waits of a first use of a service.
const (
	firstUse     = 2 * time.Second       // for a registry, when nothing else is known
	snapshotUse  = 80 * time.Millisecond // for a registry, when a snapshot can stand in
	oldSnapshot  = 24 * time.Hour        // from which age on it is the last resort, after firstUse
	failedAgain  = time.Second           // for which callers fail at once after one waited in vain
	closeTimeout = 3 * time.Second       // for deregistrations in Close, besides their drain
)

// maxServices bounds the services of one client.
const maxServices = 16 * api.MaxWatchServices

// Client finds services and registers programs. It is safe for concurrent use. One per
// program is enough: it holds one watch for all services.
type Client struct {
	cfg    Config
	caller *node.Caller
	nodes  *directory
	tel    *telemetry
	born   time.Time
	now    func() moment // see wake.go
	notes  chan struct{} // a breaker moved; see keeper
	budget budget
	hedges quota
	snap   *snapshots // nil without a directory
	base   *http.Transport
	secure secure   // beside base, for https
	done   []func() // at the end of Close
	most   int      // services; maxServices, but in tests

	tickets sync.Pool // of *ticket

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	services atomic.Pointer[map[string]*service] // by the name asked for; replaced under mu

	mu         sync.Mutex
	closed     bool
	watchers   []*watcher
	left       view.Image // what watchers that ended knew of the regions; see watcher.drop
	registered map[*Registered]struct{}
}

// New returns a client. It does not wait for the network, and a registry that is away is
// no error here. An error means that cfg is wrong. The caller must Close the client.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, nodes: newDirectory(cfg), born: time.Now(), notes: make(chan struct{}, 1),
		registered: map[*Registered]struct{}{}, base: newBase(), most: maxServices,
	}
	c.now = c.moment
	c.secure.cfg = cfg.ServiceTLS
	c.done = append(c.done, c.base.CloseIdleConnections, c.secure.close)
	if c.tel, err = newTelemetry(cfg); err != nil {
		return nil, fmt.Errorf("nearside: %w", err)
	}
	c.caller = &node.Caller{Token: cfg.Token}
	if cfg.HTTPClient != nil {
		own := *cfg.HTTPClient
		own.Timeout = 0 // it would cut every watch
		c.caller.HTTP = &own
	} else {
		var closeIdle func()
		c.caller.HTTP, closeIdle = node.NewHTTPClient()
		c.done = append(c.done, closeIdle)
	}
	c.services.Store(&map[string]*service{})
	c.budget.init(cfg.RetryBudget)
	c.hedges.share, c.hedges.tokens = cfg.Hedge.MaxShare, hedgeReserve
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.SnapshotDir != "" {
		c.snap = newSnapshots(c)
		c.snap.load()
		c.wg.Go(func() { c.snap.run(c.ctx) })
	}
	c.wg.Go(func() { c.keep(c.ctx) })
	return c, nil
}

// Close deregisters what the client registered and has not closed yet (each drains first;
// three seconds are the most it takes besides), stops all watches and loops, and writes
// the snapshot. Nothing of the client runs afterwards. Closing again is no error.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.wg.Wait()
		return nil
	}
	c.closed = true
	open := make([]*Registered, 0, len(c.registered))
	for r := range c.registered {
		open = append(open, r)
	}
	c.mu.Unlock()

	var err error
	var group sync.WaitGroup
	var errMu sync.Mutex
	for _, r := range open {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), r.drainDelay()+closeTimeout)
			defer cancel()
			if e := r.Close(ctx); e != nil {
				errMu.Lock()
				err = e
				errMu.Unlock()
			}
		})
	}
	group.Wait()
	c.cancel()
	c.wg.Wait()
	c.snap.finish()
	for _, f := range c.done {
		f()
	}
	return err
}

// Home returns the home region; "" while it is neither configured nor learned.
func (c *Client) Home() api.Region { return c.nodes.homeRegion() }

// clock is the client's own monotonic time.
func (c *Client) clock() time.Duration { return time.Since(c.born) }

// service returns the service of a name ("orders" or "orders.namespace"), and starts to
// watch it when it is new.
func (c *Client) service(name string) (*service, error) {
	if s := (*c.services.Load())[name]; s != nil {
		return s, nil
	}
	key, err := parse(name, c.cfg.Namespace)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	known := *c.services.Load()
	if s := known[name]; s != nil {
		return s, nil
	}
	if len(known) >= c.most {
		if !c.makeRoomLocked() {
			return nil, fmt.Errorf("service %s: %w (%d)", key, ErrTooManyServices, c.most)
		}
		known = *c.services.Load()
	}
	var s *service
	for _, other := range known { // the same service under its other name, if it was not let go just now
		if other.key == key {
			s = other
		}
	}
	if s == nil {
		s = c.watcherLocked(key.Namespace).want(key)
		s.use.last = c.clock()
	}
	next := maps.Clone(known)
	next[name] = s
	c.services.Store(&next)
	return s, nil
}

// parse returns the service that a name means.
func parse(name string, space api.Namespace) (api.ServiceKey, error) {
	service, ns, dotted := strings.Cut(name, ".")
	key := api.ServiceKey{Service: api.ServiceName(service), Namespace: space}
	if dotted {
		key.Namespace = api.Namespace(ns)
	}
	if err := api.CheckServiceName(service); err != nil {
		return key, err
	}
	return key, api.CheckNamespace(string(key.Namespace))
}

// watcherLocked returns a watcher of the namespace that has room: a watch is for one
// namespace, and for so many services.
func (c *Client) watcherLocked(ns api.Namespace) *watcher {
	for _, w := range c.watchers {
		if w.ns == ns && w.room() {
			return w
		}
	}
	w := newWatcher(c, ns)
	ctx, cancel := context.WithCancel(c.ctx)
	w.cancel = cancel
	c.watchers = append(c.watchers, w)
	c.wg.Go(func() { w.run(ctx) })
	return w
}

// each returns the watchers and services of the moment.
func (c *Client) each() []*watcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watchers[:len(c.watchers):len(c.watchers)]
}

// current returns the service's answer. The first use waits for it, see doc.go.
func (c *Client) current(ctx context.Context, name string) (*service, *answer, error) {
	for {
		s, err := c.service(name)
		if err != nil {
			return nil, nil, err
		}
		s.use.note()
		if !s.settled.Load() {
			if !s.use.hold() {
				continue // it was let go in the moment it was asked for
			}
			err := s.wait(ctx)
			s.use.release()
			if err != nil {
				return s, nil, err
			}
		}
		if c.ctx.Err() != nil {
			return s, nil, ErrClosed
		}
		return s, s.answer.Load(), nil
	}
}

// wait waits for the first answer of a registry, or for the moment when a snapshot may
// stand in for it.
func (s *service) wait(ctx context.Context) error {
	if ctx == nil {
		return errNoContext
	}
	c := s.c
	if c.ctx.Err() != nil {
		return ErrClosed // whatever else it could say
	}
	limit := firstUse
	var tried <-chan struct{}
	if s.answer.Load() != nil {
		tried = s.tried
		if !s.old {
			limit = snapshotUse
		}
	} else if int64(c.clock()) < s.failUntil.Load() {
		return fmt.Errorf("service %s: %w", s.key, s.w.unreachable())
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.ready:
		return nil
	case <-tried:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("service %s: no registry answered yet: %w", s.key, ctx.Err())
	case <-c.ctx.Done():
		return ErrClosed
	}
	if s.answer.Load() != nil {
		s.settled.Store(true)
		return nil
	}
	s.failUntil.Store(int64(c.clock() + failedAgain))
	return fmt.Errorf("service %s: %w", s.key, s.w.unreachable())
}
