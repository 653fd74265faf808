package nearside

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// DefaultDecay is PeakEWMA's.
const DefaultDecay = 10 * time.Second

// PeakEWMA takes two instances at random, by weight, and of these the one that promises the
// quicker answer: how long it took lately, times the calls of this client that it would have
// running. Better than LeastRequest where some instances are slower than others.
//
// How long it took is a moving average that goes up at once with each slower answer and
// comes down by and by, and while nothing is heard (the peak-sensitive average of Finagle's
// balancer of that name, whose rules these are). Through a Transport the time is that to the
// answer's headers, of a Pick the time until Done. A quick failure does not make an instance
// look quick: failures, answers of 500 and above and calls given up can only raise the
// average. An instance that has not answered yet is given one call at a time.
type PeakEWMA struct {
	// Decay is the time after which what was measured counts for 1/e; default DefaultDecay.
	// Longer, and an instance that was slow once is left alone for longer; shorter, and
	// noise decides.
	Decay time.Duration
}

// Prepare returns the balancer's picker.
func (b PeakEWMA) Prepare(t Candidates) Picker { return prepare(b, t) }

func (b PeakEWMA) prepare(t Candidates, _ *atomic.Uint64, _ Picker) Picker {
	p := &peakEWMA{lots: t.round(), list: t.List, speeds: make([]*speed, len(t.List))}
	decay, mean := b.Decay, 0.0
	if decay == 0 {
		decay = DefaultDecay
	}
	for i := range t.List {
		mean += t.List[i].Weight / float64(len(t.List))
		p.speeds[i] = &speed{}
		if in := t.List[i].in; in != nil {
			p.speeds[i], p.clock = &in.speed, in.clock
		}
		p.speeds[i].decay.Store(int64(decay))
	}
	p.scale = mean
	if p.clock == nil {
		began := time.Now()
		p.clock = func() time.Duration { return time.Since(began) }
	}
	return p
}

func (b PeakEWMA) check() error {
	if b.Decay < 0 {
		return fmt.Errorf("PeakEWMA.Decay %s is below 0: leave it out for %s", b.Decay, DefaultDecay)
	}
	return nil
}

type peakEWMA struct {
	lots   []uint32
	list   []Candidate
	speeds []*speed
	scale  float64 // the mean weight
	clock  func() time.Duration
}

// Pick draws twice.
func (p *peakEWMA) Pick(PickInfo) int {
	x, y := two(p.lots)
	if x == y {
		return int(x)
	}
	now := p.clock()
	if p.cost(y, now) < p.cost(x, now) {
		return int(y)
	}
	return int(x)
}

// unheard is the average of an instance that runs calls and was never heard: more than of
// any other.
const unheard = 1e15

// cost is what a call there is expected to take, for those that run there too.
func (p *peakEWMA) cost(place uint32, now time.Duration) float64 {
	c := &p.list[place]
	running := float64(c.Running()) * p.scale / c.Weight
	took := p.speeds[place].at(now)
	if took == 0 && running > 0 {
		took = unheard
	}
	return took * (running + 1)
}

// speed is how long answers of one instance took lately. No lock: average and time are one
// word.
type speed struct {
	decay atomic.Int64  // nanoseconds; 0 = nobody wants to know
	word  atomic.Uint64 // average in nanoseconds as a float32, and when that was, in ticks; 0 = never heard
}

// tick is the unit of speed's times, as a shift: 65.5 µs. They wrap after three days; an
// instance of which nothing was heard for half of that has its average stand still.
const tick = 16

// failedCost is what a failed attempt counts for where nothing else was ever measured.
const failedCost = time.Second

func (s *speed) read(word uint64, now time.Duration) (average, kept float64) {
	average = float64(math.Float32frombits(uint32(word >> 32)))
	since := int32(uint32(now>>tick) - uint32(word)) // below 0: another call was quicker to note
	if since <= 0 {
		return average, 1
	}
	return average, math.Exp(-float64(time.Duration(since)<<tick) / float64(s.decay.Load()))
}

// at returns the average as of now, 0 = never heard.
func (s *speed) at(now time.Duration) float64 {
	word := s.word.Load()
	if word == 0 {
		return 0
	}
	average, kept := s.read(word, now)
	return average * kept
}

// took notes an attempt. Those without an answer only raise the average.
func (s *speed) took(now, d time.Duration, status int, err error) {
	answered := err == nil && status < 500
	for {
		old := s.word.Load()
		next := float64(max(d, 1))
		if old == 0 {
			if !answered && !givenUp(err) {
				next = max(next, float64(failedCost))
			}
		} else if average, kept := s.read(old, now); next < average*kept {
			if !answered {
				return
			}
			next = next*(1-kept) + average*kept
		}
		when := uint32(now >> tick)
		if old != 0 && int32(when-uint32(old)) < 0 {
			when = uint32(old) // time does not go back
		}
		word := uint64(math.Float32bits(float32(next)))<<32 | uint64(when)
		if s.word.CompareAndSwap(old, word) {
			return
		}
	}
}

func givenUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
