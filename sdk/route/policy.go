package route

import (
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Defaults of a Policy's fields.
const (
	DefaultOverProvisioning = 1.4
	DefaultSpillStart       = 80.0
	DefaultSpillStop        = 65.0
	DefaultStaleLimit       = 15 * time.Minute
	DefaultFailbackRamp     = 30 * time.Second
	// MaxKeepWarm is the most of the calls, in percent, that keep a way warm.
	MaxKeepWarm = 10.0
)

// Policy is the consumer region's rule for a service. The zero value allows every region
// and orders them by measured round-trip time, then by name. [PolicyOf] makes one from its
// wire form; [Policy.Narrow] adds a caller's own wishes to it. Values out of range count as
// the nearest one in range.
type Policy struct {
	// Order lists regions to prefer, nearest first; the others follow by round-trip time.
	Order []api.Region
	// OrderBy OrderRTT leaves Order aside.
	OrderBy api.OrderBy
	// Allowed lists the only regions that may serve (data residency); empty = all.
	Allowed []api.Region
	// LocalOnly forbids every region but the caller's.
	LocalOnly bool
	// MinHealthy is the share of a region's instances, in percent, below which it is passed
	// over while another region has at least that share; 0 = never.
	MinHealthy float64
	// OverProvisioning is how much more than its share of healthy instances a region
	// carries before traffic spills, 1 to 100; 0 = DefaultOverProvisioning. It is for a region of
	// which no load is known.
	OverProvisioning float64
	// SpillStart and SpillStop are utilisations in percent: above the first a region with known
	// load begins to spill, below the second what it spilled comes back. 1 to 100, and 0 to
	// below SpillStart; 0 = DefaultSpillStart, and DefaultSpillStop or as far below SpillStart.
	// Below 0 is a SpillStop of 0.
	SpillStart, SpillStop float64
	// StaleLimit is the age from which another region is used only when nothing else is
	// left; 0 = DefaultStaleLimit.
	StaleLimit time.Duration
	// FailbackRamp is the time over which all of the traffic would return to a nearer region;
	// 0 = DefaultFailbackRamp, below 0 = at once. It needs Caller.Memory.
	FailbackRamp time.Duration
	// KeepWarm is the share of calls, in percent, 0 to MaxKeepWarm, sent to the next region
	// while nothing is wrong; 0 = none.
	KeepWarm float64

	none bool // no region may serve: narrowed to nothing
}

// PolicyOf returns the wire form's rule; nil is the zero Policy.
func PolicyOf(p *api.Policy) Policy {
	if p == nil {
		return Policy{}
	}
	ramp := time.Duration(deref(p.FailbackRamp))
	if p.FailbackRamp != nil && ramp == 0 {
		ramp = -1
	}
	stop := deref(p.SpillStop)
	if p.SpillStop != nil && stop == 0 {
		stop = -1
	}
	return Policy{
		FailbackRamp: ramp, SpillStart: deref(p.SpillStart), SpillStop: stop,

		Order: p.Order, OrderBy: p.OrderBy, Allowed: p.Allowed, LocalOnly: deref(p.LocalOnly),
		MinHealthy: deref(p.MinHealthy), OverProvisioning: deref(p.OverProvisioning),
		StaleLimit: time.Duration(p.StaleLimit), KeepWarm: deref(p.KeepWarm),
	}
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Narrow returns p with the caller's own wishes. Residency only ever narrows: a region must
// be allowed by both, and one LocalOnly is enough; of two StaleLimits the shorter counts.
// Of the other fields those that own sets (not zero) take the place of p's; an Order of its
// own also replaces p's OrderBy.
func (p Policy) Narrow(own Policy) Policy {
	n := p
	n.LocalOnly = p.LocalOnly || own.LocalOnly
	n.none = p.none || own.none
	switch {
	case len(p.Allowed) == 0:
		n.Allowed = own.Allowed
	case len(own.Allowed) > 0:
		n.Allowed = nil
		for _, r := range p.Allowed {
			if slices.Contains(own.Allowed, r) {
				n.Allowed = append(n.Allowed, r)
			}
		}
		n.none = n.none || len(n.Allowed) == 0
	}
	if len(own.Order) > 0 || own.OrderBy != "" {
		n.Order, n.OrderBy = own.Order, own.OrderBy
	}
	if own.StaleLimit > 0 && (p.StaleLimit <= 0 || own.StaleLimit < p.StaleLimit) {
		n.StaleLimit = own.StaleLimit
	}
	if own.FailbackRamp != 0 {
		n.FailbackRamp = own.FailbackRamp
	}
	for _, f := range [...]struct{ to, from *float64 }{
		{&n.MinHealthy, &own.MinHealthy},
		{&n.OverProvisioning, &own.OverProvisioning},
		{&n.KeepWarm, &own.KeepWarm},
		{&n.SpillStart, &own.SpillStart},
		{&n.SpillStop, &own.SpillStop},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	return n
}

// allows reports whether region r may serve a caller of region home.
func (p Policy) allows(r, home api.Region) bool {
	if p.none || p.LocalOnly && r != home {
		return false
	}
	return len(p.Allowed) == 0 || slices.Contains(p.Allowed, r)
}

func (p *Policy) overProvisioning() float64 {
	if !(p.OverProvisioning > 0) { // also not a number
		return DefaultOverProvisioning
	}
	return clamp(p.OverProvisioning, 1, 100)
}

// Strained reports whether a region with this load, in percent, begins to spill.
func (p Policy) Strained(load float64) bool {
	start, _, _ := p.band()
	return load > start
}

// band returns the utilisations, in percent, above which a region begins to spill, to which it
// is brought, and below which what was spilled comes back. The aim is two thirds of the way up
// from stop to start: 75 by default.
func (p *Policy) band() (start, aim, stop float64) {
	start, stop = DefaultSpillStart, DefaultSpillStop
	if p.SpillStart > 0 {
		start = clamp(p.SpillStart, 1, 100)
	}
	switch {
	case p.SpillStop < 0:
		stop = 0
	case p.SpillStop > 0:
		stop = p.SpillStop
	}
	if stop >= start { // of two that were not set together
		stop = start * DefaultSpillStop / DefaultSpillStart
	}
	return start, stop + (start-stop)*2/3, stop
}

// clamp bounds x; what is not a number is low.
func clamp(x, low, high float64) float64 {
	if !(x > low) {
		return low
	}
	return min(x, high)
}

// Ages at which knowledge of another region begins to count for less, and how.
const (
	freshUntil = 5 * time.Second
	halfAt     = 30 * time.Second
	ageFloor   = 0.1
)

// expired reports whether what is known of another region is too old to go by.
func (p *Policy) expired(o *api.Origin) bool {
	age := time.Duration(o.AgeMS) * time.Millisecond
	if p.StaleLimit <= 0 || o.State == api.AgeExpired && age < DefaultStaleLimit { // never heard of
		return o.State == api.AgeExpired || age >= DefaultStaleLimit
	}
	return age >= p.StaleLimit
}

// ageShare is the part of another region's capacity that is counted on when traffic is
// spilled: 1 while fresh, then falling by the same step each second through a half at 30 s
// to a tenth, where it stays until StaleLimit. It is in steps of a tenth, so that a decision
// changes eight times in the ageing of a region and not at each look. A region that is
// suspect for another cause than its age has the least.
func ageShare(o *api.Origin) float64 {
	age := time.Duration(o.AgeMS) * time.Millisecond
	switch {
	case o.State == api.AgeExpired, o.State == api.AgeSuspect && age < halfAt:
		return ageFloor
	case age < freshUntil:
		return 1
	}
	tenths := 10 - int(float64(age-freshUntil)/float64(halfAt-freshUntil)*5+0.5)
	return float64(max(tenths, 1)) / 10
}

// Alike reports whether a decision sees a and b, two accounts of one region, as the same: an
// answer made from one may be given again for the other, if the endpoints, counts and load are the
// same too. Age, for one, matters only in a few steps.
func (p Policy) Alike(a, b api.Origin) bool {
	return a.Region == b.Region && a.Drained == b.Drained && a.Down == b.Down &&
		distanceMS(a.RTTMS) == distanceMS(b.RTTMS) && ageShare(&a) == ageShare(&b) && p.expired(&a) == p.expired(&b)
}
