package etcdnode

import "time"

// sizes is one look at the database.
type sizes struct {
	size, inUse, quota int64 // bytes: of the file, of what it holds, and etcd's bound for the file
	alarm              bool  // NOSPACE is armed
	head               int64 // revision
}

// enough is the size below which the alarm is disarmed: not quite the quota, or the next
// write would arm it again.
func (s sizes) enough() int64 { return s.quota / 100 * 95 }

// pressed reports that age alone must not decide what history is kept.
func (s sizes) pressed() bool { return s.alarm || s.inUse > s.quota/100*60 }

// margin is how many revisions stay for watches that resume: the fewer the closer the quota.
func (s sizes) margin() int64 {
	switch {
	case s.alarm, s.inUse > s.quota/100*90:
		return 0
	case s.inUse > s.quota/100*75:
		return 1_000
	}
	return 10_000
}

const (
	sampleEvery    = 30 * time.Second // of compaction by age
	pressedGap     = 30 * time.Second // between compactions by size while puts are taken
	defragGap      = 3 * time.Minute  // between defragmentations
	defragGapNear  = time.Minute      // when the file is near the quota
	defragGapAlarm = 5 * time.Second  // while puts are refused
	wasteWorth     = 32 << 20         // bytes of the file that are worth one
)

// policy decides what to do; it does nothing itself. The zero value of the times means never.
type policy struct {
	retention    time.Duration
	keepNone     bool     // history is dropped at every look
	samples      []sample // of the head, oldest first, sampleEvery apart
	done         int64    // compacted up to this revision
	pressedAt    time.Time
	pressedTo    int64 // the margin then
	defragmented time.Time
	defragHead   int64 // the head then
	stuck        bool  // a store full of live records was told
}

type sample struct {
	at   time.Time
	head int64
}

func newPolicy(retention time.Duration) policy { return policy{retention: retention} }

// sample remembers the head, for compaction by age.
func (p *policy) sample(now time.Time, head int64) {
	if n := len(p.samples); n > 0 && now.Sub(p.samples[n-1].at) < sampleEvery {
		return
	}
	p.samples = append(p.samples, sample{now, head})
}

// compactTo returns the revision that history is to be dropped up to, or 0.
func (p *policy) compactTo(now time.Time, s sizes) int64 {
	var to int64
	for len(p.samples) > 0 && now.Sub(p.samples[0].at) >= p.retention {
		to = p.samples[0].head
		p.samples = p.samples[1:]
	}
	if s.pressed() && (s.alarm || p.pressedAt.IsZero() || s.margin() < p.pressedTo || now.Sub(p.pressedAt) >= pressedGap) {
		to = max(to, s.head-s.margin())
	}
	if p.keepNone {
		to = s.head
	}
	// A compaction is a write: none for nothing.
	if to <= p.done {
		return 0
	}
	return to
}

func (p *policy) compacted(now time.Time, s sizes, to int64) {
	p.done = to
	if s.pressed() {
		p.pressedAt, p.pressedTo = now, s.margin()
	}
}

// wantsDefrag reports whether writing the file anew is worth that everyone waits for it.
func (p *policy) wantsDefrag(now time.Time, s sizes) bool {
	waste := s.size - s.inUse
	since := now.Sub(p.defragmented)
	ready := func(gap time.Duration) bool { return p.defragmented.IsZero() || since >= gap }
	switch {
	case s.alarm:
		if s.size <= s.enough() {
			return false // disarm is enough
		}
		// If it ends the alarm; else deletes and compaction have to come first.
		if s.inUse <= s.enough() {
			return ready(defragGapAlarm)
		}
		// With no history left to drop, pages that deletes have half emptied still count as in use.
		return s.head > p.defragHead && p.done >= s.head && ready(defragGapNear)
	case s.size > s.quota/100*80 && waste > s.quota/10:
		return ready(defragGapNear)
	}
	return waste >= wasteWorth && s.size >= 2*s.inUse && ready(defragGap)
}
