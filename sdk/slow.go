package nearside

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Slow calls. gobreaker has no rule for them, and an answer that comes late is an answer: it
// never counts as a failure among failures. Only its own rule counts it: when half of ten and
// more answers of an instance within ten seconds were slow, the breaker opens; and a trial
// that is slow has failed.
//
// For slowness alone never more than half of a region's usable instances are left: where
// most are slow it is not the instance, but what they call, or the load; and leaving them would
// bring the load of all upon the rest. A lone instance is therefore never left for it.
const (
	slowWindow  = 10 * time.Second
	slowMinimum = 10
)

// ErrSlow is for Picked.Done: the instance answered, but took too long for the caller's taste.
// It counts as an answer beyond Config.SlowCall does. An error that wraps it does too.
var ErrSlow = errors.New("the instance answered slowly")

// slowness counts the answers of an instance, and those of them that were slow, in a window of
// two halves.
type slowness struct {
	counting atomic.Bool // a slow one was among the last; else nothing is counted

	mu            sync.Mutex
	half          time.Duration // when the half that runs began
	answers, slow [2]int        // of the half that runs, and of the one before it
}

// add counts an answer. It reports whether the instance is slow: this answer, and half of the
// window's. Where nothing was slow it costs one load.
func (s *slowness) add(now time.Duration, slow bool) bool {
	if !slow && !s.counting.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch age := now - s.half; {
	case age >= slowWindow:
		s.answers, s.slow, s.half = [2]int{}, [2]int{}, now
	case age >= slowWindow/2:
		s.answers[1], s.slow[1] = s.answers[0], s.slow[0]
		s.answers[0], s.slow[0], s.half = 0, 0, now
	}
	s.answers[0]++
	if slow {
		s.slow[0]++
	}
	n, m := s.answers[0]+s.answers[1], s.slow[0]+s.slow[1]
	s.counting.Store(m > 0)
	return slow && n >= slowMinimum && 2*m >= n
}

// tooSlow counts an answer, and reports whether the breaker is to open for it.
func (in *instance) tooSlow(l *lease, slow bool) bool {
	if l.trial {
		// It is among those that are left already, and stays if it may.
		return slow && in.region.spare.Load() >= 0
	}
	return in.slow.add(in.clock(), slow) && in.region.leave()
}

// leave takes one of the region's instances that may be left alone although they answer, if
// there is one.
func (r *regionHealth) leave() bool {
	for {
		n := r.spare.Load()
		if n <= 0 {
			return false
		}
		if r.spare.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// spareLocked counts anew how many instances of each region may be left alone: half of the
// usable ones, less those that are.
func (s *service) spareLocked() {
	type count struct{ usable, left int }
	counts := make(map[*regionHealth]count, len(s.regions))
	now := int64(s.c.clock())
	for _, in := range s.instances {
		n := counts[in.region]
		if in.usable {
			n.usable++
			if !in.is(gobreaker.StateClosed) || in.ejection.until != 0 || (in.passed.Load() && in.asked.Load() > now) {
				n.left++
			}
		}
		counts[in.region] = n
	}
	for r, n := range counts {
		r.spare.Store(int32(n.usable/2 - n.left))
	}
}
