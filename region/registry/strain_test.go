package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// loadOf returns the last load that a stream told of a service, and how often it was told.
func (s *stream) loadOf(service api.ServiceName) (last float64, told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last = -1
	for _, f := range s.frames {
		for _, l := range f.Loads {
			if l.Service == service {
				if l.Percent == last {
					s.t.Errorf("%v %% is told again", last)
				}
				last, told = l.Percent, told+1
			}
		}
	}
	return last, told
}

// P8: a service that is used beyond what it can take spills by what its instances report: all
// callers of the registry together, though none of them remembers anything. It settles, and comes
// home when the load is gone. Watches are told of the load, and of nothing when it stays.
func TestALoadedServiceSpills(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newReplicas("us-east")
		f.set("us-east", "orders", 5, "e1", "e2")
		b := start(t, func(c *Config) { c.Replicas = f })
		b.registerMany("orders", 2)
		far := b.watch(WatchQuery{Far: true, Services: []api.ServiceName{"orders"}})
		plain := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		home := func() float64 {
			res, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for _, tier := range res.Decision.Tiers {
				if tier.Region == "eu-west" {
					sum += tier.Weight
				}
			}
			return sum
		}
		share := 1.0
		run := func(seconds int, demand float64) (turns int) {
			way := 0.0
			for second := range seconds {
				for i := range 2 {
					if _, err := b.Beat(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), api.Heartbeat{Load: api.LoadOf(int(demand * share))}); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Second)
				now := home()
				if now < share-0.2001 || now > share+1.0/30+0.0001 {
					t.Errorf("second %d at a demand of %v %%: from %v to %v", second, demand, share, now)
				}
				if (now-share)*way < 0 {
					turns++
				}
				if now != share {
					way = now - share
				}
				share = now
			}
			return turns
		}
		if run(30, 60); share != 1 {
			t.Errorf("at 60 %% home keeps %v", share)
		}
		if n := run(90, 150); n > 0 || 150*share < 63 || 150*share > 83 {
			t.Errorf("home is used to %v %%, the share turned about %d times", 150*share, n)
		}
		ex, _, err := b.Explain(t.Context(), ResolveQuery{Service: "orders"})
		if err != nil || ex.Decision.Reason != api.ReasonSpill || !strings.Contains(ex.Decision.Detail, "eu-west keeps") || ex.Loads["eu-west"] < 65 {
			t.Errorf("%+v %v %v", ex.Decision, ex.Loads, err)
		}
		again, _, _, err := b.ResolveShared(t.Context(), ResolveQuery{Service: "orders"})
		same, _, _, err2 := b.ResolveShared(t.Context(), ResolveQuery{Service: "orders"})
		if err != nil || err2 != nil || again != same {
			t.Error("one moment, two answers")
		}
		if n := run(60, 30); n > 0 || share != 1 {
			t.Errorf("home has %v, the share turned about %d times", share, n)
		}
		if last, told := far.loadOf("orders"); last != 30 || told > 30 {
			t.Errorf("told %d times, at last %v", told, last)
		}
		if _, told := plain.loadOf("orders"); told > 0 {
			t.Error("who did not ask for other regions is told loads")
		}
		// Nobody reports any more: it is told, once.
		b.beat(90*time.Second, "orders", 0, 2)
		if last, _ := far.loadOf("orders"); last != 0 {
			t.Errorf("at last %v", last)
		}
	})
}
