package etcdnode

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

const mib = 1 << 20

func TestHistoryIsCompactedByAgeAndBySize(t *testing.T) {
	begin := time.Now()
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	p := newPolicy(5 * time.Minute)
	calm := func(head int64) sizes { return sizes{size: 50 * mib, inUse: 40 * mib, quota: 512 * mib, head: head} }
	compact := func(d time.Duration, s sizes) int64 {
		now := at(d)
		p.sample(now, s.head)
		to := p.compactTo(now, s)
		if to > 0 {
			p.compacted(now, s, to)
		}
		return to
	}
	for d := time.Duration(0); d < 5*time.Minute; d += 10 * time.Second {
		if to := compact(d, calm(int64(d/time.Second))); to != 0 {
			t.Fatalf("after %s compacted to %d", d, to)
		}
	}
	if to := compact(5*time.Minute, calm(300)); to != 0 {
		t.Errorf("compacted to the start: %d", to)
	}
	if to := compact(5*time.Minute+30*time.Second, calm(330)); to != 30 {
		t.Errorf("after five and a half minutes compacted to %d, want 30", to)
	}
	// An idle store is compacted once more and then left alone.
	last := int64(0)
	for d := 6 * time.Minute; d < 30*time.Minute; d += 30 * time.Second {
		if to := compact(d, calm(330)); to > 0 {
			if last = to; d > 12*time.Minute {
				t.Errorf("an idle store is written to after %s", d)
			}
		}
	}
	if last != 330 {
		t.Errorf("compacted to %d in the end, want 330", last)
	}
	for _, c := range []struct {
		inUse int64
		alarm bool
		want  int64
	}{
		{inUse: 300 * mib, want: 0},
		{inUse: 320 * mib, want: 90_000},
		{inUse: 400 * mib, want: 99_000},
		{inUse: 470 * mib, want: 100_000},
		{inUse: 100 * mib, alarm: true, want: 100_000},
	} {
		p := newPolicy(time.Hour)
		s := sizes{size: 500 * mib, inUse: c.inUse, quota: 512 * mib, alarm: c.alarm, head: 100_000}
		if to := p.compactTo(begin, s); to != c.want {
			t.Errorf("%d MiB in use, alarm %t: compacted to %d, want %d", c.inUse/mib, c.alarm, to, c.want)
		}
		if c.want == 0 {
			continue
		}
		p.compacted(begin, s, c.want)
		s.head += 50_000
		if to := p.compactTo(at(2*time.Second), s); (to > 0) != c.alarm {
			t.Errorf("%d MiB in use, alarm %t: compacted again to %d after 2 s", c.inUse/mib, c.alarm, to)
		}
	}
}

func TestFileIsWrittenAnewOnlyWhenItIsWorthIt(t *testing.T) {
	begin := time.Now()
	for name, c := range map[string]struct {
		size, inUse int64
		alarm       bool
		since       time.Duration // of the last one; 0 = never
		want        bool
	}{
		"half is unused":                   {size: 100 * mib, inUse: 50 * mib, want: true},
		"half is unused, done just now":    {size: 100 * mib, inUse: 50 * mib, since: 2 * time.Minute},
		"half is unused, done a while ago": {size: 100 * mib, inUse: 50 * mib, since: 4 * time.Minute, want: true},
		"half of little":                   {size: 20 * mib, inUse: 5 * mib},
		"a third":                          {size: 150 * mib, inUse: 100 * mib},
		"a third, near the quota":          {size: 450 * mib, inUse: 300 * mib, want: true},
		"all in use, near the quota":       {size: 450 * mib, inUse: 430 * mib},
		"alarm":                            {size: 513 * mib, inUse: 400 * mib, alarm: true, want: true},
		"alarm, done just now":             {size: 513 * mib, inUse: 400 * mib, alarm: true, since: 4 * time.Second},
		"alarm, a moment ago":              {size: 513 * mib, inUse: 400 * mib, alarm: true, since: 6 * time.Second, want: true},
		"alarm, all in use":                {size: 513 * mib, inUse: 500 * mib, alarm: true},
		"alarm of a small file":            {size: 400 * mib, inUse: 100 * mib, alarm: true}, // disarm is enough
	} {
		p := newPolicy(time.Minute)
		if c.since > 0 {
			p.defragmented = begin.Add(-c.since)
		}
		if got := p.wantsDefrag(begin, sizes{size: c.size, inUse: c.inUse, quota: 512 * mib, alarm: c.alarm}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// P10: a store that is full of half empty pages is written anew once there is no history left to
// drop, and once for each time that something was deleted.
func TestFullStoreIsRepackedWhenNothingElseHelps(t *testing.T) {
	begin := time.Now()
	p := newPolicy(time.Minute)
	s := sizes{size: 513 * mib, inUse: 500 * mib, quota: 512 * mib, alarm: true, head: 100}
	if p.wantsDefrag(begin, s) {
		t.Error("written anew before its history was dropped")
	}
	p.compacted(begin, s, s.head)
	if !p.wantsDefrag(begin, s) {
		t.Error("not written anew with no history left")
	}
	p.defragmented, p.defragHead = begin, s.head
	if p.wantsDefrag(begin.Add(time.Hour), s) {
		t.Error("written anew for nothing")
	}
	s.head++
	p.compacted(begin, s, s.head)
	if p.wantsDefrag(begin.Add(time.Second), s) || !p.wantsDefrag(begin.Add(2*time.Minute), s) {
		t.Error("after a delete it is written anew once, a minute later")
	}
}

func TestWhoseAlarmsAMemberLifts(t *testing.T) {
	const own, other, away, gone = 1, 2, 3, 4
	members := []*etcdserverpb.Member{{ID: own}, {ID: other}, {ID: away}}
	silent := map[uint64]bool{away: true}
	for name, c := range map[string]struct {
		at   standing
		lift []uint64
	}{
		"alone":        {standing{id: own, leads: true}, []uint64{own}},
		"the leader":   {standing{id: own, leads: true, cluster: true, members: members}, []uint64{own, away, gone}},
		"another one":  {standing{id: own, cluster: true, members: members}, []uint64{own}},
		"its own only": {standing{id: other, cluster: true, members: members}, []uint64{other}},
	} {
		for _, m := range []uint64{own, other, away, gone} {
			if got := mayDisarm(c.at, silent, m); got != slices.Contains(c.lift, m) {
				t.Errorf("%s: lifts the alarm of %d: %t", name, m, got)
			}
		}
	}
}
