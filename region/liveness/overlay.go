package liveness

import "github.com/nearside/nearside/sdk/api"

// Overlay is what readers must know beside the catalogue, as of one tick. It never
// changes; the nil Overlay is empty. An entry concerns one revision of an instance's
// record: what was registered anew meanwhile is neither hidden nor overdue.
type Overlay struct {
	hidden  map[api.InstanceKey]uint64
	overdue map[api.InstanceKey]uint64
	touched map[api.ServiceKey]struct{}
}

// Overlay returns the present overlay, and whether it changed since the last call. When
// it did not, the overlay returned is nil: keep the one at hand.
func (l *Ledger) Overlay() (*Overlay, bool) {
	if !l.changed {
		return nil, false
	}
	l.changed = false
	o := &Overlay{
		hidden:  make(map[api.InstanceKey]uint64, len(l.decided)),
		overdue: make(map[api.InstanceKey]uint64, len(l.overdue)),
		touched: make(map[api.ServiceKey]struct{}),
	}
	for k, e := range l.decided {
		o.hidden[k] = e.Revision
		o.touched[k.ServiceKey()] = struct{}{}
	}
	for k, e := range l.overdue {
		o.overdue[k] = e.Revision
		o.touched[k.ServiceKey()] = struct{}{}
	}
	return o, true
}

// Touches reports whether any instance of the service is hidden or overdue.
func (o *Overlay) Touches(s api.ServiceKey) bool {
	if o == nil || len(o.touched) == 0 {
		return false
	}
	_, ok := o.touched[s]
	return ok
}

// Hidden reports whether the eviction of this record is decided: readers must not see it.
func (o *Overlay) Hidden(k api.InstanceKey, revision uint64) bool {
	if o == nil || len(o.hidden) == 0 {
		return false
	}
	at, ok := o.hidden[k]
	return ok && at == revision
}

// Overdue reports whether heartbeats stopped while the brake holds the instance.
func (o *Overlay) Overdue(k api.InstanceKey, revision uint64) bool {
	if o == nil || len(o.overdue) == 0 {
		return false
	}
	at, ok := o.overdue[k]
	return ok && at == revision
}

// Len returns the numbers of hidden and overdue instances.
func (o *Overlay) Len() (hidden, overdue int) {
	if o == nil {
		return 0, 0
	}
	return len(o.hidden), len(o.overdue)
}

// EachHidden calls f for every hidden instance and the revision of its record, in no order.
func (o *Overlay) EachHidden(f func(k api.InstanceKey, revision uint64)) {
	if o == nil {
		return
	}
	for k, revision := range o.hidden {
		f(k, revision)
	}
}

// EachOverdue calls f for every overdue instance and the revision of its record, in no order.
func (o *Overlay) EachOverdue(f func(k api.InstanceKey, revision uint64)) {
	if o == nil {
		return
	}
	for k, revision := range o.overdue {
		f(k, revision)
	}
}

// Mark is one record that an Overlay is about.
type Mark struct {
	Key      api.InstanceKey
	Revision uint64
}

// NewOverlay returns the overlay that hides and marks these records.
func NewOverlay(hidden, overdue []Mark) *Overlay {
	o := &Overlay{
		hidden:  make(map[api.InstanceKey]uint64, len(hidden)),
		overdue: make(map[api.InstanceKey]uint64, len(overdue)),
		touched: make(map[api.ServiceKey]struct{}),
	}
	for _, m := range hidden {
		o.hidden[m.Key] = m.Revision
		o.touched[m.Key.ServiceKey()] = struct{}{}
	}
	for _, m := range overdue {
		o.overdue[m.Key] = m.Revision
		o.touched[m.Key.ServiceKey()] = struct{}{}
	}
	return o
}
