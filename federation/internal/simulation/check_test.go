package simulation

import (
	"fmt"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// check looks at every pair after each thing that happened, whatever that was: nobody went
// back in time (P4); what is shown changed by a frame or by the end of a hold, and by nothing else (I6); and
// the rows that are held are those that the origin had at that version (I2, I5).
func (w *world) check() error {
	for _, l := range w.links {
		v := l.replica.View()
		if o := v.Version.Compare(l.high); !l.high.IsZero() && (o == api.Older || o == api.Conflict) {
			return fmt.Errorf("P4: %s shows %s after %s of %s", l.reader.name, v.Version, l.high, l.origin.name)
		}
		l.high = v.Version
		if differ(v.Table, l.shown.Table) {
			return fmt.Errorf("I6: %s shows %d services of %s after %d, and no frame said so", l.reader.name, v.Table.Len(), l.origin.name, l.shown.Table.Len())
		}
		if differ(v.Truth, l.shown.Truth) || v.Version != l.shown.Version {
			return fmt.Errorf("I6: %s holds %d rows of %s at %s after %d at %s, and no frame said so",
				l.reader.name, v.Rows, l.origin.name, v.Version, l.shown.Rows, l.shown.Version)
		}
		if v.Version == l.proved || v.Version.IsZero() || v.Gone {
			continue
		}
		if !w.told(l, v) {
			return fmt.Errorf("I2, I5: %s holds rows with digest %s of %s at %s, which it never had there", l.reader.name, v.Digest, l.origin.name, v.Version)
		}
		l.proved = v.Version
	}
	return nil
}

func differ(a, b *replica.Table) bool {
	return a != b && (a.Len() != b.Len() || a.Digest() != b.Digest())
}

// told reports whether the origin ever had these rows at that version, as it tells them to
// this reader or, when they came through relays, to another one.
func (w *world) told(l *link, v replica.View) bool {
	if l.origin.told.has(v.Version, v.Digest, l.reader.name) {
		return true
	}
	for _, r := range w.regions {
		if l.origin.told.has(v.Version, v.Digest, r.name) {
			return true
		}
	}
	return false
}

// tick lets time work on a replica. Only what was held back may go by it, or all rows of an origin
// that ended for good.
func (w *world) tick(l *link) error {
	before := l.replica.View()
	l.replica.Tick(w.clock(l.reader))
	after := l.replica.View()
	l.shown = after
	if after.Gone && before.Leaving {
		return nil
	}
	if after.Truth != before.Truth || after.Version != before.Version {
		return fmt.Errorf("I6: time changed what %s holds of %s from %d rows to %d", l.reader.name, l.origin.name, before.Rows, after.Rows)
	}
	for k := range before.Table.All {
		if after.Table.Get(k) == nil && (before.Held == 0 || before.Truth.Get(k) != nil) {
			return fmt.Errorf("I6: %s was not held back, and is gone for %s by time alone", k, l.reader.name)
		}
	}
	return nil
}

// joins checks that a delta was applied only where it joins on (I3).
func joins(l *link, f replica.Frame, eff replica.Effects, before *replica.View) error {
	if f.Kind != replica.Delta || f.More || !eff.Applied || eff.Err != nil {
		return nil
	}
	from := f.Epoch
	if !f.FromEpoch.IsZero() {
		from = f.FromEpoch
	}
	if v := before.Version; from != v.Epoch || f.From > v.Revision || from == f.Epoch && f.To <= v.Revision {
		return fmt.Errorf("I3: %s applied a delta of %s from %s/%d to %d onto %s", l.reader.name, l.origin.name, from, f.From, f.To, v)
	}
	return nil
}
