package registry

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// farShare: looking at what changed in other regions takes at most one part in so many of the time, and
	// farRest at most is between two looks. What changes when nothing did before is looked at at once.
	farShare = 5
	farRest  = 100 * time.Millisecond
)

// farBells wake watches when other regions' rows of their services change, and for nothing else: the
// federation says only that something did. One goroutine finds out for all watches what it was.
// Safe for concurrent use.
type farBells struct {
	replicas Replicas

	mu       sync.Mutex
	services map[api.ServiceKey]*farRow
	all      map[*farBell]struct{} // of watches of all services
	drained  map[api.Region]float64
}

// farBell wakes one watch.
type farBell struct {
	c chan struct{} // capacity 1
}

// farRow is a service that somebody watches, as it was when last looked at.
type farRow struct {
	bells map[*farBell]struct{}
	seen  []farSeen
}

// farSeen is what tells one state of a region's row from the next, see farMark.
type farSeen struct {
	region   api.Region
	epoch    api.Epoch
	revision uint64
	summary  *api.Summary
}

func newFarBells(replicas Replicas) *farBells {
	return &farBells{replicas: replicas, services: map[api.ServiceKey]*farRow{}, all: map[*farBell]struct{}{}}
}

func newFarBell() *farBell { return &farBell{c: make(chan struct{}, 1)} }

func (b *farBell) ring() {
	select {
	case b.c <- struct{}{}:
	default: // it was not heard yet, and will be
	}
}

// hang adds the bell of a watch; nil services mean all. What changes after it returned rings.
func (f *farBells) hang(one *farBell, services map[api.ServiceKey]struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if services == nil {
		f.all[one] = struct{}{}
	}
	for key := range services {
		row := f.services[key]
		if row == nil {
			row = &farRow{bells: map[*farBell]struct{}{}, seen: seenOf(f.replicas.Lookup(key), nil)}
			f.services[key] = row
		}
		row.bells[one] = struct{}{}
	}
}

// take removes what hang added.
func (f *farBells) take(one *farBell, services map[api.ServiceKey]struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, one)
	for key := range services {
		if row := f.services[key]; row != nil {
			if delete(row.bells, one); len(row.bells) == 0 {
				delete(f.services, key)
			}
		}
	}
}

// look rings for what changed since the last call.
func (f *farBells) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := range f.all {
		one.ring()
	}
	drained := map[api.Region]float64{}
	for _, o := range f.replicas.Origins() {
		if o.Drained > 0 {
			drained[o.Region] = o.Drained
		}
	}
	moved := !maps.Equal(drained, f.drained) // that concerns every watch
	f.drained = drained
	for key, row := range f.services {
		now := f.replicas.Lookup(key)
		same := sameRows(now, row.seen)
		if same && !moved {
			continue
		}
		row.seen = seenOf(now, row.seen[:0])
		for one := range row.bells {
			one.ring()
		}
	}
}

func seenOf(rows []api.Replica, into []farSeen) []farSeen {
	for i := range rows {
		if s := rows[i].Summary; s != nil {
			into = append(into, farSeen{rows[i].Origin.Region, rows[i].Origin.Epoch, s.Revision, s})
		}
	}
	return into
}

func sameRows(rows []api.Replica, seen []farSeen) bool {
	n := 0
	for i := range rows {
		s := rows[i].Summary
		if s == nil {
			continue
		}
		if n == len(seen) || seen[n] != (farSeen{rows[i].Origin.Region, rows[i].Origin.Epoch, s.Revision, s}) {
			return false
		}
		n++
	}
	return n == len(seen)
}

// farLoop looks at what other regions' changes concern until ctx ends.
func (r *Registry) farLoop(ctx context.Context) error {
	f := r.farBells
	if f == nil {
		return nil
	}
	for {
		changed := f.replicas.Changed() // before looking, so that nothing slips between
		began := time.Now()
		f.look()
		if !sleep(ctx, min(farRest, (farShare-1)*time.Since(began))) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
