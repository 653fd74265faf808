package nearside

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// watched reports whether anybody wants to know how attempts at the endpoint end, and how
// long they take.
func (sl *slot) watched() bool {
	return sl.in.speed.decay.Load() != 0 || (sl.of != nil && sl.of.guard != nil && sl.of.guard.observes())
}

// ended tells who wants to know how an attempt ended.
func (sl *slot) ended(took time.Duration, status int, err error) {
	if sl.in.speed.decay.Load() != 0 {
		sl.in.speed.took(sl.in.clock(), took, status, err)
	}
	if sl.of != nil && sl.of.guard != nil {
		sl.of.guard.observe(Outcome{Index: sl.place, Took: took, Status: status, Err: err})
	}
}

// told passes on how an attempt of the transport ended. counts is false where that says
// nothing of the instance.
func (r *run) told(sl *slot, took time.Duration, resp *http.Response, err error, counts bool) {
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if counts {
		sl.in.tally.add(err == nil && status < 500)
	}
	if sl.watched() {
		sl.ended(took, status, r.wrap(sl, err))
	}
}

// ticket is a Pick of which somebody wants to know how long it takes until Done. The client
// uses them again, so that a Pick allocates nothing.
type ticket struct {
	pool  *sync.Pool
	lease atomic.Pointer[lease] // nil once finished
	sl    *slot
	began time.Duration // of clock
	done  func(error)   // finish, made once
}

// ticket returns what Picked.Done is to be.
func (c *Client) ticket(sl *slot, l *lease) func(error) {
	t, _ := c.tickets.Get().(*ticket)
	if t == nil {
		t = &ticket{pool: &c.tickets}
		t.done = t.finish
	}
	t.sl, t.began = sl, c.clock()
	t.lease.Store(l)
	return t.done
}

// finish is Picked.Done. A second call finds nothing to finish.
func (t *ticket) finish(err error) {
	l := t.lease.Swap(nil)
	if l == nil {
		return
	}
	sl, took := t.sl, l.in.clock()-t.began
	t.sl = nil
	t.pool.Put(t)
	l.finish(err)
	sl.ended(took, 0, err)
}
