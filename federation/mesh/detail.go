package mesh

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// detailTick is how often it is looked which details are wanted.
	detailTick = 500 * time.Millisecond
	// detailRetry is how soon an origin is asked again that could not be, and detailRefused one that
	// answered no: it is older, or the service too large.
	detailRetry   = 2 * time.Second
	detailRefused = time.Minute
	// maxUses bounds what is remembered of uses.
	maxUses = 4096
)

// details are the services of other regions that are known whole while they are used. Lookup and
// Serving are called on every resolve.
type details struct {
	mesh *Mesh
	born time.Time

	mu   sync.RWMutex
	uses map[detailKey]*marks
	open map[detailKey]*detail
	some atomic.Bool // open is not empty: most of the time nothing is served from elsewhere
}

// marks are the times of a use, since born.
type marks struct{ first, last atomic.Int64 }

// detail is one service that is read whole.
type detail struct {
	cancel context.CancelFunc
	seen   atomic.Int64 // when a byte came, since born

	mu    sync.Mutex
	list  *peer.Detail // nil while nothing holds
	row   *api.Summary // of which, with list, whole was made
	whole *api.Summary
}

func newDetails(m *Mesh) *details {
	return &details{mesh: m, born: time.Now(), uses: make(map[detailKey]*marks), open: make(map[detailKey]*detail)}
}

// Serving notes that callers of this region are sent to a service in another one. While that goes
// on, all instances of it are known here, if that region's federation answers. It costs next to nothing.
func (m *Mesh) Serving(key api.ServiceKey, origin api.Region) { m.details.use(detailKey{origin, key}) }

func (d *details) use(k detailKey) {
	now := int64(time.Since(d.born))
	d.mu.RLock()
	u := d.uses[k]
	d.mu.RUnlock()
	if u != nil {
		if now-u.last.Load() >= int64(time.Second) {
			u.last.Store(now)
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uses[k] == nil && len(d.uses) < maxUses {
		u = &marks{}
		u.first.Store(now)
		u.last.Store(now)
		d.uses[k] = u
	}
}

// get returns the open detail of a service, nil when there is none.
func (d *details) get(k detailKey) *detail {
	if !d.some.Load() {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.open[k]
}

// count returns how many services of a region are known whole now.
func (d *details) count(origin api.Region) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for k, s := range d.open {
		if k.origin == origin && s.holds() {
			n++
		}
	}
	return n
}

func (s *detail) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list != nil
}

// of returns the row of a service with all its usable instances, when they are known to be at least
// as new as the row, and the row otherwise.
func (d *details) of(l *link, key api.ServiceKey, v *replica.View, e *replica.Entry) *api.Summary {
	s := d.get(detailKey{l.peer, key})
	// A row that is held back shows more than the origin says that there is.
	if s == nil || v.Truth.Get(key) != e || e.Quarantined != "" {
		return e.Summary
	}
	if time.Since(d.born)-time.Duration(s.seen.Load()) > peer.SilenceLimit {
		return e.Summary
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Where nothing is usable the row has what may be tried all the same.
	if s.list == nil || s.list.Epoch != v.Version.Epoch || s.list.Revision < e.Revision || s.list.Passing == 0 {
		return e.Summary
	}
	if s.row != e.Summary || s.whole == nil {
		whole := *e.Summary
		whole.Endpoints, whole.Complete, whole.Revision = s.list.Endpoints, true, s.list.Revision
		whole.Total, whole.Passing, whole.Draining = s.list.Total, s.list.Passing, s.list.Draining
		s.row, s.whole = e.Summary, &whole
	}
	return s.whole
}

// take makes a list, nil = none, what is shown.
func (s *detail) take(list *peer.Detail) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.list != list
	s.list, s.whole = list, nil
	return changed
}

// run opens and closes details until ctx ends.
func (d *details) run(ctx context.Context) {
	t := time.NewTicker(detailTick)
	defer t.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-t.C:
			d.settle(ctx, &wg)
		case <-ctx.Done():
			return
		}
	}
}

// settle opens what is wanted and closes what is not.
func (d *details) settle(ctx context.Context, wg *sync.WaitGroup) {
	now := time.Since(d.born)
	d.mu.Lock()
	var uses []use
	for k, u := range d.uses {
		x := use{k, time.Duration(u.first.Load()), time.Duration(u.last.Load())}
		if now-x.last >= detailHold {
			delete(d.uses, k)
			continue
		}
		uses = append(uses, x)
	}
	keys := want(now, uses, func(k detailKey) bool { return d.open[k] != nil })
	closed := false
	for k, s := range d.open {
		if !slices.Contains(keys, k) {
			s.cancel()
			closed = closed || s.holds()
			delete(d.open, k)
		}
	}
	for _, k := range keys {
		l := d.mesh.by(k.origin)
		if d.open[k] != nil || l == nil {
			continue
		}
		over, cancel := context.WithCancel(ctx)
		s := &detail{cancel: cancel}
		d.open[k] = s
		wg.Go(func() {
			defer cancel()
			d.follow(over, l, k, s)
		})
	}
	d.some.Store(len(d.open) > 0)
	d.mu.Unlock()
	if closed {
		d.mesh.announce()
	}
}

// follow reads a service until ctx ends.
func (d *details) follow(ctx context.Context, l *link, k detailKey, s *detail) {
	ring := peer.NewRing(l.addresses)
	for told := false; ; {
		err := d.read(ctx, ring, l, k, s)
		if s.take(nil) {
			d.mesh.announce()
		}
		if ctx.Err() != nil {
			return
		}
		pause := detailRetry
		// Full counts as a no: its places are taken for as long as somebody's failure lasts.
		if said := new(api.Error); peer.Offended(err) || errors.As(err, &said) && said.Code == api.CodeTooManyRequests {
			pause = detailRefused
			if !told {
				told = true
				l.log.Warn("the region does not tell a service whole that it serves for us; its fail-over set is used", "service", k.service, "error", err)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// read follows one stream. It returns why it ended.
func (d *details) read(ctx context.Context, ring *peer.Ring, l *link, k detailKey, s *detail) error {
	var stream *peer.DetailStream
	_, err := ring.Try(ctx, func(ctx context.Context, address string) (err error) {
		q := peer.Query{Reader: d.mesh.cfg.Region, Node: d.mesh.cfg.Node, Origin: k.origin, Own: d.mesh.cfg.Source.Image().Version().Epoch}
		stream, err = d.mesh.client.OpenDetail(ctx, address, q, k.service, func(int) { s.seen.Store(int64(time.Since(d.born))) })
		return err
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		list, err := stream.Next()
		if err != nil {
			if errors.Is(err, replica.ErrMalformed) {
				ring.Skip()
			}
			return err
		}
		s.take(list)
		d.mesh.announce()
	}
}
