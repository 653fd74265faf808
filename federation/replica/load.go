package replica

import (
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// loads is what the origin told of how much its services are used. It is kept beside the rows:
// it has no version, is not written to disk, and a row that arrives later finds it here. That it
// is the origin's is proved by a digest of its own, which heartbeats carry; when it does not fit,
// a frame was lost, and the next ack asks for all of them again. The stream goes on meanwhile.
type loads struct {
	rows     map[api.ServiceKey]int
	digest   summary.Digest
	incoming map[api.ServiceKey]int // a full list that is not complete yet
	wrong    bool
}

// onto puts what is known of a service onto a new row of it.
func (l *loads) onto(key api.ServiceKey, e *Entry) {
	if p := l.rows[key]; p > 0 && e.Summary != nil {
		e.Summary.Load = p // nobody else has the row yet
	}
}

// fit returns a table with the loads known now. Rows that were staged when an earlier stream ended
// bear those of that time, and nothing that is told from now on names a service whose load is not
// known any more.
func (l *loads) fit(t *Table) *Table {
	e := newEdit(t)
	for k := range t.All {
		e.loaded(k, l.rows[k])
	}
	return e.done()
}

// load takes a frame of loads.
func (r *Replica) load(f Frame) Effects {
	switch {
	case r.hearsay():
		return r.ignore(RefusedForeign) // nobody signs loads: they are the origin's own to tell
	case r.snapshot != nil || r.delta != nil:
		return r.ignore(RefusedOrder) // it is asked for again
	}
	l := &r.loads
	changes := make(map[api.ServiceKey]int, len(f.Loads))
	for _, x := range f.Loads {
		key, err := ParseKey(x.Key)
		if err != nil || x.Percent < 0 || x.Percent > summary.MaxLoad {
			return r.drop(RefusedMalformed, "load %d of %s", x.Percent, api.Quote(x.Key))
		}
		changes[key] = x.Percent
	}
	if len(l.rows)+len(l.incoming)+len(changes) > 2*MaxRows {
		return r.drop(RefusedLimit, "loads of over %d services", MaxRows)
	}
	if f.Full {
		l.incoming = make(map[api.ServiceKey]int, len(changes))
	}
	if l.incoming == nil {
		return Effects{Changed: r.setLoads(changes)}
	}
	for k, p := range changes {
		if p > 0 {
			l.incoming[k] = p
		}
	}
	if f.More {
		return Effects{}
	}
	all := l.incoming
	l.incoming = nil
	for k := range l.rows {
		if _, still := all[k]; !still {
			all[k] = 0
		}
	}
	l.wrong = false
	return Effects{Changed: r.setLoads(all)}
}

// setLoads applies changes, nil meaning that nothing is known any more, and reports whether a
// row that is shown changed.
func (r *Replica) setLoads(changes map[api.ServiceKey]int) bool {
	l := &r.loads
	if changes == nil {
		changes = make(map[api.ServiceKey]int, len(l.rows))
		for k := range l.rows {
			changes[k] = 0
		}
	}
	if l.rows == nil {
		l.rows = make(map[api.ServiceKey]int, len(changes))
	}
	truth, visible := newEdit(r.truth), newEdit(r.visible)
	same, changed := r.truth == r.visible, false
	for k, p := range changes {
		old := l.rows[k]
		l.digest = l.digest.Remove(summary.Load{Key: k, Percent: old}.Hash()).Add(summary.Load{Key: k, Percent: p}.Hash())
		if p == 0 {
			delete(l.rows, k)
		} else {
			l.rows[k] = p
		}
		changed = truth.loaded(k, p) || changed
		if !same {
			changed = visible.loaded(k, p) || changed
		}
	}
	if !changed {
		return false
	}
	r.truth, r.visible = truth.done(), visible.done()
	if same {
		r.visible = r.truth
	}
	return true
}

// loaded replaces a row by one with another load.
func (e *edit) loaded(k api.ServiceKey, percent int) bool {
	old := e.t.Get(k)
	if old == nil || old.Summary == nil || old.Summary.Load == percent {
		return false
	}
	entry, s := *old, *old.Summary
	s.Load = percent
	entry.Summary = &s
	e.put(k, &entry)
	return true
}

// compareLoads takes the heartbeat's word of what the loads add up to.
func (r *Replica) compareLoads(f Frame) {
	if f.LoadDigest != nil {
		r.loads.wrong = *f.LoadDigest != r.loads.digest || r.loads.incoming != nil
	}
}

// Loads returns the class of every row whose load is known.
func (t *Table) Loads() map[api.ServiceKey]int {
	out := make(map[api.ServiceKey]int)
	for k, e := range t.All {
		if e.Summary != nil && e.Summary.Load > 0 {
			out[k] = e.Summary.Load
		}
	}
	return out
}
