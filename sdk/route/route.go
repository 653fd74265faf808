// Package route holds the one decision that every door of Nearside makes: which endpoints
// a caller should use, in which order, and why.
//
// [Decide] is a pure function: the same view, policy and caller give the same answer. It
// does no I/O, reads no clock and keeps no state, so the registry's resolve and explain,
// the SDK's picks and the tests all run the very same code.
//
// The laws it holds to, each a property test:
//
//   - weights of all tiers sum to 1 when anything is offered;
//   - a draining or critical endpoint is never offered while a usable one is allowed;
//   - the answer is never empty while any endpoint is known and allowed (panic routing);
//   - a region outside Policy.Allowed is never offered, not even in panic;
//   - losing an endpoint never sends more traffic to its tier.
//
// In this version a tier takes all of the traffic or none; the tiers behind it are kept
// in order as the places to retry at.
package route

import "github.com/nearside/nearside/sdk/api"

// View is everything known about one service, by region.
type View struct {
	Key api.ServiceKey
	// Regions holds at most one entry per region, in any order.
	Regions []RegionView
}

// RegionView is what is known about the service in one region.
type RegionView struct {
	// Origin says how old and complete the knowledge is. Its State ranks regions: fresh
	// and stale ones first, then suspect, then expired.
	Origin api.Origin
	// Endpoints of the service in that region: all of them for the caller's own registry,
	// the fail-over set for another region.
	Endpoints []api.Endpoint
	// Total and Passing count the region's instances; they may exceed len(Endpoints).
	Total, Passing int
}

// Policy is the consumer region's rule for a service. The zero value allows every region
// and orders them by measured round-trip time, then by name.
type Policy struct {
	// Order lists regions to prefer, nearest first; the others follow by round-trip time.
	Order []api.Region
	// Allowed lists the only regions that may serve (data residency); empty = all.
	Allowed []api.Region
	// LocalOnly forbids every region but the caller's.
	LocalOnly bool
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
	// are offered only when nothing else is left.
	Broken map[EndpointRef]struct{}
}

// Tier is one step away from the caller, with its endpoints: passing before warning, then
// by id. Endpoints point into the View; do not change them.
type Tier struct {
	api.Tier
	Endpoints []*api.Endpoint
}

// Decision is an ordered answer. Tiers with a weight take the traffic; those behind them
// are where a failed call is repeated.
type Decision struct {
	Reason api.Reason
	Detail string
	Panic  bool
	Tiers  []Tier
}
