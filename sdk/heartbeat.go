package nearside

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Times of the loop of a registration.
const (
	beatWithin   = 2 * time.Second        // one request to one node
	againSoon    = 200 * time.Millisecond // after no node answered, doubling …
	againAtMost  = 2 * time.Second        // … up to this
	beatsPerTTL  = 3
	refusedAgain = 5 * time.Second
)

// command is something that the owner of a Registered asks its loop to do.
type command struct {
	status     *api.StatusChange
	update     *update
	deregister bool
	done       chan error // holds one
}

// do hands a command to the loop and waits for its end.
func (r *Registered) do(ctx context.Context, c command) error {
	if ctx == nil {
		return errNoContext
	}
	c.done = make(chan error, 1)
	select {
	case r.commands <- c:
	case <-r.stopped:
		return r.over()
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.answer(ctx, c.done)
}

// answer waits for what the loop says of a command that it took.
func (r *Registered) answer(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-r.stopped:
		// A deregistration is the last thing that the loop does: its end and the answer may be
		// seen at once.
		select {
		case err := <-done:
			return err
		default:
			return r.over()
		}
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
	acked      moment // when the last sign of life that the registry acknowledged was sent
	backoff    time.Duration
}

// run keeps the instance registered until ctx ends, the registry refuses the very first
// registration, or a newer incarnation takes over.
func (r *Registered) run(ctx context.Context) {
	defer close(r.stopped)
	b := &beats{r: r, statusSent: true}
	wait := time.Duration(0)
	for {
		planned := r.c.now()
		timer := time.NewTimer(wait)
		var asked *command
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case c := <-r.commands:
			asked = &c
		case <-timer.C:
		}
		timer.Stop()
		// Before anything is said: whoever wakes up the program may also have it call SetStatus.
		woke := b.woke(planned, wait)
		over := false
		if asked == nil || woke {
			begun := r.c.now()
			if wait, over = b.beat(ctx); !over && b.woke(begun, b.beatAtMost()) {
				wait = 0
			}
		} else {
			wait = max(0, wait-(r.c.now().mono-planned.mono))
		}
		if asked != nil && !over {
			begun := r.c.now()
			asked.done <- b.command(ctx, *asked)
			if asked.deregister {
				return
			}
			wait = max(0, wait-(r.c.now().mono-begun.mono))
			if !b.statusSent || !b.registered {
				wait = min(wait, b.pause())
			}
			if b.woke(begun, b.beatAtMost()) {
				wait = 0
			}
		}
		if over {
			return
		}
	}
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
