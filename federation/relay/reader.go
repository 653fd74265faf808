package relay

import (
	"hash/fnv"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Reader returns which node of a region reads a peer for all of them: one that all nodes agree on
// without a word, and that changes for few peers when a node comes or goes (rendezvous hashing).
// "" when there are no nodes. Their order does not matter.
func Reader(nodes []string, peer api.Region) string {
	var best string
	var most uint64
	for _, n := range nodes {
		h := fnv.New64a()
		_, _ = h.Write([]byte(n + "/" + string(peer))) // never fails
		// FNV's high bits hardly know the last bytes: mixed once more.
		x := h.Sum64()
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
		x ^= x >> 33
		if best == "" || x > most || x == most && n < best {
			best, most = n, x
		}
	}
	return best
}

// LacksNear is Lacks for a reader that is another node of our own region. It trusts us, and we may be
// all it has: what is old, unsigned, or only known from disk is of use too.
func LacksNear(v *replica.View) string {
	switch {
	case v.Version.IsZero(), v.Gone:
		return "nothing is known of it here"
	case v.Quarantined > 0:
		return "some of its rows are not used here"
	}
	return ""
}
