package nearside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// lazy answers after the time that it has at the moment, and counts calls that were cut.
type lazy struct {
	delay    atomic.Int64
	all, cut atomic.Int32
	bodies   chan string
}

func (l *lazy) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	l.all.Add(1)
	b, _ := io.ReadAll(req.Body)
	if l.bodies != nil {
		l.bodies <- string(b)
	}
	select {
	case <-time.After(time.Duration(l.delay.Load())):
		_, _ = io.WriteString(rw, "done")
	case <-req.Context().Done():
		l.cut.Add(1)
	}
}

func (w *world) lazy(region, id string, d time.Duration) *lazy {
	l := &lazy{}
	l.delay.Store(int64(d))
	w.run(api.Region(region), "shop", id).handle = l.ServeHTTP
	return l
}

const ms = time.Millisecond

// hedging returns a config that hedges after 50 ms.
func hedging(cfg *Config) { cfg.Hedge.After = 50 * ms }

// answered makes a call, and returns who served it, after how many attempts and how long.
func answered(t *testing.T, web *http.Client, req *http.Request) (id, attempts string, took time.Duration) {
	t.Helper()
	began := time.Now()
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	took = time.Since(began)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get(HeaderServedInstance), resp.Header.Get(HeaderAttempts), took
}

func shop(ctx context.Context, method, body string) *http.Request {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, _ := http.NewRequestWithContext(ctx, method, "http://shop/", r)
	return req
}

// A call that waits for long asks a neighbour and takes the answer that comes first. The other
// attempt is cancelled, says nothing against its instance, and nothing of it is left.
func TestHedgedCallTakesTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a, b := w.lazy("us", "a", 400*ms), w.lazy("us", "b", 10*ms)
		far := w.lazy("eu", "far", 0)
		c := w.client("us", hedging)
		web := w.web(c)
		hedged := 0
		for range 12 {
			id, attempts, took := answered(t, web, shop(t.Context(), "GET", ""))
			switch {
			case attempts == "2" && id == "b" && took == 60*ms:
				hedged++
			case attempts != "1" || id != "b" || took != 10*ms:
				t.Errorf("served by %s after %s attempts and %s", id, attempts, took)
			}
			time.Sleep(time.Second)
		}
		if hedged != 6 || a.cut.Load() != 6 || far.all.Load() != 0 {
			t.Errorf("%d hedged calls, %d cut at a, %d far", hedged, a.cut.Load(), far.all.Load())
		}
		// The first one wins: the second is cut.
		a.delay.Store(int64(70 * ms))
		b.delay.Store(int64(70 * ms))
		for range 4 {
			if _, attempts, took := answered(t, web, shop(t.Context(), "GET", "")); attempts != "2" || took != 70*ms {
				t.Errorf("%s attempts, %s", attempts, took)
			}
		}
		synctest.Wait()
		if n := a.cut.Load() + b.cut.Load(); n != 6+4 {
			t.Errorf("%d attempts were cut", n)
		}
		idle(t, c, "shop")
		if n := opened(t, c, "shop"); n != 0 {
			t.Errorf("%d breakers opened", n)
		}
	})
}

// The attempt that loses counts neither for the ejection of its instance nor as a failure for who
// balances by what was measured: it is a call that was given up.
func TestOvertakenSaysNothingOfItsInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		a := w.lazy("us", "a", 400*ms)
		w.lazy("us", "b", 10*ms)
		var got []Outcome
		own := &ownBalancer{pick: func(PickInfo) int { return 0 }, observe: func(o Outcome) { got = append(got, o) }}
		c := w.client("us", func(cfg *Config) { hedging(cfg); cfg.Balancer = own })
		for range 3 {
			if id, attempts, _ := answered(t, w.web(c), shop(t.Context(), "GET", "")); id != "b" || attempts != "2" {
				t.Fatalf("served by %s after %s attempts", id, attempts)
			}
		}
		synctest.Wait()
		if n := a.cut.Load(); n != 3 {
			t.Errorf("%d attempts were cut", n)
		}
		for id, in := range instances(t, c, "shop") {
			if r := in.tally.take(); r.good != r.all || (r.all == 3) != (id == "b") {
				t.Errorf("%s: %d good of %d", id, r.good, r.all)
			}
		}
		for _, o := range got {
			if lost := o.Index == 0; lost != errors.Is(o.Err, context.Canceled) || lost != errors.Is(o.Err, errOvertaken) {
				t.Errorf("%+v", o)
			}
		}
		var s speed
		s.decay.Store(int64(DefaultDecay))
		if s.took(time.Second, 60*ms, 0, &CallError{Err: errOvertaken}); s.at(time.Second) >= float64(failedCost) {
			t.Errorf("measured %s", time.Duration(s.at(time.Second)))
		}
	})
	// A connection that somebody else's losing attempt had given up broke for this one: it is
	// no end of the call.
	ctx := t.Context()
	if k := classify(nil, fmt.Errorf("write: %w", errOvertaken), ctx, ctx); k != kindBroken {
		t.Errorf("another's: %s", k)
	}
}

// Where both attempts answer in the same moment one answer is the caller's, and can be read to its
// end: neither is cancelled once the other is. Here one of them has its headers, and is held up
// for 10 ms before its end is known to the other, which answers in that time.
func TestBothAnswerAtOnce(t *testing.T) {
	for _, held := range []int{0, 1} {
		t.Run([]string{"the first", "the second"}[held], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				for i, id := range []string{"a", "b"} {
					d := 105 * ms
					if i == held {
						d = 100 * ms
					}
					if i == 1 {
						d -= 50 * ms // it begins later by that
					}
					w.run("us", "shop", id).handle = func(rw http.ResponseWriter, _ *http.Request) {
						time.Sleep(d)
						rw.WriteHeader(http.StatusOK)
						_ = http.NewResponseController(rw).Flush()
						time.Sleep(50 * ms)
						_, _ = io.WriteString(rw, "done")
					}
				}
				own := &ownBalancer{pick: func(PickInfo) int { return 0 }, observe: func(o Outcome) {
					if o.Index == held {
						time.Sleep(10 * ms)
					}
				}}
				c := w.client("us", func(cfg *Config) { hedging(cfg); cfg.Balancer = own })
				resp, err := w.web(c).Do(shop(t.Context(), "GET", ""))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(b) != "done" || err != nil || resp.Header.Get(HeaderAttempts) != "2" {
					t.Errorf("%q, %v, %s attempts", b, err, resp.Header.Get(HeaderAttempts))
				}
				time.Sleep(time.Second) // the handlers end
				idle(t, c, "shop")
			})
		})
	}
}

// A base transport that panics in the second attempt, when the first has answered, leaves nothing of
// that answer.
func TestSecondPanicsAfterAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.lazy("us", "a", 100*ms)
		w.lazy("us", "b", 100*ms)
		c := w.client("us", hedging)
		inner := w.net.transport(t)
		var n atomic.Int32
		base := tripper(func(req *http.Request) (*http.Response, error) {
			if n.Add(1) == 2 {
				<-req.Context().Done() // the first has answered
				panic("broken")
			}
			return inner.RoundTrip(req)
		})
		func() {
			defer func() {
				if p := recover(); p != "broken" {
					t.Errorf("%v", p)
				}
			}()
			_, _ = c.Transport(base).RoundTrip(shop(t.Context(), "GET", ""))
		}()
		synctest.Wait()
		idle(t, c, "shop")
	})
}

// What is hedged: by default nothing; calls that are safe to repeat, with little or no body, and
// only inside their tier.
func TestWhatIsHedged(t *testing.T) {
	once := func(ctx context.Context) *http.Request {
		req := shop(ctx, "PUT", "body")
		req.GetBody = nil
		return req
	}
	for _, tc := range []struct {
		name   string
		config func(*Config)
		req    func(context.Context) *http.Request
		want   bool
	}{
		{"by default nothing", nil, func(ctx context.Context) *http.Request { return shop(ctx, "GET", "") }, false},
		{"by the context", nil, func(ctx context.Context) *http.Request { return shop(WithHedge(ctx, 50*ms), "GET", "") }, true},
		{"not by the context", hedging, func(ctx context.Context) *http.Request { return shop(WithHedge(ctx, 0), "GET", "") }, false},
		{"GET", hedging, func(ctx context.Context) *http.Request { return shop(ctx, "GET", "") }, true},
		{"POST", hedging, func(ctx context.Context) *http.Request { return shop(ctx, "POST", "body") }, false},
		{"POST that is declared safe", hedging, func(ctx context.Context) *http.Request { return shop(WithIdempotent(ctx), "POST", "body") }, true},
		{"PUT", hedging, func(ctx context.Context) *http.Request { return shop(ctx, "PUT", "body") }, true},
		{"PUT whose body cannot be had again", hedging, once, false},
		{"PUT of much", hedging, func(ctx context.Context) *http.Request { return shop(ctx, "PUT", strings.Repeat("x", maxQuickBody+1)) }, false},
		{"never repeat", func(cfg *Config) { hedging(cfg); cfg.MaxAttempts = 1 }, func(ctx context.Context) *http.Request { return shop(ctx, "GET", "") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				all := []*lazy{w.lazy("us", "a", 200*ms), w.lazy("us", "b", 200*ms)}
				bodies := make(chan string, 2)
				all[0].bodies, all[1].bodies = bodies, bodies
				c := w.client("us", tc.config)
				req := tc.req(t.Context())
				want := ""
				if req.Body != nil {
					want = "body"
				}
				_, attempts, _ := answered(t, w.web(c), req)
				if got := attempts == "2"; got != tc.want {
					t.Errorf("hedged: %v", got)
				}
				for range all[0].all.Load() + all[1].all.Load() {
					if b := <-bodies; b != want && len(b) <= maxQuickBody {
						t.Errorf("the body %q came", b)
					}
				}
				synctest.Wait()
				idle(t, c, "shop")
			})
		})
	}
	t.Run("alone in its region", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			w.lazy("us", "a", 200*ms)
			far := w.lazy("eu", "far", 0)
			_, attempts, _ := answered(t, w.web(w.client("us", hedging)), shop(t.Context(), "GET", ""))
			if attempts != "1" || far.all.Load() != 0 {
				t.Errorf("%s attempts, %d far", attempts, far.all.Load())
			}
		})
	})
}

// A service that is slow altogether is not asked twice for it, but for the share that is allowed.
func TestHedgesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		all := []*lazy{w.lazy("us", "a", 200*ms), w.lazy("us", "b", 200*ms), w.lazy("us", "c", 200*ms)}
		c := w.client("us", hedging)
		calls := load(t, w.web(c), "http://shop/", 100, 30*time.Second)
		check(t, calls)
		n := 0
		for _, l := range all {
			n += int(l.all.Load())
		}
		extra, most := n-len(calls), len(calls)/20+hedgeReserve+1
		if extra > most || extra < len(calls)/25 {
			t.Errorf("%d hedges of %d calls, at most %d wanted", extra, len(calls), most)
		}
		if n := opened(t, c, "shop"); n != 0 {
			t.Errorf("%d breakers opened", n)
		}
	})
}

// The delay may follow the service: what all but a few answers take.
func TestHedgeFollowsThePercentile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		var n atomic.Int32
		for _, id := range []string{"a", "b"} {
			w.run("us", "shop", id).handle = func(_ http.ResponseWriter, req *http.Request) {
				i := n.Add(1)
				d := 20*ms + time.Duration(i%97)*ms/10
				if i%25 == 0 {
					d = 700 * ms
				}
				select {
				case <-time.After(d):
				case <-req.Context().Done():
				}
			}
		}
		c := w.client("us", func(cfg *Config) { cfg.Hedge = Hedge{Percentile: 0.95, MaxShare: 0.1} })
		web := w.web(c)
		check(t, load(t, web, "http://shop/", 50, 5*time.Second)) // learns
		took := check(t, load(t, web, "http://shop/", 50, 20*time.Second))
		slow := 0
		for _, d := range took {
			if d > 100*ms {
				slow++
			}
		}
		if slow > len(took)/100 {
			t.Errorf("%d of %d calls were slow, most %s", slow, len(took), took[len(took)-1])
		}
	})
}

// Where the first attempt fails while the second is under way, the second is its repeat; where
// both fail, the call goes on elsewhere.
func TestHedgeIsTheRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		fails := func(rw http.ResponseWriter, req *http.Request) {
			select {
			case <-time.After(100 * ms):
				rw.WriteHeader(503)
			case <-req.Context().Done():
			}
		}
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		far := w.lazy("eu", "far", 0)
		a.handle, b.handle = fails, fails
		c := w.client("us", hedging)
		web := w.web(c)
		id, attempts, took := answered(t, web, shop(t.Context(), "GET", ""))
		if id != "far" || attempts != "3" || took < 150*ms || took > 200*ms {
			t.Errorf("both fail: served by %s after %s attempts and %s", id, attempts, took)
		}
		b.set(func(p *program) { p.handle = (&lazy{}).ServeHTTP })
		for range 4 {
			id, attempts, _ = answered(t, web, shop(t.Context(), "GET", ""))
			if id != "b" || (attempts != "1" && attempts != "2") {
				t.Errorf("one fails: served by %s after %s attempts", id, attempts)
			}
		}
		if far.all.Load() != 1 {
			t.Errorf("%d calls went far", far.all.Load())
		}
		synctest.Wait()
		idle(t, c, "shop")
	})
}

// P3: hedging does not hide a hung instance for ever: it is found silent all the same, also at
// a rate at which every call could be hedged.
func TestHedgingLeavesHungInstances(t *testing.T) {
	for _, rate := range []int{4, 40} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				a := w.lazy("us", "a", 10*ms)
				w.lazy("us", "b", 10*ms)
				c := w.client("us", hedging)
				web := w.web(c)
				check(t, load(t, web, "http://shop/", rate, 3*time.Second))
				a.delay.Store(int64(time.Hour))
				took := check(t, load(t, web, "http://shop/", rate, 20*time.Second))
				if most := took[len(took)-1]; most > 1100*ms {
					t.Errorf("a call took %s", most)
				}
				before := a.all.Load()
				check(t, load(t, web, "http://shop/", rate, 20*time.Second))
				if n := a.all.Load() - before; n > 3 {
					t.Errorf("%d attempts at the hung instance", n)
				}
				a.delay.Store(int64(10 * ms))
				check(t, load(t, web, "http://shop/", rate, 30*time.Second))
				synctest.Wait()
				idle(t, c, "shop")
				if n := opened(t, c, "shop"); n != 0 {
					t.Errorf("%d breakers are not closed", n)
				}
			})
		})
	}
}

// Calls that are given up while both attempts run leave nothing behind; nor does a base transport
// that panics in the second, whose panic the caller has.
func TestHedgedCallsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.lazy("us", "a", time.Hour)
		w.lazy("us", "b", time.Hour)
		c := w.client("us", hedging)
		web := w.web(c)
		for i := range 8 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Duration(45+i)*ms, cancel)
			if resp, err := web.Do(shop(ctx, "GET", "")); err == nil {
				_ = resp.Body.Close()
				t.Error("an answer came")
			}
			cancel()
		}
		synctest.Wait()
		idle(t, c, "shop")
		inner := w.net.transport(t)
		var n atomic.Int32
		base := tripper(func(req *http.Request) (*http.Response, error) {
			if n.Add(1) == 2 {
				panic("broken")
			}
			return inner.RoundTrip(req)
		})
		func() {
			defer func() {
				if p := recover(); p != "broken" {
					t.Errorf("%v", p)
				}
			}()
			_, _ = c.Transport(base).RoundTrip(shop(t.Context(), "GET", ""))
		}()
		synctest.Wait()
		idle(t, c, "shop")
		if n := opened(t, c, "shop"); n != 0 {
			t.Errorf("%d breakers opened", n)
		}
	})
}

// Bad settings are refused with the remedy.
func TestHedgeSettings(t *testing.T) {
	for _, h := range []Hedge{{After: -1}, {Percentile: 1}, {Percentile: -0.1}, {MaxShare: 2}, {MaxShare: -1}} {
		if _, err := New(Config{Addresses: []string{"http://127.0.0.1:1"}, Hedge: h}); err == nil || !strings.Contains(err.Error(), "Config.Hedge.") {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if _, err := New(Config{Addresses: []string{"http://127.0.0.1:1"}, SlowCall: -1}); err == nil {
		t.Error("SlowCall below 0")
	}
}
