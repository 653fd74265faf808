package nearside

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/sdk/route"
)

// Points of a ring: an instance of the greatest weight has ringPoints to twice as many, others
// in proportion, and all together at most maxPoints.
const (
	ringPoints = 64
	maxPoints  = 1 << 18
)

// ring is a consistent hash ring. Where an instance's points are depends on nothing but itself
// (its name and its weight), so that one that comes or goes moves no other. It never changes.
type ring struct {
	hashes  []uint64 // in order
	owners  []uint32 // places in members, of each
	members []member
}

type member struct {
	ref    route.EndpointRef
	points int
}

// newRing returns the ring of the candidates; its places are theirs. Points of before that
// stay are taken over: sorting them all would hold a great service up at each change.
func newRing(list []Candidate, before *ring) *ring {
	r := &ring{members: members(list)}
	if before != nil && slices.Equal(r.members, before.members) {
		return before
	}
	places := make(map[member]uint32, len(list))
	for i, m := range r.members {
		places[m] = uint32(i)
	}
	type point struct {
		hash  uint64
		owner uint32
	}
	var kept, fresh []point
	if before != nil {
		moved := make([]int64, len(before.members)) // where their points go; below 0 = nowhere
		for i, m := range before.members {
			moved[i] = -1
			if place, ok := places[m]; ok {
				moved[i] = int64(place)
				delete(places, m)
			}
		}
		for i, h := range before.hashes {
			if to := moved[before.owners[i]]; to >= 0 {
				kept = append(kept, point{h, uint32(to)})
			}
		}
	}
	for m, place := range places {
		base := xxhash.Sum64String(string(m.ref.Region) + "/" + string(m.ref.ID))
		for k := range m.points {
			fresh = append(fresh, point{mix(base + uint64(k)*golden), place})
		}
	}
	slices.SortFunc(fresh, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	n := len(kept) + len(fresh)
	r.hashes, r.owners = make([]uint64, 0, n), make([]uint32, 0, n)
	for len(kept)+len(fresh) > 0 {
		from := &kept
		if len(kept) == 0 || len(fresh) > 0 && fresh[0].hash < kept[0].hash {
			from = &fresh
		}
		r.hashes, r.owners = append(r.hashes, (*from)[0].hash), append(r.owners, (*from)[0].owner)
		*from = (*from)[1:]
	}
	return r
}

// members says how many points each candidate has. The scale is a power of two, so that it is
// the same for nearly all sets of the same service, whatever its weights are.
func members(list []Candidate) []member {
	most, sum := 1, 0.0
	for i := range list {
		most = max(most, list[i].Endpoint.Weight)
		sum += float64(max(list[i].Endpoint.Weight, 1))
	}
	scale := math.Exp2(math.Ceil(math.Log2(ringPoints / float64(most))))
	for sum*scale > maxPoints {
		scale /= 2
	}
	out := make([]member, len(list))
	for i := range list {
		e := list[i].Endpoint
		points := max(1, int(float64(max(e.Weight, 1))*scale+0.5))
		out[i] = member{route.EndpointRef{Region: e.Region, ID: e.ID}, points}
	}
	return out
}

// find returns the place of the first point at or after h, around the ring.
func (r *ring) find(h uint64) int {
	i := sort.Search(len(r.hashes), func(i int) bool { return r.hashes[i] >= h })
	if i == len(r.hashes) {
		return 0
	}
	return i
}

// mix spreads the bits of x (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
