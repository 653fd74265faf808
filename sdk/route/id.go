package route

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// DecisionID names what a decision was made from: the caller's place, each region's version, what a
// decision sees of its age, load, drain and death, the policy, and the endpoints that breakers keep
// the caller from. Two decisions of one id were made from the same; which of the two versions of a
// region is the newer it does not tell. It is 16 hex digits, the same on every machine (FNV-1a,
// 64 bits), and no secret. What the caller remembers (Caller.Memory) is not in it.
func DecisionID(v View, p Policy, c Caller) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s|%s/%s|%+v", v.Key, c.Region, c.Zone, p)
	order := make([]int, len(v.Regions))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(v.Regions[a].Origin.Region, v.Regions[b].Origin.Region) })
	for _, i := range order {
		r := &v.Regions[i]
		o := &r.Origin
		fmt.Fprintf(h, "|%s/%s/%d %v %t %v %t %d", o.Region, o.Epoch, o.Revision, o.Drained, o.Down, ageShare(o), p.expired(o), len(r.Endpoints))
		if r.Load > 0 {
			fmt.Fprintf(h, " %v", r.Load)
		}
	}
	refs := make([]EndpointRef, 0, len(c.Broken))
	for ref := range c.Broken {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b EndpointRef) int { return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.ID, b.ID)) })
	for _, ref := range refs {
		fmt.Fprintf(h, "|%s/%s", ref.Region, ref.ID)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
