package nearside

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/nearside/nearside/sdk/api"
)

// Outlier ejection: an instance that fails clearly more of its calls than its neighbours do is
// left out for a while, although most of what it answers is good. Breakers judge an instance by
// itself and need half of its calls to fail, and to them a 500 is an answer; compared with
// others of its region, also 500s and a few failures in a hundred say something.
//
// The rule is Envoy's of success rates: every ten seconds, among instances of a region with at
// least 100 calls of this client in that time, if there are five or more of them: whoever is
// below the mean by more than 1.9 standard deviations is ejected, for 30 s times how often it
// was lately, 5 min at most. Ours besides: it must be below by five points in a hundred, as one
// failure among perfect neighbours is no outlier; and with what breakers keep calls from,
// never more than half of a tier are out. Where more breakers open, ejected instances
// come back at once, the best first. How long answers take is no ground: PeakEWMA knows that
// better.
//
// To a decision, ejected instances are broken ones: lost, as it makes no difference to the
// neighbours why they take nothing.
const (
	judgeEvery    = 10 * time.Second
	judgeVolume   = 100
	judgeAtLeast  = 5
	judgeSigmas   = 1.9
	judgeGap      = 0.05
	ejectionBase  = 30 * time.Second
	ejectionsMost = 10 // times ejectionBase: 5 min
)

// tally counts the calls of an instance, and those of them that were good, in one word.
type tally struct{ word atomic.Uint64 }

func (t *tally) add(good bool) {
	n := uint64(1) << 32
	if good {
		n++
	}
	t.word.Add(n)
}

// take returns what was counted, and begins anew.
func (t *tally) take() record {
	w := t.word.Swap(0)
	return record{all: int(w >> 32), good: int(uint32(w))}
}

// record is the calls of one instance in one window.
type record struct{ all, good int }

func (r record) rate() float64 { return float64(r.good) / float64(r.all) }

// outliers returns the places of those that are to be ejected.
func outliers(list []record) (places []int) {
	n, sum, squares := 0.0, 0.0, 0.0
	for _, r := range list {
		if r.all >= judgeVolume {
			n++
			sum += r.rate()
		}
	}
	if n < judgeAtLeast {
		return nil
	}
	mean := sum / n
	for _, r := range list {
		if r.all >= judgeVolume {
			squares += (r.rate() - mean) * (r.rate() - mean)
		}
	}
	limit := mean - max(judgeSigmas*math.Sqrt(squares/n), judgeGap)
	for i, r := range list {
		if r.all >= judgeVolume && r.rate() < limit {
			places = append(places, i)
		}
	}
	return places
}

// ejection is what an instance is left out for. Guarded by service.mu.
type ejection struct {
	near  bool          // it is in the caller's zone
	until time.Duration // by clock; 0 = it is not ejected
	times int           // lately
	rate  float64       // of good calls, then
}

// ejected is one instance that was ejected, for the log.
type ejected struct {
	in   *instance
	rate float64
	held time.Duration
}

// judge compares the instances of each region, and ejects outliers.
func (s *service) judge() (out []ejected) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.clock()
	byRegion := map[*regionHealth][]*instance{}
	for _, in := range s.instances {
		if in.usable && in.ejection.until == 0 && in.is(gobreaker.StateClosed) {
			byRegion[in.region] = append(byRegion[in.region], in)
		} else {
			in.tally.take()
		}
	}
	for _, list := range byRegion {
		records := make([]record, len(list))
		for i, in := range list {
			records[i] = in.tally.take()
		}
		worse := outliers(records)
		for i, in := range list {
			e := &in.ejection
			switch {
			case slices.Contains(worse, i):
				e.times = min(e.times+1, ejectionsMost)
				held := ejectionBase * time.Duration(e.times)
				e.until, e.rate = now+held, records[i].rate()
				out = append(out, ejected{in, e.rate, held})
			case records[i].all >= judgeVolume:
				e.times = max(e.times-1, 0)
			}
		}
	}
	if len(out) > 0 && s.answer.Load() != nil {
		s.decideLocked()
	}
	// Whoever was over the bound has come back by now.
	return slices.DeleteFunc(out, func(e ejected) bool { return e.in.ejection.until == 0 })
}

// held is one instance of a tier, as the bound of ejections sees it.
type held struct {
	out     bool // left out for another cause
	ejected bool
	rate    float64
	id      api.InstanceID
}

// pardoned returns the places of ejected members that have to come back, so that no more than
// half of the tier are out, if that is for ejections: the best come first.
func pardoned(tier []held) (places []int) {
	out := 0
	for i := range tier {
		if tier[i].out {
			out++
		} else if tier[i].ejected {
			out++
			places = append(places, i)
		}
	}
	slices.SortFunc(places, func(a, b int) int {
		return cmp.Or(cmp.Compare(tier[b].rate, tier[a].rate), cmp.Compare(tier[a].id, tier[b].id))
	})
	return places[:min(len(places), max(0, out-len(tier)/2))]
}

// boundLocked ends ejections that are over, and those that are too many.
func (s *service) boundLocked() {
	now := s.c.clock()
	type tierOf struct {
		region *regionHealth
		near   bool
	}
	var tiers map[tierOf][]*instance
	for _, in := range s.instances {
		if e := &in.ejection; e.until != 0 {
			if e.until <= now {
				e.until = 0
				continue
			}
			if tiers == nil {
				tiers = map[tierOf][]*instance{}
			}
			tiers[tierOf{in.region, e.near}] = nil
		}
	}
	if tiers == nil {
		return
	}
	for _, in := range s.instances {
		if t := (tierOf{in.region, in.ejection.near}); in.usable {
			if _, ok := tiers[t]; ok {
				tiers[t] = append(tiers[t], in)
			}
		}
	}
	for _, list := range tiers {
		members := make([]held, len(list))
		for i, in := range list {
			members[i] = held{
				out:     !in.is(gobreaker.StateClosed) || in.passed.Load() && in.pausing(),
				ejected: in.ejection.until != 0, rate: in.ejection.rate, id: in.ref.ID,
			}
		}
		for _, i := range pardoned(members) {
			list[i].ejection.until = 0
		}
	}
}

// pardon decides anew when an ejection is over.
func (s *service) pardon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.clock()
	for _, in := range s.instances {
		if until := in.ejection.until; until != 0 && until <= now {
			s.decideLocked()
			return
		}
	}
}

// eject is the keeper's part: it judges every judgeEvery, and lets ejections pass.
func (c *Client) eject(ctx context.Context, now time.Time, judgeAt *time.Time) {
	due := !now.Before(*judgeAt)
	if due {
		*judgeAt = now.Add(judgeEvery)
	}
	for _, s := range *c.services.Load() {
		if s.cfg.NoEjection || s.answer.Load() == nil {
			continue
		}
		s.pardon()
		if !due {
			continue
		}
		for _, e := range s.judge() {
			c.tel.outlierEjected(ctx, e.in)
			c.log().Warn("an instance fails more of its calls than its neighbours; it is left out for a while",
				"service", s.label, "region", e.in.ref.Region, "instance", e.in.ref.ID, "success_rate", e.rate, "for", e.held)
		}
	}
}
