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
	// SlowChanged tells that this node became slow in this tick, or is so no longer.
	SlowChanged bool
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
	gap := now - l.lastTick
	if gap > l.cfg.MaxGap && brown != "no-grace" {
		v.Gap = gap
		l.grant(now)
	}
	l.lastTick = now
	l.slide(now)
	late, changed := l.pace.tick(now, gap, l.cfg.Every, l.cfg.MaxGap)
	l.credit += 2 * late
	if now >= l.due {
		l.scan(now)
	}
	if v.SlowChanged = changed; changed {
		l.slowSince = now
		if !l.pace.slow {
			l.spareOverdue(now)
		}
	}
	allowed := l.allowed()
	total := len(l.overdue) + len(l.evictions)
	// With nobody overdue there is nobody to protect: evictions of before can only have become more than
	// the share because others deregistered. The budget is used up all the same.
	if on := total > allowed && (l.protected || len(l.overdue) > 0); on != l.protected {
		l.protected, l.since, l.reviewed = on, now, 0
		v.ProtectionChanged = true
		if !on {
			l.spareOverdue(now)
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
		if s == (api.ServiceKey{}) {
			l.elsewhere--
		} else if l.evictedOf[s]--; l.evictedOf[s] <= 0 {
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
		if at := l.overdueAt(e); at > now && !e.condemned {
			next = min(next, at)
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
	if brown == "empty-set" {
		return max(1, l.registered())
	}
	return max(1, int(l.cfg.Share*float64(l.registered())+1e-9))
}

// evict decides at most budget evictions, the longest overdue first.
func (l *Ledger) evict(now time.Duration, budget int) []Evicted {
	if budget <= 0 || len(l.overdue) == 0 {
		return nil
	}
	held := l.protected || l.pace.slow
	if held {
		if now-l.reviewed < time.Second && l.reviewed != 0 {
			return nil
		}
		l.reviewed = now
	}
	var candidates []*entry
	for _, e := range l.overdue {
		if held && now-l.overdueAt(e) < l.cfg.HoldFor || now < e.spare || now < l.overdueAt(e) && !e.condemned {
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
		if l.present[s] <= 1 && l.evictedOf[s]+l.elsewhere > 0 {
			continue // the last one of a service that lost, or may have lost, others in this window
		}
		budget--
		delete(l.overdue, e.Key)
		l.decided[e.Key] = e
		l.leave(e.Key)
		l.evictions = append(l.evictions, eviction{now, s})
		l.evictedOf[s]++
		l.changed = true
		out = append(out, Evicted{e.Member, now - l.overdueAt(e), e.condemned})
	}
	return out
}

// State is the brake and its arithmetic, for people.
type State struct {
	Active     bool
	Since      time.Duration // start of protection, on the caller's clock
	Slow       bool          // this node is starved and judges nobody
	SlowSince  time.Duration // since when
	Lost       float64       // share of the last seconds in which this node should have run and did not
	Registered int
	Overdue    int
	Evicted    int           // in the window
	Allowed    int           // per window
	Grace      time.Duration // until the first one may be overdue
	LastGrace  time.Duration // until the last one may
	Why        string
}

// State returns the brake as of now.
func (l *Ledger) State(now time.Duration) State {
	s := State{
		Active: l.protected, Since: l.since, Registered: l.registered(), Overdue: len(l.overdue),
		Evicted: len(l.evictions), Allowed: l.allowed(), Grace: max(0, l.graceUntil-now), LastGrace: max(0, l.lastGrace-now),
		Slow: l.pace.slow, SlowSince: l.slowSince, Lost: l.pace.share(),
	}
	window := l.cfg.Window
	switch {
	case s.Active:
		s.Why = fmt.Sprintf("%d overdue and %d evicted of %d instances are more than the %d allowed in %s: nobody is evicted until heartbeats, "+
			"registrations or deregistrations bring that down to %d; after %s overdue ones leave at that pace",
			s.Overdue, s.Evicted, s.Registered, s.Allowed, window, s.Allowed, l.cfg.HoldFor)
	case s.Slow:
		s.Why = l.pace.why()
	case s.Grace > 0:
		s.Why = fmt.Sprintf("everyone has a full TTL to send a heartbeat after a start, pause or stall of this node; the shortest of them ends in %s, the longest in %s",
			s.Grace.Round(100*time.Millisecond), s.LastGrace.Round(100*time.Millisecond))
	case s.Overdue == 0 && s.Evicted > s.Allowed:
		s.Why = fmt.Sprintf("nobody is overdue; %d of %d instances were evicted in %s, and no more than %d may be", s.Evicted, s.Registered, window, s.Allowed)
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
