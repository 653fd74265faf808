// Package scenarios holds the stories of SCENARIOS.md, told with real processes.
package scenarios

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/shop"
)

const (
	us = api.Region("us-east")
	eu = api.Region("eu-west")
	ap = api.Region("ap-south")
)

// openShop starts registries, two copies of the shop and shoppers in three regions, and
// returns once all shoppers are served and ap-south, which has no payments of its own,
// gets them from eu-west.
func openShop(t *testing.T) (*cluster.Cluster, map[api.Region][]*cluster.Shop, map[api.Region]*cluster.Load) {
	t.Helper()
	c := cluster.New(t, us, eu, ap)
	c.StartAll()
	shops := map[api.Region][]*cluster.Shop{}
	loads := map[api.Region]*cluster.Load{}
	// eu-west opens first: who came to us-east for want of it would only be handed back bit by bit.
	for _, r := range []api.Region{eu, us, ap} {
		shops[r] = startShops(c, r)
		if r == eu {
			cluster.Within(t, 20*time.Second, "ap-south knows eu-west's payments", func() error {
				_, err := c.Node(ap).Client().Resolvable("payments")
				return err
			})
		}
	}
	for _, r := range []api.Region{us, eu, ap} {
		loads[r] = c.StartLoad(r, 40)
	}
	for r, l := range loads {
		cluster.Within(t, 20*time.Second, "shoppers of "+string(r)+" are served", func() error {
			if n := len(l.Ticks()); n < 3 {
				return fmt.Errorf("%d reports", n)
			}
			return nil
		})
	}
	servedFrom(t, loads[ap], eu)
	return c, shops, loads
}

func startShops(c *cluster.Cluster, r api.Region) []*cluster.Shop {
	services := []string{"storefront", "catalog", "orders", "users"}
	if r != ap {
		services = append(services, "payments")
	}
	return []*cluster.Shop{c.StartShop(r, "a", services...), c.StartShop(r, "b", services...)}
}

// servedFrom waits for a second in which all of l's payments came from region r.
func servedFrom(t *testing.T, l *cluster.Load, r api.Region) {
	t.Helper()
	// Away they move at once; home they come over half a minute (the fail-back ramp).
	cluster.Within(t, 90*time.Second, fmt.Sprintf("payments of %s come from %s", l.Region, r), func() error {
		from := l.Last().PaymentsFrom
		if len(from) == 1 && from[r] > 0 {
			return nil
		}
		return fmt.Errorf("they come from %v", from)
	})
}

// noneFailed asserts that no safe-to-repeat call failed, and prints the figures.
func noneFailed(t *testing.T, name string, ticks []shop.Tick) {
	t.Helper()
	requests, failed, safe, safeFailed, gap, errs := cluster.Sum(ticks)
	t.Logf("%-10s requests %d, failed %d, safe %d, safe failed %d, longest gap %s", name, requests, failed, safe, safeFailed, gap.Round(time.Millisecond))
	if requests == 0 {
		t.Errorf("%s: no call was made", name)
	}
	if safeFailed > 0 {
		t.Errorf("%s: %d safe-to-repeat calls failed: %v", name, safeFailed, errs)
	}
}

// P3, P10 and the figure "region killed: 0 failed safe-to-repeat calls": every process of
// eu-west dies at once under load. ap-south, which eu-west served with payments, moves to
// us-east, and comes back once eu-west is up again. Nobody else notices anything.
func TestRegionKilledUnderLoadAndReturns(t *testing.T) {
	t.Parallel() // it waits more than it works
	c, shops, loads := openShop(t)

	killed := time.Now()
	loads[eu].Kill()
	for _, s := range shops[eu] {
		s.Kill()
	}
	c.Node(eu).Kill()
	servedFrom(t, loads[ap], us)
	t.Logf("ap-south is served by us-east within %s of the first kill (whole seconds of reports)", time.Since(killed).Round(time.Millisecond))

	restored := time.Now()
	c.Node(eu).Start()
	startShops(c, eu)
	servedFrom(t, loads[ap], eu)
	t.Logf("ap-south is served by eu-west again within %s of the restart", time.Since(restored).Round(time.Millisecond))

	for _, r := range []api.Region{us, ap} {
		ticks := loads[r].Finish()
		noneFailed(t, string(r), ticks)
		for _, tick := range ticks {
			for _, m := range tick.Moves {
				t.Logf("%s: payments served by %s from %s on", r, m.To, m.Time.Format("15:04:05.000"))
			}
		}
	}
}

// P10: a dead registry moves nothing. Local calls go on to local instances, no call
// fails, and the registry that returns knows everyone.
func TestRegistryKilledNothingMoves(t *testing.T) {
	t.Parallel() // it waits more than it works
	c, _, loads := openShop(t)
	before := len(loads[us].Ticks())
	c.Node(us).Kill()
	// Longer than the shop's TTL of 5 s and than two heartbeats.
	cluster.Within(t, 20*time.Second, "8 seconds of shopping without a registry", func() error {
		if n := len(loads[us].Ticks()) - before; n < 8 {
			return fmt.Errorf("%d seconds", n)
		}
		return nil
	})
	c.Node(us).Start()
	// The other regions use nothing of us-east's; their shoppers must not notice either.
	for _, r := range []api.Region{us, eu, ap} {
		ticks := loads[r].Finish()
		noneFailed(t, string(r), ticks)
		for _, tick := range ticks {
			for from := range tick.ServedFrom {
				if from != r {
					t.Errorf("%s: storefront was served from %s although nothing of it was lost at home", r, from)
				}
			}
			for from := range tick.PaymentsFrom {
				if r == us && from != us {
					t.Errorf("us-east: payments were served from %s although only the registry was lost", from)
				}
			}
		}
	}
	l, err := c.Node(us).Client().Instances("orders")
	if err != nil || len(l.Instances) != 2 {
		t.Errorf("P1: after its return the registry knows %d of 2 orders instances (%v)", len(l.Instances), err)
	}
}

// P3: with every registry dead, a program that starts anew finds its services in its
// snapshot, and its calls succeed.
func TestAllRegistriesDeadANewProcessServesFromItsSnapshot(t *testing.T) {
	t.Parallel() // it waits more than it works
	c, _, loads := openShop(t)
	for _, r := range []api.Region{us, eu, ap} {
		loads[r].Finish()
		c.Node(r).Kill()
	}
	for _, r := range []api.Region{us, ap} {
		begun := time.Now()
		l := c.StartLoad(r, 40) // a new process with the snapshot directory of the old one
		cluster.Within(t, 20*time.Second, "3 seconds of shopping", func() error {
			if n := len(l.Ticks()); n < 3 {
				return fmt.Errorf("%d reports", n)
			}
			return nil
		})
		t.Logf("%s: 3 seconds reported %s after the start", r, time.Since(begun).Round(time.Millisecond))
		noneFailed(t, string(r), l.Finish())
	}
}
