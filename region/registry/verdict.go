package registry

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// verdictPause is the time between two commits of verdicts, each of at most verdictOps
	// instances; verdictHurry when more are waiting. So at most 20 commits and 2,500 changes
	// of status a second, whatever the checks do.
	verdictPause = 250 * time.Millisecond
	verdictHurry = 50 * time.Millisecond
	verdictOps   = store.MaxOps - 1 // and a check of the list of nodes
	verdictBytes = store.MaxBytes / 2
	// verdictRetry is how long a store that refuses is left alone.
	verdictRetry = time.Second
	// reviewEvery is how often the node looks at itself while nothing is to be written.
	reviewEvery = time.Second
)

// verdictLoop writes what the checks found into the records.
func (c *checker) verdictLoop(ctx context.Context) {
	t := time.NewTicker(reviewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-t.C:
		}
		c.review()
		pause := verdictPause
		switch more, ok := c.write(ctx); {
		case !ok:
			pause = verdictRetry
		case more:
			pause = verdictHurry
		}
		// Changes within the pause become one write: a check that flaps costs no more.
		if !sleep(ctx, pause) {
			return
		}
	}
}

// review asks whether this node should trust what it sees.
func (c *checker) review() {
	c.mu.Lock()
	now := time.Now()
	changed := c.doubt.Review(now, c.all())
	on, _ := c.doubt.On()
	why := c.doubt.Why()
	if changed && !on {
		for _, service := range c.services {
			for _, p := range service {
				p.acquit()
				p.forgive(now)
				c.schedule(p, false)
			}
		}
	}
	c.mu.Unlock()
	switch {
	case changed && on:
		c.reg.log.Warn("checks suspended: this node suspects itself", "why", why)
	case changed:
		c.reg.log.Info("checks count again", "why", why)
	}
}

// acquit drops what was found in doubt: a check that would have become worse needs a whole
// threshold of failures again. Else those that had no turn yet after an outage would fall
// by what they found in it, at the moment when most of the others are back.
func (p *patient) acquit() {
	for i := range p.states {
		if i < len(p.in.CheckResults) && check.Worse(p.states[i].Status, p.in.CheckResults[i].Status) {
			p.states[i].Withdraw(p.in.CheckResults[i])
		}
	}
}

// verdict is one record to be written.
type verdict struct {
	p    *patient
	op   store.Op
	was  api.Status
	next api.Instance
}

// write commits one batch of verdicts. more tells that others are waiting, ok that the store
// did not refuse it.
func (c *checker) write(ctx context.Context) (more, ok bool) {
	batch, members, more := c.collect(c.reg.Snapshot())
	if len(batch) > 0 && !c.commit(ctx, batch, members) {
		return more, false // all of them are dirty again, and the loop is woken
	}
	if more {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return more, true
}

// collect takes what is to be written from the dirty ones, with the revision of the list of
// nodes by which they are this node's.
func (c *checker) collect(snap *catalog.Snapshot) (batch []verdict, members uint64, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	doubt, _ := c.doubt.On()
	now := time.Now().UTC().Truncate(time.Millisecond)
	size, n := 0, 0
	for _, p := range c.dirty {
		if len(batch) == verdictOps || size > verdictBytes {
			more = true
			break
		}
		n++
		p.dirty = false
		if c.services[p.key.ServiceKey()][p.key.ID] != p {
			continue
		}
		cur := snap.Instance(p.key)
		if cur == nil || cur.Incarnation != p.in.Incarnation || !slices.Equal(cur.Checks, p.in.Checks) {
			continue // sync will hear of it, and begin anew
		}
		next, changed := p.apply(cur, doubt, now)
		if !changed {
			continue
		}
		value, err := catalog.EncodeInstance(next)
		if err != nil {
			c.reg.log.Error("verdict", "instance", p.key.String(), "cause", err)
			continue
		}
		size += len(value)
		batch = append(batch, verdict{
			p: p, was: cur.Status, next: next,
			op: store.Op{Key: catalog.InstanceRecordKey(p.key), Value: value, Guarded: true, If: cur.Revision},
		})
	}
	c.dirty = slices.Delete(c.dirty, 0, n)
	return batch, c.members.revision, more
}

// apply returns cur with the present verdicts. In doubt no check becomes worse than it is
// on record.
func (p *patient) apply(cur *api.Instance, doubt bool, now time.Time) (next api.Instance, changed bool) {
	next = *cur
	next.CheckResults = make([]api.CheckResult, len(p.states))
	for i := range p.states {
		r := p.states[i].CheckResult
		if i < len(cur.CheckResults) {
			old := cur.CheckResults[i]
			if old.Status == r.Status || doubt && check.Worse(r.Status, old.Status) {
				r = old
			}
		}
		next.CheckResults[i] = r
	}
	next.Status, next.StatusNote = check.Effective(next.Set, next.CheckResults)
	if next.Status != cur.Status {
		next.StatusSince = now
	}
	return next, next.Status != cur.Status || next.StatusNote != cur.StatusNote || !catalog.SameResults(next.CheckResults, cur.CheckResults)
}

// commit writes a batch, each record only if nobody changed it meanwhile, and all of it only
// if the list of nodes is still the one that gave them to this node. What was not written is
// dirty again.
func (c *checker) commit(ctx context.Context, batch []verdict, members uint64) bool {
	ops := make([]store.Op, len(batch), len(batch)+1)
	for i := range batch {
		ops[i] = batch[i].op
	}
	assigned := store.Op{Key: owner.MembersKey, Check: true, Guarded: true, If: members}
	if !c.reg.own.alone {
		ops = append(ops, assigned)
	}
	revision, err := c.reg.commit(ctx, ops)
	switch {
	case err == nil:
		for i := range batch {
			v := &batch[i]
			if v.next.Status != v.was {
				c.reg.log.Info("instance changed status", "instance", v.p.key.String(), "status", string(v.next.Status),
					"was", string(v.was), "note", v.next.StatusNote, "by", "checks", "revision", revision)
			}
		}
		wctx, cancel := context.WithTimeout(ctx, writeDeadline)
		defer cancel()
		_, err = c.reg.waitRevision(wctx, revision) // the next batch builds on it
	case errors.Is(err, store.ErrConflict) && len(batch) > 1:
		if !c.reg.own.alone {
			if _, lost := c.reg.commitSoon(ctx, []store.Op{assigned}); errors.Is(lost, store.ErrConflict) {
				break // none of them may be this node's any more: sync tells
			}
		}
		// One of them was registered anew or deregistered; the others must not wait for it.
		half := len(batch) / 2
		first := c.commit(ctx, batch[:half], members)
		return c.commit(ctx, batch[half:], members) && first
	}
	if err == nil {
		return true
	}
	c.mu.Lock()
	for i := range batch {
		c.soil(batch[i].p)
	}
	c.mu.Unlock()
	if errors.Is(err, store.ErrConflict) {
		return true // memory learns of the newer record soon; then it is decided anew
	}
	if ctx.Err() == nil {
		c.reg.log.Warn("verdicts of checks wait for the store", "instances", len(batch), "cause", err)
	}
	return false
}

// show fills in what the checks of an instance found since its record was written. The
// slice of the record is shared and stays as it is.
func (c *checker) show(in *api.Instance) {
	if len(in.CheckResults) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.services[api.ServiceKey{Namespace: in.Namespace, Service: in.Service}][in.ID]
	if p == nil || p.in.Incarnation != in.Incarnation || len(p.states) != len(in.CheckResults) {
		return
	}
	in.CheckResults = slices.Clone(in.CheckResults)
	for i := range p.states {
		if r := &in.CheckResults[i]; r.Name == p.states[i].Name && p.states[i].LastCode != "" {
			r.LastCode, r.LastAt = p.states[i].LastCode, p.states[i].LastAt
		}
	}
}

// info shows the checks of this node; nil when it runs none.
func (c *checker) info() *api.ChecksInfo {
	if c.prober == nil {
		return nil
	}
	out := &api.ChecksInfo{Statuses: map[api.Status]int{}, LagP99MS: c.rounds.Lag().P99.Milliseconds()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, service := range c.services {
		out.Instances += len(service)
	}
	for s := range c.all() {
		out.Checks++
		out.Statuses[s.Status]++
	}
	on, since := c.doubt.On()
	if out.Suspended = on; on {
		at := since.UTC().Truncate(time.Millisecond)
		out.Since = &at
	}
	out.Suspects, out.Passing = c.doubt.Counts()
	out.Why = c.doubt.Why()
	return out
}
