package replica

import (
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// The guard against mass removal (I7). A registry that lost its data is empty for a moment
// while its instances are alive; so is one that was restored, or damaged by a mistake. When
// more than a share of what an origin has goes within a window of time, the old rows are kept
// for a while beside the new truth and the origin counts as suspect.
const (
	// HoldFor is how long removed rows are kept: instances of a registry that lost its data
	// register again well within it.
	HoldFor = 60 * time.Second
	// HoldServices and HoldPassing are the shares, in percent, of usable services and of
	// usable instances beyond which a removal is held.
	HoldServices = 30
	HoldPassing  = 50
	// Inside one history, small numbers are everyday life: a region of two services may stop
	// one. The guard needs at least this many. After a change of epoch it needs one.
	minHoldServices = 3
	minHoldPassing  = 5
)

// heldRow is the last row of a service before it vanished.
type heldRow struct {
	entry *Entry
	until time.Time
	// shown is what readers see: entry merged with the truth it was made for. It is made anew
	// only when that truth changes, so that an unchanged row stays the same to its readers.
	shown, truth *Entry
}

// lost returns how many usable instances of a row were removed between two entries, and
// whether the service as a whole went. Instances that turned critical or draining are no
// loss: the origin knows them and says so, which is news to follow at once.
func lost(old, next *Entry) (instances int, service bool) {
	if old == nil || old.Summary == nil || old.Summary.Passing == 0 {
		return 0, false
	}
	if next == nil {
		return old.Summary.Passing, true
	}
	if next.Summary == nil {
		return 0, false
	}
	n := min(old.Summary.Passing-next.Summary.Passing, old.Summary.Total-next.Summary.Total)
	return max(n, 0), false
}

// loss is a removal of the last HoldFor: the row as it was, and what it had more than now.
type loss struct {
	entry     *Entry
	at        time.Time
	instances int
	service   bool
}

// hold compares the truth with what is about to replace it, and keeps what was removed when
// it is too much, together with what was removed shortly before: a registry that loses its
// instances one after the other is as empty in the end. It returns how many services it
// began to hold. What the origin planned, an operator's wish, is let go.
func (r *Replica) hold(p *pending, next *Table, newHistory bool, now time.Time) int {
	touched := p.touched
	if r.off.Guard {
		return 0
	}
	for k, l := range r.recent {
		if now.Sub(l.at) >= HoldFor {
			delete(r.recent, k)
		}
	}
	// What there was: now, and what went earlier in the window.
	usable, passing := r.truth.usable, r.truth.passing
	for k := range p.planned {
		// What is meant to go is no loss, and not part of what there was either.
		instances, service := lost(r.truth.Get(k), next.Get(k))
		passing -= instances
		if service {
			usable--
		}
		delete(r.held, k)
		delete(r.recent, k)
	}
	for _, l := range r.recent {
		passing += l.instances
		if l.service {
			usable++
		}
	}
	look := func(k api.ServiceKey, old *Entry) {
		if _, meant := p.planned[k]; meant {
			return
		}
		l, earlier := r.recent[k]
		if !earlier {
			l = loss{entry: old, at: now}
		}
		if l.instances, l.service = lost(l.entry, next.Get(k)); l.instances > 0 {
			r.recent[k] = l
		} else if earlier {
			delete(r.recent, k)
		}
	}
	if touched == nil {
		for k, e := range r.truth.All {
			if next.Get(k) != e {
				look(k, e)
			}
		}
		for k := range r.recent {
			if r.truth.Get(k) == nil {
				look(k, nil)
			}
		}
	} else {
		for _, k := range touched {
			look(k, r.truth.Get(k))
		}
	}
	var instances, services int
	for _, l := range r.recent {
		instances += l.instances
		if l.service {
			services++
		}
	}
	needServices, needPassing := minHoldServices, minHoldPassing
	if newHistory {
		needServices, needPassing = 1, 1
	}
	mass := services >= needServices && services*100 > usable*HoldServices ||
		instances >= needPassing && instances*100 > passing*HoldPassing
	if !mass {
		return 0
	}
	began := 0
	for k, l := range r.recent {
		if _, already := r.held[k]; !already {
			r.held[k] = heldRow{entry: l.entry, until: now.Add(HoldFor)}
			began++
		}
	}
	return began
}

// heldUntil returns when the last held row is let go; zero when none is held.
func (r *Replica) heldUntil() (last time.Time) {
	for _, h := range r.held {
		if h.until.After(last) {
			last = h.until
		}
	}
	return last
}

// release drops held rows whose time is over, or whose service is back with at least half
// of its usable instances. It reports whether there were any.
func (r *Replica) release(now time.Time) bool {
	released := false
	for k, h := range r.held {
		back := false
		if e := r.truth.Get(k); e != nil && e.Summary != nil {
			back = e.Summary.Passing*2 >= h.entry.Summary.Passing
		}
		if back || !now.Before(h.until) {
			delete(r.held, k)
			released = true
		}
	}
	return released
}

// merge returns the truth with the held rows in it.
func (r *Replica) merge() *Table {
	e := newEdit(r.truth)
	e.t.seal = nil // nobody signs what is shown beside the truth
	for k, h := range r.held {
		if truth := r.truth.Get(k); h.shown == nil || h.truth != truth || h.shown.Summary.Load != r.loads.rows[k] {
			h.shown, h.truth = r.merged(h.entry, truth), truth
			h.shown.Summary.Load = r.loads.rows[k]
			r.held[k] = h
		}
		e.put(k, h.shown)
	}
	return e.done()
}

// merged returns a row with the endpoints of the new truth first, and those of the held row
// that it lacks behind them, marked as overdue: callers use them after all others.
func (r *Replica) merged(held, truth *Entry) *Entry {
	s := *held.Summary
	s.Endpoints = nil
	s.Total, s.Passing, s.Draining, s.Capacity, s.Zones = 0, 0, 0, 0, nil
	known := make(map[api.InstanceID]struct{})
	out := &Entry{Hash: held.Hash}
	if truth != nil {
		out.Hash, out.Quarantined = truth.Hash, truth.Quarantined
		if truth.Summary != nil {
			s = *truth.Summary
		}
	}
	zones := make(map[api.Zone]api.ZoneCount, len(s.Zones))
	for z, n := range s.Zones {
		zones[z] = n
	}
	endpoints := make([]api.Endpoint, 0, api.MaxFailoverSet)
	for _, ep := range s.Endpoints {
		known[ep.ID] = struct{}{}
		endpoints = append(endpoints, ep)
	}
	for _, ep := range held.Summary.Endpoints {
		if _, ok := known[ep.ID]; ok || len(endpoints) >= api.MaxFailoverSet {
			continue
		}
		ep.Overdue = true
		endpoints = append(endpoints, ep)
		z := zones[ep.Zone]
		z.Total++
		s.Total++
		if ep.Status.Usable() {
			z.Passing++
			s.Passing++
			s.Capacity += summary.Units(ep.Capacity, ep.Weight)
		}
		zones[ep.Zone] = z
	}
	s.Endpoints, s.Zones, s.Complete = endpoints, zones, false
	// In a new history the old row's revision means nothing; this is when it became so.
	s.Revision = r.version.Revision
	out.Summary, out.Revision = &s, s.Revision
	return out
}
