package liveness_test

import (
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness"
)

// P2: the window of evictions goes over to the next owner, whether it saw them in the store's
// watch or reads of them in the last owner's beat: together they evict no more than one may.
func TestTheWindowOutlivesItsOwner(t *testing.T) {
	const total, dead = 100, 15
	for _, how := range []string{"seen", "carried", "seen up to a gap"} {
		old, next := liveness.New(liveness.Default()), liveness.New(liveness.Default())
		var members []liveness.Member
		for i := range total {
			members = append(members, liveness.Member{Key: key("orders", i), Revision: 1, TTL: ttl})
		}
		old.Load(0, members)
		next.Load(0, members)
		alive := func(l *liveness.Ledger, now time.Duration, from int) {
			for i := from; i < total; i++ {
				l.Heartbeat(now, key("orders", i))
			}
		}
		now := time.Duration(0)
		evicted := 0
		for ; now < 9*time.Second; now += tick {
			alive(old, now, dead)
			next.Follow(now)
			for _, e := range old.Tick(now).Evicted {
				evicted++
				if how == "seen" || how == "seen up to a gap" && evicted <= 5 {
					next.Saw(now, e.Key)
				}
				old.Delete(e.Key)
				next.Delete(e.Key)
			}
		}
		if evicted != dead {
			t.Fatalf("%d evicted, want %d", evicted, dead)
		}
		if how == "carried" {
			next.Carry(now, old.Evictions(now))
		}
		if how == "seen up to a gap" {
			next.Load(now, members[dead:])
			next.Recount(now, old.Evictions(now))
			next.Recount(now, old.Evictions(now)) // a second load finds nothing new
		}
		next.Begin(now, 3*time.Second)
		if got, want := count(next.Evictions(now)), count(old.Evictions(now)); got != want {
			t.Errorf("%s: %d evictions, want %d", how, got, want)
		}
		begun := now
		for ; now < 100*time.Second; now += tick {
			alive(next, now, dead+10) // ten more fall silent
			v := next.Tick(now)
			if len(v.Evicted) == 0 {
				continue
			}
			if now < begun+full+3*time.Second {
				t.Fatalf("%s: evicted %s after it began, without its full TTL", how, now-begun)
			}
			if now < time.Minute {
				t.Fatalf("%s: %d more evicted in the first window, at %s", how, len(v.Evicted), now)
			}
			return
		}
		t.Errorf("%s: nobody was ever evicted", how)
	}
}

// P1: what a former owner decided and did not do is void, and a follower decides nothing.
func TestReleaseVoidsWhatWasDecided(t *testing.T) {
	l := liveness.New(liveness.Default())
	var members []liveness.Member
	for i := range 20 {
		members = append(members, liveness.Member{Key: key("orders", i), Revision: 1, TTL: ttl})
	}
	l.Load(0, members)
	now := time.Duration(0)
	for ; len(l.Pending()) == 0; now += tick {
		for i := 1; i < 20; i++ {
			l.Heartbeat(now, key("orders", i))
		}
		l.Tick(now)
	}
	if !l.Decided(key("orders", 0), 1) || l.Decided(key("orders", 0), 2) || l.Decided(key("orders", 1), 1) {
		t.Error("decided")
	}
	l.Release()
	if len(l.Pending()) != 0 || l.Len() != 20 || !l.Heartbeat(now, key("orders", 0)) {
		t.Errorf("%d pending, %d here", len(l.Pending()), l.Len())
	}
	if o, changed := l.Overlay(); !changed || o.Hidden(key("orders", 0), 1) {
		t.Error("hidden still")
	}
	for end := now + time.Minute; now < end; now += tick {
		if v := l.Follow(now); v.Gap != 0 {
			t.Fatalf("gap %s", v.Gap)
		}
	}
	if v := l.Follow(now + 5*time.Second); v.Gap < 5*time.Second {
		t.Errorf("gap %s", v.Gap)
	}
	if len(l.Pending()) != 0 {
		t.Error("a follower decided")
	}
}

func count(evictions [][2]int) (n int) {
	for _, e := range evictions {
		n += e[1]
	}
	return n
}
