package nearside

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/node"
	"github.com/nearside/nearside/sdk/internal/view"
)

// open opens a stream with one node.
func (w *watcher) open(ctx context.Context, base string, region api.Region, headers time.Duration) (*stream, error) {
	w.mu.Lock()
	st := &stream{base: base, gen: w.gen, services: w.book.Wanted()}
	req := node.WatchRequest{Namespace: w.ns}
	if at := w.resume[region]; region != "" && at.gen == w.gen {
		req.From = at.version
	}
	w.mu.Unlock()
	for _, key := range st.services {
		req.Services = append(req.Services, key.Service)
	}
	st.resumed = !req.From.IsZero()
	w.c.tel.watchOpened(ctx)
	var err error
	st.Watch, err = w.c.caller.Watch(ctx, base, req, headers, w.within(syncWithin))
	if err != nil {
		return nil, err
	}
	st.region = st.Region
	return st, nil
}

// follow reads a stream until it ends, the services change or ctx ends. It reports
// whether the stream got as far as synced, and why it ended; a changed set of services
// counts as synced, since the next stream starts at once.
func (w *watcher) follow(ctx context.Context, st *stream) (synced bool, err error) {
	defer st.Close()
	w.mu.Lock()
	select {
	case <-w.grew:
	default:
	}
	if st.gen != w.gen { // while it was opened
		w.grew <- struct{}{}
	}
	w.book.Begin(st.services, st.resumed)
	w.mu.Unlock()

	// A new service ends the stream, so that the next one is for all of them.
	var group sync.WaitGroup
	listed, stop := make(chan struct{}), make(chan struct{})
	defer group.Wait()
	defer close(stop)
	group.Go(func() {
		if w.gather.wait(w.grew, listed, stop) {
			st.Close()
		}
	})
	for {
		f, err := st.Next(func() { w.alive(st) })
		if err == nil {
			var done bool
			if done, err = w.take(st, f); done && !synced {
				synced = true
				w.wasInTime()
				close(listed)
				st.SetQuiet(aliveWithin)
			}
		}
		if err != nil {
			if ctx.Err() == nil && w.ended(st, synced, err) {
				return true, nil
			}
			return synced, err
		}
	}
}

// ended notes why a stream is over. It reports whether that is because services were added.
func (w *watcher) ended(st *stream, synced bool, err error) (grew bool) {
	w.mu.Lock()
	grew = st.gen != w.gen
	if errors.Is(err, view.ErrOlder) || !synced {
		delete(w.resume, st.region) // what does not work is not tried twice
	}
	w.mu.Unlock()
	if grew {
		return true
	}
	w.lost = true
	w.c.nodes.failed(st.base)
	w.c.tel.watchLost(context.Background())
	w.c.log().Info("watch ended", "node", st.base, "region", st.region, "error", err)
	return false
}

// alive notes that something came, at most once a second.
func (w *watcher) alive(st *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.lastLife) >= time.Second {
		w.lastLife = now
		w.book.Alive(st.region, now)
	}
}

// take applies one frame. done tells that the listing is complete.
func (w *watcher) take(st *stream, f api.Frame) (done bool, err error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if st.region == "" {
		st.region = f.Version.Region
	}
	if w.c.nodes.homeRegion() == "" {
		w.c.nodes.claim(st.base, st.region)
	}
	w.book.SetHome(w.c.nodes.homeRegion())
	eff, err := w.book.Apply(f, now)
	if err != nil {
		return false, err
	}
	if eff.Synced {
		w.asked = askedNobody
	}
	w.showLocked(eff.Changed, now)
	switch f.Kind {
	case api.FrameSynced, api.FrameBookmark:
		if f.Kind == api.FrameSynced || !w.book.Listing() {
			w.resume[st.region] = resumeAt{version: f.Version, gen: st.gen}
		}
		w.c.nodes.learn(f.Version.Region, f.Addresses, 0)
		atHome := f.Version.Region == w.book.Home()
		for _, o := range f.Origins {
			rtt := o.RTTMS
			if !atHome {
				rtt = 0 // measured from another place
			}
			w.c.nodes.learn(o.Region, o.Addresses, rtt)
		}
	case api.FrameChange:
		if !f.More && !w.book.Listing() {
			w.resume[st.region] = resumeAt{version: f.Version, gen: st.gen}
		}
	case api.FrameReset:
		delete(w.resume, st.region)
	}
	if len(eff.Changed) > 0 || f.Kind == api.FrameSynced {
		w.c.snap.touch()
	}
	return eff.Synced, nil
}

// sleep waits, and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
