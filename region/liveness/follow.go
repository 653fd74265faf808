package liveness

import (
	"cmp"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// A node that does not own liveness keeps a ledger too, without judging: members come and
// go by Put and Delete, what the owner evicted by Saw, and Follow takes the place of Tick. So
// it can begin at any moment without a window of evictions being forgotten.

// Follow is Tick without a judgement: of its verdict only Gap and SlowChanged are ever set.
func (l *Ledger) Follow(now time.Duration) (v Verdict) {
	gap := now - l.lastTick
	if gap > l.cfg.MaxGap {
		v.Gap = gap
	}
	late, changed := l.pace.tick(now, gap, l.cfg.Every, l.cfg.MaxGap)
	l.credit += 2 * late
	if v.SlowChanged = changed; changed {
		l.slowSince = now
	}
	l.lastTick = now
	l.slide(now)
	return v
}

// Begin makes this ledger the one that judges: everyone has a full TTL from now on, and more on
// top of it, for what a former owner may have acknowledged meanwhile.
func (l *Ledger) Begin(now, more time.Duration) {
	l.Release()
	l.grant(now + more)
}

// Release gives up the judgement: what was decided and not done is void.
func (l *Ledger) Release() {
	for k := range l.decided {
		l.present[k.ServiceKey()]++
	}
	clear(l.decided)
	clear(l.overdue)
	for _, e := range l.entries {
		e.condemned, e.spare = false, 0
	}
	l.protected, l.since, l.reviewed = false, 0, 0
	l.changed = true
}

// Grant gives everyone a full TTL: heartbeats could not be taken for a while.
func (l *Ledger) Grant(now time.Duration) { l.grant(now) }

// Saw tells that the store shows the eviction of an instance that this ledger has not
// decided. It comes before Delete.
func (l *Ledger) Saw(now time.Duration, key api.InstanceKey) {
	if l.decided[key] != nil {
		return // counted when it was decided
	}
	l.evictions = append(l.evictions, eviction{now, key.ServiceKey()})
	l.evictedOf[key.ServiceKey()]++
}

// Decided reports whether this ledger has decided the eviction of this record.
func (l *Ledger) Decided(key api.InstanceKey, revision uint64) bool {
	e := l.decided[key]
	return e != nil && e.Revision == revision
}

// Evictions returns the window's evictions: how many whole seconds ago, and how many. It has as many
// entries as the window has seconds at most.
func (l *Ledger) Evictions(now time.Duration) [][2]int {
	var out [][2]int
	for i := len(l.evictions) - 1; i >= 0; i-- {
		age := int((now - l.evictions[i].at) / time.Second)
		if age < 0 || l.evictions[i].at <= now-l.cfg.Window {
			continue
		}
		if k := len(out); k > 0 && out[k-1][0] == age {
			out[k-1][1]++
		} else {
			out = append(out, [2]int{age, 1})
		}
	}
	return out
}

// Carry takes over what Evictions said in another process, at most as long ago as this one
// has been running. Their services are not known, so while they count no service loses its
// last instance.
func (l *Ledger) Carry(now time.Duration, evictions [][2]int) {
	for _, e := range evictions {
		at := now - time.Duration(max(0, min(e[0], 3600)))*time.Second
		for range min(max(e[1], 0), mostCarried) {
			l.evictions = append(l.evictions, eviction{at: at})
			l.elsewhere++
		}
	}
	slices.SortStableFunc(l.evictions, func(a, b eviction) int { return cmp.Compare(a.at, b.at) })
}

// mostCarried bounds what is believed of a record.
const mostCarried = 1 << 20

// Recount is Carry where history had a gap: of what Evictions said elsewhere, those that this
// ledger has not seen are taken over, as of now.
func (l *Ledger) Recount(now time.Duration, evictions [][2]int) {
	missing := 0
	for _, e := range evictions {
		missing = min(missing+min(max(e[1], 0), mostCarried), mostCarried)
	}
	for _, e := range l.evictions {
		if e.at > now-l.cfg.Window {
			missing--
		}
	}
	for range missing {
		l.evictions = append(l.evictions, eviction{at: now})
		l.elsewhere++
	}
}
