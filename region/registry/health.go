package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	probeInterval = 2 * time.Second
	probeTimeout  = 2 * time.Second
	// spaceInterval is how often a store that was full is asked for space: often enough for
	// /readyz, and rarely enough that what etcd logs of each refusal is nothing.
	spaceInterval = 10 * time.Second
	// spaceKey is the record that asks; the catalogue does not look at it.
	spaceKey = "probe/space"
)

// health is what is known of the store, from every call made to it.
type health struct {
	// tell records what became of the store in the event log; nil = nowhere. It does not wait.
	tell func(kind api.EventKind, detail string)
	// outside is Config.Trouble.
	outside func() string

	mu       sync.Mutex
	cause    string    // "" = it answers
	since    time.Time // of cause
	lastGood time.Time
	// fullSince is when the first put was refused for lack of space; zero while there is
	// some. Only a put that is taken shows that there is space again.
	fullSince time.Time
	fullCause string // of the newest refusal
}

// note takes the outcome of a call. A refusal is an answer: the store is there.
func (h *health) note(err error, log *slog.Logger) {
	switch {
	case err == nil, errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrCompacted):
		h.worked(log)
	case errors.Is(err, store.ErrFull):
		h.worked(log)
		h.filled(err, log)
	default:
		h.failed(err)
	}
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause == "" {
		h.since = time.Now()
		h.event(api.EventStoreAway, err.Error())
	}
	h.cause = err.Error()
}

func (h *health) worked(log *slog.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastGood = time.Now()
	if h.cause != "" {
		log.Info("the store answers again", "away_for", time.Since(h.since).Round(time.Millisecond).String())
		h.event(api.EventStoreBack, "it was away for "+time.Since(h.since).Round(time.Millisecond).String())
		h.cause = ""
	}
}

func (h *health) event(kind api.EventKind, detail string) {
	if h.tell != nil {
		h.tell(kind, detail)
	}
}

func (h *health) filled(err error, log *slog.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fullCause = err.Error()
	if h.fullSince.IsZero() {
		h.fullSince = time.Now()
		h.event(api.EventStoreFull, "registrations and changes are refused; reads, heartbeats, deregistrations and evictions go on: "+h.fullCause)
		log.Error("the store is full: registrations and changes are refused; reads, heartbeats, deregistrations and evictions go on", "cause", err)
	}
}

// hasSpace notes that a put was taken.
func (h *health) hasSpace(log *slog.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.fullSince.IsZero() {
		log.Info("the store has space again", "full_for", time.Since(h.fullSince).Round(time.Millisecond).String())
		h.event(api.EventStoreBack, "it was full for "+time.Since(h.fullSince).Round(time.Millisecond).String())
		h.fullSince = time.Time{}
	}
}

func (h *health) full() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.fullSince.IsZero()
}

// trouble returns "" or what is wrong with the store and since when.
func (h *health) trouble() string {
	outside := h.fromOutside()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case outside != "":
		return outside // it knows why, where calls only find out that
	case h.cause != "":
		return fmt.Sprintf("%s (since %s)", h.cause, h.since.UTC().Format(time.RFC3339))
	case !h.fullSince.IsZero():
		return fmt.Sprintf("%s (since %s)", h.fullCause, h.fullSince.UTC().Format(time.RFC3339))
	}
	return ""
}

func (h *health) fromOutside() string {
	if h.outside == nil {
		return ""
	}
	return h.outside()
}

// StoreChanged is for whoever looks after the store: Config.Trouble has another answer. A store
// that is back is followed again at once, and not when it is next tried.
func (r *Registry) StoreChanged() {
	if t := r.health.fromOutside(); t != "" {
		r.health.failed(errors.New(t))
		return
	}
	select {
	case r.storeWake <- struct{}{}:
	default:
	}
}

// age is how long the store has not confirmed what memory holds; 0 while it answers.
func (h *health) age() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause == "" || h.lastGood.IsZero() {
		return 0
	}
	return time.Since(h.lastGood)
}

// probeLoop asks the store now and then whether it is there: a store that lost its quorum
// may break no connection, and nobody may be writing. Of a store that was full it also
// asks whether it has space again.
func (r *Registry) probeLoop(ctx context.Context) error {
	t := time.NewTicker(probeInterval)
	defer t.Stop()
	space := time.NewTicker(spaceInterval)
	defer space.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-space.C:
			if r.health.full() {
				r.probeSpace(ctx)
			}
			continue
		case <-t.C:
		}
		pctx, cancel := context.WithTimeout(ctx, probeTimeout)
		_, err := r.cfg.Store.Barrier(pctx)
		cancel()
		if ctx.Err() == nil {
			r.health.note(err, r.log)
		}
	}
}

// probeSpace tries a put of always the same key, and takes it away again, so that nothing
// grows by it. What it finds, commit notes.
func (r *Registry) probeSpace(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	revision, err := r.commit(ctx, []store.Op{{Key: spaceKey}})
	if err == nil {
		// One that stays is taken away by the next probe, or overwritten by it.
		_, err = r.commit(ctx, []store.Op{{Delete: true, Key: spaceKey, Guarded: true, If: revision}})
	}
	if err != nil {
		r.log.Debug("asked the store for space", "cause", err)
	}
}

// Readiness says whether the node does all of its work, and if not, why. A node whose
// store is away is not ready, yet it answers every read from memory (P10): take it out of
// the place that writes go to, not out of sight.
func (r *Registry) Readiness() api.Readiness {
	trouble := r.health.trouble()
	catalog := api.ReadinessCheck{Name: "catalog", OK: r.isLoaded()}
	if !catalog.OK {
		catalog.Cause = "the catalogue is not loaded yet"
		if c := r.readsFrom(); c != nil {
			catalog.Cause = c.String()
		}
		if trouble != "" {
			catalog.Cause += ": " + trouble
		}
	}
	shutdown := api.ReadinessCheck{Name: "shutdown", OK: !r.draining.Load()}
	if !shutdown.OK {
		shutdown.Cause = "the node is shutting down"
	}
	out := api.Readiness{
		Ready: true, Region: r.cfg.Region, Node: r.cfg.Node,
		Checks: []api.ReadinessCheck{catalog, {Name: "store", OK: trouble == "", Cause: trouble}, shutdown},
	}
	if !r.own.alone {
		why := r.ownerTrouble()
		out.Checks = append(out.Checks, api.ReadinessCheck{Name: "liveness", OK: why == "", Cause: why})
	}
	if r.cfg.Room != nil {
		disk := api.ReadinessCheck{Name: "disk", OK: true}
		if err := r.cfg.Room(true); err != nil {
			disk.OK, disk.Cause = false, err.Error()
		}
		out.Checks = append(out.Checks, disk)
	}
	// A starved node goes on serving: to take it away would starve the next. So this is told
	// and does not make it unready.
	pace := api.ReadinessCheck{Name: "pace", OK: true}
	if r.counts.slow.Load() {
		pace.Cause = "this node is starved of processor time: nobody is evicted; GET /v1/regions/" + string(r.cfg.Region) + " has the figures"
	}
	out.Checks = append(out.Checks, pace)
	if r.cfg.Conditions != nil {
		out.Checks = append(out.Checks, r.cfg.Conditions()...)
	}
	for _, c := range out.Checks {
		out.Ready = out.Ready && c.OK
	}
	return out
}

// needLoaded returns an error until there is a catalogue to read: the store's, or the copy.
func (r *Registry) needLoaded() error {
	if r.isAnswering() {
		return nil
	}
	detail := "the catalogue is not loaded yet"
	if t := r.health.trouble(); t != "" {
		detail += ": " + t
	}
	return &api.Error{Code: api.CodeUnavailable, Detail: detail, Remedy: "try again shortly, or ask another node"}
}

// storeError turns what a store says into what a client is told. It keeps the cause out of
// the wire: it is in the log and in /readyz.
func (r *Registry) storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		return &api.Error{
			Code: api.CodeStorageFull, Detail: "the region's store is full; the write may have happened or not",
			Remedy: "deregister what is not needed, or give it more room (/readyz says of what, and how: the node's disk, its --store-quota, " +
				"or an external etcd that must be compacted, defragmented and disarmed), and send it again: it is safe to repeat. " +
				"Reads, heartbeats and deregistrations go on",
		}
	case errors.Is(err, store.ErrTooLarge):
		return &api.Error{Code: api.CodeBodyTooLarge, Detail: "the record is too large to store", Remedy: "send less metadata"}
	case errors.Is(err, store.ErrClosed):
		return &api.Error{Code: api.CodeShuttingDown, Detail: "this node is shutting down", Remedy: "ask another node"}
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &api.Error{
			Code: api.CodeUnavailable, Detail: "the region's store does not answer; the write may have happened or not",
			Remedy: "send it again: it is safe to repeat. Reads and heartbeats go on",
		}
	}
	return fmt.Errorf("store: %w", err)
}
