package nearside

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/sdk/api"
)

// Subsetting: of a tier of thousands of instances one client calls a part, so that it holds
// connections to these only. Which ones is decided by rendezvous hashing (Thaler, Ravishankar
// 1998) of Config.ClientID with each instance, as gRPC's random subsetting does (A68): the
// same each time; another part for each client and service, so that all instances are
// called alike by many clients; and one instance that comes or goes changes it by one. Each
// zone of the tier is in it by the number of its instances.
//
// Only who is called is narrowed, after the decision: health, capacity and shares of tiers
// are those of all instances. One that breaks leaves the tier, and the next in order takes
// its place in the subset.
const (
	minSubset   = 8 // tries of one call
	subsetIsOff = 0
)

func checkSubset(n int) error {
	if n != subsetIsOff && n < minSubset {
		return fmt.Errorf("%d is below %d instances: one call may need as many; leave it out to call all", n, minSubset)
	}
	return nil
}

// subset returns n of the endpoints, in their order; all when there are no more.
func subset(list []*api.Endpoint, n int, client uint64) []*api.Endpoint {
	if n <= 0 || len(list) <= n {
		return list
	}
	type scored struct {
		score uint64
		place int
	}
	zones := map[api.Zone][]scored{}
	for i, e := range list {
		h := xxhash.Sum64String(string(e.Region) + "/" + string(e.ID))
		zones[e.Zone] = append(zones[e.Zone], scored{mix(client ^ h), i})
	}
	sizes := make(map[api.Zone]int, len(zones))
	for z, of := range zones {
		sizes[z] = len(of)
	}
	var chosen []int
	for z, quota := range quotas(sizes, n) {
		of := zones[z]
		slices.SortFunc(of, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.place, b.place)) })
		for _, s := range of[:quota] {
			chosen = append(chosen, s.place)
		}
	}
	slices.Sort(chosen)
	out := make([]*api.Endpoint, len(chosen))
	for i, place := range chosen {
		out[i] = list[place]
	}
	return out
}

// quotas divides n among zones by their sizes, whose sum is above n: each gets the whole part
// of its share, and those with the greatest remainders one more.
func quotas(sizes map[api.Zone]int, n int) map[api.Zone]int {
	all := 0
	names := make([]api.Zone, 0, len(sizes))
	for z, size := range sizes {
		all += size
		names = append(names, z)
	}
	out, left := make(map[api.Zone]int, len(sizes)), n
	for _, z := range names {
		out[z] = n * sizes[z] / all
		left -= out[z]
	}
	slices.SortFunc(names, func(a, b api.Zone) int {
		return cmp.Or(cmp.Compare(n*sizes[b]%all, n*sizes[a]%all), cmp.Compare(a, b))
	})
	for _, z := range names[:left] {
		out[z]++
	}
	return out
}

// seed is the client's part in the choice of a service's subset.
func (c *Client) seed(key api.ServiceKey) uint64 {
	return xxhash.Sum64String(c.cfg.ClientID + " " + key.String())
}
