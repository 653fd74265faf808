package nearside

import (
	"context"
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// The average follows peaks at once and comes down by the decay; what failed or was given up
// can only raise it.
func TestPeakAverage(t *testing.T) {
	const ms = time.Millisecond
	type sample struct {
		at, took time.Duration
		status   int
		err      error
	}
	failed := errors.New("broken")
	for name, tc := range map[string]struct {
		samples []sample
		at      time.Duration
		want    time.Duration
	}{
		"never heard":                {nil, 0, 0},
		"the first answer":           {[]sample{{0, 40 * ms, 200, nil}}, 0, 40 * ms},
		"a peak is taken at once":    {[]sample{{0, 40 * ms, 200, nil}, {ms, 90 * ms, 200, nil}}, ms, 90 * ms},
		"it fades":                   {[]sample{{0, 100 * ms, 200, nil}}, 10 * time.Second, 100 * ms * 368 / 1000},
		"quick answers bring it low": {[]sample{{0, 100 * ms, 200, nil}, {10 * time.Second, 10 * ms, 200, nil}}, 10 * time.Second, 43115 * time.Microsecond},
		"a quick failure does not":   {[]sample{{0, 100 * ms, 200, nil}, {ms, ms, 0, failed}}, ms, 100 * ms},
		"nor a quick 500":            {[]sample{{0, 100 * ms, 200, nil}, {ms, ms, 500, nil}}, ms, 100 * ms},
		"a quick 404 is an answer":   {[]sample{{0, 100 * ms, 200, nil}, {10 * time.Second, 10 * ms, 404, nil}}, 10 * time.Second, 43115 * time.Microsecond},
		"a slow failure raises it":   {[]sample{{0, 100 * ms, 200, nil}, {ms, 900 * ms, 0, failed}}, ms, 900 * ms},
		"one given up raises it":     {[]sample{{0, 10 * ms, 200, nil}, {ms, 700 * ms, 0, context.Canceled}}, ms, 700 * ms},
		"a failure first":            {[]sample{{0, ms, 0, failed}}, 0, failedCost},
		"given up first":             {[]sample{{0, ms, 0, context.Canceled}}, 0, ms},
		"an answer noted too late":   {[]sample{{time.Second, 40 * ms, 200, nil}, {0, 30 * ms, 200, nil}}, time.Second, 40 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			var s speed
			s.decay.Store(int64(DefaultDecay))
			for _, x := range tc.samples {
				s.took(x.at, x.took, x.status, x.err)
			}
			if got := s.at(tc.at); math.Abs(got-float64(tc.want)) > float64(tc.want)/100 {
				t.Errorf("%s, want %s", time.Duration(got), tc.want)
			}
		})
	}
}

// Calls go to the quicker instances while one is slow, and to all again when it is not. Peak-EWMA
// knows by the times alone: there is never more than one call.
func TestPeakEWMALeavesSlowInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		slow := w.run("us", "orders", "a")
		programs := map[string]*program{"a": slow}
		for _, id := range []string{"b", "c", "d"} {
			programs[id] = w.run("us", "orders", id)
		}
		for _, p := range programs {
			p.set(func(p *program) { p.delay = 10 * time.Millisecond })
		}
		web := w.web(w.client("us", func(cfg *Config) { cfg.Balancer = PeakEWMA{Decay: 2 * time.Second} }))
		of := func(n int) float64 {
			before := slow.count()
			for range n {
				if _, _, status, err := get(t, web, "http://orders/"); status != http.StatusOK || err != nil {
					t.Fatal(status, err)
				}
			}
			return float64(slow.count()-before) / float64(n)
		}
		if got := of(600); got < 0.15 || got > 0.35 {
			t.Errorf("all alike: one of four got %.3f", got)
		}
		slow.set(func(p *program) { p.delay = 200 * time.Millisecond })
		if got := of(500); got > 0.03 {
			t.Errorf("twenty times slower, and it got %.3f", got)
		}
		slow.set(func(p *program) { p.delay = 10 * time.Millisecond })
		of(1000) // 10 s: five decays
		if got := of(600); got < 0.15 || got > 0.35 {
			t.Errorf("quick again, and it got %.3f", got)
		}
	})
}

// Of a Pick the time until Done counts. An instance that was never heard gets one call at a time.
func TestPeakEWMAOfPicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for _, id := range []string{"a", "b"} {
			w.regions["us"].put("orders", id, "h:80", nil)
		}
		c := w.client("us", func(cfg *Config) { cfg.Services = map[string]ServiceConfig{"orders": {Balancer: PeakEWMA{}}} })
		call := func(took map[string]time.Duration) string {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(took[string(p.Endpoint.ID)])
			p.Done(nil)
			return string(p.Endpoint.ID)
		}
		first, _ := c.Pick(t.Context(), "orders") // runs on
		for i := range 20 {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			if p.Endpoint.ID == first.Endpoint.ID {
				t.Fatalf("pick %d went to %s, which was not heard yet and has a call running", i, p.Endpoint.ID)
			}
			time.Sleep(time.Millisecond)
			p.Done(nil)
		}
		first.Done(nil)
		got := map[string]int{}
		for range 1000 {
			got[call(map[string]time.Duration{"a": 100 * time.Millisecond, "b": 10 * time.Millisecond})]++
		}
		if got["a"] > 30 {
			t.Errorf("the slow one got %d of 1000", got["a"])
		}
	})
}
