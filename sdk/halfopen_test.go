package nearside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// The rules of gobreaker (v2.4.0) that the SDK keeps, each with its test; the table is in
// DESIGN.md, "Breakers".

// instances returns what the client keeps about a service's instances, by id.
func instances(t *testing.T, c *Client, service string) map[api.InstanceID]*instance {
	t.Helper()
	s, err := c.service(service)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[api.InstanceID]*instance{}
	for ref, in := range s.instances {
		m[ref.ID] = in
	}
	return m
}

// flapping is a region whose instances go away and come back, in one way or another.
type flapping struct {
	mode     atomic.Int32 // 0 = answers
	now, all atomic.Int64 // calls there at a time, and in all
	most     atomic.Int64
}

const (
	flapAnswers = iota
	flapHangs
	flap503
	flapBreaks
	flapModes
)

func (f *flapping) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f.all.Add(1)
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for m := f.most.Load(); n > m && !f.most.CompareAndSwap(m, n); m = f.most.Load() {
	}
	switch f.mode.Load() {
	case flapHangs:
		<-req.Context().Done()
		return
	case flap503:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case flapBreaks:
		panic(http.ErrAbortHandler)
	}
	switch req.URL.Path {
	case "/missing":
		w.WriteHeader(http.StatusNotFound)
	case "/busy":
		w.WriteHeader(http.StatusTooManyRequests)
	case "/wait":
		<-req.Context().Done()
	}
}

// Test 20 of the catalogue (P3). A region goes away and comes back, for different times and in
// different ways, under calls some of which are answered by 4xx or given up. Those never open a
// breaker; while the region is away it is tried by one call at a time, seldom; and however
// it flaps, it has calls again after the time its breakers wait by then, and one trial.
func TestBreakerHalfOpen(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flap(t, rand.New(rand.NewPCG(seed, 20))) })
		})
	}
}

func flap(t *testing.T, random *rand.Rand) {
	w := newWorld(t, "us", "eu")
	home := &flapping{}
	for i := range 3 {
		w.run("us", "shop", fmt.Sprint("us", i)).handle = home.ServeHTTP
	}
	w.run("eu", "shop", "eu")
	c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
	web := w.web(c)

	// Shoppers come all the time, and each must be served.
	var mu sync.Mutex
	var homeAt []time.Time
	ctx, stop := context.WithCancel(t.Context())
	var shoppers sync.WaitGroup
	shoppers.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			path := []string{"/", "/missing", "/", "/busy"}[i%4]
			shoppers.Go(func() {
				r, _, status, err := get(t, web, "http://shop"+path)
				if err != nil || status >= 500 {
					t.Errorf("%s: %d %v", path, status, err)
				}
				if r == "us" {
					mu.Lock()
					defer mu.Unlock()
					homeAt = append(homeAt, time.Now())
				}
			})
			time.Sleep(50 * time.Millisecond)
		}
	})
	impatient := func(d time.Duration) { // calls that are given up, or whose time is short
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			shoppers.Go(func() {
				short, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
				defer cancel()
				req, _ := http.NewRequestWithContext(short, http.MethodGet, "http://shop/wait", nil)
				if resp, err := web.Do(req); err == nil {
					_ = resp.Body.Close() // by the other region
				}
			})
		}
	}
	defer func() { stop(); shoppers.Wait() }()

	trips := 0
	for range 4 {
		impatient(2 * time.Second)
		if n := opened(t, c, "shop"); n != 0 {
			t.Fatalf("%d breakers are not closed though every call was answered or given up", n)
		}
		mode := 1 + random.Int32N(flapModes-1)
		out := 200*time.Millisecond + time.Duration(random.Int64N(int64(12*time.Second)))
		home.mode.Store(mode)
		away := time.Now()
		time.Sleep(min(out, 2*time.Second)) // by now every breaker is open, or the outage over
		if out > 2*time.Second {
			trips++
			home.most.Store(home.now.Load())
			before := home.all.Load()
			time.Sleep(out - 2*time.Second)
			if n := home.most.Load(); n > 1 {
				t.Errorf("mode %d: %d trials at a time", mode, n)
			}
			// One after a pause of at least a second, each pause twice the last.
			if n := home.all.Load() - before; n > 5 {
				t.Errorf("mode %d: %d trials in %s", mode, n, out-2*time.Second)
			}
		}
		home.mode.Store(flapAnswers)
		back := time.Now()
		// What the breakers wait by now: no longer than it was away, and one hold; and a trial.
		bound := min(back.Sub(away)+breakerMin+breakerSpread, (breakerMin+breakerSpread)<<maxDoublings) + time.Second
		time.Sleep(bound + 100*time.Millisecond)
		mu.Lock()
		i := slices.IndexFunc(homeAt, func(at time.Time) bool { return at.After(back) })
		if i < 0 {
			t.Errorf("mode %d, away for %s: not home after %s", mode, back.Sub(away), bound)
		} else {
			t.Logf("mode %d, away for %s: home after %s, bound %s", mode, back.Sub(away), homeAt[i].Sub(back), bound)
		}
		mu.Unlock()
		time.Sleep(breakerMin + breakerSpread + time.Second) // all of its instances
		if n := opened(t, c, "shop"); n != 0 {
			t.Errorf("mode %d: %d breakers are still not closed", mode, n)
		}
	}
	if trips == 0 {
		t.Error("no outage was long enough for a trial")
	}
}

// gobreaker calls back under its lock: what it calls takes no lock of ours and looks at no
// breaker, so that nobody who holds one waits for the other.
func TestBreakerCallbacksTakeNoLock(t *testing.T) {
	w := newWorld(t, "us")
	w.regions["us"].put("orders", "a", "a:80", nil)
	c := w.client("us", nil)
	p, err := c.Pick(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := c.service("orders")
	c.mu.Lock()
	s.w.mu.Lock()
	s.mu.Lock()
	in := s.instances[route.EndpointRef{Region: "us", ID: "a"}]
	in.region.mu.Lock()
	told := make(chan struct{})
	go func() {
		p.Done(syscall.ECONNREFUSED)
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Error("opening a breaker waits for a lock of the client")
	}
	in.region.mu.Unlock()
	s.mu.Unlock()
	s.w.mu.Unlock()
	c.mu.Unlock()
	<-told
}

// gobreaker's State moves an open breaker on when its time is over. Nothing but the keeper looks
// that way: neither picks, nor reports, nor what people look at.
func TestLookingMovesNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in, _ := testInstance(func() time.Duration { return time.Since(start) })
		early := in.admit(&call{})
		in.admit(&call{}).report(outcomeDown)
		time.Sleep(time.Minute)
		early.report(outcomeOK)
		early.report(outcomeFailed)
		if in.admit(&call{safe: true}) != nil || !in.is(gobreaker.StateOpen) {
			t.Error("it moved")
		}
		in.force().report(outcomeOK) // the last resort: says that it works, but a trial decides
		if !in.is(gobreaker.StateOpen) {
			t.Error("a call past the breaker moved it")
		}
	})
}

// A Done that is never called, or called twice, or after the endpoint is gone, holds nobody
// up and spoils nothing for others.
func TestDoneAsItShouldNotBe(t *testing.T) {
	t.Run("never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us")
			w.regions["us"].put("orders", "a", "a:80", nil)
			c := w.client("us", nil)
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			for range tripConsecutive {
				p.Done(io.ErrUnexpectedEOF)
			}
			in := instances(t, c, "orders")["a"]
			time.Sleep(breakerMin + breakerSpread + safeTrials + time.Second)
			if !in.is(gobreaker.StateHalfOpen) {
				t.Fatal("not half-open")
			}
			if _, err = c.Pick(t.Context(), "orders"); err != nil || in.trial.Load() == 0 { // the trial, lost
				t.Fatal("no trial", err)
			}
			time.Sleep(trialLimit + time.Second)
			in.trial.Store(0)
			p, _ = c.Pick(t.Context(), "orders")
			p.Done(nil)
			if !in.is(gobreaker.StateClosed) {
				t.Error("a trial that was never reported wedged the breaker")
			}
		})
	})
	t.Run("twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us")
			for _, id := range []string{"a", "b", "c", "d"} {
				w.regions["us"].put("orders", id, id+":80", nil)
			}
			c := w.client("us", func(cfg *Config) { cfg.Balancer = LeastRequest })
			for range 200 {
				p, err := c.Pick(t.Context(), "orders")
				if err != nil {
					t.Fatal(err)
				}
				p.Done(nil)
				if p.Endpoint.ID == "a" {
					p.Done(nil)
				}
			}
			// All hold one call: whoever looked idler than idle would get them all.
			seen := map[api.InstanceID]int{}
			for range 200 {
				p, _ := c.Pick(t.Context(), "orders")
				seen[p.Endpoint.ID]++
			}
			if seen["a"] > 60 {
				t.Errorf("%v", seen)
			}
		})
	})
	t.Run("after the endpoint is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us")
			us := w.regions["us"]
			for _, id := range []string{"a1", "a2", "a3", "b"} {
				us.put("orders", id, id+":80", nil)
			}
			c := w.client("us", nil)
			var late []Picked
			for range 40 {
				p, err := c.Pick(t.Context(), "orders")
				if err != nil {
					t.Fatal(err)
				}
				if p.Endpoint.ID != "b" {
					late = append(late, p)
				} else {
					p.Done(nil)
				}
			}
			b := instances(t, c, "orders")["b"]
			for _, id := range []string{"a1", "a2", "a3"} {
				us.remove("orders", id)
			}
			synctest.Wait()
			for _, p := range late { // their calls end with them
				p.Done(io.ErrUnexpectedEOF)
			}
			p, err := c.Pick(t.Context(), "orders")
			if err != nil || p.Endpoint.ID != "b" {
				t.Fatal(p.Endpoint.ID, err)
			}
			p.Done(io.ErrUnexpectedEOF)
			if !b.is(gobreaker.StateClosed) {
				t.Error("one failure opened b: those of instances that are gone were counted")
			}
		})
	})
}

// Breakers do not wait for the same time, so that neither many clients nor many instances are
// tried in one moment; and each trial that fails doubles the time, up to eight times.
func TestBreakersWaitForDifferentTimes(t *testing.T) {
	seconds := map[time.Duration]int{}
	for range 1000 {
		in, _ := testInstance(func() time.Duration { return 0 })
		if in.hold < breakerMin || in.hold > breakerMin+breakerSpread {
			t.Fatal(in.hold)
		}
		seconds[in.hold.Truncate(100*time.Millisecond)]++
	}
	for at, n := range seconds {
		if n > 150 {
			t.Errorf("%d of 1000 wait for %s", n, at)
		}
	}
	in, _ := testInstance(func() time.Duration { return 0 })
	for i, times := range []time.Duration{1, 2, 4, 8, 8, 8} {
		in.trials = i
		if got := in.pause() - time.Millisecond; got != times*in.hold {
			t.Errorf("after %d failed trials it waits for %s, want %s", i, got, times*in.hold)
		}
	}
}

// A region is left by the share of its breakers that are open: it keeps what the others can
// carry. Failures that open none move nothing, however many they are.
func TestRegionIsLeftByTheShareOfOpenBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for i := range 10 {
			w.regions["us"].put("orders", fmt.Sprint("us", i), "h:80", nil)
			w.regions["eu"].put("orders", fmt.Sprint("eu", i), "h:80", nil)
		}
		c := w.client("us", nil)
		share := func() float64 { return picked(t, c, "orders", 500)["us"] }
		if got := share(); got < 0.999 {
			t.Fatal(got)
		}
		calls := map[api.InstanceID]int{}
		for range 2000 { // two of five calls fail, at each, but never many in a row
			p, _ := c.Pick(t.Context(), "orders")
			calls[p.Endpoint.ID]++
			at := int(p.Endpoint.ID[2]) + calls[p.Endpoint.ID]
			if n := at % 5; n == 1 || n == 3 {
				p.Done(io.ErrUnexpectedEOF)
			} else {
				p.Done(nil)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if got := share(); got < 0.999 {
			t.Errorf("%.3f are home after failures that opened no breaker", got)
		}
		all := instances(t, c, "orders")
		for n := 1; n <= 10; n++ {
			all[api.InstanceID(fmt.Sprint("us", n-1))].lease.Load().report(outcomeDown)
			synctest.Wait()
			want := min(1, 1.4*float64(10-n)/10)
			if got := share(); got < want-0.011 || got > want+0.011 {
				t.Errorf("%d of 10 open: %.3f are home, want %.3f", n, got, want)
			}
		}
	})
}

// A half-open instance that no call goes to (it drains meanwhile) does not keep its neighbours
// from being tried.
func TestHalfOpenThatNobodyTriesHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		w.run("eu", "shop", "eu")
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		web := w.web(c)
		load(t, web, "http://shop/", 40, time.Second)
		all := instances(t, c, "shop")
		for _, in := range all { // a is the first in line
			in.hold, in.region.hold = 3*time.Second, time.Second
		}
		all["a"].hold = time.Second
		a.set(func(p *program) { p.status = 503 })
		b.set(func(p *program) { p.status = 503 })
		check(t, load(t, web, "http://shop/", 40, 500*time.Millisecond))
		if opened(t, c, "shop") != 2 {
			t.Fatal("both should be open")
		}
		w.regions["us"].put("shop", "a", w.addr("us", "shop", "a"), func(i *api.Instance) { i.Status = api.StatusDraining })
		b.set(func(p *program) { p.status = 0 })
		calls := load(t, web, "http://shop/", 40, 8*time.Second)
		check(t, calls)
		back := slices.IndexFunc(calls, func(c done) bool { return c.region == "us" })
		if back < 0 || b.count() == 0 {
			t.Error("home was not tried again")
		}
	})
}

// Where one instance of a region answers again, the others are tried when their own time is
// over, not after twice that time.
func TestNeighboursComeBackInTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		w.run("eu", "shop", "eu")
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		web := w.web(c)
		load(t, web, "http://shop/", 40, time.Second)
		all := instances(t, c, "shop")
		for _, in := range all {
			in.region.hold = time.Second
		}
		// gobreaker's own time was set when they were made.
		first, last := all["a"], all["b"]
		if first.hold > last.hold {
			first, last = last, first
		}
		a.set(func(p *program) { p.status = 503 })
		b.set(func(p *program) { p.status = 503 })
		away := time.Now()
		check(t, load(t, web, "http://shop/", 40, 500*time.Millisecond))
		a.set(func(p *program) { p.status = 0 })
		b.set(func(p *program) { p.status = 0 })
		for !last.is(gobreaker.StateClosed) {
			check(t, load(t, web, "http://shop/", 40, 50*time.Millisecond))
			if d := time.Since(away); d > last.hold+600*time.Millisecond {
				t.Fatalf("still waiting after %s; the holds are %s and %s", d, first.hold, last.hold)
			}
		}
	})
}

// P8: what is kept follows the endpoints, also when thousands of them and many regions
// come and go.
func TestBreakersAreBounded(t *testing.T) {
	c := &Client{born: time.Now(), notes: make(chan struct{}, 1)}
	s := newService(c, nil, api.ServiceKey{Service: "orders"})
	for round := range 50 {
		view := route.View{}
		for r := range 4 {
			rv := route.RegionView{Origin: api.Origin{Region: api.Region(fmt.Sprintf("r%d-%d", round/5, r))}}
			for i := range 50 {
				rv.Endpoints = append(rv.Endpoints, api.Endpoint{
					ID: api.InstanceID(fmt.Sprintf("i%d-%d", round, i)), Region: rv.Origin.Region,
					Address: "h", Port: 80, Weight: 100, Status: api.StatusPassing,
				})
			}
			view.Regions = append(view.Regions, rv)
		}
		s.mu.Lock()
		s.view = view
		s.adoptLocked()
		if len(s.instances) != 200 || len(s.regions) != 4 {
			t.Errorf("round %d: %d instances and %d regions are kept, want 200 and 4", round, len(s.instances), len(s.regions))
		}
		for _, in := range s.instances {
			in.lease.Load().report(outcomeDown)
		}
		s.mu.Unlock()
	}
}

// Row 46 (P3, P7): every instance is broken or unhealthy. All of them are offered, flagged, and
// calls are spread over them.
func TestAllInstancesUnhealthy(t *testing.T) {
	for _, balancer := range []Balancer{RoundRobin, LeastRequest} {
		for _, how := range []string{"breakers", "checks"} {
			t.Run(fmt.Sprint(how, balancer), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, "us")
					programs := map[string]*program{}
					for _, id := range []string{"a", "b", "c", "d"} {
						programs[id] = w.run("us", "orders", id)
					}
					c := w.client("us", func(cfg *Config) { cfg.Balancer, cfg.MaxAttempts = balancer, 1 })
					web := w.web(c)
					switch how {
					case "breakers":
						if _, _, _, err := get(t, web, "http://orders/"); err != nil {
							t.Fatal(err)
						}
						for _, in := range instances(t, c, "orders") {
							in.lease.Load().report(outcomeDown)
						}
					case "checks":
						for id := range programs {
							w.regions["us"].put("orders", id, w.addr("us", "orders", id), func(i *api.Instance) { i.Status = api.StatusCritical })
						}
					}
					synctest.Wait()
					res, err := c.Resolve(t.Context(), "orders")
					if err != nil || len(res.Endpoints) != 4 || !res.Decision.Panic {
						t.Fatalf("%d endpoints, panic %v, %v", len(res.Endpoints), res.Decision.Panic, err)
					}
					for range 200 {
						if _, _, status, err := get(t, web, "http://orders/"); err != nil || status != 200 {
							t.Fatal(status, err)
						}
					}
					for id, p := range programs {
						if n := p.count(); n < 25 || n > 80 {
							t.Errorf("%s got %d of 200 calls", id, n)
						}
					}
				})
			})
		}
	}
}

// Slow answers count where the program says so: an instance half of whose answers are slow is
// left to its neighbours, and taken back when it is quick again.
func TestSlowInstanceIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		slow := w.run("us", "shop", "slow")
		w.run("us", "shop", "b")
		w.run("us", "shop", "c")
		far := w.run("eu", "shop", "far")
		c := w.client("us", func(cfg *Config) {
			cfg.SlowCall = 200 * time.Millisecond
			cfg.Policy.OverProvisioning = 2
		})
		web := w.web(c)
		slow.set(func(p *program) { p.delay = 150 * time.Millisecond })
		check(t, load(t, web, "http://shop/", 60, 5*time.Second))
		if n := opened(t, c, "shop"); n != 0 {
			t.Fatalf("%d breakers opened for answers that are quick enough", n)
		}
		slow.set(func(p *program) { p.delay = 300 * time.Millisecond })
		check(t, load(t, web, "http://shop/", 60, 5*time.Second))
		if instances(t, c, "shop")["slow"].is(gobreaker.StateClosed) {
			t.Error("half of its answers were slow, and it is still called")
		}
		before := slow.count()
		check(t, load(t, web, "http://shop/", 60, 20*time.Second))
		if n := slow.count() - before; n > 5 {
			t.Errorf("%d calls while it is slow: trials should be few", n)
		}
		slow.set(func(p *program) { p.delay = 0 })
		check(t, load(t, web, "http://shop/", 60, 25*time.Second))
		if n := opened(t, c, "shop"); n != 0 || far.count() > 0 {
			t.Errorf("%d breakers are open after it became quick; %d calls went far", n, far.count())
		}
	})
}

// Where most of a region is slow it is not the instances: at most half of them are left, and a
// lone one never, be the load as it may. Off by default.
func TestSlowRegionIsNotLeft(t *testing.T) {
	for _, tc := range []struct {
		instances, most int
		slow            time.Duration
	}{{1, 0, 100 * time.Millisecond}, {2, 1, 100 * time.Millisecond}, {5, 2, 100 * time.Millisecond}, {4, 0, 0}} {
		t.Run(fmt.Sprintf("%d instances, slow at %s", tc.instances, tc.slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				for i := range tc.instances {
					w.run("us", "shop", fmt.Sprint("s", i)).delay = 400 * time.Millisecond
				}
				w.run("eu", "shop", "far").delay = 400 * time.Millisecond
				c := w.client("us", func(cfg *Config) { cfg.SlowCall = tc.slow })
				web := w.web(c)
				most := 0
				for range 10 {
					check(t, load(t, web, "http://shop/", 50, 2*time.Second))
					n := 0
					for _, in := range instances(t, c, "shop") {
						if !in.is(gobreaker.StateClosed) && in.ref.Region == "us" {
							n++
						}
					}
					most = max(most, n)
				}
				if most != tc.most {
					t.Errorf("%d of %d breakers of the region were open, want %d", most, tc.instances, tc.most)
				}
			})
		})
	}
}

// ErrSlow tells the same through Done; a slow answer here and there opens nothing.
func TestDoneTellsOfSlowness(t *testing.T) {
	for name, tc := range map[string]struct {
		slow func(i int) bool
		want gobreaker.State
	}{
		"always":   {func(int) bool { return true }, gobreaker.StateOpen},
		"often":    {func(i int) bool { return i%2 == 0 }, gobreaker.StateOpen},
		"at times": {func(i int) bool { return i%3 == 0 }, gobreaker.StateClosed},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			in, _ := testInstance(func() time.Duration { return time.Since(start) })
			in.region.spare.Store(1)
			for i := range 40 {
				time.Sleep(300 * time.Millisecond)
				l := in.admit(&call{})
				if l == nil {
					break
				}
				if tc.slow(i) {
					l.done(fmt.Errorf("report: %w", ErrSlow))
				} else {
					l.done(nil)
				}
			}
			if got := gobreaker.State(in.state.Load()); got != tc.want {
				t.Errorf("%s: %s, want %s", name, got, tc.want)
			}
		})
	}
	if outcomeOf(errors.Join(ErrSlow)) != outcomeSlow {
		t.Error("wrapped")
	}
}
