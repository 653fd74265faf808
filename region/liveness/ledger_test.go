package liveness_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/sdk/api"
)

const (
	tick = 200 * time.Millisecond
	ttl  = 5 * time.Second
	// full is what a heartbeat buys.
	full = ttl + api.DeadlineGrace
)

func key(service string, i int) api.InstanceKey {
	return api.InstanceKey{Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(fmt.Sprintf("i%04d", i))}
}

// region plays a registry around a ledger: instances that send a heartbeat every second
// while alive, a tick every 200 ms, and evicted records that go at once.
type region struct {
	t        *testing.T
	l        *liveness.Ledger
	now      time.Duration
	alive    map[api.InstanceKey]bool
	known    map[api.InstanceKey]bool
	evicted  map[api.InstanceKey]time.Duration
	verdicts []liveness.Verdict
	// keep makes evicted records stay, as when the store does not answer.
	keep bool
}

func newRegion(t *testing.T, services map[string]int) *region {
	r := &region{
		t: t, l: liveness.New(liveness.Default()), now: 90 * time.Second, alive: map[api.InstanceKey]bool{},
		known: map[api.InstanceKey]bool{}, evicted: map[api.InstanceKey]time.Duration{},
	}
	var members []liveness.Member
	for s, n := range services {
		for i := range n {
			k := key(s, i)
			members = append(members, liveness.Member{Key: k, Revision: 1, TTL: ttl})
			r.alive[k], r.known[k] = true, true
		}
	}
	r.l.Load(r.now, members)
	r.run(90 * time.Second) // past the first grace, a full window of samples
	if len(r.evicted) > 0 || r.state().Grace > 0 {
		t.Fatalf("not calm: %+v", r.state())
	}
	return r
}

func (r *region) state() liveness.State { return r.l.State(r.now) }

func (r *region) step() {
	r.now += tick
	if r.now%time.Second == 0 {
		for k := range r.alive {
			if !r.l.Heartbeat(r.now, k) && r.known[k] {
				r.t.Fatalf("heartbeat of %s refused", k)
			}
		}
	}
	r.tick()
}

// tick is one look of the ledger, now.
func (r *region) tick() {
	v := r.l.Tick(r.now)
	r.verdicts = append(r.verdicts, v)
	for _, e := range v.Evicted {
		if r.alive[e.Key] {
			r.t.Fatalf("evicted %s, which sends heartbeats", e.Key)
		}
		r.evicted[e.Key] = r.now
		delete(r.known, e.Key)
		if !r.keep {
			r.l.Delete(e.Key)
		}
	}
}

func (r *region) run(d time.Duration) {
	for end := r.now + d; r.now < end; {
		r.step()
	}
}

func (r *region) kill(service string, n int) {
	for i := range n {
		delete(r.alive, key(service, i))
	}
}

// P2: the grace after a start ends with each one's own TTL: both ends are told.
func TestGraceHasTwoEnds(t *testing.T) {
	l := liveness.New(liveness.Default())
	l.Load(0, []liveness.Member{{Key: key("a", 0), Revision: 1, TTL: ttl}, {Key: key("a", 1), Revision: 1, TTL: time.Minute}, {Key: key("a", 2), Revision: 1}})
	s := l.State(time.Second)
	if s.Grace != full-time.Second || s.LastGrace != time.Minute || !strings.Contains(s.Why, "the shortest of them ends in 5s, the longest in 1m0s") {
		t.Errorf("%s, %s: %s", s.Grace, s.LastGrace, s.Why)
	}
}

// P2: silence during our own pause is no evidence, of whatever length.
func TestPauseGrace(t *testing.T) {
	for _, pause := range []time.Duration{1100 * time.Millisecond, 3 * ttl, time.Hour, 400 * 24 * time.Hour} {
		r := newRegion(t, map[string]int{"orders": 200})
		r.now += pause
		v := r.l.Tick(r.now)
		if v.Gap < pause || len(v.Evicted) != 0 {
			t.Fatalf("pause %s: %+v", pause, v)
		}
		if s := r.state(); s.Grace != full || s.Overdue != 0 {
			t.Errorf("pause %s: grace %s", pause, s.Grace)
		}
		r.now -= r.now % tick // back in step with the second
		r.run(time.Minute)
		if len(r.evicted) != 0 {
			t.Errorf("pause %s: %d evicted", pause, len(r.evicted))
		}
	}
}

// P2: requests that are served between waking up and the first tick see the overlay as
// it was, and one with a stale clock does not shorten anybody's grace.
func TestPauseThenReadsBeforeTheTick(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 10})
	r.l.Overlay()
	before := r.now
	r.now += 10 * ttl
	if _, changed := r.l.Overlay(); changed {
		t.Error("the overlay changed without a tick")
	}
	r.l.Tick(r.now)
	r.l.Heartbeat(before, key("orders", 0)) // read the clock before the pause
	r.now += full - tick
	for at := r.now - full + 2*tick; at < r.now; at += tick {
		if v := r.l.Tick(at); len(v.Evicted) != 0 {
			t.Fatalf("evicted within the grace: %+v", v)
		}
	}
}

// P1: after an eviction was decided no heartbeat is acknowledged; a new registration
// undoes it.
func TestDecidedEvictionIsFinalUntilRegisteredAnew(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 20})
	r.keep = true
	r.kill("orders", 1)
	r.run(full + time.Second)
	k := key("orders", 0)
	if len(r.evicted) != 1 || r.l.Heartbeat(r.now, k) {
		t.Fatal("not decided, or the heartbeat was acknowledged")
	}
	if p := r.l.Pending(); len(p) != 1 || p[0].Revision != 1 {
		t.Fatalf("pending %+v", p)
	}
	o, changed := r.l.Overlay()
	if !changed || !o.Hidden(k, 1) || o.Hidden(k, 2) || o.Overdue(k, 1) {
		t.Error("it must be hidden")
	}
	r.l.Put(r.now, liveness.Member{Key: k, Revision: 1, TTL: ttl}, false) // replayed
	if r.l.Heartbeat(r.now, k) {
		t.Error("a replay undid the eviction")
	}
	r.l.Load(r.now, []liveness.Member{{Key: k, Revision: 1, TTL: ttl}}) // reload
	if r.l.Heartbeat(r.now, k) {
		t.Error("a reload undid the eviction")
	}
	r.l.Put(r.now, liveness.Member{Key: k, Revision: 9, TTL: ttl}, true)
	if o, _ := r.l.Overlay(); o.Hidden(k, 1) || o.Hidden(k, 9) || !r.l.Heartbeat(r.now, k) || len(r.l.Pending()) != 0 {
		t.Error("registering anew must undo it")
	}
}

// A shorter TTL counts from the registration on, a status change is no heartbeat.
func TestPut(t *testing.T) {
	l := liveness.New(liveness.Default())
	k := key("orders", 0)
	l.Load(0, []liveness.Member{{Key: k, Revision: 1, TTL: time.Hour}})
	l.Put(0, liveness.Member{Key: k, Revision: 2, TTL: time.Second}, true)
	now := time.Duration(0)
	for ; now < 1900*time.Millisecond; now += 100 * time.Millisecond {
		if v := l.Tick(now); len(v.Evicted) > 0 {
			t.Fatalf("evicted at %s", now)
		}
	}
	l.Put(now, liveness.Member{Key: k, Revision: 3, TTL: time.Second}, false)
	if v := l.Tick(2 * time.Second); len(v.Evicted) != 1 || v.Evicted[0].Revision != 3 {
		t.Errorf("%+v", v)
	}
	l.Delete(k)
	l.Delete(k)
	if l.Len() != 0 {
		t.Error("Len")
	}
}

// Property, P1 and P2: under any mix of deaths, returns, pauses, deregistrations and new
// registrations no instance is evicted within a full TTL of its last heartbeat or of the
// end of a pause, and no window sees more than the share.
func TestLaws(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 11))
		l := liveness.New(liveness.Default())
		n := 1 + rng.IntN(60)
		last := map[api.InstanceKey]time.Duration{} // newest evidence of life
		alive := map[api.InstanceKey]bool{}
		var members []liveness.Member
		revision := uint64(1)
		add := func(i int) liveness.Member {
			revision++
			return liveness.Member{Key: key(fmt.Sprintf("s%d", i%7), i), Revision: revision, TTL: ttl}
		}
		for i := range n {
			m := add(i)
			members = append(members, m)
			alive[m.Key], last[m.Key] = true, 0
		}
		l.Load(0, members)
		largest := map[time.Duration]int{}
		var evictions []time.Duration
		perService := map[api.ServiceKey][]time.Duration{}
		for now := tick; now < 6*time.Minute; now += tick {
			if rng.IntN(400) == 0 { // pause
				now += time.Duration(2+rng.IntN(18)) * time.Second
				now -= now % tick
				if v := l.Tick(now); v.Gap > 0 {
					for k := range last {
						last[k] = now
					}
				}
			}
			switch rng.IntN(120) {
			case 0: // many die
				for k := range alive {
					if rng.IntN(2) == 0 {
						delete(alive, k)
					}
				}
			case 1: // one dies
				for k := range alive {
					delete(alive, k)
					break
				}
			case 2: // many return
				for k := range last {
					if rng.IntN(2) == 0 {
						alive[k] = true
					}
				}
			case 3:
				for k := range last {
					l.Delete(k)
					delete(last, k)
					delete(alive, k)
					break
				}
			case 4:
				m := add(rng.IntN(80))
				l.Put(now, m, true)
				last[m.Key], alive[m.Key] = now, true
			}
			if now%time.Second == 0 {
				for k := range alive {
					if !l.Heartbeat(now, k) {
						t.Fatalf("seed %d: heartbeat of %s refused", seed, k)
					}
					last[k] = now
				}
			}
			largest[now] = len(last)
			present := map[api.ServiceKey]int{}
			for k := range last {
				present[k.ServiceKey()]++
			}
			evicted := l.Tick(now).Evicted
			for _, e := range evicted {
				if now-last[e.Key] < full {
					t.Fatalf("seed %d: %s evicted %s after evidence of life", seed, e.Key, now-last[e.Key])
				}
				s := e.Key.ServiceKey()
				present[s]--
				perService[s] = append(perService[s], now)
				if c := within(perService[s], now); present[s] == 0 && c > 1 {
					t.Fatalf("seed %d: all of %s evicted in one window", seed, s)
				}
				evictions = append(evictions, now)
				l.Delete(e.Key)
				delete(last, e.Key)
				delete(alive, e.Key)
			}
			most := 0
			for at, n := range largest {
				if at < now-time.Minute-time.Second-20*time.Second {
					delete(largest, at)
				} else {
					most = max(most, n)
				}
			}
			if c := within(evictions, now); len(evicted) > 0 && c > 1 && float64(c) > 0.15*float64(most) {
				t.Fatalf("seed %d: %d of at most %d evicted in the minute before %s", seed, c, most, now)
			}
		}
	}
}

func within(at []time.Duration, now time.Duration) int {
	n := 0
	for _, a := range at {
		if a > now-time.Minute {
			n++
		}
	}
	return n
}

func BenchmarkTick100k(b *testing.B) {
	l := liveness.New(liveness.Default())
	var members []liveness.Member
	for i := range 100_000 {
		members = append(members, liveness.Member{Key: key("orders", i), TTL: 15 * time.Second})
	}
	l.Load(0, members)
	now := time.Duration(0)
	i := 0
	for b.Loop() {
		now += tick
		for range 4000 { // everyone every 5 s
			l.Heartbeat(now, members[i%len(members)].Key)
			i++
		}
		l.Tick(now)
	}
	b.ReportMetric(4000, "heartbeats/op")
}
