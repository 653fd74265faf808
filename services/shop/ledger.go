package shop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
)

// maxLedger bounds what an instance remembers of orders or charges; the oldest go first.
const maxLedger = 10_000

// ledger remembers the outcome of keyed work, so that a repeated request gets the first
// one's answer. Only successes are remembered: work that failed may be tried again. It
// may be used concurrently.
type ledger[T any] struct {
	mu      sync.Mutex
	entries map[string]*entry[T] // by id
	order   []string             // ids of finished entries, oldest first
}

type entry[T any] struct {
	asked string // what was asked for, to tell a repeat from a reused key
	done  chan struct{}
	ok    bool // set before done is closed
	value T
}

func newLedger[T any]() *ledger[T] { return &ledger[T]{entries: map[string]*entry[T]{}} }

// idOf derives an id from an idempotency key. It is the same in every region, so that a
// purchase repeated elsewhere keeps its number.
func idOf(prefix, key string) string {
	sum := sha256.Sum256([]byte(key))
	return prefix + hex.EncodeToString(sum[:8])
}

// do returns what is stored under id, or runs work and stores its outcome. Callers with
// the same id wait for each other; asked must be the same each time (409 if not).
func (l *ledger[T]) do(ctx context.Context, id, asked string, work func() (T, error)) (value T, repeated bool, err error) {
	var zero T
	for {
		l.mu.Lock()
		e, found := l.entries[id]
		if !found {
			e = &entry[T]{asked: asked, done: make(chan struct{})}
			l.entries[id] = e
		}
		l.mu.Unlock()

		if !found {
			return l.run(id, e, work)
		}
		if e.asked != asked {
			return zero, false, fail(http.StatusConflict, errConflict, "this %s was used for another request", HeaderIdempotencyKey)
		}
		select {
		case <-e.done:
			if e.ok {
				return e.value, true, nil
			}
			// The first one failed and is forgotten: this one's turn.
		case <-ctx.Done():
			return zero, false, fail(http.StatusServiceUnavailable, errBusy, "the first request with this %s has no outcome yet", HeaderIdempotencyKey)
		}
	}
}

func (l *ledger[T]) run(id string, e *entry[T], work func() (T, error)) (value T, repeated bool, err error) {
	defer func() { // also when work panics: nobody may wait for ever
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.ok {
			l.order = append(l.order, id)
			if len(l.order) > maxLedger {
				delete(l.entries, l.order[0])
				l.order = l.order[1:]
			}
		} else {
			delete(l.entries, id)
		}
		close(e.done)
	}()
	value, err = work()
	if err == nil {
		e.value, e.ok = value, true
	}
	return value, false, err
}

// find returns what is stored under id.
func (l *ledger[T]) find(id string) (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, found := l.entries[id]; found && e.ok {
		return e.value, true
	}
	var zero T
	return zero, false
}
