package nearside

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/node"
	"github.com/nearside/nearside/sdk/internal/view"
)

// Times of a watch.
const (
	answerWithin = 700 * time.Millisecond   // a node's headers
	syncWithin   = 3 * time.Second          // its first byte
	aliveWithin  = 2 * api.BookmarkInterval // and any further one: the second bookmark is missing
	patience     = time.Second              // with home, before another region is asked
	homeAgain    = time.Second              // between looks at home from abroad; up to twice as long
	pollWithin   = 500 * time.Millisecond
	pollsPerTry  = 5 // polls between tries to hold a watch where none could be held
	// lateAtMost bounds how often the times of answerWithin, syncWithin and pollWithin are doubled, while home
	// is late time and again and nobody else answers: a registry, or a machine, with more to do than
	// it can does ever less if what it does is given up just before it is done, and asked anew.
	lateAtMost = 3
	// lostSpread is the time over which clients open a watch again that they lost: a node that
	// restarts, or sheds its watches, loses all of them in one moment.
	lostSpread = 300 * time.Millisecond
)

// watcher keeps up to api.MaxWatchServices services of one namespace up to date. Its loop
// holds one stream at a time: with home if any of its nodes answers, else with the nearest
// region that does. Silence never removes anything; see package view.
type watcher struct {
	c  *Client
	ns api.Namespace

	mu       sync.Mutex // taken before a service's
	book     *view.Book
	services map[api.ServiceKey]*service
	gen      int // rises with each service added
	resume   map[api.Region]resumeAt
	lastLife time.Time
	trouble  error       // why home does not answer; nil when it did last
	late     int         // doublings of the times in which home is to answer
	asked    askedInVain // since somebody answered

	grew   chan struct{} // a service was added
	gather gathering     // owned by follow
	lost   bool          // the last stream ended without being asked to; owned by run
	cancel context.CancelFunc
}

// askedInVain is how far a watcher has looked without an answer.
type askedInVain int

const (
	askedNobody askedInVain = iota
	askedHome               // every node of home was asked once
	askedAll                // and those of other regions
)

// resumeAt is where a stream may go on, for the same set of services.
type resumeAt struct {
	version api.Version
	gen     int
}

// stream is an open watch and what it was opened for.
type stream struct {
	*node.Watch
	base     string
	region   api.Region
	gen      int
	services []api.ServiceKey
	resumed  bool
}

// newWatcher needs Client.mu.
func newWatcher(c *Client, ns api.Namespace) *watcher {
	w := &watcher{
		c: c, ns: ns, book: view.New(c.nodes.homeRegion()), services: map[api.ServiceKey]*service{},
		resume: map[api.Region]resumeAt{}, grew: make(chan struct{}, 1),
	}
	w.book.SetOwn(c.cfg.Policy)
	if c.snap != nil && c.snap.loaded != nil {
		w.book.Load(*c.snap.loaded, time.Now())
	}
	w.book.Load(c.left, time.Now())
	return w
}

// drop forgets a service, and returns what was known of it. left tells how many there are. With
// the last one the watcher ends; what it saw of the regions is kept for the next, so that
// nobody takes that one back (P4). The caller holds Client.mu.
func (w *watcher) drop(key api.ServiceKey) (si view.ServiceImage, known bool, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	si, known = w.book.ServiceImage(key, now)
	delete(w.services, key)
	w.book.Drop(key)
	if len(w.services) == 0 {
		w.c.left.Newest(w.book.Image(now))
	}
	return si, known, len(w.services)
}

func (w *watcher) room() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.services) < api.MaxWatchServices
}

// want adds a service.
func (w *watcher) want(key api.ServiceKey) *service {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := newService(w.c, w, key)
	w.services[key] = s
	w.book.Want(key)
	w.book.SetOwnOf(key, s.cfg.Policy)
	if w.c.snap != nil {
		if si, ok := w.c.snap.service(key); ok {
			now := time.Now()
			w.book.LoadService(si, now)
			s.old = now.Sub(si.Youngest()) > oldSnapshot
			w.showLocked([]api.ServiceKey{key}, now)
		}
	}
	s.markTried(w.asked)
	w.gen++
	select {
	case w.grew <- struct{}{}:
	default:
	}
	return s
}

// showLocked gives services their new view. Taken under mu, so that no older view comes later.
func (w *watcher) showLocked(keys []api.ServiceKey, now time.Time) {
	for _, key := range keys {
		if s := w.services[key]; s != nil && w.book.Known(key) {
			known := knowledge{view: w.book.View(key, now), home: w.book.Home(), whole: w.book.Whole()}
			known.told, known.policy = w.book.Policy(key)
			s.show(known, w.book.Synced(key))
		}
	}
}

// origins returns what is known of all regions as far as a service goes, home first.
func (w *watcher) origins(key api.ServiceKey, now time.Time) []api.Origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.book.Origins(key, now)
	for i := range list {
		if list[i].Region == w.book.Home() {
			home := list[i]
			copy(list[1:i+1], list[:i])
			list[0] = home
		}
	}
	return list
}

// tick lets time pass: ages and holds.
func (w *watcher) tick(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.showLocked(w.book.Tick(now), now)
}

// run holds the watch until ctx ends.
func (w *watcher) run(ctx context.Context) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.RandomizationFactor = 200*time.Millisecond, 3*time.Second, 0.5
	limit := patience
	for ctx.Err() == nil {
		if !w.busy(ctx) {
			return
		}
		if w.round(ctx, limit) {
			wait.Reset()
			limit = patience
			if w.lost {
				w.lost = false
				sleep(ctx, rand.N(lostSpread))
			}
			continue
		}
		limit = 0 // one look is enough while nobody answers
		w.wasLate()
		sleep(ctx, wait.NextBackOff())
	}
}

// wasLate lets home take longer from now on, if it was silence that the last look at it met.
func (w *watcher) wasLate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.trouble, node.ErrSilent) {
		w.late = min(w.late+1, lateAtMost)
	}
}

// wasInTime takes one doubling back.
func (w *watcher) wasInTime() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = max(w.late-1, 0)
}

// within is how long home may take for what should take d.
func (w *watcher) within(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return d << w.late
}

// busy waits until there is a service to watch: all may have been dropped.
func (w *watcher) busy(ctx context.Context) bool {
	for {
		w.mu.Lock()
		n := len(w.services)
		w.mu.Unlock()
		if n > 0 {
			return true
		}
		select {
		case <-w.grew:
		case <-ctx.Done():
			return false
		}
	}
}

// round tries home for so long, then other regions, and stays with whoever answers. It
// reports whether anybody did.
func (w *watcher) round(ctx context.Context, limit time.Duration) bool {
	st, err := w.home(ctx, limit, func() { w.inVain(askedHome) })
	if st != nil {
		var synced bool
		if synced, err = w.follow(ctx, st); synced {
			return true
		}
		if errors.Is(err, node.ErrSilent) { // headers came, and nothing after them
			err = errors.Join(errNoWatch, err)
		}
	}
	if errors.Is(err, errNoWatch) && w.poll(ctx) {
		return true
	}
	if ctx.Err() != nil || st != nil && !errors.Is(err, errNoWatch) {
		return false
	}
	if limit > 0 {
		w.c.log().Warn("home registry does not answer; what is known stays in use", "error", err)
	}
	st, answered := w.abroad(ctx)
	if st != nil {
		_, _ = w.follow(ctx, st) // home is back
	}
	if !answered {
		w.inVain(askedAll)
	}
	return answered
}

// inVain lets callers fall back to their snapshot.
func (w *watcher) inVain(far askedInVain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if far <= w.asked {
		return
	}
	w.asked = far
	for _, s := range w.services {
		s.markTried(far)
	}
}

// errNoWatch says that a node answers, but a watch cannot be held with it.
var errNoWatch = errors.New("a watch cannot be held here")

// home opens a stream with a node of home. It asks all of them at least once, and again
// until limit has passed. failed is called each time when none answered.
func (w *watcher) home(ctx context.Context, limit time.Duration, failed func()) (*stream, error) {
	err := w.c.nodes.nobody()
	noWatch := false
	for start := time.Now(); ; {
		for _, base := range w.c.nodes.homeNodes() {
			st, e := w.open(ctx, base, w.c.nodes.homeRegion(), w.within(answerWithin))
			if e == nil {
				if w.c.nodes.claim(base, st.region) {
					w.note(nil)
					return st, nil
				}
				st.Close()
				err = errNotHome(base, st.region, w.c.nodes.homeRegion())
				w.note(err)
				w.c.log().Warn("an address of the home region belongs to another one", "address", base, "region", st.region, "home", w.c.nodes.homeRegion())
				continue
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			w.c.nodes.failed(base)
			err = e
			w.note(e)
			noWatch = noWatch || refusesWatch(e)
		}
		if noWatch {
			return nil, errors.Join(errNoWatch, err)
		}
		failed()
		if time.Since(start) >= limit || !sleep(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond)) {
			return nil, err
		}
	}
}

// note keeps why home does not answer, for those who wait for it in vain.
func (w *watcher) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = err
}

// unreachable returns ErrUnreachable with its cause, where one is known.
func (w *watcher) unreachable() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trouble == nil {
		return ErrUnreachable
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, w.trouble)
}

// refusesWatch reports whether a node answers but gives no stream, so that polling it may
// work. One that shuts down, lags or is not loaded yet is none of these.
func refusesWatch(err error) bool {
	var refusal *api.Error
	if errors.As(err, &refusal) {
		return !refusal.Code.Retryable() || refusal.Code == api.CodeTooManyRequests
	}
	return errors.Is(err, node.ErrSilent) || errors.Is(err, node.ErrNoStream)
}
