package safety

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// event is one change as a watcher was told it.
type event struct {
	revision    uint64
	key         api.InstanceKey
	op          api.Op
	cause       api.Cause
	incarnation uint64
	value       string
}

func eventOf(f api.Frame) event {
	return event{f.Version.Revision, keyOf(f), f.Op, f.Cause, f.Instance.Incarnation, f.Instance.Metadata["v"]}
}

func keyOf(f api.Frame) api.InstanceKey {
	return api.InstanceKey{Service: f.Service, ID: f.Instance.ID}
}

// segment is what one watcher was told without a gap: everything after start up to upTo.
type segment struct {
	watcher     string
	services    []api.ServiceName
	start, upTo uint64
	listed      bool    // it began with all items as of start, else with a resume
	items       []event // revision is that of the instance's last change
	events      []event
}

// watcher follows services over many connections and writes down what it is told.
type watcher struct {
	name     string
	base     string
	roam     []string // not empty: each connection goes to another one of these
	services []api.ServiceName
	rng      *rand.Rand
	h        *http.Client
	cutAfter int           // frames, at random up to it; 0 = never by itself
	shift    bool          // resumes at a revision up to 100 beside the one it should
	slow     time.Duration // takes this long over a frame, now and then
	stall    chan struct{} // not nil: it stops reading after the first synced until this is closed

	upTo atomic.Uint64 // of the running segment, for those who wait for the end

	// What follows belongs to run, and to others once it has ended.
	at       api.Version // newest version that it may resume from
	most     api.Version // newest version that it was told of
	segments []segment
	broken   []string
	resets   int
	resumes  int
	opened   int
	torn     bool // the last connection ended within a list
}

func (w *watcher) wrong(format string, args ...any) {
	w.broken = append(w.broken, w.name+": "+fmt.Sprintf(format, args...))
}

// run watches until ctx ends. A connection that is silent for longer than two bookmarks is
// opened again, as a client does.
func (w *watcher) run(ctx context.Context) {
	defer w.h.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := w.connect(ctx); errors.Is(err, cluster.ErrForm) {
			w.wrong("P5: %v", err)
		}
		pause(ctx, time.Duration(w.rng.IntN(50))*time.Millisecond)
	}
}

func (w *watcher) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(2*api.BookmarkInterval, cancel)
	defer silence.Stop()
	from := w.at
	if w.shift && !from.IsZero() {
		from.Revision = from.Revision - min(from.Revision, 100) + w.rng.Uint64N(201)
	}
	query := url.Values{}
	for _, s := range w.services {
		query.Add("service", string(s))
	}
	base := w.base
	if len(w.roam) > 0 {
		base = w.roam[w.rng.IntN(len(w.roam))]
	}
	s, err := cluster.OpenStream(ctx, w.h, base, query, from.String())
	if err != nil {
		return err
	}
	defer s.Close()
	w.opened++
	c := connection{w: w, from: from, lied: w.shift}
	defer func() {
		w.torn = c.listing
		c.end()
	}()
	left := -1
	if w.cutAfter > 0 {
		left = 1 + w.rng.IntN(w.cutAfter)
	}
	for ; left != 0; left-- {
		f, id, err := s.Next()
		if err != nil {
			return err
		}
		silence.Reset(2 * api.BookmarkInterval)
		if !c.take(f, id) {
			return nil
		}
		if c.listing && w.torn {
			left++ // lists longer than its patience must not keep it from ever getting on
		}
		if w.slow > 0 && w.rng.IntN(20) == 0 {
			pause(ctx, w.slow)
		}
		if w.stall != nil && f.Kind == api.FrameSynced {
			silence.Stop()
			<-w.stall
			silence.Reset(2 * api.BookmarkInterval)
		}
	}
	return nil
}

// connection checks what can be checked of one stream by itself.
type connection struct {
	w       *watcher
	from    api.Version // asked for; zero = none
	lied    bool        // from is made up: what follows may be older than what was seen
	listing bool        // items are on their way
	seg     *segment
	group   []event // of a revision that is not complete yet
}

// take notes a frame; false when the stream makes no sense any more.
func (c *connection) take(f api.Frame, id string) bool {
	w := c.w
	safe := f.Kind == api.FrameSynced || f.Kind == api.FrameBookmark || f.Kind == api.FrameChange && !f.More
	if want := map[bool]string{true: f.Version.String()}[safe]; id != want {
		w.wrong("P5: a %s at %s has the id %q, want %q", f.Kind, f.Version, id, want)
	}
	// P4: only who made its version up may be told of an older one.
	if !c.lied && !w.most.IsZero() && f.Kind != api.FrameItem {
		if o := f.Version.Compare(w.most); o == api.Older || o == api.Conflict {
			w.wrong("P4: a %s at %s after %s", f.Kind, f.Version, w.most)
		}
	}
	switch f.Kind {
	case api.FrameReset:
		c.finish()
		c.listing = true
		c.seg = &segment{watcher: w.name, services: w.services, listed: true}
		w.resets++
	case api.FrameItem:
		if c.seg == nil && c.from.IsZero() {
			c.listing = true
			c.seg = &segment{watcher: w.name, services: w.services, listed: true}
		}
		if !c.listing {
			w.wrong("P5: an item at %s outside of a list", f.Version)
			return false
		}
		c.seg.items = append(c.seg.items, event{f.Instance.Revision, keyOf(f), api.OpPut, "", f.Instance.Incarnation, f.Instance.Metadata["v"]})
	case api.FrameSynced:
		switch {
		case c.seg == nil && c.from.IsZero(): // a list of nothing
			c.seg = &segment{watcher: w.name, services: w.services, listed: true}
		case c.seg == nil:
			w.resumes++
			c.seg = &segment{watcher: w.name, services: w.services}
			if f.Version != c.from {
				w.wrong("P5: resumed at %s, asked for %s", f.Version, c.from)
			}
		case !c.listing:
			w.wrong("P5: synced twice, at %s", f.Version)
			return false
		}
		c.listing = false
		c.seg.start, c.seg.upTo = f.Version.Revision, f.Version.Revision
		c.safe(f.Version)
	case api.FrameChange:
		return c.change(f)
	case api.FrameBookmark:
		if c.seg == nil || c.listing || len(c.group) > 0 || f.Version.Revision < c.seg.upTo {
			w.wrong("P5: a bookmark at %s out of place", f.Version)
			return false
		}
		c.seg.upTo = f.Version.Revision
		c.safe(f.Version)
	default:
		w.wrong("P5: a frame of kind %q", f.Kind)
	}
	return true
}

func (c *connection) change(f api.Frame) bool {
	e := eventOf(f)
	switch {
	case c.seg == nil || c.listing:
		c.w.wrong("P5: a change at %s before synced", f.Version)
		return false
	case e.revision <= c.seg.upTo:
		c.w.wrong("P5: revision %d of %s again or late, after %d", e.revision, e.key.ID, c.seg.upTo)
		return false
	case len(c.group) > 0 && c.group[0].revision != e.revision:
		c.w.wrong("P5: revision %d begins inside of revision %d", e.revision, c.group[0].revision)
		return false
	case slices.ContainsFunc(c.group, func(g event) bool { return g.key == e.key }):
		c.w.wrong("P5: %s twice in revision %d", e.key.ID, e.revision)
	case !slices.Contains(c.w.services, e.key.Service):
		c.w.wrong("P5: a change of %s was not asked for", e.key.Service)
	}
	c.group = append(c.group, e)
	if !f.More {
		c.seg.events = append(c.seg.events, c.group...)
		c.seg.upTo = e.revision
		c.group = nil
		c.safe(f.Version)
	}
	return true
}

// safe notes a version that may be resumed from.
func (c *connection) safe(v api.Version) {
	w := c.w
	w.at = v
	if o := v.Compare(w.most); w.most.IsZero() || o == api.Newer {
		w.most = v
	}
	w.upTo.Store(v.Revision)
}

// finish closes the running segment; half a revision does not count.
func (c *connection) finish() {
	if c.seg != nil && !c.listing {
		c.w.segments = append(c.w.segments, *c.seg)
	}
	c.seg, c.group, c.listing = nil, nil, false
}

func (c *connection) end() { c.finish() }

// audience is the watchers of one test.
type audience struct {
	watchers []*watcher
	stop     context.CancelFunc
	all      sync.WaitGroup
}

// watch starts the watchers: undisturbed, through the relay, cut again and again, resuming
// at wrong revisions, slow, and of one service only; of several nodes each is watched, and
// some resume at another node than they were at.
func (wd *world) watch() *audience {
	ctx, stop := context.WithCancel(context.Background())
	a := &audience{stop: stop}
	direct, relayed := wd.n.URL(), "http://"+wd.relay.Addr
	watchers := []*watcher{
		{name: "steady", base: direct},
		{name: "relayed", base: relayed},
		{name: "cut", base: direct, cutAfter: 400},
		{name: "cut often", base: relayed, cutAfter: 30},
		{name: "shifted", base: direct, cutAfter: 200, shift: true},
		{name: "slow", base: direct, slow: 30 * time.Millisecond},
		{name: "one service", base: direct, cutAfter: 500, services: services[:1]},
	}
	if len(wd.nodes) > 1 {
		for i, base := range wd.bases(false)[1:] {
			watchers = append(watchers, &watcher{name: fmt.Sprintf("steady %d", i+2), base: base})
		}
		watchers = append(watchers,
			&watcher{name: "roaming", roam: wd.bases(false), cutAfter: 300},
			&watcher{name: "roaming relayed", roam: wd.bases(true), cutAfter: 50},
			&watcher{name: "roaming, one service", roam: wd.bases(false), cutAfter: 100, services: services[1:]},
		)
	}
	for i, w := range watchers {
		if w.services == nil {
			w.services = services
		}
		w.rng = rand.New(rand.NewPCG(wd.seed, uint64(1000+i)))
		w.h = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, ResponseHeaderTimeout: 5 * time.Second}}
		a.watchers = append(a.watchers, w)
		a.all.Go(func() { w.run(ctx) })
	}
	return a
}

// end waits until every watcher has been told of the last change of each of its services,
// and stops them.
func (a *audience) end(wd *world, last map[api.ServiceName]uint64) {
	wd.t.Helper()
	defer a.all.Wait()
	defer a.stop()
	for _, w := range a.watchers {
		want := uint64(0)
		for _, s := range w.services {
			want = max(want, last[s])
		}
		cluster.Within(wd.t, 20*time.Second, "P5: watcher "+w.name+" is told of all", func() error {
			if at := w.upTo.Load(); at < want {
				return fmt.Errorf("it is at %d of %d", at, want)
			}
			return nil
		})
	}
}
