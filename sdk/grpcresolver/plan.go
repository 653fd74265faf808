package grpcresolver

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// key names an instance across answers.
type key struct {
	region api.Region
	id     api.InstanceID
}

func keyOf(e *api.Endpoint) key { return key{e.Region, e.ID} }

// wanted is which instances a channel should be connected to.
type wanted struct {
	needed []*api.Endpoint // to call now
	warm   []*api.Endpoint // in case the needed ones are lost
}

// plan decides which connections a channel needs: those of the tiers that take traffic, and
// while none of them can be had (lost), tier by tier those of the next, so that a call does not
// wait until the client knows that a region is gone. Beside them a few of the next region are
// kept warm. rank orders the instances of a tier that has more than its part of most.
func plan(res *api.Resolution, lost func(key) bool, warm, most int, rank func(key) uint64) wanted {
	tiers := make([][]*api.Endpoint, len(res.Decision.Tiers))
	serving := 0
	for i := range res.Endpoints {
		e := &res.Endpoints[i]
		if e.Tier < 0 || e.Tier >= len(tiers) {
			continue
		}
		tiers[e.Tier] = append(tiers[e.Tier], e)
		if res.Decision.Tiers[e.Tier].Weight > 0 {
			serving++
		}
	}
	var w wanted
	used := map[api.Region]bool{}
	alive := false
	take := func(list []*api.Endpoint, n int) {
		for _, e := range choose(list, n, rank) {
			w.needed = append(w.needed, e)
			used[e.Region] = true
			alive = alive || !lost(keyOf(e))
		}
	}
	for i, list := range tiers {
		if res.Decision.Tiers[i].Weight > 0 {
			take(list, part(len(list), serving, most))
		}
	}
	next := 0
	for ; !alive && next < len(tiers); next++ {
		if res.Decision.Tiers[next].Weight <= 0 {
			take(tiers[next], most)
		}
	}
	for i := next; i < len(tiers) && warm > 0; i++ {
		t := &res.Decision.Tiers[i]
		if t.Kind == api.TierFar && t.Weight <= 0 && !used[t.Region] && len(tiers[i]) > 0 {
			w.warm = choose(tiers[i], warm, rank)
			break
		}
	}
	return w
}

// part is how many of a tier's n instances are connected when all serving tiers together may
// have so many connections; a tier that takes traffic never has none.
func part(n, all, most int) int {
	if all <= most {
		return n
	}
	return max(n*most/all, 1)
}

// choose returns n of the list, always the same ones as long as they are in it.
func choose(list []*api.Endpoint, n int, rank func(key) uint64) []*api.Endpoint {
	if len(list) <= n {
		return list
	}
	type ranked struct {
		rank uint64
		e    *api.Endpoint
	}
	all := make([]ranked, len(list))
	for i, e := range list {
		all[i] = ranked{rank(keyOf(e)), e}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	chosen := make([]*api.Endpoint, n)
	for i := range chosen {
		chosen[i] = all[i].e
	}
	return chosen
}

// rankBy orders instances in another way for every seed, so that channels choose differently.
func rankBy(seed maphash.Seed) func(key) uint64 {
	return func(k key) uint64 { return maphash.Comparable(seed, k) }
}
