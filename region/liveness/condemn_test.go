package liveness_test

import (
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness"
)

// An instance without a TTL is never overdue for its silence.
func TestNoTTLNoDeadline(t *testing.T) {
	l := liveness.New(liveness.Default())
	l.Load(0, []liveness.Member{{Key: key("a", 1), Revision: 1}, {Key: key("a", 2), Revision: 1, TTL: ttl}})
	for now := tick; now < 10*time.Minute; now += tick {
		l.Heartbeat(now, key("a", 2))
		if v := l.Tick(now); len(v.Evicted) > 0 {
			t.Fatalf("%+v at %s", v, now)
		}
	}
	if s := l.State(10 * time.Minute); s.Overdue != 0 || s.Grace != 0 {
		t.Errorf("%+v", s)
	}
	alone := liveness.New(liveness.Default())
	alone.Load(0, []liveness.Member{{Key: key("a", 1), Revision: 1}})
	if s := alone.State(0); s.Grace > time.Minute {
		t.Errorf("grace %s for ever", s.Grace)
	}
}

// A condemned instance leaves although it sends heartbeats, unless it is taken back by a
// pardon, a registration or a pause of this process; and the evidence must be as new as
// the record.
func TestCondemn(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(l *liveness.Ledger, now time.Duration)
		want int
	}{
		"nothing":         {func(*liveness.Ledger, time.Duration) {}, 1},
		"heartbeat":       {func(l *liveness.Ledger, now time.Duration) { l.Heartbeat(now, key("a", 1)) }, 1},
		"a status change": {func(l *liveness.Ledger, now time.Duration) { l.Put(now, member(1, 2), false) }, 1},
		"pardon":          {func(l *liveness.Ledger, now time.Duration) { l.Pardon(now, key("a", 1)) }, 0},
		"registration":    {func(l *liveness.Ledger, now time.Duration) { l.Put(now, member(1, 2), true) }, 0},
		"pause":           {func(l *liveness.Ledger, now time.Duration) { l.Tick(now + 5*time.Second) }, 0},
		"reload":          {func(l *liveness.Ledger, now time.Duration) { l.Load(now, []liveness.Member{member(1, 1)}) }, 0},
	} {
		l := liveness.New(liveness.Default())
		l.Load(0, []liveness.Member{member(1, 1), member(2, 1)})
		now := tick
		l.Tick(now)
		l.Condemn(now, key("a", 1), 1)
		tc.then(l, now)
		evicted := 0
		for range 15 {
			now += tick
			v := l.Tick(now)
			for _, e := range v.Evicted {
				if !e.Condemned || e.Key != key("a", 1) || e.Overdue < 0 {
					t.Errorf("%s: %+v", name, e)
				}
				evicted++
			}
		}
		if evicted != tc.want {
			t.Errorf("%s: %d evicted, want %d", name, evicted, tc.want)
		}
	}
	l := liveness.New(liveness.Default())
	l.Load(0, []liveness.Member{member(1, 7)})
	l.Condemn(tick, key("a", 1), 6) // the record is newer
	l.Condemn(tick, key("a", 9), 1)
	l.Pardon(tick, key("a", 9))
	if v := l.Tick(2 * tick); len(v.Evicted) > 0 {
		t.Errorf("%+v", v)
	}
}

func member(i int, revision uint64) liveness.Member {
	return liveness.Member{Key: key("a", i), Revision: revision, TTL: ttl}
}
