package route

import "github.com/nearside/nearside/sdk/api"

// class ranks endpoints by how good a reason there is to call them. A lower class is
// exhausted, near to far, before the next one is touched.
type class uint8

const (
	usable    class = iota // passing or warning
	thin                   // as usable, but too few of its region are (Policy.MinHealthy)
	drained                // as usable, but its region is drained wholly
	overdue                // as usable, but its heartbeats stopped and the brake holds it
	forgotten              // as usable, but all that is known of its region is too old
	broken                 // the caller's own calls to it keep failing
	unshared               // weight 0: the operator wants no traffic there
	draining
	starting
	critical
	refused // the policy forbids its region: never offered

	// down is added to the class of a region's endpoints when the region is down.
	down class = 16
)

// panicking tells whether offering the class means that nothing usable is known.
func (c class) panicking() bool {
	return c != usable && c != thin && c != drained && c != forgotten
}

// lastResort tells whether the class is to be called only when nothing else is left.
func (c class) lastResort() bool { return c.panicking() || c == drained }

// classify ranks e by itself, whatever its region is.
func classify(e *api.Endpoint, c *Caller) class {
	switch e.Status {
	case api.StatusPassing, api.StatusWarning:
	case api.StatusDraining:
		return draining
	case api.StatusStarting:
		return starting
	default:
		return critical
	}
	if e.Weight <= 0 {
		return unshared
	}
	if len(c.Broken) > 0 {
		if _, ok := c.Broken[EndpointRef{Region: e.Region, ID: e.ID}]; ok {
			return broken
		}
	}
	if e.Overdue {
		return overdue
	}
	return usable
}

// within ranks an endpoint of class k, as classify says, with what is known of its region.
func (p *place) within(k class) class {
	switch {
	case p.refused:
		return refused
	case p.expired && (k == usable || k == overdue):
		k = forgotten
	case k == usable && p.drain >= 100:
		k = drained
	case k == usable && p.thin:
		k = thin
	}
	if p.down {
		k += down
	}
	return k
}
