package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// maxAssemble bounds the time between two commits: a store that is this slow loses nothing
// by one that is smaller.
const maxAssemble = 10 * time.Millisecond

// committer gathers the writes of many callers into one commit of the store: while one
// commit is under way the next one gathers, and a write that comes alone goes at once.
// Every caller learns the outcome of its own write only: nobody's guard fails another's.
// Safe for concurrent use.
type committer struct {
	commit func(ctx context.Context, ops []store.Op) (uint64, error)
	shown  func() api.Version // where the published head stands
	// settled returns when the head has reached revision, or ctx ends.
	settled func(ctx context.Context, revision uint64)

	wake chan struct{} // capacity 1: somebody waits

	mu      sync.Mutex
	waiting []*proposal
	closed  bool
	// enough, when not 0, is how many proposals whoever waits for gathered wants.
	enough   int
	gathered chan struct{} // capacity 1
}

// proposal is what one caller wants written, all of it or nothing.
type proposal struct {
	ctx  context.Context
	ops  []store.Op
	done chan outcome // capacity 1: the committer never waits for a caller
}

type outcome struct {
	revision uint64
	err      error
}

func newCommitter(commit func(context.Context, []store.Op) (uint64, error), shown func() api.Version, settled func(context.Context, uint64)) *committer {
	return &committer{commit: commit, shown: shown, settled: settled, wake: make(chan struct{}, 1), gathered: make(chan struct{}, 1)}
}

// propose has ops committed together with those of others and returns as Store.Commit
// does. When ctx ends first the outcome is unknown; what nobody waits for any more is not
// begun.
func (c *committer) propose(ctx context.Context, ops []store.Op) (uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err // of this caller alone
	}
	p := &proposal{ctx: ctx, ops: ops, done: make(chan outcome, 1)}
	if err := c.enqueue(p); err != nil {
		return 0, err
	}
	select {
	case o := <-p.done:
		return o.revision, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

func (c *committer) enqueue(p *proposal) error {
	if err := p.ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return store.ErrClosed
	}
	c.waiting = append(c.waiting, p)
	if c.enough > 0 && len(c.waiting) >= c.enough {
		c.enough = 0
		c.gathered <- struct{}{} // it was emptied when enough was set
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c *committer) take() []*proposal {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.waiting
	c.waiting = nil
	return list
}

// run commits what is proposed until ctx ends. Whoever waits then gets store.ErrClosed.
func (c *committer) run(ctx context.Context) {
	ahead := newLead()
	var late []*proposal // they could not go with the round before; first come, first served
	for ctx.Err() == nil {
		if len(late) == 0 {
			select {
			case <-ctx.Done():
				continue
			case <-c.wake:
			}
		}
		var b *bundle
		b, late = c.gather(append(late, c.take()...), ahead)
		began := time.Now()
		c.send(ctx, b, ahead)
		if len(b.members) > 1 {
			c.assemble(ctx, ahead.newest, len(b.members), time.Since(began))
		}
	}
	c.mu.Lock()
	c.closed = true
	late = append(late, c.waiting...)
	c.waiting = nil
	c.mu.Unlock()
	for _, p := range late {
		p.done <- outcome{err: store.ErrClosed}
	}
}

// assemble waits until as many as were just served have come with another write: they go with
// those that came meanwhile, and decided on what is stored. Without it the callers take turns
// in halves, for a way back through HTTP is about as long as a commit, and each commit costs the
// same whatever is in it. It takes no longer than the commit before it, so that who does not
// come back holds nobody up for long, and a caller that is alone never waits.
func (c *committer) assemble(ctx context.Context, revision uint64, served int, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, min(most, maxAssemble))
	defer cancel()
	c.settled(ctx, revision)
	if c.await(served) {
		select {
		case <-c.gathered:
			return
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enough = 0
	select {
	case <-c.gathered:
	default:
	}
}

// await has gathered told once so many more proposals wait; false when no more fit into a commit.
func (c *committer) await(more int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= store.MaxOps {
		return false
	}
	c.enough = min(len(c.waiting)+more, store.MaxOps)
	return true
}

// gather puts as many proposals into one bundle as fit, in order, and returns the others.
// Those that were decided on what is known to be outdated are refused at once.
func (c *committer) gather(list []*proposal, ahead *lead) (b *bundle, late []*proposal) {
	// A proposal was decided on a head that was published before it came.
	ahead.forget(c.shown())
	b = newBundle()
	for _, p := range list {
		switch {
		case p.ctx.Err() != nil: // it has left
		case ahead.outdates(p.ops):
			p.done <- outcome{err: store.ErrConflict}
		case !b.add(p):
			late = append(late, p)
		}
	}
	return b, late
}

// send commits a bundle. When somebody's guard does not hold, halves of it are committed
// on their own, so that the one who is outdated is found without the others failing.
func (c *committer) send(ctx context.Context, b *bundle, ahead *lead) {
	if len(b.members) == 0 {
		return
	}
	revision, err := c.commit(ctx, b.ops)
	switch {
	case err == nil:
		ahead.note(b.ops, revision)
	case len(b.members) > 1 && (errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrTooLarge)):
		half := len(b.members) / 2
		c.send(ctx, newBundle(b.members[:half]...), ahead)
		c.send(ctx, newBundle(b.members[half:]...), ahead)
		return
	case errors.Is(err, store.ErrFull) && store.Puts(b.ops):
		c.sendDeletes(ctx, b, ahead, err)
		return
	}
	for _, p := range b.members {
		p.done <- outcome{revision, err}
	}
}

// sendDeletes commits what a full store takes of a bundle that it refused: who leaves can
// leave, without what is told beside the deletes. Watchers see CauseUnknown.
func (c *committer) sendDeletes(ctx context.Context, b *bundle, ahead *lead, refusal error) {
	leaving := newBundle()
	for _, p := range b.members {
		if rest := store.WithoutPuts(p.ops); slices.ContainsFunc(rest, func(op store.Op) bool { return op.Delete }) {
			leaving.add(&proposal{ctx: p.ctx, ops: rest, done: p.done})
		} else {
			p.done <- outcome{err: refusal}
		}
	}
	c.send(ctx, leaving, ahead)
}
