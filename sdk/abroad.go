package nearside

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// maxAbroad bounds the nodes asked in one look around.
const maxAbroad = 12

// abroad holds a stream with another region's node while home does not answer, and looks
// for home every second or two. answered tells that some node did; st is an open stream
// with home when home is what ended it.
func (w *watcher) abroad(ctx context.Context) (st *stream, answered bool) {
	look := nextLook()
	for i, n := range w.c.nodes.farNodes() {
		for again := i < maxAbroad; again && ctx.Err() == nil; {
			far, err := w.open(ctx, n.base, n.region, patience)
			if err != nil {
				w.c.log().Debug("node of another region does not answer", "node", n.base, "region", n.region, "error", err)
				break
			}
			w.mu.Lock()
			// What strangers say of home may change its list in ways that resuming would
			// not see: home is listed anew.
			delete(w.resume, w.book.Home())
			w.mu.Unlock()
			w.c.log().Info("asking another region's registry until home answers", "node", n.base, "region", n.region)
			st, synced, err := w.followAbroad(ctx, far, &look)
			if st != nil {
				return st, true
			}
			answered = answered || synced
			again = synced && err == nil // a service was added
		}
		if answered {
			break // it was well a moment ago: look at home first
		}
	}
	return nil, answered
}

// nextLook returns when to look for home.
func nextLook() time.Time { return time.Now().Add(homeAgain + rand.N(homeAgain)) }

// followAbroad follows far until home answers; then it returns the open stream with home. It
// looks at the time given, and leaves when the next look is due: far ends with each new
// service, and that must not put the look off.
func (w *watcher) followAbroad(ctx context.Context, far *stream, at *time.Time) (st *stream, synced bool, err error) {
	found := make(chan *stream, 1)
	look, stop := context.WithCancel(ctx)
	go func() {
		defer close(found)
		for sleep(look, time.Until(*at)) {
			// Not under look: the stream outlives the search.
			if st, err := w.home(ctx, 0, func() {}); err == nil {
				found <- st
				far.Close()
				return
			}
			*at = nextLook()
		}
	}()
	synced, err = w.follow(ctx, far)
	stop()
	st = <-found // also waits for the goroutine
	if st != nil {
		w.c.log().Info("home registry answers again", "node", st.base)
	}
	return st, synced, err
}

// poll asks for every service by plain requests while no watch can be held, until it is
// time to try a watch again. New services are asked for as they come. It reports whether home
// answered at all.
func (w *watcher) poll(ctx context.Context) bool {
	answered := false
	for range pollsPerTry {
		if !w.pollOnce(ctx, true) {
			return answered
		}
		if !answered {
			w.c.log().Warn("no watch can be held with the home registry; polling instead", "interval", w.c.cfg.PollInterval)
		}
		answered = true
		every := w.c.cfg.PollInterval
		t := time.NewTimer(every - every/5 + rand.N(2*every/5+1))
		for waiting := true; waiting; {
			select {
			case <-t.C:
				waiting = false
			case <-w.grew: // somebody waits for a new service
				if !w.pollOnce(ctx, false) {
					t.Stop()
					return answered
				}
			case <-ctx.Done():
				t.Stop()
				return true
			}
		}
	}
	return answered
}

// pollOnce asks for every service once, new ones first, or for new ones only. It stops at the
// first service that no home node answers for.
func (w *watcher) pollOnce(ctx context.Context, all bool) bool {
	w.mu.Lock()
	var keys, old []api.ServiceKey
	for _, key := range w.book.Wanted() {
		if !w.book.Synced(key) {
			keys = append(keys, key)
		} else if all {
			old = append(old, key)
		}
	}
	w.mu.Unlock()
	for _, key := range append(keys, old...) {
		if !w.pollService(ctx, key) {
			return false
		}
	}
	return true
}

func (w *watcher) pollService(ctx context.Context, key api.ServiceKey) bool {
	q := url.Values{}
	if key.Namespace != api.DefaultNamespace {
		q.Set("ns", string(key.Namespace))
	}
	for _, base := range w.c.nodes.homeNodes() {
		var res api.Resolution
		try, cancel := context.WithTimeout(ctx, w.within(pollWithin))
		a, err := w.c.caller.Do(try, http.MethodGet, base, api.PathResolve(key.Service), q, nil, &res)
		cancel()
		missing := api.CodeOf(err) == api.CodeServiceNotFound
		if err != nil && !missing {
			continue
		}
		if !w.c.nodes.claim(base, a.Region) {
			continue
		}
		if a.Region == "" {
			a.Region = w.c.nodes.homeRegion()
		}
		now := time.Now()
		w.mu.Lock()
		w.book.SetHome(w.c.nodes.homeRegion())
		eff := w.book.Poll(key, a.Region, res, now)
		w.asked = askedNobody
		w.showLocked(eff.Changed, now)
		w.mu.Unlock()
		for _, o := range res.Views {
			if o.Region != a.Region {
				w.c.nodes.learn(o.Region, o.Addresses, o.RTTMS)
			}
		}
		w.c.snap.touch()
		w.wasInTime()
		return true
	}
	return false
}
