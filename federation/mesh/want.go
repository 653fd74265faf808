package mesh

import (
	"cmp"
	"slices"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// When a service that is served from another region is read whole there, and for how long.
const (
	// detailAfter is how long a service has been served from a region before: a passing failure is
	// not worth it, the fail-over set carries that.
	detailAfter = 2 * time.Second
	// detailHold is how long after its last use it goes on.
	detailHold = time.Minute
	// maxOpenDetails is how many services of one region are read whole: as many as it tells to one
	// reader region.
	maxOpenDetails = peer.MaxReaderDetails
)

// detailKey names a service of a region.
type detailKey struct {
	origin  api.Region
	service api.ServiceKey
}

// use says that callers of this region were sent there.
type use struct {
	detailKey
	first, last time.Duration // of the uses since it was last unused for detailHold
}

// want decides which details to have, from the uses and whether each is open; those of one region
// that were used last come first.
func want(now time.Duration, uses []use, open func(detailKey) bool) []detailKey {
	uses = slices.DeleteFunc(slices.Clone(uses), func(u use) bool {
		return now-u.last >= detailHold || u.last-u.first < detailAfter && !open(u.detailKey)
	})
	slices.SortFunc(uses, func(a, b use) int {
		return cmp.Or(
			cmp.Compare(b.last, a.last), cmp.Compare(a.first, b.first), cmp.Compare(a.origin, b.origin),
			cmp.Compare(a.service.Namespace, b.service.Namespace), cmp.Compare(a.service.Service, b.service.Service),
		)
	})
	var out []detailKey
	of := make(map[api.Region]int)
	for _, u := range uses {
		if of[u.origin] < maxOpenDetails {
			of[u.origin]++
			out = append(out, u.detailKey)
		}
	}
	return out
}
