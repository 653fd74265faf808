package liveness

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Verdict is what one tick decided.
type Verdict struct {
	// Gap is how long this process did not run when that was too long, else 0. Everyone
	// then has a full TTL again.
	Gap time.Duration
	// Evicted are the instances whose eviction was decided in this tick.
	Evicted []Evicted
	// ProtectionChanged tells that protection began or ended in this tick.
	ProtectionChanged bool
}

// Evicted is one decided eviction.
type Evicted struct {
	Member
	Overdue   time.Duration // how long past the deadline
	Condemned bool          // because its checks say so, not for its silence
}

// Tick looks at the deadlines as of now. It must be called a few times per Config.MaxGap:
// a longer gap counts as a pause.
func (l *Ledger) Tick(now time.Duration) Verdict {
	var v Verdict
	if gap := now - l.lastTick; gap > l.cfg.MaxGap {
		v.Gap = gap
		l.grant(now)
	}
	l.lastTick = now
	l.slide(now)
	if now >= l.due {
		l.scan(now)
	}
	allowed := l.allowed()
	total := len(l.overdue) + len(l.evictions)
	if on := total > allowed; on != l.protected {
		l.protected, l.since, l.reviewed = on, now, 0
		v.ProtectionChanged = true
		if !on {
			// Those still silent were last heard before whatever silenced the others too.
			// They get one TTL of working network to speak up.
			for _, e := range l.overdue {
				e.spare = now + e.TTL + l.cfg.Grace
			}
		}
	}
	v.Evicted = l.evict(now, allowed-len(l.evictions))
	return v
}

// slide forgets evictions and samples that left the window.
func (l *Ledger) slide(now time.Duration) {
	n := 0
	for n < len(l.evictions) && l.evictions[n].at <= now-l.cfg.Window {
		s := l.evictions[n].service
		if l.evictedOf[s]--; l.evictedOf[s] <= 0 {
			delete(l.evictedOf, s)
		}
		n++
	}
	l.evictions = slices.Delete(l.evictions, 0, n)
	if k := len(l.samples); k == 0 || now-l.samples[k-1].at >= time.Second {
		l.sample(now)
	}
}

func (l *Ledger) sample(now time.Duration) {
	n := 0
	for n < len(l.samples)-1 && l.samples[n+1].at <= now-l.cfg.Window {
		n++
	}
	l.samples = append(slices.Delete(l.samples, 0, n), sample{now, l.Len()})
}

// scan finds who is overdue, and when the next one can be.
func (l *Ledger) scan(now time.Duration) {
	next := now + time.Hour
	for k, e := range l.entries {
		if e.deadline > now && !e.condemned {
			next = min(next, e.deadline)
			continue
		}
		if l.decided[k] == nil && l.overdue[k] == nil {
			l.overdue[k] = e
			l.changed = true
		}
	}
	l.due = next
}

// registered is the size that Share is taken of: those here now and those evicted in the
// window, so that evictions do not shrink their own budget. Who deregistered is not counted:
// after a mass deregistration the few that stay have no larger share to lose. Never more than
// were here at once, at the start of the window or now: an eviction whose instance came back,
// or was replaced, must not count twice.
func (l *Ledger) registered() int {
	most := l.Len()
	if len(l.samples) > 0 {
		most = max(most, l.samples[0].n)
	}
	return min(l.Len()+len(l.evictions), most)
}

// allowed is how many evictions one window may see. One is always allowed, else a region of
// fewer than seven instances could never lose a dead one; a second one is then more than
// the share and starts protection.
func (l *Ledger) allowed() int {
	return max(1, int(l.cfg.Share*float64(l.registered())+1e-9))
}

// evict decides at most budget evictions, the longest overdue first.
func (l *Ledger) evict(now time.Duration, budget int) []Evicted {
	if budget <= 0 || len(l.overdue) == 0 {
		return nil
	}
	if l.protected {
		if now-l.reviewed < time.Second && l.reviewed != 0 {
			return nil
		}
		l.reviewed = now
	}
	var candidates []*entry
	for _, e := range l.overdue {
		if l.protected && now-e.deadline < l.cfg.HoldFor || now < e.spare {
			continue
		}
		candidates = append(candidates, e)
	}
	slices.SortFunc(candidates, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), compareKeys(a.Key, b.Key))
	})
	var out []Evicted
	for _, e := range candidates {
		if budget == 0 {
			break
		}
		s := e.Key.ServiceKey()
		if l.present[s] <= 1 && l.evictedOf[s] > 0 {
			continue // the last one of a service that lost others in this window
		}
		budget--
		delete(l.overdue, e.Key)
		l.decided[e.Key] = e
		l.leave(e.Key)
		l.evictions = append(l.evictions, eviction{now, s})
		l.evictedOf[s]++
		l.changed = true
		out = append(out, Evicted{e.Member, now - e.deadline, e.condemned})
	}
	return out
}

// State is the brake and its arithmetic, for people.
type State struct {
	Active     bool
	Since      time.Duration // start of protection, on the caller's clock
	Registered int
	Overdue    int
	Evicted    int // in the window
	Allowed    int // per window
	Grace      time.Duration
	Why        string
}

// State returns the brake as of now.
func (l *Ledger) State(now time.Duration) State {
	s := State{
		Active: l.protected, Since: l.since, Registered: l.registered(), Overdue: len(l.overdue),
		Evicted: len(l.evictions), Allowed: l.allowed(), Grace: max(0, l.graceUntil-now),
	}
	window := l.cfg.Window
	switch {
	case s.Active:
		s.Why = fmt.Sprintf("%d overdue and %d evicted of %d instances are more than the %d allowed in %s: nobody is evicted until heartbeats, "+
			"registrations or deregistrations bring that down to %d; after %s overdue ones leave at that pace",
			s.Overdue, s.Evicted, s.Registered, s.Allowed, window, s.Allowed, l.cfg.HoldFor)
	case s.Grace > 0:
		s.Why = fmt.Sprintf("everyone has a full TTL to send a heartbeat after a start, pause or stall of this node; %s of it are left for all",
			s.Grace.Round(100*time.Millisecond))
	default:
		s.Why = fmt.Sprintf("%d overdue and %d evicted of %d instances are within the %d allowed in %s", s.Overdue, s.Evicted, s.Registered, s.Allowed, window)
	}
	return s
}

func sortMembers(m []Member) {
	slices.SortFunc(m, func(a, b Member) int { return compareKeys(a.Key, b.Key) })
}

func compareKeys(a, b api.InstanceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
}
