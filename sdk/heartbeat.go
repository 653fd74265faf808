package nearside

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Times of the loop of a registration.
const (
	beatWithin   = 2 * time.Second        // one request to one node
	againSoon    = 200 * time.Millisecond // after no node answered, doubling …
	againAtMost  = 2 * time.Second        // … up to this
	beatsPerTTL  = 3
	lateBeyond   = time.Second // of oversleeping that is no suspension with the shortest TTL
	refusedAgain = 5 * time.Second
)

// command is something that the owner of a Registered asks its loop to do.
type command struct {
	status     *api.StatusChange
	deregister bool
	done       chan error // holds one
}

// do hands a command to the loop and waits for its end.
func (r *Registered) do(ctx context.Context, c command) error {
	c.done = make(chan error, 1)
	select {
	case r.commands <- c:
	case <-r.stopped:
		return r.over()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-r.stopped:
		return r.over()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// over is what a stopped loop answers.
func (r *Registered) over() error {
	if err := r.Err(); errors.Is(err, ErrSuperseded) {
		return err
	}
	return ErrClosed
}

// beats is the state of one loop; only run touches it.
type beats struct {
	r          *Registered
	registered bool // the registry has us, as far as we know
	told       bool // the first registration has ended
	statusSent bool // the registry knows r.want
	bumped     bool // the first registration took over a stored incarnation
	epoch      api.Epoch
	backoff    time.Duration
}

// run keeps the instance registered until ctx ends, the registry refuses the very first
// registration, or a newer incarnation takes over.
func (r *Registered) run(ctx context.Context) {
	defer close(r.stopped)
	b := &beats{r: r, statusSent: true}
	wait := time.Duration(0)
	for {
		planned := time.Now()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case c := <-r.commands:
			timer.Stop()
			c.done <- b.command(ctx, c)
			if c.deregister {
				return
			}
			wait = max(0, wait-time.Since(planned))
			if !b.statusSent {
				wait = min(wait, b.pause())
			}
			continue
		case <-timer.C:
		}
		if b.registered && suspended(planned, time.Now(), wait, r.ttl()) {
			// While we did not run, others may have counted us out, or taken our place. We
			// come back as somebody new before we claim to be well.
			r.c.log().Warn("program was suspended; registering as a new incarnation", "instance", r.key.String(), "for", time.Since(planned)-wait)
			r.newIncarnation()
			b.registered = false
		}
		var over bool
		if wait, over = b.beat(ctx); over {
			return
		}
	}
}

// suspended reports whether a sleep of want took so long that the registry may have given
// the instance up. Both clocks count: the monotonic one stands still while a machine
// sleeps, the wall clock can be moved.
func suspended(start, now time.Time, want, ttl time.Duration) bool {
	late := max(now.Sub(start), now.Round(0).Sub(start.Round(0))) - want
	return late > max(ttl, lateBeyond)
}

// beat does what is due, and returns when the next is. over ends the loop.
func (b *beats) beat(ctx context.Context) (next time.Duration, over bool) {
	var err error
	if !b.registered {
		err = b.register(ctx)
	} else {
		err = b.heartbeat(ctx)
	}
	if err == nil && !b.statusSent {
		err = b.sendStatus(ctx)
	}
	if ctx.Err() != nil {
		return 0, true
	}
	b.r.set(err, !b.registered)
	var no *api.Error
	refused := errors.As(err, &no) && !no.Code.Retryable()
	switch {
	case errors.Is(err, ErrSuperseded):
		b.r.c.log().Error("registration given up", "instance", b.r.key.String(), "error", err)
		b.tell(err)
		return 0, true
	case err == nil:
		b.tell(nil)
		b.backoff = 0
		every := b.r.ttl() / beatsPerTTL
		return every - every/10 + rand.N(every/5+1), false
	case refused && !b.told:
		b.tell(err)
		return 0, true
	case refused:
		b.r.c.log().Warn("registry refuses the registration", "instance", b.r.key.String(), "error", err)
		return refusedAgain/2 + rand.N(refusedAgain), false
	}
	return b.pause(), false
}

// pause grows while nobody answers, with jitter: many programs lose their registry in the
// same moment, and should not all find it in the same one.
func (b *beats) pause() time.Duration {
	b.backoff = min(max(2*b.backoff, againSoon), againAtMost)
	return max(b.backoff/2, b.r.after) + rand.N(b.backoff)
}

// tell ends the wait of Register.
func (b *beats) tell(err error) {
	if !b.told {
		b.told = true
		b.r.first <- err
	}
}

func (b *beats) register(ctx context.Context) error {
	r := b.r
	reg := r.registration()
	var inst api.Instance
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
	b.registered, b.epoch = true, api.Epoch{}
	// The registry may have kept an older status, or given the one of a new instance.
	b.statusSent = r.wanted().Status == ""
	return nil
}

func (b *beats) heartbeat(ctx context.Context) error {
	r := b.r
	var ack api.HeartbeatAck
	err := r.send(ctx, http.MethodPut, "/heartbeat", api.Heartbeat{Incarnation: r.Incarnation()}, &ack)
	switch {
	case stale(err) != nil:
		return fmt.Errorf("%s: %w: %w", r.key, ErrSuperseded, err)
	case api.CodeOf(err) == api.CodeInstanceNotFound || api.CodeOf(err) == api.CodeServiceNotFound:
		r.c.log().Info("registry lost the instance; registering again", "instance", r.key.String())
		b.registered = false
		return b.register(ctx)
	case err != nil:
		r.c.tel.heartbeat(ctx, outcomeName(err))
		return err
	}
	r.c.tel.heartbeat(ctx, "ok")
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
	if c.status != nil {
		b.r.mu.Lock()
		b.r.want = *c.status
		b.r.mu.Unlock()
		b.statusSent = false
		if !b.registered {
			return fmt.Errorf("%s is not registered yet: %w", b.r.key, ErrUnreachable)
		}
		return b.sendStatus(ctx)
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
	case api.CodeOf(err) == api.CodeInstanceNotFound:
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
	err := error(ErrUnreachable)
	r.after = 0
	for _, base := range r.c.nodes.homeNodes() {
		try, cancel := context.WithTimeout(ctx, beatWithin)
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

func (r *Registered) wanted() api.StatusChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.want
}

func (r *Registered) newIncarnation() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reg.Incarnation = newIncarnation(r.reg.Incarnation)
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
