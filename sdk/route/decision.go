package route

import "github.com/nearside/nearside/sdk/api"

// Wire returns the decision as doors show it, without the endpoints.
func (d Decision) Wire() api.Decision {
	w := api.Decision{Reason: d.Reason, Detail: d.Detail, Panic: d.Panic, Tiers: make([]api.Tier, len(d.Tiers))}
	for i := range d.Tiers {
		w.Tiers[i] = d.Tiers[i].Tier
		if d.Tiers[i].Weight > 0 && w.Region == "" {
			w.Region = d.Tiers[i].Region
		}
	}
	return w
}

// Endpoints returns copies of the endpoints, best first, with Tier set: those that take
// traffic, and behind them those to retry at. While a usable endpoint is known the
// last-resort tiers are left out. At most limit are returned; 0 or less means all.
func (d Decision) Endpoints(limit int) []api.Endpoint {
	out := []api.Endpoint{}
	for i := range d.Tiers {
		t := &d.Tiers[i]
		if t.Kind == api.TierOverflow && !d.Panic {
			break
		}
		for _, e := range t.Endpoints {
			if limit > 0 && len(out) == limit {
				return out
			}
			c := *e
			c.Tier = i
			out = append(out, c)
		}
	}
	return out
}

// Offered returns the endpoints of the tiers that take traffic. They point into the View.
func (d Decision) Offered() []*api.Endpoint {
	for i := range d.Tiers {
		if d.Tiers[i].Weight > 0 {
			return d.Tiers[i].Endpoints
		}
	}
	return nil
}
