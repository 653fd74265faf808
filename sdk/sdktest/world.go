package sdktest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// TB is what this package needs of a *testing.T (or B or F). It is an interface of its own so
// that a program which imports this package does not get the flags of package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// World is one region or several that are linked, and the network that they and the
// programs of the test are on. Its methods are safe for concurrent use.
type World struct {
	t    TB // nil outside a test
	net  network
	base *http.Transport
	mem  bool

	closing sync.Once

	mu      sync.Mutex
	order   []*Region // as they were named
	regions map[api.Region]*Region
	cut     map[link]bool
	rtt     map[link]time.Duration
	changed chan struct{} // closed, and replaced, at every change of anything below a region
	clients []*nearside.Client
	closers []func()
	closed  bool
}

// link is the way between two regions, their names in order.
type link struct{ a, b api.Region }

func linkOf(a, b api.Region) link { return link{min(a, b), max(a, b)} }

// NewRegion starts a world of one region, on a loopback address. It ends with the test; when t
// is nil, with Close.
func NewRegion(t TB, name api.Region) *Region {
	if t != nil {
		t.Helper()
	}
	return NewWorld(t, name).order[0]
}

// NewWorld starts regions that are linked with each other, on loopback addresses. At first
// each is 20 ms of round-trip time farther from its neighbours in the order of the names than
// from itself; see SetDistance. The world ends with the test; when t is nil, with Close.
func NewWorld(t TB, names ...api.Region) *World {
	if t != nil {
		t.Helper()
	}
	return newWorld(t, loopback{}, names)
}

// NewMemoryWorld is NewWorld on a network inside the process: no socket is opened, and all
// that waits can be seen by testing/synctest. Region.Config has what the client needs for
// it. Calls of services need it too: client.Transport(world.Transport()).
//
// In a bubble of testing/synctest call it, and everything else, inside the bubble.
func NewMemoryWorld(t TB, names ...api.Region) *World {
	if t != nil {
		t.Helper()
	}
	return newWorld(t, &memory{listeners: map[string]*memoryListener{}}, names)
}

func newWorld(t TB, n network, names []api.Region) *World {
	w := &World{
		t: t, net: n, base: transportOver(n), regions: map[api.Region]*Region{}, cut: map[link]bool{},
		rtt: map[link]time.Duration{}, changed: make(chan struct{}),
	}
	_, w.mem = n.(*memory)
	if t != nil {
		t.Helper()
		t.Cleanup(w.Close)
	}
	if len(names) == 0 {
		w.fail("sdktest: a world needs a region: name at least one, such as \"eu-west\"")
	}
	for i, name := range names {
		if err := api.CheckRegion(string(name)); err != nil {
			w.fail("sdktest: %v", err)
		}
		if w.regions[name] != nil {
			w.fail("sdktest: region %s is named twice", name)
		}
		r := &Region{
			w: w, name: name, epoch: api.Epoch{Generation: 1, Nonce: nonce(name, 1)}, revision: 1,
			records: map[api.InstanceKey]*record{}, rows: map[api.ServiceKey]*api.Summary{},
			policies: map[api.ServiceKey]*api.PolicyRecord{}, drains: map[api.Region]*api.RegionDrain{}, far: map[api.Region]*replica{},
			classes: map[api.ServiceKey]int{},
		}
		address := ""
		if w.mem {
			address = string(name) + ".registry.memory:7400"
		}
		var err error
		if r.server, err = startServer(n, address, r.handler()); err != nil {
			w.fail("sdktest: region %s: %v", name, err)
		}
		for k, other := range w.order {
			w.rtt[linkOf(name, other.name)] = time.Duration(i-k) * 20 * time.Millisecond
		}
		w.order, w.regions[name] = append(w.order, r), r
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.linksLocked()
	return w
}

// nonce makes the epochs of a region its own, and the same in each run.
func nonce(name api.Region, generation uint64) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%d", name, generation)
	return h.Sum64()
}

// fail ends the test; without one it panics. It does not return.
func (w *World) fail(format string, args ...any) {
	if w.t == nil {
		panic(fmt.Sprintf(format, args...))
	}
	w.t.Helper()
	w.t.Fatalf(format, args...)
	panic("sdktest: Fatalf came back") // a TB that does not end the test
}

// Close ends everything: clients of Region.Client first, then instances and regions. A test
// need not call it.
func (w *World) Close() {
	w.closing.Do(func() {
		w.mu.Lock()
		w.closed = true
		clients, closers := w.clients, w.closers
		for _, r := range w.order {
			for _, rec := range r.records {
				rec.stop()
			}
		}
		w.mu.Unlock()
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { _ = c.Close() })
		}
		wg.Wait()
		for _, f := range slices.Backward(closers) {
			f()
		}
		for _, r := range w.order {
			r.server.kill()
		}
		w.base.CloseIdleConnections()
	})
}

// atClose has f called by Close.
func (w *World) atClose(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}

// Region returns a region of the world.
func (w *World) Region(name api.Region) *Region {
	r := w.regions[name]
	if r == nil {
		w.fail("sdktest: the world has no region %q", name)
	}
	return r
}

// Transport returns an http.Transport on the world's network, for calls of services by their
// addresses: client.Transport(world.Transport()). With loopback addresses it does what
// client.Transport(nil) does by itself. The world closes it.
func (w *World) Transport() *http.Transport { return w.base }

// DialContext dials on the world's network, as net.Dialer does.
func (w *World) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return w.net.dial(ctx, network, address)
}

// Listen listens on the world's network, for a server of the test's own: in a memory world at
// any "name:port"; "" is a free address. The world closes it.
func (w *World) Listen(address string) net.Listener {
	l, err := w.net.listen(address)
	if err != nil {
		w.fail("sdktest: %v", err)
	}
	w.atClose(func() { _ = l.Close() })
	return l
}

// Cut cuts the link between two regions: neither hears of the other, and what each knows of it
// grows old from now on. Calls between their programs are not touched.
func (w *World) Cut(a, b api.Region) { w.link(a, b, true) }

// Heal ends a Cut.
func (w *World) Heal(a, b api.Region) { w.link(a, b, false) }

func (w *World) link(a, b api.Region, cut bool) {
	w.Region(a)
	w.Region(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[linkOf(a, b)] = cut
	w.linksLocked()
}

// SetDistance sets the round-trip time that two regions measure between each other: by it
// callers rank other regions. It slows nothing down.
func (w *World) SetDistance(a, b api.Region, rtt time.Duration) {
	w.Region(a)
	w.Region(b)
	if rtt < time.Millisecond {
		w.fail("sdktest: a distance of %s: use a millisecond or more", rtt)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rtt[linkOf(a, b)] = rtt
	w.changedLocked()
}

// changedLocked wakes everybody who waits for a change.
func (w *World) changedLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// linksLocked brings what regions know of each other up to what the links are now.
func (w *World) linksLocked() {
	now := time.Now()
	for _, r := range w.order {
		for _, o := range w.order {
			if o == r {
				continue
			}
			rep := r.far[o.name]
			if rep == nil {
				rep = &replica{}
				r.far[o.name] = rep
			}
			switch linked := !w.cut[linkOf(r.name, o.name)] && r.up() && o.up(); {
			case linked:
				rep.since = time.Time{}
				rep.take(o)
			case rep.since.IsZero():
				rep.since = now
			}
		}
	}
	w.changedLocked()
}

// spreadLocked tells the others what changed in r.
func (w *World) spreadLocked(r *Region) {
	for _, o := range w.order {
		if rep := o.far[r.name]; rep != nil && rep.since.IsZero() {
			rep.take(r)
		}
	}
	w.changedLocked()
}

// replica is what a region knows of another one.
type replica struct {
	epoch    api.Epoch
	revision uint64
	wish     float64                         // its drain of itself
	rows     map[api.ServiceKey]*api.Summary // shared; never changes
	since    time.Time                       // the link is cut; zero = it works
}

func (p *replica) take(o *Region) {
	p.epoch, p.revision, p.rows, p.wish = o.epoch, o.revision, o.rows, o.drainedLocked(o.name)
}

func (p *replica) age(now time.Time) time.Duration {
	if p.since.IsZero() {
		return 0
	}
	return now.Sub(p.since)
}

func stateOf(age time.Duration) api.AgeState {
	switch {
	case age < 5*time.Second:
		return api.AgeFresh
	case age < 30*time.Second:
		return api.AgeStale
	case age < 15*time.Minute:
		return api.AgeSuspect
	}
	return api.AgeExpired
}

// originsLocked returns what r knows of every other region, by name.
func (r *Region) originsLocked() []api.Origin {
	now := time.Now()
	var list []api.Origin
	for name, rep := range r.far {
		age := rep.age(now)
		list = append(list, api.Origin{
			Region: name, Epoch: rep.epoch, Revision: rep.revision, AgeMS: age.Milliseconds(), State: stateOf(age), Complete: true,
			Source: api.SourceReplica, RTTMS: r.w.rtt[linkOf(r.name, name)].Milliseconds(),
			Drained: max(rep.wish, r.drainedLocked(name)), Addresses: []string{r.w.regions[name].URL()},
		})
	}
	slices.SortFunc(list, func(a, b api.Origin) int { return cmp.Compare(a.Region, b.Region) })
	return list
}

// errWorldClosed is what waits get when the test is over.
var errWorldClosed = errors.New("sdktest: the world is closed")
