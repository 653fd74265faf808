package nearside

import (
	"context"
	"errors"
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
	answerWithin = 700 * time.Millisecond // a node's headers
	syncWithin   = 3 * time.Second        // its first byte
	aliveWithin  = 12 * time.Second       // and any further one: two bookmarks may be lost
	patience     = time.Second            // with home, before another region is asked
	homeAgain    = time.Second            // between looks at home from abroad; up to twice as long
	pollWithin   = 500 * time.Millisecond
	pollsPerTry  = 5 // polls between tries to hold a watch where none could be held
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

	grew chan struct{} // a service was added
}

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

func newWatcher(c *Client, ns api.Namespace) *watcher {
	w := &watcher{
		c: c, ns: ns, book: view.New(c.nodes.homeRegion()), services: map[api.ServiceKey]*service{},
		resume: map[api.Region]resumeAt{}, grew: make(chan struct{}, 1),
	}
	if c.snap != nil && c.snap.loaded != nil {
		w.book.Load(*c.snap.loaded, time.Now())
	}
	return w
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
	if w.c.snap != nil {
		if si, ok := w.c.snap.service(key); ok {
			w.book.LoadService(si)
			w.showLocked([]api.ServiceKey{key}, time.Now())
		}
	}
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
			s.show(w.book.View(key, now), w.book.Home(), w.book.Synced(key))
		}
	}
}

// origins returns what is known of all regions, home first.
func (w *watcher) origins(now time.Time) []api.Origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.book.Origins(now)
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
		if w.round(ctx, limit) {
			wait.Reset()
			limit = patience
			continue
		}
		limit = 0 // one look is enough while nobody answers
		sleep(ctx, wait.NextBackOff())
	}
}

// round tries home for so long, then other regions, and stays with whoever answers. It
// reports whether anybody did.
func (w *watcher) round(ctx context.Context, limit time.Duration) bool {
	st, err := w.home(ctx, limit)
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
	w.triedHome()
	st, answered := w.abroad(ctx)
	if st != nil {
		_, _ = w.follow(ctx, st) // home is back
	}
	return answered
}

// triedHome lets callers fall back to their snapshot.
func (w *watcher) triedHome() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.services {
		s.markTried()
	}
}

// errNoWatch says that a node answers, but a watch cannot be held with it.
var errNoWatch = errors.New("a watch cannot be held here")

// home opens a stream with a node of home. It asks all of them at least once, and again
// until limit has passed.
func (w *watcher) home(ctx context.Context, limit time.Duration) (*stream, error) {
	err := error(ErrUnreachable)
	noWatch := false
	for start := time.Now(); ; {
		for _, base := range w.c.nodes.homeNodes() {
			st, e := w.open(ctx, base, w.c.nodes.homeRegion(), answerWithin)
			if e == nil {
				if w.c.nodes.claim(base, st.region) {
					return st, nil
				}
				st.Close()
				w.c.log().Warn("an address of the home region belongs to another one", "address", base, "region", st.region, "home", w.c.nodes.homeRegion())
				continue
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			w.c.nodes.failed(base)
			err = e
			noWatch = noWatch || refusesWatch(e)
		}
		if noWatch {
			return nil, errors.Join(errNoWatch, err)
		}
		if time.Since(start) >= limit || !sleep(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond)) {
			return nil, err
		}
	}
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
