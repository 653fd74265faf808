// Package rounds says when each of many things is visited again: every interval with some
// jitter, and a bounded number of them at once. It holds the order by due time, so that when there is more to do than can be done everyone waits alike.
package rounds

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// jitter of an interval: ±5 %, so that what began in step does not stay so.
const jitter = 0.05

// Lag looks at this many of the last visits at most, and not further back than lagWindow.
const (
	lags      = 8192
	lagWindow = time.Minute
)

// Rounds visits things named by K. Its methods are safe for concurrent use.
type Rounds[K comparable] struct {
	slots chan struct{} // one per visit at the same time
	wake  chan struct{} // capacity 1: the first of the queue may have changed

	mu     sync.Mutex
	byKey  map[K]*stop[K]
	queue  queue[K] // those that wait, the first due first
	late   []start
	next   int // in late
	visits uint64
}

// start is when a visit began, and how late that was.
type start struct {
	at   time.Time
	late time.Duration
}

// stop is one thing that is visited.
type stop[K comparable] struct {
	key   K
	every time.Duration
	due   time.Time
	at    int // in the queue; -1 = being visited, or dropped
}

// New returns Rounds with at most limit visits at the same time.
func New[K comparable](limit int) *Rounds[K] {
	return &Rounds[K]{slots: make(chan struct{}, limit), wake: make(chan struct{}, 1), byKey: map[K]*stop[K]{}}
}

// Set has k visited every interval, for the first time after first. When k is visited
// already it starts anew; a visit under way is not waited for.
func (r *Rounds[K]) Set(k K, every, first time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(k)
	s := &stop[K]{key: k, every: every, due: time.Now().Add(first)}
	r.byKey[k] = s
	r.push(s)
}

// Drop ends the visits of k. One that is under way is not interrupted.
func (r *Rounds[K]) Drop(k K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(k)
}

func (r *Rounds[K]) drop(k K) {
	s := r.byKey[k]
	if s == nil {
		return
	}
	delete(r.byKey, k)
	if s.at >= 0 {
		heap.Remove(&r.queue, s.at)
	}
}

func (r *Rounds[K]) push(s *stop[K]) {
	heap.Push(&r.queue, s)
	if s.at == 0 {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Run visits until ctx ends, and returns when no visit is under way.
func (r *Rounds[K]) Run(ctx context.Context, visit func(context.Context, K)) {
	var under sync.WaitGroup
	defer under.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		// A slot first: by the time there is one, another thing may be the most urgent.
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		s, wait := r.take()
		for s == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				<-r.slots
				return
			case <-r.wake:
			case <-timer.C:
			}
			s, wait = r.take()
		}
		under.Go(func() {
			defer func() { <-r.slots }()
			visit(ctx, s.key)
			r.again(s)
		})
	}
}

// take returns what is due, or how long until something may be.
func (r *Rounds[K]) take() (*stop[K], time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, time.Hour
	}
	now := time.Now()
	s := r.queue[0]
	if wait := s.due.Sub(now); wait > 0 {
		return nil, wait
	}
	heap.Pop(&r.queue)
	if len(r.late) < lags {
		r.late = append(r.late, start{})
	}
	r.late[r.next] = start{now, now.Sub(s.due)}
	r.next = (r.next + 1) % lags
	r.visits++
	return s, 0
}

// again queues s for its next visit, unless it was dropped or set anew meanwhile.
func (r *Rounds[K]) again(s *stop[K]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey[s.key] != s {
		return
	}
	step := time.Duration(float64(s.every) * (1 - jitter + 2*jitter*rand.Float64()))
	s.due = s.due.Add(step)
	if now := time.Now(); s.due.Before(now) {
		s.due = now.Add(step) // what was missed is not made up for
	}
	r.push(s)
}

// Len returns how many things are visited.
func (r *Rounds[K]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byKey)
}

// Lag is how late visits began.
type Lag struct {
	P50, P99, Max time.Duration // of the last few thousand, within a minute
	Visits        uint64        // begun so far
}

// Lag returns how late visits began.
func (r *Rounds[K]) Lag() Lag {
	r.mu.Lock()
	late := make([]time.Duration, 0, len(r.late))
	for _, s := range r.late {
		if time.Since(s.at) <= lagWindow {
			late = append(late, s.late)
		}
	}
	out := Lag{Visits: r.visits}
	r.mu.Unlock()
	if len(late) == 0 {
		return out
	}
	slices.Sort(late)
	at := func(share float64) time.Duration { return late[min(len(late)-1, int(share*float64(len(late))))] }
	out.P50, out.P99, out.Max = at(0.5), at(0.99), late[len(late)-1]
	return out
}

// queue is a heap by due time.
type queue[K comparable] []*stop[K]

func (q queue[K]) Len() int           { return len(q) }
func (q queue[K]) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue[K]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *queue[K]) Push(x any) {
	s := x.(*stop[K])
	s.at = len(*q)
	*q = append(*q, s)
}

func (q *queue[K]) Pop() any {
	old := *q
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	s.at = -1
	return s
}
