package liveness_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness"
)

// P2: whatever share vanishes at once, the brake holds, and explains itself.
func TestBrake(t *testing.T) {
	tests := []struct {
		name      string
		total     int
		vanish    int
		protected bool
		evicted   int // 90 s later
	}{
		{"one of one", 1, 1, false, 1},
		{"one of three", 3, 1, false, 1},
		{"two of three", 3, 2, true, 0},
		{"one of six", 6, 1, false, 1},
		{"two of six", 6, 2, true, 0},
		{"two of fourteen", 14, 2, false, 2},
		{"15 % of 100", 100, 15, false, 15},
		{"16 % of 100", 100, 16, true, 0},
		{"half", 100, 50, true, 0},
		{"all", 100, 100, true, 0},
		{"all of a thousand", 1000, 1000, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// One service per instance, so that the rule about a service's last instance
			// stays out of it.
			services := map[string]int{}
			for i := range tt.total {
				services[fmt.Sprintf("s%d", i)] = 1
			}
			r := newRegion(t, services)
			for i := range tt.vanish {
				r.kill(fmt.Sprintf("s%d", i), 1)
			}
			r.run(full + time.Second)
			if s := r.state(); s.Active != tt.protected || s.Why == "" {
				t.Errorf("protection %v, want %v: %s", s.Active, tt.protected, s.Why)
			}
			r.run(90 * time.Second)
			if len(r.evicted) != tt.evicted {
				t.Errorf("%d evicted, want %d: %s", len(r.evicted), tt.evicted, r.state().Why)
			}
		})
	}
}

// P2: heartbeats that return end protection, and nobody was lost.
func TestBrakeReleasesWhenHeartbeatsReturn(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 100})
	r.kill("orders", 100)
	r.run(time.Minute)
	o, _ := r.l.Overlay()
	if _, overdue := o.Len(); overdue != 100 || !r.state().Active || len(r.evicted) != 0 {
		t.Fatalf("overdue %d, %+v", overdue, r.state())
	}
	for i := range 100 { // they come back one by one, in 5 s
		k := key("orders", i)
		r.alive[k] = true
		r.l.Heartbeat(r.now, k)
		if i%4 == 3 {
			r.step()
		}
	}
	r.run(2 * time.Minute)
	if s := r.state(); s.Active || s.Overdue != 0 || len(r.evicted) != 0 {
		t.Errorf("after recovery: %+v, %d evicted", s, len(r.evicted))
	}
}

// P2: when protection ends, those still silent get one more TTL: the network that brought
// the others back may bring them too. Then the really dead ones leave.
func TestBrakeSparesTheLastToReturn(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 100})
	r.kill("orders", 100)
	r.run(20 * time.Second)
	for i := 10; i < 100; i++ {
		r.alive[key("orders", i)] = true
	}
	r.run(2 * time.Second)
	if s := r.state(); s.Active || s.Overdue != 10 || len(r.evicted) != 0 {
		t.Fatalf("%+v, %d evicted", s, len(r.evicted))
	}
	r.alive[key("orders", 3)] = true
	r.run(full + 2*time.Second)
	if len(r.evicted) != 9 {
		t.Errorf("%d evicted, want the 9 that stayed silent", len(r.evicted))
	}
}

// P2: explicit deregistrations are honoured during protection, and end it once the overdue
// ones are within the share of those that are still there.
func TestDeregistrationsEndProtection(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 40})
	r.kill("orders", 20)
	r.run(full + time.Second)
	if !r.state().Active {
		t.Fatal("no protection")
	}
	leave := func(from, to int) {
		for i := from; i < to; i++ {
			k := key("orders", i)
			delete(r.known, k)
			r.l.Delete(k)
		}
		r.run(time.Second)
	}
	leave(0, 15)
	// 5 of 25 are a fifth: what they were a share of before does not count.
	if s := r.state(); !s.Active || s.Overdue != 5 || s.Registered != 25 || s.Allowed != 3 {
		t.Errorf("%+v", s)
	}
	leave(15, 17)
	if s := r.state(); s.Active || s.Overdue != 3 || s.Registered != 23 {
		t.Errorf("%+v", s)
	}
	r.run(full)
	if len(r.evicted) != 3 {
		t.Errorf("%d evicted, want 3", len(r.evicted))
	}
}

// P2: a mass deregistration does not take the brake off for those that stay: the share is
// of them, not of those that are gone.
func TestMassDeregistrationDoesNotReleaseTheBrake(t *testing.T) {
	services := map[string]int{}
	for i := range 1000 {
		services[fmt.Sprintf("s%d", i)] = 1
	}
	r := newRegion(t, services)
	for i := range 900 {
		k := key(fmt.Sprintf("s%d", i), 0)
		delete(r.alive, k)
		delete(r.known, k)
		r.l.Delete(k)
	}
	for i := 900; i < 1000; i++ {
		r.kill(fmt.Sprintf("s%d", i), 1)
	}
	r.run(full + time.Second)
	if s := r.state(); !s.Active || s.Registered != 100 || s.Allowed != 15 || s.Overdue != 100 || len(r.evicted) != 0 {
		t.Errorf("%d evicted, %+v", len(r.evicted), s)
	}
	r.run(2 * time.Minute)
	if len(r.evicted) != 0 {
		t.Errorf("%d evicted of the 100 that went silent at once", len(r.evicted))
	}
}

// P2: evictions of before become more than the share when others deregister. Nobody is overdue then, so there is
// nobody to protect and nothing to tell; the budget stays used up for the next one that is.
func TestDeregistrationsAloneStartNoProtection(t *testing.T) {
	services := map[string]int{}
	for i := range 100 {
		services[fmt.Sprintf("s%d", i)] = 1
	}
	r := newRegion(t, services)
	for i := range 10 {
		r.kill(fmt.Sprintf("s%d", i), 1)
	}
	r.run(full + time.Second)
	if len(r.evicted) != 10 {
		t.Fatalf("%d evicted: %s", len(r.evicted), r.state().Why)
	}
	for i := 10; i < 60; i++ {
		k := key(fmt.Sprintf("s%d", i), 0)
		delete(r.alive, k)
		delete(r.known, k)
		r.l.Delete(k)
	}
	r.run(time.Second)
	if s := r.state(); s.Active || s.Evicted != 10 || s.Allowed >= 10 || !strings.HasPrefix(s.Why, "nobody is overdue; 10 of ") {
		t.Errorf("with nobody overdue: %+v", s)
	}
	r.kill("s99", 1)
	r.run(full)
	if s := r.state(); !s.Active || s.Overdue != 1 || len(r.evicted) != 10 {
		t.Errorf("%d evicted, one overdue: %+v", len(r.evicted), s)
	}
}

// P2: evictions neither shrink their own budget nor, when their instances come back or are
// replaced by others, enlarge it.
func TestEvictionsDoNotChangeTheirOwnBudget(t *testing.T) {
	services := map[string]int{}
	for i := range 100 {
		services[fmt.Sprintf("s%d", i)] = 1
	}
	for _, returns := range []string{"nobody", "the same", "others"} {
		r := newRegion(t, services)
		for i := range 10 {
			r.kill(fmt.Sprintf("s%d", i), 1)
		}
		r.run(full + time.Second)
		if len(r.evicted) != 10 {
			t.Fatalf("%s: %d evicted, want 10", returns, len(r.evicted))
		}
		for i := range 10 {
			k := key(fmt.Sprintf("s%d", i), 0)
			if returns == "others" {
				k = key(fmt.Sprintf("s%d", i), 1)
			}
			if returns != "nobody" {
				r.l.Put(r.now, liveness.Member{Key: k, Revision: 2, TTL: ttl}, true)
				r.alive[k], r.known[k] = true, true
			}
		}
		if s := r.state(); s.Registered != 100 || s.Allowed != 15 {
			t.Errorf("%s: %+v", returns, s)
		}
	}
}

// An operator's status change makes a new record, and no sign of life: who was overdue
// still is, under the new revision.
func TestOverdueMarkSurvivesAStatusChange(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 10})
	r.kill("orders", 5)
	r.run(full + time.Second)
	k := key("orders", 1)
	if o, _ := r.l.Overlay(); !o.Overdue(k, 1) {
		t.Fatal("not overdue")
	}
	r.l.Put(r.now, liveness.Member{Key: k, Revision: 7, TTL: ttl}, false)
	r.step()
	o, changed := r.l.Overlay()
	if !changed || !o.Overdue(k, 7) || o.Overdue(k, 1) {
		t.Errorf("changed %v, overdue at 7: %v", changed, o.Overdue(k, 7))
	}
}

// P2: losses that trickle in are counted over a sliding window, so no boundary between
// windows lets twice the share through.
func TestTrickleIsBoundedInEveryWindow(t *testing.T) {
	services := map[string]int{}
	for i := range 200 {
		services[fmt.Sprintf("s%d", i)] = 1
	}
	r := newRegion(t, services)
	for i := range 100 {
		r.kill(fmt.Sprintf("s%d", i), 1)
		r.run(2 * time.Second)
	}
	r.run(5 * time.Minute)
	for k, at := range r.evicted {
		n := 0
		for _, other := range r.evicted {
			if other > at-time.Minute && other <= at {
				n++
			}
		}
		if n > 30 {
			t.Fatalf("%d evicted in the minute before %s (%s)", n, at, k)
		}
	}
	if len(r.evicted) == 0 {
		t.Error("nobody was evicted")
	}
}

// A region that lost most instances for good does not show them for ever, and even then
// leaves at most the share in a window.
func TestHeldInstancesLeaveAfterAWhile(t *testing.T) {
	services := map[string]int{}
	for i := range 40 {
		services[fmt.Sprintf("s%d", i)] = 1
	}
	r := newRegion(t, services)
	for i := range 20 {
		r.kill(fmt.Sprintf("s%d", i), 1)
	}
	r.run(14 * time.Minute)
	if len(r.evicted) != 0 {
		t.Fatalf("%d evicted within the first minutes", len(r.evicted))
	}
	r.run(75*time.Second + full)
	if n := len(r.evicted); n == 0 || n > 6 {
		t.Errorf("%d evicted in the first window after the hold, want 1 to 6", n)
	}
	r.run(10 * time.Minute)
	if len(r.evicted) != 20 || r.state().Active {
		t.Errorf("%d evicted at the end: %s", len(r.evicted), r.state().Why)
	}
}

// P2, P7: a service that had several never loses all of them in one window.
func TestLastOfAServiceWaits(t *testing.T) {
	r := newRegion(t, map[string]int{"orders": 2, "users": 98})
	r.kill("orders", 2)
	r.run(full + time.Second)
	if len(r.evicted) != 1 {
		t.Fatalf("%d evicted, want 1", len(r.evicted))
	}
	o, _ := r.l.Overlay()
	if !o.Overdue(key("orders", 1), 1) || !o.Touches(key("orders", 1).ServiceKey()) || o.Touches(key("users", 1).ServiceKey()) {
		t.Error("the one that is held must be marked")
	}
	r.run(50 * time.Second)
	if len(r.evicted) != 1 {
		t.Error("the last one went in the same window")
	}
	r.run(20 * time.Second)
	if len(r.evicted) != 2 {
		t.Error("the last one never goes")
	}
}
