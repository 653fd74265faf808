package liveness_test

import (
	"testing"
	"time"
)

// P2: a node whose ticks come late time and again hears heartbeats late: it evicts nobody,
// says so, and judges again once it keeps time, with a TTL of mercy for who is overdue then.
func TestStarvedNodeJudgesNobody(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 100})
	r.kill("orders", 5) // within the brake's share: only the pace spares them
	late := func(d, by time.Duration) {
		for end := r.now + d; r.now < end; {
			r.now += by
			for k := range r.alive {
				r.l.Heartbeat(r.now, k)
			}
			r.tick()
		}
	}
	late(30*time.Second, 600*time.Millisecond)
	if s := r.state(); !s.Slow || s.Lost < 0.25 || s.Active || s.Overdue != 5 || s.Why == "" {
		t.Errorf("starved: %+v", s)
	}
	if len(r.evicted) != 0 {
		t.Errorf("P2: %d were evicted by a starved node", len(r.evicted))
	}
	began := r.now
	for r.state().Slow && r.now < began+time.Minute {
		r.step()
	}
	t.Logf("judges again %s after it kept time", r.now-began)
	if r.now-began > 10*time.Second {
		t.Error("it should have judged again when the late ticks left the window")
	}
	r.run(full - time.Second)
	if len(r.evicted) != 0 {
		t.Errorf("P2: %d were evicted within the TTL after starvation", len(r.evicted))
	}
	r.run(3 * time.Second)
	if len(r.evicted) != 5 {
		t.Errorf("%d evicted, want the 5 that are dead", len(r.evicted))
	}
}

// A busy machine is not starved: ticks that are late by tens of milliseconds, and one pause,
// change nothing.
func TestBusyNodeJudges(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 100})
	for i := range 200 {
		r.now += 200*time.Millisecond + time.Duration(i%5)*10*time.Millisecond
		for k := range r.alive {
			r.l.Heartbeat(r.now, k)
		}
		r.tick()
		if r.state().Slow {
			t.Fatalf("slow: %+v", r.state())
		}
	}
	r.now += 20 * time.Second
	r.tick()
	if s := r.state(); s.Slow || s.Lost > 0.15 {
		t.Errorf("one pause is not starvation: %+v", s)
	}
}

// P2: a region that is starved for good does not show its dead for ever.
func TestStarvedForGood(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 100})
	r.kill("orders", 5)
	for end := r.now + 20*time.Minute; r.now < end; {
		r.now += 600 * time.Millisecond
		for k := range r.alive {
			r.l.Heartbeat(r.now, k)
		}
		r.tick()
	}
	if len(r.evicted) != 5 {
		t.Errorf("%d evicted after 20 minutes, want 5", len(r.evicted))
	}
}
