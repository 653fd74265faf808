package registry

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/sdk/api"
)

// P1: every write may be sent again after an outcome that nobody knows, and ends with the
// same result as if it had been sent once.
func TestEveryWriteIsSafeToRepeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		k := ikey("orders", "a")
		// lost sends a write whose answer is lost, and again until it is answered.
		lost := func(what string, write func() error) {
			t.Helper()
			b.store.LoseAnswers(1)
			b.wantCode(write(), api.CodeUnavailable)
			synctest.Wait()
			before := b.Stamp().Version.Revision
			if err := write(); err != nil {
				t.Errorf("%s again: %v", what, err)
			}
			if now := b.Stamp().Version.Revision; now != before {
				t.Errorf("%s again wrote once more", what)
			}
		}
		var in api.Instance
		register := func(change func(*api.Registration)) func() error {
			return func() (err error) {
				r := reg()
				change(&r)
				in, _, err = b.Register(t.Context(), k, r)
				return err
			}
		}
		lost("register", register(func(*api.Registration) {}))
		lost("register with another port", register(func(r *api.Registration) { r.Port = 9090 }))
		lost("register a new incarnation", register(func(r *api.Registration) { r.Port, r.Incarnation = 9090, 7 }))
		if in.Incarnation != 7 || in.Port != 9090 {
			t.Errorf("%+v", in)
		}
		lost("drain", func() (err error) {
			in, err = b.SetStatus(t.Context(), k, api.StatusChange{Status: api.StatusDraining, Note: "deploy"})
			return err
		})
		lost("end of the drain", func() (err error) { in, err = b.EndDrain(t.Context(), k, 7); return err })
		if in.Status != api.StatusPassing || in.StatusNote != "" {
			t.Errorf("%+v", in)
		}
		// Nobody can tell whose deregistration it was that removed what is not there: the
		// repeat says that it is not there, which is what was wanted; the SDK takes it for
		// success.
		b.store.LoseAnswers(1)
		b.wantCode(b.Deregister(t.Context(), k, 7), api.CodeUnavailable)
		synctest.Wait()
		b.wantCode(b.Deregister(t.Context(), k, 7), api.CodeInstanceNotFound)
		if got := b.listed("orders"); got != "unknown" {
			t.Errorf("listed %q", got)
		}
	})
}

// The same with many callers in one commit whose answer is lost: each finds its own.
func TestABundleWhoseAnswerIsLostIsSafeToRepeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		storm := func() (failed, created int) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					_, isNew, err := b.Register(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), reg())
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						b.wantCode(err, api.CodeUnavailable)
						failed++
					}
					if isNew {
						created++
					}
				})
			}
			wg.Wait()
			return failed, created
		}
		b.store.LoseAnswers(1 << 20)
		if failed, _ := storm(); failed != 50 {
			t.Errorf("%d failed", failed)
		}
		b.store.LoseAnswers(0)
		synctest.Wait()
		before := b.Stamp().Version.Revision
		if failed, created := storm(); failed != 0 || created != 0 {
			t.Errorf("again: %d failed, %d were created a second time", failed, created)
		}
		if now := b.Stamp().Version.Revision; now != before {
			t.Errorf("the repeat wrote: revision %d, was %d", now, before)
		}
	})
}
