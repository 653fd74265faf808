package liveness

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Config holds the brake's figures.
type Config struct {
	Share  float64       // of the instances that may be evicted in one Window, 0 to 1
	Window time.Duration // sliding
	// MaxGap between two ticks; a longer one means that this process did not run, and
	// nobody's silence counts. It must not exceed Grace, which covers shorter gaps.
	MaxGap time.Duration
	// Every is the time between two ticks that are in time. A node whose ticks are late for a
	// quarter of ten seconds is slow: it evicts nobody until it keeps time again, and then gives
	// those overdue one more TTL. 0 = not watched.
	Every time.Duration
	// Grace is added to every TTL.
	Grace time.Duration
	// HoldFor is how long protection holds an instance. After it, held ones leave too, at
	// the pace of Share per Window: a region that lost most of its instances for good must
	// not show them for ever.
	HoldFor time.Duration
}

// Default returns the figures of the product.
func Default() Config {
	return Config{Share: 0.15, Window: time.Minute, MaxGap: time.Second, Every: 200 * time.Millisecond, Grace: api.DeadlineGrace, HoldFor: 15 * time.Minute}
}

// Member is one instance as the catalogue has it.
type Member struct {
	Key      api.InstanceKey
	Revision uint64 // of its record
	TTL      time.Duration
}

// Ledger holds the deadlines of one region. It is not safe for concurrent use. All times
// are durations since one fixed moment and must not go backwards by more than a reader's
// own delay.
type Ledger struct {
	cfg     Config
	entries map[api.InstanceKey]*entry
	// overdue: past their deadline, not evicted. decided: their eviction is decided, the
	// record is not yet deleted. No entry is in both.
	overdue map[api.InstanceKey]*entry
	decided map[api.InstanceKey]*entry
	// present counts the instances of a service that are not decided.
	present map[api.ServiceKey]int

	lastTick time.Duration
	// due is no later than the earliest deadline of an entry that is not overdue: before
	// it no scan is needed.
	due time.Duration

	evictions []eviction // within the window, oldest first
	evictedOf map[api.ServiceKey]int
	// elsewhere counts those of evictions whose service is not known.
	elsewhere int
	samples   []sample // of the number of instances, one a second, oldest first, within the window

	pace       pace
	credit     time.Duration // grows with every late tick; see overdueAt
	slowSince  time.Duration
	protected  bool
	since      time.Duration // start of protection
	reviewed   time.Duration // last look at held instances during protection
	graceUntil time.Duration // of the shortest TTL: nobody is overdue before
	lastGrace  time.Duration // of the longest
	changed    bool          // since the last Overlay
}

type entry struct {
	Member
	deadline time.Duration // see overdueAt
	credit   time.Duration // the ledger's when deadline was set
	// spare: not to be evicted before. Set when protection ends, for those still overdue.
	spare time.Duration
	// condemned: overdue whatever its heartbeats say; see Condemn.
	condemned bool
}

type eviction struct {
	at      time.Duration
	service api.ServiceKey // zero = not known
}

type sample struct {
	at time.Duration
	n  int
}

// New returns an empty ledger.
func New(cfg Config) *Ledger {
	return &Ledger{
		cfg: cfg, entries: map[api.InstanceKey]*entry{}, overdue: map[api.InstanceKey]*entry{},
		decided: map[api.InstanceKey]*entry{}, present: map[api.ServiceKey]int{}, evictedOf: map[api.ServiceKey]int{},
	}
}

// Load replaces all members, at a start or when history had a gap. Everyone gets a full
// TTL; evictions decided for a record that is still the same stand.
func (l *Ledger) Load(now time.Duration, members []Member) {
	decided := l.decided
	l.entries = make(map[api.InstanceKey]*entry, len(members))
	l.overdue, l.decided, l.present = map[api.InstanceKey]*entry{}, map[api.InstanceKey]*entry{}, map[api.ServiceKey]int{}
	for _, m := range members {
		e := &entry{Member: m}
		l.entries[m.Key] = e
		if old := decided[m.Key]; old != nil && old.Revision == m.Revision {
			l.decided[m.Key] = e
			continue
		}
		l.present[m.Key.ServiceKey()]++
	}
	l.lastTick = now
	l.grant(now)
	l.sample(now)
}

// grant gives everyone a full TTL from now on.
func (l *Ledger) grant(now time.Duration) {
	shortest, longest := time.Duration(0), time.Duration(0)
	for k, e := range l.entries {
		if l.decided[k] != nil {
			continue
		}
		e.condemned = false
		l.extend(now, e)
		if e.TTL != 0 && (shortest == 0 || e.TTL < shortest) {
			shortest = e.TTL
		}
		longest = max(longest, e.TTL)
	}
	clear(l.overdue)
	l.due = now + shortest + l.cfg.Grace
	l.graceUntil, l.lastGrace = l.due, now+longest+l.cfg.Grace
	l.changed = true
}

// extend gives e a full TTL from now on. A caller may have read the clock before a pause: a
// deadline never moves back.
func (l *Ledger) extend(now time.Duration, e *entry) {
	e.deadline = max(l.overdueAt(e), l.deadline(now, e))
	e.credit = l.credit
}

// overdueAt is when e is overdue: its deadline, later by twice what this node lost since it
// was set. Heartbeats that come meanwhile wait in a queue behind others, so they are late by
// more than the ticks are. It is a full TTL more at most, so that nobody lives for ever.
func (l *Ledger) overdueAt(e *entry) time.Duration {
	return e.deadline + min(l.credit-e.credit, e.TTL+l.cfg.Grace)
}

// deadline is how long a heartbeat received now keeps e. Without a TTL none is expected.
func (l *Ledger) deadline(now time.Duration, e *entry) time.Duration {
	if e.TTL == 0 {
		return never
	}
	return now + e.TTL + l.cfg.Grace
}

// Put tells that the catalogue has m, new or changed. heard says that the change came from
// the instance itself, which counts as a heartbeat and takes back a Condemn. A new record undoes an eviction that
// was decided on the older one.
func (l *Ledger) Put(now time.Duration, m Member, heard bool) {
	e := l.entries[m.Key]
	if e == nil {
		e = &entry{}
		l.entries[m.Key] = e
		l.present[m.Key.ServiceKey()]++
		heard = true
	}
	if l.decided[m.Key] != nil {
		if e.Revision == m.Revision {
			return
		}
		delete(l.decided, m.Key)
		l.present[m.Key.ServiceKey()]++
		l.changed = true
		heard = true
	}
	if e.TTL != m.TTL {
		e.deadline, e.credit = 0, l.credit // a shorter TTL counts at once
		heard = true
	}
	if e.Revision != m.Revision && l.overdue[m.Key] != nil {
		l.changed = true // the overlay names the revision
	}
	e.Member = m
	if heard {
		e.condemned = false
		l.heard(now, e)
	}
}

// Delete tells that the catalogue no longer has the instance.
func (l *Ledger) Delete(key api.InstanceKey) {
	e := l.entries[key]
	if e == nil {
		return
	}
	delete(l.entries, key)
	if l.decided[key] != nil || l.overdue[key] != nil {
		l.changed = true
	}
	if l.decided[key] == nil {
		l.leave(key)
	}
	delete(l.decided, key)
	delete(l.overdue, key)
}

// leave takes an instance out of its service's count.
func (l *Ledger) leave(key api.InstanceKey) {
	s := key.ServiceKey()
	if l.present[s]--; l.present[s] <= 0 {
		delete(l.present, s)
	}
}

// Heartbeat moves the deadline of an instance. It returns false when the instance is not
// known or its eviction is decided: it must register again. What it acknowledged is never
// evicted on older evidence (P1).
func (l *Ledger) Heartbeat(now time.Duration, key api.InstanceKey) bool {
	e := l.entries[key]
	if e == nil || l.decided[key] != nil {
		return false
	}
	l.heard(now, e)
	return true
}

func (l *Ledger) heard(now time.Duration, e *entry) {
	if e.condemned {
		return
	}
	l.extend(now, e)
	e.spare = 0
	l.due = min(l.due, e.deadline)
	if l.overdue[e.Key] != nil {
		delete(l.overdue, e.Key)
		l.changed = true
	}
}

// spareOverdue gives those that are overdue one TTL of a working network to speak up: they
// were last heard before whatever silenced the others too. Who is condemned must be condemned
// anew, which every result of a check that still fails does: the node that found it may be gone.
func (l *Ledger) spareOverdue(now time.Duration) {
	for _, e := range l.overdue {
		if e.condemned {
			e.condemned = false
			l.heard(now, e)
			continue
		}
		e.spare = now + e.TTL + l.cfg.Grace
	}
}

// Len returns how many instances are registered, evictions that are decided left out.
func (l *Ledger) Len() int { return len(l.entries) - len(l.decided) }

// Pending returns the instances whose eviction is decided and whose record still stands.
func (l *Ledger) Pending() []Member {
	if len(l.decided) == 0 {
		return nil
	}
	out := make([]Member, 0, len(l.decided))
	for _, e := range l.decided {
		out = append(out, e.Member)
	}
	sortMembers(out)
	return out
}
