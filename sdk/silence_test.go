package nearside

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// done is one call of a load.
type done struct {
	at     time.Duration // since the load began
	took   time.Duration
	region string
	status int
	err    error
}

// load makes calls at a steady rate, each in its own time as shoppers do, and returns when
// all are over.
func load(t *testing.T, web *http.Client, url string, rate int, d time.Duration) []done {
	t.Helper()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		calls []done
	)
	begin := time.Now()
	for time.Since(begin) < d {
		wg.Go(func() {
			at := time.Now()
			r, _, status, err := get(t, web, url)
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, done{at.Sub(begin), time.Since(at), r, status, err})
		})
		time.Sleep(time.Second / time.Duration(rate))
	}
	wg.Wait()
	slices.SortFunc(calls, func(a, b done) int { return int(a.at - b.at) })
	return calls
}

// check fails for every call that failed, and returns the times that calls took, sorted.
func check(t *testing.T, calls []done) []time.Duration {
	t.Helper()
	var took []time.Duration
	failed := 0
	for _, c := range calls {
		took = append(took, c.took)
		if c.err != nil || c.status != 200 {
			if failed++; failed < 5 {
				t.Errorf("the call at %s failed after %s: %d, %v", c.at, c.took, c.status, c.err)
			}
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d calls failed", failed, len(calls))
	}
	slices.Sort(took)
	return took
}

func hold(p *program) { p.set(func(p *program) { p.delay = time.Hour }) }
func free(p *program) { p.set(func(p *program) { p.delay = 0 }) }

// P3: every instance of the home region hangs under load. No call that is safe to repeat
// fails, none waits longer than one attempt, things are back to normal at once, and when
// the instances go on, calls come home.
func TestHungRegionFailsNoCall(t *testing.T) {
	for _, instances := range []int{1, 2, 10, 40} {
		for _, warm := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d instances, heard before %v", instances, warm), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, "us", "eu", "ap")
					var home []*program
					for i := range instances {
						home = append(home, w.run("us", "shop", fmt.Sprint("s", i)))
					}
					w.run("eu", "shop", "eu")
					w.run("ap", "shop", "ap")
					web := w.web(w.client("us", nil))
					if warm {
						for _, c := range load(t, web, "http://shop/", 40, 5*time.Second) {
							if c.region != "us" || c.took > 0 {
								t.Fatalf("before: %+v", c)
							}
						}
					}
					for _, p := range home {
						hold(p)
					}
					calls := load(t, web, "http://shop/", 40, 10*time.Second)
					took := check(t, calls)
					slow := 0
					for _, c := range calls {
						if c.at > 3*time.Second && c.took > 0 {
							slow++ // trials: one at a time, 1 s and more apart
						}
					}
					t.Logf("p50 %s, p90 %s, p99 %s, most %s, %d slow ones after 3 s",
						took[len(took)/2], took[len(took)*9/10], took[len(took)*99/100], took[len(took)-1], slow)
					if most := took[len(took)-1]; most > 1100*time.Millisecond {
						t.Errorf("a call took %s", most)
					}
					if p99 := took[len(took)*99/100]; p99 > time.Second {
						t.Errorf("p99 of added time is %s", p99)
					}
					if warm && instances <= 10 && took[len(took)-len(took)/100-1] > time.Second {
						t.Error("most calls should not have waited for a whole attempt")
					}
					if slow > 6 {
						t.Errorf("%d of the calls after the first 3 s were slow", slow)
					}
					for _, p := range home {
						free(p)
					}
					calls = load(t, web, "http://shop/", 40, 40*time.Second)
					check(t, calls)
					back := slices.IndexFunc(calls, func(c done) bool { return c.region == "us" })
					if back < 0 {
						t.Fatal("calls never came home")
					}
					t.Logf("first call home %s after it goes on", calls[back].at)
					if calls[back].at > 16*time.Second {
						t.Errorf("calls came home after %s", calls[back].at)
					}
					for _, c := range calls[len(calls)-40:] {
						if c.region != "us" {
							t.Errorf("at %s a call still went to %s", c.at, c.region)
						}
					}
				})
			})
		}
	}
}

// P3: the same at a rate at which the budget would have been spent long before the first
// time-out, and with two regions gone.
func TestHungRegionsAtAHighRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		far := w.run("eu", "shop", "eu")
		w.run("ap", "shop", "ap")
		web := w.web(w.client("us", nil))
		load(t, web, "http://shop/", 500, 2*time.Second)
		hold(a)
		hold(b)
		hold(far)
		took := check(t, load(t, web, "http://shop/", 500, 10*time.Second))
		// Half an attempt in the first region, a whole one in the second: it never answered.
		if took[len(took)-1] > 1600*time.Millisecond {
			t.Errorf("p99 %s, most %s", took[len(took)*99/100], took[len(took)-1])
		}
	})
}

// P3: one of two instances hangs: its calls go to the one that answers, as far as that is
// given more than its own work (over-provisioning); the rest is spilled.
func TestHungInstanceIsLeftToItsNeighbour(t *testing.T) {
	for opf, least := range map[float64]float64{0: 0.65, 2: 1} {
		t.Run(fmt.Sprintf("over-provisioning %v", opf), func(t *testing.T) { hungInstance(t, opf, least) })
	}
}

func hungInstance(t *testing.T, opf, least float64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a := w.run("us", "shop", "a")
		w.run("us", "shop", "b")
		w.run("eu", "shop", "eu")
		web := w.web(w.client("us", func(cfg *Config) { cfg.Policy.OverProvisioning = opf }))
		load(t, web, "http://shop/", 40, 2*time.Second)
		hold(a)
		calls := load(t, web, "http://shop/", 40, 10*time.Second)
		took := check(t, calls)
		home := 0
		for _, c := range calls {
			if c.region == "us" {
				home++
			}
		}
		if share := float64(home) / float64(len(calls)); share < least {
			t.Errorf("%.3f of the calls stayed at home, want %v", share, least)
		}
		t.Logf("p90 %s, p99 %s, most %s", took[len(took)*9/10], took[len(took)*99/100], took[len(took)-1])
		if took[len(took)-1] > 1050*time.Millisecond || took[len(took)*9/10] > 0 {
			t.Errorf("p90 %s, most %s", took[len(took)*9/10], took[len(took)-1])
		}
	})
}

// P3: a region whose nearer instance alone was used hangs. The other one was never heard, and
// is found out as soon.
func TestHungRegionBehindItsNearestZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		inZone := func(z api.Zone) func(*api.Instance) { return func(i *api.Instance) { i.Zone = z } }
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		w.regions["us"].put("shop", "a", w.addr("us", "shop", "a"), inZone("z1"))
		w.regions["us"].put("shop", "b", w.addr("us", "shop", "b"), inZone("z2"))
		w.run("eu", "shop", "eu")
		web := w.web(w.client("us", func(cfg *Config) { cfg.Zone = "z1" }))
		load(t, web, "http://shop/", 40, 2*time.Second)
		if b.count() > 0 {
			t.Fatal("the other zone was used")
		}
		hold(a)
		hold(b)
		calls := load(t, web, "http://shop/", 40, 10*time.Second)
		check(t, calls)
		slow := 0
		for _, c := range calls {
			if c.took > 550*time.Millisecond {
				slow++
			}
			if c.took > time.Second {
				t.Errorf("the call at %s took %s", c.at, c.took)
			}
		}
		if slow > 4 { // the trials
			t.Errorf("%d calls waited for longer than silence takes", slow)
		}
	})
}

// opened counts the breakers that are not closed.
func opened(t *testing.T, c *Client, service string) int {
	t.Helper()
	s, err := c.service(service)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, in := range s.instances {
		if in.state.Load() != 0 {
			n++
		}
	}
	return n
}

// A service that is slow and works is not silent: no breaker opens, nothing is asked twice
// and no call leaves home. From the start, after years of quick answers to few, and beside
// quick answers.
func TestSlowServiceIsNotSilent(t *testing.T) {
	t.Run("always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			a, b, far := w.run("us", "shop", "a"), w.run("us", "shop", "b"), w.run("eu", "shop", "far")
			for _, p := range []*program{a, b} {
				p.delay = 900 * time.Millisecond
			}
			c := w.client("us", nil)
			calls := load(t, w.web(c), "http://shop/", 40, 20*time.Second)
			check(t, calls)
			if n := a.count() + b.count(); n != len(calls) || far.count() != 0 {
				t.Errorf("%d attempts at home, %d far for %d calls", n, far.count(), len(calls))
			}
			if n := opened(t, c, "shop"); n != 0 {
				t.Errorf("%d breakers are open", n)
			}
		})
	})
	t.Run("some calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			a, far := w.run("us", "shop", "a"), w.run("eu", "shop", "far")
			a.handle = func(_ http.ResponseWriter, req *http.Request) {
				if strings.HasPrefix(req.URL.Path, "/slow") {
					time.Sleep(950 * time.Millisecond)
				}
			}
			c := w.client("us", nil)
			web := w.web(c)
			load(t, web, "http://shop/", 40, 2*time.Second)
			time.Sleep(time.Minute) // nobody remembers slow ones
			var wg sync.WaitGroup
			wg.Go(func() { check(t, load(t, web, "http://shop/slow", 20, 10*time.Second)) })
			wg.Go(func() { check(t, load(t, web, "http://shop/", 5, 10*time.Second)) })
			wg.Wait()
			if n := opened(t, c, "shop"); n != 0 || far.count() != 0 {
				t.Errorf("%d breakers are open, %d calls went far", n, far.count())
			}
		})
	})
	// All of it becomes slow at once, as when a cache is lost: no call fails, and home has
	// its calls back soon.
	t.Run("suddenly", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			all := []*program{w.run("us", "shop", "a"), w.run("us", "shop", "b"), w.run("eu", "shop", "far")}
			c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
			web := w.web(c)
			load(t, web, "http://shop/", 40, 2*time.Second)
			for _, p := range all {
				p.set(func(p *program) { p.delay = 900 * time.Millisecond })
			}
			calls := load(t, web, "http://shop/", 40, 30*time.Second)
			check(t, calls)
			for _, call := range calls[len(calls)/2:] {
				if call.region != "us" || call.took > 900*time.Millisecond {
					t.Fatalf("%+v", call)
				}
			}
			if n := opened(t, c, "shop"); n != 0 {
				t.Errorf("%d breakers are open", n)
			}
		})
	})
}

// Row 43: an overloaded service whose answers all take longer than an attempt may is not
// asked more often for it than the budget allows, but for the calls under way at the
// moment in which an instance is condemned. And none of its answers is lost.
func TestOverloadIsNotMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		all := []*program{w.run("us", "shop", "a"), w.run("us", "shop", "b"), w.run("eu", "shop", "c"), w.run("eu", "shop", "d")}
		for _, p := range all {
			p.delay = 1500 * time.Millisecond
		}
		web := w.web(w.client("us", nil))
		count := func() (n int) {
			for _, p := range all {
				n += p.count()
			}
			return n
		}
		// At first nothing is known: those under way when the instances are condemned go on.
		calls := load(t, web, "http://shop/", 100, 10*time.Second)
		check(t, calls)
		if n := count(); n > 2*len(calls) {
			t.Errorf("%d attempts of %d calls at first", n, len(calls))
		}
		before := count()
		calls = load(t, web, "http://shop/", 100, 60*time.Second)
		check(t, calls)
		if n, most := count()-before, len(calls)+len(calls)/10+budgetReserve+budgetPerSec*60; n > most {
			t.Errorf("%d attempts of %d calls, at most %d wanted", n, len(calls), most)
		}
	})
}

// Row 43: instances that answer, if only 503, have their repeats bounded by the budget, also
// when others were condemned for silence before.
func TestSilenceDoesNotExcuseFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		hung, failing, other := w.run("us", "shop", "a"), w.run("eu", "shop", "b"), w.run("eu", "shop", "c")
		for _, p := range []*program{failing, other} {
			n := 0
			var mu sync.Mutex
			p.handle = func(rw http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if n++; n%5 < 2 {
					rw.WriteHeader(503)
				}
			}
		}
		hold(hung)
		calls := load(t, w.web(w.client("us", nil)), "http://shop/", 100, 30*time.Second)
		most := len(calls) + len(calls)/10 + budgetReserve + budgetPerSec*30
		if n := failing.count() + other.count(); n > most {
			t.Errorf("%d attempts at those that answer, at most %d wanted", n, most)
		}
	})
}

// A call that cannot be repeated is left where it is when its instance is condemned: it may
// be done there.
func TestSilenceLeavesUnsafeCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a, far := w.run("us", "shop", "a"), w.run("eu", "shop", "far")
		wake := make(chan struct{})
		a.handle = func(http.ResponseWriter, *http.Request) { <-wake }
		c := w.client("us", nil)
		web := w.web(c)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				resp, err := web.Post("http://shop/", "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				if r := resp.Header.Get(HeaderServedRegion); r != "us" {
					t.Errorf("served by %s", r)
				}
			})
		}
		time.Sleep(1100 * time.Millisecond)
		if opened(t, c, "shop") != 1 {
			t.Error("five calls without an answer should have condemned it")
		}
		start := time.Now()
		if r, _, _, err := get(t, web, "http://shop/"); r != "eu" || err != nil || time.Since(start) > 0 {
			t.Errorf("%s %v after %s", r, err, time.Since(start))
		}
		close(wake)
		wg.Wait()
		if far.count() != 1 {
			t.Errorf("%d calls went far", far.count())
		}
	})
}

// MaxAttempts 1 means never again, also not for silence.
func TestSilenceRespectsMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		hold(w.run("us", "shop", "a"))
		far := w.run("eu", "shop", "far")
		web := w.web(w.client("us", func(cfg *Config) { cfg.MaxAttempts = 1 }))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop/", nil)
				if resp, err := web.Do(req); err == nil {
					t.Error("should have failed: ", resp.Header)
				}
			})
		}
		wg.Wait()
		if far.count() != 0 {
			t.Errorf("%d calls were repeated", far.count())
		}
	})
}

// A program that was stopped itself finds all its timers over at once, and the answers
// unread. It gives them a moment before it judges.
func TestOwnPauseIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in, _ := testInstance(func() time.Duration { return time.Since(start) + time.Second })
		in.hear(in.clock())
		time.Sleep(time.Second)
		var all []*waiter
		for range 10 {
			w := &waiter{in: in, lease: in.admit(&call{}), began: in.clock(), limit: time.Second, move: true, cancel: func(error) {}}
			w.start()
			w.timer.Stop()
			all = append(all, w)
		}
		over := func(w *waiter) bool {
			in.region.mu.Lock()
			defer in.region.mu.Unlock()
			return w.over
		}
		time.Sleep(20 * time.Second)
		for _, w := range all {
			w.look()
			if over(w) || in.state.Load() != 0 {
				t.Fatal("condemned in the moment it went on")
			}
		}
		time.Sleep(300 * time.Millisecond) // and nothing was read in that time
		synctest.Wait()
		if in.state.Load() == 0 || !over(all[0]) {
			t.Error("now it is silence")
		}
		for _, w := range all {
			w.stop()
		}
	})
}
