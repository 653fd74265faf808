package peer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	breakerTrips = 3               // failures in a row that open an address's breaker
	breakerOpen  = 2 * time.Second // about how long it stays open
)

// Ring holds the addresses of one region. A circuit breaker per address keeps a dead one
// from costing its dial time-out at each attempt while another one works. The breakers never
// keep a region from being tried: when all are open, one is tried all the same, so a region
// that returns is found as fast as the backoff allows. Not safe for concurrent use.
type Ring struct {
	entries []ringEntry
	next    int // where the next attempt begins: the address that worked last
}

type ringEntry struct {
	address string
	breaker *gobreaker.CircuitBreaker[struct{}]
}

// NewRing returns a ring of at least one address.
func NewRing(addresses []string) *Ring {
	r := &Ring{}
	for _, a := range addresses {
		r.entries = append(r.entries, ringEntry{a, newBreaker(a)})
	}
	return r
}

func newBreaker(name string) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        name,
		MaxRequests: 1,
		// Spread, so that the nodes of a region do not all try at the same moment.
		Timeout:     time.Duration((0.8 + 0.4*rand.Float64()) * float64(breakerOpen)),
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerTrips },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) },
	})
}

// Try calls try with one address after another until it succeeds, and returns that address.
// It passes over addresses whose breaker is open. The error is that of the last try.
func (r *Ring) Try(ctx context.Context, try func(ctx context.Context, address string) error) (string, error) {
	var last error
	tried := false
	for i := range r.entries {
		n := (r.next + i) % len(r.entries)
		e := r.entries[n]
		_, err := e.breaker.Execute(func() (struct{}, error) { return struct{}{}, try(ctx, e.address) })
		switch {
		case err == nil:
			r.next = n
			return e.address, nil
		case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
			continue
		case ctx.Err() != nil:
			return "", err
		}
		tried, last = true, err
	}
	if tried {
		return "", last
	}
	e := &r.entries[r.next]
	if err := try(ctx, e.address); err != nil {
		r.Skip()
		return "", err
	}
	e.breaker = newBreaker(e.address)
	return e.address, nil
}

// Skip makes the next Try begin at another address: this one connects but is no good.
func (r *Ring) Skip() { r.next = (r.next + 1) % len(r.entries) }
