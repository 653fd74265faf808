// Package route holds the one decision that every door of Nearside makes: which endpoints
// a caller should use, in which shares and order, and why.
//
// [Decide] is a pure function: the same view, policy and caller give the same answer. It
// does no I/O, reads no clock and keeps no state, so the registry's resolve and explain,
// the SDK's picks and the tests all run the very same code.
//
// The laws it holds to, each a property test:
//
//   - weights of all tiers sum to 1 when anything is offered;
//   - a draining or critical endpoint is never offered while a usable one is allowed;
//   - the answer is never empty while any endpoint is known and allowed (panic routing): when
//     nothing usable is known all others share the traffic, see panic.go;
//   - a region outside Policy.Allowed is never offered, not even in panic;
//   - losing an endpoint never sends more traffic to its tier, whoever tells a capacity;
//   - a region drained p percent keeps (1-p/100) of what it would take otherwise while any
//     other allowed region that is not drained has usable instances, and one that is
//     drained wholly nothing;
//   - the age of what is known moves nothing away from where the traffic belongs: the
//     caller's region, or the nearest one when that has no instance. It only lowers how
//     much of a spill an older region is given.
//
// # Spill
//
// A region carries min(1, healthy/total × over-provisioning) of the traffic; the rest goes
// on, in order. Another region takes no more than its own usable instances would carry of
// the traffic that the caller's region has when whole, times a multiplier for age, so that
// two instances are not given a third of a hundred's work. What nobody can take then is
// spread over all by what they have usable, and flagged (Decision.Short). See DESIGN.md of this module for the numbers.
//
// Where a region's load is known (RegionView.Load) it decides instead of the count: all is kept up
// to Policy.SpillStart, and above so much that the region comes down to two thirds of the way from
// SpillStop to SpillStart, by no more than 20 points a second. What was spilled stays until the
// load falls below SpillStop, and comes back by the ramp. Another region of known load takes what
// it has to spare; what nobody has to spare stays. See load.go for why it does not swing. Laws:
//
//   - the more a region is used, the less it gets;
//   - a load changes shares only: tiers, their endpoints and their order are as without;
//   - where none is known, decisions are to the last digit what they were without;
//   - with a constant demand, and loads that are up to 20 s late and in classes, shares settle.
//
// Instances that are draining, starting or of weight 0 are no part of a region's total: that
// they take nothing is wished. Critical, overdue and broken ones are: that capacity is lost.
//
// [WhatIf] decides before and after a loss, and compares.
package route

import (
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// View is everything known about one service, by region.
type View struct {
	Key api.ServiceKey
	// Regions holds at most one entry per region, in any order. Regions without instances
	// may be left out.
	Regions []RegionView
}

// RegionView is what is known about the service in one region.
type RegionView struct {
	// Origin says how old and complete the knowledge is, and what is wished: Drained moves
	// that part of the traffic away (also of the caller's own region), Down ranks the region
	// after all that are not (it is not looked at for the caller's own). See Policy.Alike
	// for what of it a decision sees.
	Origin api.Origin
	// Endpoints of the service in that region: all of them for the caller's own registry,
	// the fail-over set for another region. Their Region must be Origin.Region.
	Endpoints []api.Endpoint
	// Total and Passing count the region's instances, Draining those of Total that are
	// draining; they may exceed len(Endpoints), and say what the endpoints do not tell then.
	// From a Summary: its fields of the same names. 0 = as the endpoints say.
	Total, Passing, Draining int
	// Load is how much of what its usable instances can take is used, in percent: as measured,
	// with all that was spilled to and from the region by then, or a class of it (a Summary's
	// Load). 0 = not known. It counts while the region was heard of in the last 17 seconds.
	Load float64
}

// EndpointRef identifies an endpoint among all regions.
type EndpointRef struct {
	Region api.Region
	ID     api.InstanceID
}

// Caller is the program that asks.
type Caller struct {
	Region api.Region
	Zone   api.Zone // may be empty
	// Broken holds the endpoints that the caller's own circuit breakers keep it from. They
	// are offered only when nothing else is left, and count as lost.
	Broken map[EndpointRef]struct{}

	// Memory is that of the caller's last decision, and Elapsed the time since it was made:
	// by them traffic comes back to nearer regions by and by (Policy.FailbackRamp), and a load
	// is understood, which was measured after a part was spilled. Callers without a memory
	// leave both out; then it comes back at once, and a load is taken for that of a region that
	// gets all of its traffic. Many callers for which one answers, such as those of a registry,
	// can share one [Memory.Loads].
	Memory  Memory
	Elapsed time.Duration
}

// Memory is what a decision is to know of the one before it.
type Memory struct {
	Shares []RegionShare // of the traffic, near to far; empty = nothing is remembered
	loads  []past        // of the regions whose load is known, or was a moment ago
}

// Loads returns the part of m that is about loads alone. By it spill by utilisation goes on where
// it was, and everything else is decided as if nothing were remembered.
func (m Memory) Loads() Memory { return Memory{loads: m.loads} }

// After returns m as it is after some time in which nothing moved and nothing was decided. With it
// Caller.Elapsed can be the time since there is something to move: a second or so. The time
// before is no part of a ramp.
func (m Memory) After(d time.Duration) Memory {
	m.loads = slices.Clone(m.loads)
	for i := range m.loads {
		m.loads[i].pass(d)
	}
	return m
}

// Spills reports whether m is of a decision that spilled by its load, or was about to.
func (m Memory) Spills() bool {
	for i := range m.loads {
		if p := &m.loads[i]; p.goal < 1 || p.kept < 1 {
			return true
		}
	}
	return false
}

// IsZero reports whether nothing is remembered.
func (m Memory) IsZero() bool { return len(m.Shares) == 0 && len(m.loads) == 0 }

// RegionShare is the share of the traffic that a region got, 0 to 1.
type RegionShare struct {
	Region api.Region
	Share  float64
}

func (m *Memory) of(r api.Region) float64 {
	for i := range m.Shares {
		if m.Shares[i].Region == r {
			return m.Shares[i].Share
		}
	}
	return 0
}

// Tier is one step away from the caller, with its endpoints: passing before warning, then
// by id. Endpoints point into the View; do not change them.
type Tier struct {
	api.Tier
	Endpoints []*api.Endpoint
}

// Decision is an ordered answer. Tiers with a weight take the traffic, each its share;
// those without are where a failed call is repeated, and at last (of kind last_resort) what
// is not to be called while anything else is left.
type Decision struct {
	Reason api.Reason
	Detail string
	Panic  bool // nothing usable is known; the tiers are all last resorts
	// Short tells that what is usable has not the room for all of the traffic, by health, capacity
	// and load: it is shared out all the same. Not told in panic, when nothing is usable.
	Short bool
	// Degraded tells that a region takes traffic of which all that is known is older than Policy.StaleLimit,
	// for want of better.
	Degraded bool
	Tiers    []Tier
	// Memory is for the caller's next decision. Ramping tells that traffic is on its way, to
	// nearer regions or by its load away from them, or that load calls for more of that than is
	// possible: decide again in a second or so.
	Memory  Memory
	Ramping bool
}
