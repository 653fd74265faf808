package nearside

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/sdk/api"
)

// fleet returns n endpoints in so many zones of different sizes.
func fleet(n, zones int) []*api.Endpoint {
	list := make([]*api.Endpoint, n)
	for i := range list {
		z := int(math.Sqrt(float64(i%(zones*zones)))) % zones // zone k has 2k+1 parts
		list[i] = &api.Endpoint{ID: api.InstanceID(fmt.Sprint("i", i)), Region: "us", Zone: api.Zone(fmt.Sprint("z", z))}
	}
	return list
}

// A thousand clients, each with a subset of 100 of 1,000 instances, call all instances about
// alike: what the busiest gets is near the mean, and each zone gets its part of every client.
func TestSubsetsAreEven(t *testing.T) {
	list := fleet(1000, 3)
	sizes := map[api.Zone]int{}
	for _, e := range list {
		sizes[e.Zone]++
	}
	const clients, n = 1000, 100
	got := map[api.InstanceID]int{}
	for c := range clients {
		zones := map[api.Zone]int{}
		sub := subset(list, n, mix(uint64(c)))
		if len(sub) != n {
			t.Fatalf("%d of %d", len(sub), n)
		}
		for _, e := range sub {
			got[e.ID]++
			zones[e.Zone]++
		}
		for z, size := range sizes {
			if math.Abs(float64(zones[z])-float64(n*size)/float64(len(list))) > 1 {
				t.Fatalf("client %d: %d of zone %s, which has %d of %d", c, zones[z], z, size, len(list))
			}
		}
	}
	least, most := clients, 0
	for _, e := range list {
		least, most = min(least, got[e.ID]), max(most, got[e.ID])
	}
	mean := float64(clients*n) / float64(len(list))
	t.Logf("clients of an instance: %d to %d, mean %.0f: the busiest has %.2f of the mean", least, most, mean, float64(most)/mean)
	if float64(most) > 1.45*mean || float64(least) < 0.6*mean {
		t.Errorf("clients of an instance: %d to %d, mean %.0f", least, most, mean)
	}
}

// An instance that comes or goes changes a client's subset by one, and by one more for each
// zone where rounding changes; the order in which instances are told by nothing.
func TestSubsetsChangeLittle(t *testing.T) {
	seeds(t, 20, func(t *testing.T, r *rand.Rand) {
		const zones = 3
		list, client := fleet(200+r.IntN(200), zones), r.Uint64()
		before := subset(list, 50, client)
		for range 20 {
			i := r.IntN(len(list))
			list = append(slices.Clone(list[:i]), list[i+1:]...)
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			after := subset(list, 50, client)
			gone := 0
			for _, e := range before {
				if !slices.Contains(after, e) {
					gone++
				}
			}
			if gone > 1+zones || len(after) != 50 {
				t.Errorf("one instance went, and %d of the subset did", gone)
			}
			before = after
		}
	})
}

// A client with a subset calls no more instances than that, always the same ones; a broken one
// is replaced, and comes back. The decision, its shares and its counts are of all instances.
func TestClientCallsItsSubset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for i := range 60 {
			w.regions["us"].put("orders", fmt.Sprint("o", i), fmt.Sprint("o", i, ":80"), nil)
		}
		for i := range 20 {
			w.regions["eu"].put("orders", fmt.Sprint("x", i), fmt.Sprint("x", i, ":80"), nil)
		}
		client := func(id string) *Client {
			return w.client("us", func(cfg *Config) { cfg.Subset, cfg.ClientID = 10, id })
		}
		who := func(c *Client) string {
			got := pickedBy(t, c, 200)
			var ids []string
			for id, share := range got {
				ids = append(ids, string(id))
				if math.Abs(share-0.1) > 0.006 {
					t.Errorf("%s got %.3f", id, share)
				}
			}
			slices.Sort(ids)
			if len(ids) != 10 {
				t.Errorf("%d instances are called: %v", len(ids), ids)
			}
			return strings.Join(ids, " ")
		}
		c := client("pod-1")
		first := who(c)
		if again := who(client("pod-1")); again != first {
			t.Errorf("the same client calls others: %s, %s", first, again)
		}
		if other := who(client("pod-2")); other == first {
			t.Error("another client calls the same ones")
		}
		if anon := who(client("")); anon == who(client("")) {
			t.Error("two clients without a name call the same ones")
		}
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil || len(res.Endpoints) != 80 || res.Decision.Tiers[0].Usable != 60 || res.Decision.Tiers[0].Weight != 1 {
			t.Errorf("%d endpoints, %+v, %v", len(res.Endpoints), res.Decision.Tiers, err)
		}
		victim := strings.Fields(first)[3]
		s, _ := c.service("orders")
		s.mu.Lock()
		for _, in := range s.instances {
			if string(in.ref.ID) == victim {
				in.lease.Load().report(outcomeDown)
			}
		}
		s.mu.Unlock()
		synctest.Wait()
		if now := who(c); strings.Contains(now+" ", victim+" ") {
			t.Errorf("%s is broken, and called: %s", victim, now)
		}
		w.regions["us"].drain("us", 25)
		synctest.Wait()
		wantShares(t, "drained by a quarter", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.75, "eu": 0.25})
	})
}
