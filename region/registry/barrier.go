package registry

import (
	"context"
	"fmt"
	"sync"

	"github.com/nearside/nearside/region/store"
)

// sharedBarrier asks the store where it stands, for many at a time: one question is under way,
// and whoever comes meanwhile is answered by the next, which begins after they came. Safe for concurrent use.
type sharedBarrier struct {
	ask  func(ctx context.Context) (uint64, error)
	wake chan struct{} // capacity 1: somebody waits

	mu    sync.Mutex
	ended bool      // nobody asks any more
	next  *question // of those whose question has not begun; nil = nobody
}

type question struct {
	done     chan struct{} // closed with the answer
	revision uint64
	err      error
}

func newSharedBarrier(ask func(ctx context.Context) (uint64, error)) *sharedBarrier {
	return &sharedBarrier{ask: ask, wake: make(chan struct{}, 1)}
}

// wait returns a revision that is at least that of every commit acknowledged before the call. Once
// run has ended it is store.ErrClosed.
func (b *sharedBarrier) wait(ctx context.Context) (uint64, error) {
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return 0, store.ErrClosed
	}
	if b.next == nil {
		b.next = &question{done: make(chan struct{})}
	}
	q := b.next
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	select {
	case <-q.done:
		return q.revision, q.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

// run asks until ctx ends. Whoever waits then gets store.ErrClosed.
func (b *sharedBarrier) run(ctx context.Context) {
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			if q := b.take(true); q != nil {
				q.err = store.ErrClosed
				close(q.done)
			}
			return
		}
		q := b.take(false)
		if q == nil {
			continue
		}
		// Who asked has a deadline of its own, and must not end the question of the others.
		actx, cancel := context.WithTimeout(ctx, writeDeadline)
		q.revision, q.err = b.ask(actx)
		cancel()
		close(q.done)
	}
}

// take returns the question that waits, if there is one; ending says that none is taken after it.
func (b *sharedBarrier) take(ending bool) *question {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.next
	b.next, b.ended = nil, ending
	return q
}
