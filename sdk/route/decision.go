package route

import (
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// Wire returns the decision as doors show it, without the endpoints. Its Region is the one
// that takes most of the traffic, the nearest of equals.
func (d Decision) Wire() api.Decision {
	w := api.Decision{Reason: d.Reason, Detail: d.Detail, Panic: d.Panic, Short: d.Short, Degraded: d.Degraded, Tiers: make([]api.Tier, len(d.Tiers))}
	most := 0.0
	for i := range d.Tiers {
		w.Tiers[i] = d.Tiers[i].Tier
		if share := d.share(d.Tiers[i].Region); share > most {
			w.Region, most = d.Tiers[i].Region, share
		}
	}
	return w
}

// Endpoints returns copies of the endpoints, best first, with Tier set: tier by tier, those
// that take traffic and behind them those to retry at. While a usable endpoint is known the
// last resorts are left out. At most limit are returned; 0 or less means all.
func (d Decision) Endpoints(limit int) []api.Endpoint { return d.list(-1, limit) }

// EndpointsAt is Endpoints for doors that can only give a list, of which the caller takes
// the first: the tier whose turn it is comes first, the others follow in their order. u, 0
// to below 1, says whose turn that is; draw it at random for each answer, or step through,
// and the callers get the shares of the tiers in the long run.
func (d Decision) EndpointsAt(u float64, limit int) []api.Endpoint { return d.list(d.At(u), limit) }

// At returns the tier whose turn it is at u, 0 to below 1; -1 when there is none.
func (d Decision) At(u float64) int {
	last := -1
	for i := range d.Tiers {
		if w := d.Tiers[i].Weight; w > 0 {
			last = i
			if u -= w; u < 0 {
				return i
			}
		}
	}
	return last
}

// list lists tier first, then the others; below 0 is the plain order.
func (d Decision) list(first, limit int) []api.Endpoint {
	out := []api.Endpoint{}
	if first >= 0 {
		out = d.append(out, first, limit)
	}
	for i := range d.Tiers {
		if i != first && d.listed(i) {
			out = d.append(out, i, limit)
		}
	}
	return out
}

// listed reports whether a tier is offered or there to retry at.
func (d Decision) listed(i int) bool {
	t := &d.Tiers[i]
	return d.Panic || t.Kind != api.TierOverflow || t.Weight > 0
}

func (d Decision) append(out []api.Endpoint, tier, limit int) []api.Endpoint {
	list := d.Tiers[tier].Endpoints
	if limit > 0 && len(out)+len(list) > limit {
		list = list[:limit-len(out)]
	}
	out = slices.Grow(out, len(list))
	for _, e := range list {
		c := *e
		c.Tier = tier
		out = append(out, c)
	}
	return out
}

// Offered returns the endpoints of the tiers that take traffic, near to far. They point into
// the View; do not change the slice.
func (d Decision) Offered() []*api.Endpoint {
	var out []*api.Endpoint
	for i := range d.Tiers {
		switch t := &d.Tiers[i]; {
		case t.Weight <= 0:
		case out == nil:
			out = t.Endpoints[:len(t.Endpoints):len(t.Endpoints)]
		default:
			out = append(out, t.Endpoints...)
		}
	}
	return out
}
