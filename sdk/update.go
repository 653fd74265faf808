package nearside

import (
	"context"
	"errors"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// update is what Update asks of the loop.
type update struct {
	said Registration
	wire api.Registration
}

// Update changes what the registry tells of the instance: its metadata, tags, weight,
// capacity, version, address, ports, zone, checks, TTL, DrainDelay or Load. change gets the
// registration as it stands and changes what it wants; it runs on the caller's goroutine,
// and what it is given belongs to it.
//
//	err := reg.Update(ctx, func(r *nearside.Registration) { r.Metadata = map[string]string{"build": "7"} })
//
// Service, ID and Starting cannot be changed (SetStatus tells how the program is). The
// incarnation stays, and so does the status. Update returns once the registry acknowledged
// it. An *api.Error that does not say to try again is a refusal: what was registered before
// stays. After any other error the change is sent again until the registry has it. Of two
// calls at the same time, each starts from what it saw: let one goroutine update.
func (r *Registered) Update(ctx context.Context, change func(*Registration)) error {
	r.mu.Lock()
	was := r.said
	r.mu.Unlock()
	next := was.clone()
	change(&next)
	if next.Service != was.Service || next.ID != was.ID {
		return fmt.Errorf("update %s: service and id cannot change: register another instance", r.key)
	}
	if next.Starting != was.Starting {
		return fmt.Errorf("update %s: Starting is for the registration: use SetStatus", r.key)
	}
	said, wire, err := r.c.wire(next)
	if err != nil {
		return fmt.Errorf("update %s: %w", r.key, err)
	}
	return r.do(ctx, command{update: &update{said: said, wire: wire}})
}

// update registers the instance anew as u says.
func (b *beats) update(ctx context.Context, u *update) error {
	r := b.r
	r.mu.Lock()
	said, old := r.said, r.reg
	u.wire.Incarnation = old.Incarnation
	r.said, r.reg = u.said, u.wire
	r.mu.Unlock()
	was := b.registered
	r.gauge.said, r.gauge.broken = nil, false // the old function may hang for ever
	// Until it is acknowledged, the next beat is a registration.
	b.registered = false
	err := b.register(ctx)
	var no *api.Error
	if err != nil && errors.As(err, &no) && !no.Code.Retryable() && stale(err) == nil {
		r.mu.Lock()
		old.Incarnation = r.reg.Incarnation
		r.said, r.reg = said, old
		r.mu.Unlock()
		b.registered = was
		return fmt.Errorf("update %s: %w", r.key, err)
	}
	if err == nil && !b.statusSent {
		err = b.sendStatus(ctx)
	}
	r.set(err, !b.registered)
	return err
}
