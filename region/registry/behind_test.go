package registry

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P1, P9: a node whose memory is behind its store, as after a pause, says no, or "nothing to do", only of
// what is so: it does not refuse to remove what another node has registered, does not fence by
// what another node has removed, and does not acknowledge a refresh of what is gone. It tried
// all three when it decided by its memory alone.
func TestANodeThatIsBehindSaysNothingOld(t *testing.T) {
	for _, who := range []string{"the owner", "another node"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := startNodes(t, 3)
				behind := r.owner()
				if who != "the owner" {
					behind = r.others(behind)[0]
				}
				ahead := r.others(behind)[0]
				ctx := t.Context()
				put := func(n *nodeUnderTest, id string, incarnation uint64) (bool, error) {
					g := reg()
					g.Incarnation = incarnation
					_, created, err := n.Register(ctx, ikey("orders", id), g)
					return created, err
				}
				must := func(_ bool, err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				must(put(ahead, "refreshed", 1))
				must(put(ahead, "fenced", 9))
				pass(time.Second)
				behind.store.news.close()
				must(put(ahead, "new", 1))
				must(false, ahead.Deregister(ctx, ikey("orders", "refreshed"), 0))
				must(false, ahead.Deregister(ctx, ikey("orders", "fenced"), 0))

				type outcome struct {
					what    string
					created bool
					err     error
				}
				out := make(chan outcome, 3)
				go func() {
					out <- outcome{"deregister what is new", true, behind.Deregister(ctx, ikey("orders", "new"), 0)}
				}()
				go func() {
					c, err := put(behind, "refreshed", 1)
					out <- outcome{"refresh what is gone", c, err}
				}()
				go func() {
					c, err := put(behind, "fenced", 3)
					out <- outcome{"register below what is gone", c, err}
				}()
				pass(300 * time.Millisecond)
				behind.store.news.open()
				for range 3 {
					if o := <-out; o.err != nil || !o.created {
						t.Errorf("%s: created %v, %v; the store would have taken it", o.what, o.created, o.err)
					}
				}
				for id, want := range map[string]api.Code{"new": api.CodeInstanceNotFound, "refreshed": "", "fenced": ""} {
					if _, _, err := ahead.Get(ctx, ikey("orders", id), ReadOptions{Strong: true}); api.CodeOf(err) != want {
						t.Errorf("a strong read of %s: %v, want %q", id, err, want)
					}
				}
			})
		})
	}
}

// P1: an instance registered at one node is deregistered, drained and changed at another that has not
// heard of it yet: that node looks at the store before it says that there is no such instance.
func TestNodeThatIsBehindDoesNotSayNo(t *testing.T) {
	for what, act := range map[string]func(*nodeUnderTest) error{
		"deregister": func(n *nodeUnderTest) error { return n.Deregister(n.t.Context(), ikey("orders", "new"), 0) },
		"status": func(n *nodeUnderTest) error {
			_, err := n.SetStatus(n.t.Context(), ikey("orders", "new"), api.StatusChange{Status: api.StatusCritical})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := startNodes(t, 3)
				at, behind := r.all[0], r.all[1]
				behind.store.news.close()
				at.bed.register("orders", "new")
				done := make(chan error, 1)
				go func() { done <- act(behind) }()
				pass(100 * time.Millisecond)
				behind.store.news.open()
				if err := <-done; err != nil {
					t.Error(err)
				}
				// What is not there is still told so.
				if err := behind.Deregister(t.Context(), ikey("orders", "never"), 0); api.CodeOf(err) != api.CodeInstanceNotFound {
					t.Error(err)
				}
			})
		})
	}
}

// P1: an owner that cannot ask its store does not say that an instance is not registered: another node
// may have acknowledged it a moment ago. It said 404, on which a program starts over.
func TestOwnerWithoutItsStoreSaysNotThatItIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		o := r.owner()
		at := r.others(o)[0]
		o.store.cut.Store(true)
		o.store.news.close()
		at.bed.register("orders", "new")
		_, err := o.Heartbeat(t.Context(), ikey("orders", "new"), 0)
		o.wantCode(err, api.CodeUnavailable)
		for _, err := range o.Heartbeats(t.Context(), []api.BatchHeartbeat{{Service: "orders", ID: "new"}}) {
			o.wantCode(err, api.CodeUnavailable)
		}
		o.store.cut.Store(false)
		o.store.news.open()
		pass(2 * time.Second)
		if _, err := o.Heartbeat(t.Context(), ikey("orders", "new"), 0); err != nil {
			t.Error(err)
		}
		_, err = o.Heartbeat(t.Context(), ikey("orders", "never"), 0)
		o.wantCode(err, api.CodeInstanceNotFound)
	})
}

// P8: what asks the store whether an instance is unknown is shared: a storm of heartbeats of what is gone
// was one read of the store each.
func TestUnknownHeartbeatsShareAQuestion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 1000
		r := startNodes(t, 3)
		o := r.owner()
		o.store.answers.close()
		before := o.store.barriers.Load()
		errs := make(chan error, n)
		for i := range n {
			go func() {
				_, err := o.Heartbeat(t.Context(), ikey("orders", fmt.Sprintf("gone-%d", i)), 0)
				errs <- err
			}()
		}
		pass(100 * time.Millisecond)
		o.store.answers.open()
		for range n {
			o.wantCode(<-errs, api.CodeInstanceNotFound)
		}
		if asked := o.store.barriers.Load() - before; asked > 5 {
			t.Errorf("the store was asked %d times for %d heartbeats", asked, n)
		}
	})
}
