package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// tidyAfter is how long a service must have been empty for its departure record to go.
	// Nothing reads the record then but a load, which does not need it either; a store's watch
	// that resumes gets it from history, which is kept for five minutes. So the wait only
	// spares the deletes for services that come and go.
	tidyAfter = 10 * time.Minute
	// tidyInterval is how often that is looked at.
	tidyInterval = time.Minute
	// maxDepartures is how many records may wait. More go before their time, oldest first.
	maxDepartures = 4096
)

// departures are the departure records of services that became empty. Service names may be
// short-lived (one per job, one per branch), and each leaves a record behind. Safe for
// concurrent use.
type departures struct {
	mu      sync.Mutex
	waiting map[api.ServiceKey]departed
	crowded chan struct{} // capacity 1: more than maxDepartures wait
}

type departed struct {
	record store.Record
	at     time.Duration
}

func newDepartures() *departures {
	return &departures{waiting: map[api.ServiceKey]departed{}, crowded: make(chan struct{}, 1)}
}

// note remembers the departure records of b whose services are empty in next, and forgets
// those that are gone.
func (d *departures) note(now time.Duration, b store.Batch, next *catalog.Snapshot) {
	for _, ev := range b.Events {
		key, ok := catalog.DepartedService(ev.Record.Key)
		if !ok {
			continue
		}
		if ev.Delete {
			d.forget(key)
			continue
		}
		if list, _ := next.Service(key); len(list) == 0 {
			d.add(key, departed{store.Record{Key: ev.Record.Key, Revision: b.Revision}, now})
		}
	}
}

func (d *departures) forget(key api.ServiceKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, key)
}

func (d *departures) add(key api.ServiceKey, rec departed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// While the store takes no deletes nothing more is remembered than this: what is left
	// behind is found by the next load.
	if _, known := d.waiting[key]; !known && len(d.waiting) >= 2*maxDepartures {
		return
	}
	d.waiting[key] = rec
	if len(d.waiting) > maxDepartures {
		select {
		case d.crowded <- struct{}{}:
		default:
		}
	}
}

// take removes and returns the records whose time has come, and the oldest others when too
// many wait. Those of services that snap has instances of are forgotten: the next departure
// writes the record again.
func (d *departures) take(now time.Duration, snap *catalog.Snapshot) []store.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	type candidate struct {
		key api.ServiceKey
		departed
	}
	var all []candidate
	for key, rec := range d.waiting {
		if list, _ := snap.Service(key); len(list) > 0 {
			delete(d.waiting, key)
			continue
		}
		all = append(all, candidate{key, rec})
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.at, b.at), catalog.CompareKeys(a.key, b.key))
	})
	n := 0
	if len(all) > maxDepartures {
		n = len(all) - maxDepartures/2
	}
	for n < len(all) && now-all[n].at >= tidyAfter {
		n++
	}
	out := make([]store.Record, n)
	for i, c := range all[:n] {
		out[i] = c.record
		delete(d.waiting, c.key)
	}
	return out
}

func (d *departures) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// tidyLoop deletes departure records that nobody needs any more: those that a load found,
// and those of services that have been empty for a while. Of several nodes the one that owns liveness
// does; the others remember, in case that they will.
func (r *Registry) tidyLoop(ctx context.Context) error {
	t := time.NewTicker(tidyInterval)
	defer t.Stop()
	for {
		mine := r.own.claim.Load().mine
		orphans, crowded := r.orphans, r.departures.crowded
		if !mine {
			orphans, crowded = nil, nil
		}
		select {
		case <-ctx.Done():
			return nil
		case records := <-orphans:
			r.tidy(ctx, records)
			continue
		case <-t.C:
		case <-crowded:
		}
		if !mine {
			continue
		}
		r.tidy(ctx, r.departures.take(r.now(), r.Snapshot()))
	}
}

// tidy deletes the records unless they were written again. Failing is harmless: the next
// load finds them.
func (r *Registry) tidy(ctx context.Context, records []store.Record) {
	for chunk := range slices.Chunk(records, store.MaxOps) {
		if err := r.tidyCommit(ctx, chunk); err != nil {
			r.log.Debug("old departure records stay for now", "records", len(records), "cause", err)
			return
		}
	}
}

func (r *Registry) tidyCommit(ctx context.Context, records []store.Record) error {
	ops := make([]store.Op, len(records))
	for i, rec := range records {
		ops[i] = store.Op{Delete: true, Key: rec.Key, Guarded: true, If: rec.Revision}
	}
	_, err := r.commit(ctx, ops)
	if !errors.Is(err, store.ErrConflict) {
		return err
	}
	if len(records) == 1 {
		return nil // the service is back and lost somebody again: its record is a newer one
	}
	// The others must not stay for the sake of one.
	half := len(records) / 2
	return cmp.Or(r.tidyCommit(ctx, records[:half]), r.tidyCommit(ctx, records[half:]))
}
