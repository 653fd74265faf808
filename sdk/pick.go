package nearside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Picked is one endpoint to call.
type Picked struct {
	Endpoint api.Endpoint
	// Decision is the id of the decision that it was picked by, as Resolve and the log have it.
	Decision string
	// Done must be called exactly once, when the call is over: it tells how it went, so
	// that balancing and breakers work. nil means that the instance answered, whatever the
	// answer was (a 404 is an answer). A cancelled context says nothing about the instance
	// and is not counted; any other error counts as a failure. It never blocks and may be
	// called from any goroutine.
	Done func(err error)
}

// HostPort returns the endpoint's address and main port, as net.Dial takes it.
func (p Picked) HostPort() string {
	return net.JoinHostPort(p.Endpoint.Address, strconv.Itoa(p.Endpoint.Port))
}

// Pick returns the endpoint that the next call of the service should go to: the tiers of
// route.Decide take turns by their shares (mostly there is one, the nearest), balanced within
// each, without instances whose breaker is open. The
// service is "orders", or "orders.namespace".
//
// The first Pick of a service waits for a registry, at most two seconds or until ctx ends;
// later ones are answered from memory. Errors: an *api.Error with CodeServiceNotFound when
// no region knows the service or with CodeInvalidField for a bad name, ErrNoInstances,
// ErrIncomplete, ErrUnreachable, ErrTooManyServices, ErrClosed, or the error of ctx. That a
// service is not found is remembered and watched like any other answer: the next Pick has it
// at once, until an instance registers, or until nobody asked for a minute.
func (c *Client) Pick(ctx context.Context, service string) (Picked, error) {
	s, a, err := c.current(ctx, service)
	if err != nil {
		return Picked{}, err
	}
	// The caller may not be able to repeat its call: it is never the first to try an
	// instance that just failed.
	sl, l := s.choose(a, &call{ctx: ctx})
	if sl == nil {
		return Picked{}, s.nothing(a)
	}
	return c.picked(sl, l), nil
}

// picked returns what a pick tells its caller.
func (c *Client) picked(sl *slot, l *lease) Picked {
	done := l.done
	if sl.watched() {
		done = c.ticket(sl, l)
	}
	p := Picked{Endpoint: sl.endpoint, Done: done}
	p.Endpoint.Tier = sl.tier
	if sl.from != nil {
		p.Decision = sl.from.id
	}
	return p
}

// nothing returns why a has nothing to call.
func (s *service) nothing(a *answer) error {
	if a.decision.Reason == api.ReasonServiceNotFound {
		return s.notFound(a)
	}
	return fmt.Errorf("service %s: %w: %s", s.key, ErrNoInstances, a.decision.Detail)
}

// notFound returns why a knows no region that has the service. That there is none is said only
// by those who know all.
func (s *service) notFound(a *answer) error {
	switch {
	case !a.synced: // a snapshot says that it was gone
		return fmt.Errorf("service %s: %w", s.key, ErrUnreachable)
	case !a.whole:
		return fmt.Errorf("service %s: %w", s.key, ErrIncomplete)
	}
	return notFound(s.key)
}

// Resolve returns what a call of the service would choose from, best first, and why: the
// decision, and how old the knowledge of each region is. It waits and fails like Pick,
// but a service without any instance to call is an answer, with no endpoints.
func (c *Client) Resolve(ctx context.Context, service string) (api.Resolution, error) {
	s, a, err := c.current(ctx, service)
	if err != nil {
		return api.Resolution{}, err
	}
	if a.decision.Reason == api.ReasonServiceNotFound {
		return api.Resolution{}, s.notFound(a)
	}
	return s.resolution(a, time.Now()), nil
}

// Explain is Resolve with the trace of the decision: how many instances were left after
// each step, which ones went and why, and what would change the answer. Breakers of this
// client take part.
func (c *Client) Explain(ctx context.Context, service string) (api.Explanation, error) {
	s, a, err := c.current(ctx, service)
	if err != nil {
		return api.Explanation{}, err
	}
	s.mu.Lock()
	caller := s.callerLocked()
	s.mu.Unlock()
	var trace api.Trace
	again := *a
	again.decision, again.id = again.decide(caller, &trace), route.DecisionID(a.view, a.policy, caller)
	if again.decision.Reason == api.ReasonServiceNotFound {
		return api.Explanation{}, s.notFound(a)
	}
	from := string(caller.Region)
	if caller.Zone != "" {
		from += "/" + string(caller.Zone)
	}
	return api.Explanation{Resolution: s.resolution(&again, time.Now()), From: from, Trace: trace}, nil
}

// Watch calls f with the service's resolution, now and after every change of it, until
// ctx ends; then it returns the error of ctx (ErrClosed when the client closed). Changes
// that come while f runs are told together. A service that nobody knows (yet) is told as a
// resolution without endpoints and the reason service_not_found. Ages alone are no change.
func (c *Client) Watch(ctx context.Context, service string, f func(api.Resolution)) error {
	if ctx == nil {
		return errNoContext
	}
	if f == nil {
		return errors.New("watch: the function is nil: pass one that takes the resolutions")
	}
	s, err := c.hold(service)
	if err != nil {
		return err
	}
	defer s.use.release()
	for {
		if err := ctx.Err(); err != nil {
			return err // the select below may have seen a change of the same moment
		}
		a, changed := s.watch()
		if a != nil {
			f(s.resolution(a, time.Now()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}
