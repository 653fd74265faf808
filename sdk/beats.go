package nearside

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func (b *beats) register(ctx context.Context) error {
	r := b.r
	reg := r.registration()
	var inst api.Instance
	begun := r.c.now()
	err := r.send(ctx, http.MethodPut, "", reg, &inst)
	if no := stale(err); no != nil {
		if b.told || b.bumped || no.Incarnation == 0 {
			return fmt.Errorf("%s: %w: %w", r.key, ErrSuperseded, err)
		}
		// An earlier run with a clock ahead of ours left a higher number. Once, and only
		// at the start: two living programs with one id must not outbid each other.
		b.bumped = true
		r.setIncarnation(no.Incarnation + 1)
		return b.register(ctx)
	}
	if err != nil {
		r.c.tel.heartbeat(ctx, outcomeName(err))
		return err
	}
	r.c.tel.heartbeat(ctx, "registered")
	if b.told {
		r.c.log().Info("registered again", "instance", r.key.String(), "incarnation", reg.Incarnation)
	}
	b.registered, b.epoch, b.acked = true, api.Epoch{}, begun
	// The registry may have kept an older status, or given the one of a new instance.
	b.statusSent = r.wanted().Status == ""
	return nil
}

func (b *beats) heartbeat(ctx context.Context) error {
	r := b.r
	var ack api.HeartbeatAck
	begun := r.c.now()
	err := r.beat(ctx, api.Heartbeat{Incarnation: r.Incarnation(), Load: r.load(ctx)}, &ack)
	switch {
	case stale(err) != nil:
		return fmt.Errorf("%s: %w: %w", r.key, ErrSuperseded, err)
	case api.CodeOf(err) == api.CodeInstanceNotFound || api.CodeOf(err) == api.CodeServiceNotFound:
		r.c.log().Info("registry lost the instance; registering again", "instance", r.key.String())
		b.lost()
		return b.register(ctx)
	case err != nil:
		r.c.tel.heartbeat(ctx, outcomeName(err))
		return err
	}
	r.c.tel.heartbeat(ctx, "ok")
	b.acked = begun
	if restarted := !b.epoch.IsZero() && !ack.Epoch.IsZero() && ack.Epoch != b.epoch; restarted {
		// The region's history began anew. That it knows us now does not mean that what it
		// knows is all of it.
		b.registered = false
		err = b.register(ctx)
	}
	b.epoch = ack.Epoch
	return err
}

func (b *beats) command(ctx context.Context, c command) error {
	switch {
	case c.status != nil:
		b.r.mu.Lock()
		b.r.want = *c.status
		b.r.mu.Unlock()
		b.statusSent = false
		if !b.registered {
			return fmt.Errorf("%s is not registered yet: %w", b.r.key, ErrUnreachable)
		}
		return b.sendStatus(ctx)
	case c.update != nil:
		return b.update(ctx, c.update)
	}
	q := url.Values{"incarnation": {fmt.Sprint(b.r.Incarnation())}}
	err := b.r.request(ctx, http.MethodDelete, "", q, nil, nil)
	if code := api.CodeOf(err); code == api.CodeInstanceNotFound || code == api.CodeServiceNotFound || stale(err) != nil {
		return nil // it is gone, or somebody else's
	}
	return err
}

func (b *beats) sendStatus(ctx context.Context) error {
	change := b.r.wanted()
	change.Incarnation = b.r.Incarnation()
	err := b.r.send(ctx, http.MethodPut, "/status", change, nil)
	switch {
	case err == nil:
		b.statusSent = true
	case stale(err) != nil:
		return fmt.Errorf("%s: %w: %w", b.r.key, ErrSuperseded, err)
	case api.CodeOf(err) == api.CodeInstanceNotFound || api.CodeOf(err) == api.CodeServiceNotFound:
		b.registered = false
	}
	return err
}

// stale returns the error of a registry that knows a newer incarnation.
func stale(err error) *api.Error {
	var no *api.Error
	if errors.As(err, &no) && no.Code == api.CodeStaleIncarnation {
		return no
	}
	return nil
}

func outcomeName(err error) string {
	var no *api.Error
	if errors.As(err, &no) {
		return string(no.Code)
	}
	return "unreachable"
}

func (r *Registered) send(ctx context.Context, method, sub string, in, out any) error {
	return r.request(ctx, method, sub, nil, in, out)
}

// request asks the nodes of home in turn, until one gives an answer that is not only its
// own trouble.
func (r *Registered) request(ctx context.Context, method, sub string, q url.Values, in, out any) error {
	if r.key.Namespace != api.DefaultNamespace {
		if q == nil {
			q = url.Values{}
		}
		q.Set("ns", string(r.key.Namespace))
	}
	err := r.c.nodes.nobody()
	r.after = 0
	for _, base := range r.c.nodes.homeNodes() {
		try, cancel := context.WithTimeout(ctx, beatWithin)
		if e := r.c.atHome(try, base); e != nil {
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.c.nodes.failed(base)
			err = e
			continue
		}
		a, e := r.c.caller.Do(try, method, base, api.PathInstance(r.key.Service, r.key.ID)+sub, q, in, out)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var no *api.Error
		if e == nil || (errors.As(e, &no) && !no.Code.Retryable()) {
			if r.c.nodes.homeRegion() == "" {
				r.c.nodes.claim(base, a.Region)
			}
			return e
		}
		r.c.nodes.failed(base)
		r.after = max(r.after, a.RetryAfter)
		err = e
	}
	return err
}

// atHome makes sure that a configured node is of the home region, before anything is written
// there: a wrong address, or a wrong Config.Region, must not register the program abroad. An
// error says that it is not, or that nobody answered. It asks once per node.
func (c *Client) atHome(ctx context.Context, base string) error {
	if !c.nodes.unsure(base) {
		return nil
	}
	said, err := c.caller.Region(ctx, base)
	if err != nil {
		return err
	}
	if !c.nodes.claim(base, said) {
		err := errNotHome(base, said, c.nodes.homeRegion())
		c.log().Warn("an address of the home region belongs to another one", "address", base, "region", said, "home", c.nodes.homeRegion())
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

// The rest is access to the fields that the loop shares.

func (r *Registered) ttl() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reg.TTL.D()
}

func (r *Registered) registration() api.Registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	reg := r.reg
	if s := r.want.Status; s != "" && s != api.StatusPassing {
		reg.Status = api.StatusStarting // no calls until the wanted status is told again
	} else if s == api.StatusPassing {
		reg.Status = api.StatusPassing
	}
	return reg
}

func (r *Registered) drainDelay() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.DrainDelay
}

func (r *Registered) wanted() api.StatusChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.want
}

func (r *Registered) setIncarnation(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reg.Incarnation = n
}

func (r *Registered) set(err error, pending bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.pending = err, pending
}
