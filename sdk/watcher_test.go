package nearside

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P3: the first use waits for the registry and then answers from memory, without asking again.
func TestFirstUseAsksAndLaterUsesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["us"].put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil || len(res.Endpoints) != 1 || res.Decision.Reason != api.ReasonSameRegion {
			t.Fatalf("resolve: %+v, %v", res, err)
		}
		w.net.kill(w.regions["us"].addr, w.regions["eu"].addr)
		for range 3 {
			time.Sleep(20 * time.Second)
			if res, err = c.Resolve(t.Context(), "orders"); err != nil || len(res.Endpoints) != 1 {
				t.Fatalf("P10: with every registry dead: %+v, %v", res, err)
			}
		}
		if got := res.Views[0]; got.Region != "us" || got.State != api.AgeSuspect || got.AgeMS < 50_000 {
			t.Errorf("the age must show: %+v", got)
		}
	})
}

// P5: changes reach the caller through the watch, also for a service added later, and all
// services share one stream.
func TestChangesArriveAndServicesShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		us.put("users", "u", "u:80", nil)
		c := w.client("us", nil)
		for _, name := range []string{"orders", "users"} {
			if _, err := c.Pick(t.Context(), name); err != nil {
				t.Fatal(name, err)
			}
		}
		us.put("orders", "b", "b:80", nil)
		us.remove("orders", "a")
		us.put("users", "v", "v:80", nil)
		synctest.Wait()
		if ids := ids(t, c, "orders"); !slices.Equal(ids, []string{"b"}) {
			t.Errorf("orders: %v", ids)
		}
		if ids := ids(t, c, "users"); !slices.Equal(ids, []string{"u", "v"}) {
			t.Errorf("users: %v", ids)
		}
		us.mu.Lock()
		defer us.mu.Unlock()
		if len(us.subs) != 1 {
			t.Errorf("%d streams are open, want 1", len(us.subs))
		}
	})
}

func ids(t *testing.T, c *Client, service string) []string {
	t.Helper()
	res, err := c.Resolve(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range res.Endpoints {
		list = append(list, string(e.ID))
	}
	return list
}

// P5, row 33: a stream without a byte for two bookmarks' time is opened again, and resumes by version.
func TestSilentWatchIsOpenedAgainAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		us.mu.Lock()
		for s := range us.subs { // the node goes on, but its words get lost
			s.deaf = true
		}
		opened := len(us.from)
		us.mu.Unlock()
		us.put("orders", "b", "b:80", nil)
		// Two bookmarks, and the moment over which clients that lost a stream spread.
		time.Sleep(2*api.BookmarkInterval + lostSpread)
		synctest.Wait()
		us.mu.Lock()
		if n := len(us.from); n != opened+1 {
			t.Errorf("%d watches were opened within two bookmarks' time", n-opened)
		}
		us.mu.Unlock()
		if ids := ids(t, c, "orders"); !slices.Equal(ids, []string{"a", "b"}) {
			t.Errorf("after the silence: %v", ids)
		}
		us.mu.Lock()
		defer us.mu.Unlock()
		if last := us.from[len(us.from)-1]; last == "" {
			t.Errorf("watches were opened from %q: the last should resume", us.from)
		}
	})
}

// P3: while the home registry is dead another region's is asked, home's instances stay
// first, and the client is back within seconds of home's return.
func TestAbroadAndHomeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		us, eu := w.regions["us"], w.regions["eu"]
		us.put("orders", "home", "h:80", nil)
		eu.put("orders", "far", "f:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		w.net.kill(us.addr)
		time.Sleep(4 * time.Second)
		eu.put("orders", "far2", "g:80", nil)
		synctest.Wait()
		if got := ids(t, c, "orders"); !slices.Equal(got, []string{"home", "far", "far2"}) {
			t.Errorf("from abroad: %v", got)
		}
		// A service asked for while home is away is found too.
		eu.put("payments", "p", "p:80", nil)
		if got := ids(t, c, "payments"); !slices.Equal(got, []string{"p"}) {
			t.Errorf("new service from abroad: %v", got)
		}
		us.start()
		time.Sleep(4 * time.Second)
		us.put("orders", "home2", "h2:80", nil)
		synctest.Wait()
		if got := ids(t, c, "orders"); !slices.Equal(got[:2], []string{"home", "home2"}) {
			t.Errorf("home again: %v", got)
		}
		eu.mu.Lock()
		defer eu.mu.Unlock()
		if len(eu.subs) != 0 {
			t.Error("the stream abroad was left open")
		}
	})
}

// P7, P4, P10: a registry that comes back with an empty disk empties nobody and moves no
// traffic; those that do not register again are gone after the hold.
func TestEmptyDiskDoesNotEmptyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		us.put("orders", "b", "b:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		us.wipe()
		time.Sleep(3 * time.Second)
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil || len(res.Endpoints) != 2 || res.Decision.Panic || res.Endpoints[0].Overdue {
			t.Fatalf("P7: right after: %+v, %v", res, err)
		}
		us.put("orders", "a", "a:80", nil)
		synctest.Wait()
		if got := ids(t, c, "orders"); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("P10: the one that has not registered yet is left out: %v", got)
		}
		time.Sleep(40 * time.Second)
		us.remove("orders", "a")
		synctest.Wait()
		if _, err := c.Resolve(t.Context(), "orders"); api.CodeOf(err) != api.CodeServiceNotFound {
			t.Errorf("after the hold b is gone, and a was deregistered: %v", err)
		}
	})
}

// Row 42: everything down and nothing known: a typed error in time, no hang.
func TestEverythingDownIsATypedErrorInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		c := w.client("us", nil)
		w.net.kill(w.regions["us"].addr)
		start := time.Now()
		_, err := c.Pick(t.Context(), "orders")
		if !errors.Is(err, ErrUnreachable) || time.Since(start) > firstUse {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		start = time.Now()
		if _, err = c.Pick(t.Context(), "orders"); !errors.Is(err, ErrUnreachable) || time.Since(start) > 0 {
			t.Errorf("the next call fails at once: %v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.Sleep(5 * time.Second)
		if _, err = c.Pick(ctx, "users"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline counts: %v", err)
		}
		w.regions["us"].start()
		w.regions["us"].put("orders", "a", "a:80", nil)
		time.Sleep(5 * time.Second)
		if _, err = c.Pick(t.Context(), "orders"); err != nil {
			t.Errorf("it recovers by itself: %v", err)
		}
	})
}

// P3: where no watch can be held, polling keeps the view.
func TestPollingWhereNoWatchCanBeHeld(t *testing.T) {
	for name, breakIt := range map[string]func(*fakeRegion){
		"watches refused":             func(r *fakeRegion) { r.noWatch = http.StatusTooManyRequests },
		"a proxy collects the stream": func(r *fakeRegion) { r.mute = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				us := w.regions["us"]
				breakIt(us)
				us.put("orders", "a", "a:80", nil)
				c := w.client("us", nil)
				time.Sleep(0)
				if _, err := c.Pick(t.Context(), "orders"); err != nil {
					time.Sleep(5 * time.Second) // a proxy that keeps even headers costs longer
					if _, err = c.Pick(t.Context(), "orders"); err != nil {
						t.Fatal(err)
					}
				}
				us.put("orders", "b", "b:80", nil)
				w.regions["eu"].put("orders", "far", "f:80", nil)
				time.Sleep(12 * time.Second)
				if got := ids(t, c, "orders"); !slices.Equal(got, []string{"a", "b", "far"}) {
					t.Errorf("polled: %v", got)
				}
				us.mu.Lock()
				us.noWatch, us.mute = 0, false
				us.mu.Unlock()
				time.Sleep(40 * time.Second)
				us.mu.Lock()
				defer us.mu.Unlock()
				if len(us.subs) != 1 {
					t.Error("the watch was not taken up again")
				}
			})
		})
	}
}

// Unknown names are told apart from bad ones.
func TestUnknownAndBadNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		c := w.client("us", nil)
		_, err := c.Pick(t.Context(), "nobody")
		if api.CodeOf(err) != api.CodeServiceNotFound {
			t.Error(err)
		}
		if _, err = c.Pick(t.Context(), "Bad_Name"); api.CodeOf(err) != api.CodeInvalidField {
			t.Error(err)
		}
		_ = c.Close()
		if _, err = c.Pick(t.Context(), "nobody"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// P12: a home address that turns out to be of another region is not taken for home.
func TestAddressOfAnotherRegionIsNotHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["us"].put("orders", "a", "a:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.Addresses = []string{w.regions["eu"].base(), w.regions["us"].base()} })
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil || res.Decision.Reason != api.ReasonSameRegion {
			t.Errorf("%+v %v", res.Decision, err)
		}
	})
}

// Watch tells the present and every change, until its context ends.
func TestWatchTellsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		ctx, cancel := context.WithCancel(t.Context())
		var got []int
		done := make(chan error)
		go func() {
			done <- c.Watch(ctx, "orders", func(r api.Resolution) { got = append(got, len(r.Endpoints)) })
		}()
		synctest.Wait()
		us.put("orders", "b", "b:80", nil)
		synctest.Wait()
		us.remove("orders", "b")
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !slices.Equal(got, []int{1, 2, 1}) {
			t.Errorf("%v %v", got, err)
		}
	})
}

// A quiet watch lives on its bookmarks: it is not cut and made anew.
func TestAQuietWatchIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		us.mu.Lock()
		defer us.mu.Unlock()
		if len(us.from) != 1 {
			t.Errorf("%d watches in two quiet minutes", len(us.from))
		}
	})
}

// P3, P11, row 43: a registry with more to do than it can answers late, and everybody who gives up
// and asks anew makes it later. Clients wait longer by and by, so that in the end they are served; as
// soon as they are, they are as impatient as before.
func TestLateRegistryIsWaitedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		var late atomic.Int64 // milliseconds
		late.Store(3000)
		w.net.kill(us.addr)
		w.net.serve(t, us.addr, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			time.Sleep(time.Duration(late.Load()) * time.Millisecond)
			us.ServeHTTP(rw, req)
		}))
		c := w.client("us", nil)
		start := time.Now()
		var err error
		for _, err = c.Pick(t.Context(), "orders"); err != nil && time.Since(start) < time.Minute; _, err = c.Pick(t.Context(), "orders") {
			if !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil || time.Since(start) > 30*time.Second {
			t.Fatalf("%v after %s", err, time.Since(start))
		}
		t.Logf("a registry that takes %d ms is heard after %s", late.Load(), time.Since(start))
		late.Store(0)
		us.put("orders", "b", "b:80", nil)
		time.Sleep(time.Second)
		if ids := ids(t, c, "orders"); !slices.Equal(ids, []string{"a", "b"}) {
			t.Errorf("what is told then: %v", ids)
		}
		// Each stream that comes to its list takes one doubling back.
		for range lateAtMost {
			w.net.kill(us.addr)
			us.start()
			time.Sleep(10 * time.Second)
		}
		for _, watcher := range c.each() {
			if d := watcher.within(answerWithin); d != answerWithin {
				t.Errorf("after %d streams a node has %s to answer", lateAtMost, d)
			}
		}
	})
}
