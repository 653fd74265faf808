package kv

import (
	"fmt"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// budget counts what writes under way will add, so that many at once cannot pass the limits
// together.
type budget struct {
	mu    sync.Mutex
	keys  int
	bytes int
}

// claim is one write's part of the budget.
type claim struct{ keys, bytes int }

// claim replaces what c holds by room for keys and bytes more; CodeStorageFull when there is
// none. Writes that make nothing larger are always allowed.
func (t *Table) claim(c *claim, keys, bytes int) error {
	b := &t.budget
	b.release(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	// Looked at under the lock: a write gives its claim back after the view shows it, so it is
	// counted here, there, or twice, but never not at all.
	haveKeys, haveBytes := t.head.Load().view.Len()
	full := func(what string, most int) error {
		return &api.Error{
			Code: api.CodeStorageFull, Detail: fmt.Sprintf("the region keeps at most %d %s, and this would be more", most, what),
			Remedy: "delete keys that are not needed; GET /v1/limits lists the limits. Registrations are not affected",
		}
	}
	switch {
	case keys > 0 && haveKeys+b.keys+keys > t.cfg.MaxKeys:
		return full("keys", t.cfg.MaxKeys)
	case bytes > 0 && haveBytes+int64(b.bytes+bytes) > int64(t.cfg.MaxBytes):
		return full("bytes of values", t.cfg.MaxBytes)
	}
	*c = claim{max(keys, 0), max(bytes, 0)}
	b.keys += c.keys
	b.bytes += c.bytes
	return nil
}

func (b *budget) release(c *claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys -= c.keys
	b.bytes -= c.bytes
	*c = claim{}
}

// recordOverhead is what the store's history keeps of a write beside key and value.
const recordOverhead = 512

func writeCost(q PutQuery) int { return len(q.Key) + len(q.Value) + recordOverhead }

// pace bounds how fast keys are written. The store remembers every value for some minutes
// after it was replaced, within a quota that it shares with the registrations: without this
// bound, whoever writes one large key in a loop would fill the store within seconds: then
// nobody can register, or the store makes room by forgetting what others resume from.
type pace struct {
	burst, rate int // bytes, bytes per second

	mu     sync.Mutex
	tokens int
	last   time.Time // of the tokens; zero = full
}

// take takes the cost of a write, or refuses with CodeTooManyRequests.
func (p *pace) take(cost int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.last.IsZero() {
		p.tokens = p.burst
	} else {
		add := now.Sub(p.last).Seconds() * float64(p.rate)
		p.tokens = int(min(float64(p.tokens)+add, float64(p.burst)))
	}
	p.last = now
	if p.tokens < cost {
		return &api.Error{
			Code: api.CodeTooManyRequests,
			Detail: fmt.Sprintf("keys are written too fast: %d bytes at once and %d bytes per second from then on is what this node takes",
				p.burst, p.rate),
			Remedy: "write less often, or smaller values; reads, deletes and registrations go on",
		}
	}
	p.tokens -= cost
	return nil
}

// giveBack returns the cost of a write that did not happen.
func (p *pace) giveBack(cost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = min(p.tokens+cost, p.burst)
}
