package api

// Reason says why an answer is what it is: a closed list.
type Reason string

// The reasons, from the nearest answer to none.
const (
	ReasonSameZone        Reason = "same_zone"          // usable instances in the caller's zone
	ReasonSameRegion      Reason = "same_region"        // none in the zone, or no zone given
	ReasonLocalAbsent     Reason = "local_absent"       // the region has no instance of it: normal for some services
	ReasonLocalUnhealthy  Reason = "local_unhealthy"    // the region's instances are not usable
	ReasonLocalDraining   Reason = "local_draining"     // the region's instances are all draining
	ReasonLocalBroken     Reason = "local_breaker_open" // the caller's own calls to them keep failing
	ReasonRegionDrained   Reason = "region_drained"     // a drain sends some or all of the near traffic elsewhere, or nothing else than a drained region is left
	ReasonSpill           Reason = "spill"              // the near instances cannot take all of it: a part goes on
	ReasonPanic           Reason = "panic"              // nothing usable anywhere: offering what is known
	ReasonServiceNotFound Reason = "service_not_found"  // no region known has it
	ReasonNoInstances     Reason = "no_instances"       // known once, but nothing is left to offer
)

// TierKind names the steps away from the caller.
type TierKind string

// The tiers, near to far.
const (
	TierZone     TierKind = "same_zone"
	TierRegion   TierKind = "same_region"
	TierFar      TierKind = "region"      // another region
	TierOverflow TierKind = "last_resort" // not usable in normal times, kept for panic
)

// Tier is one step of a decision.
type Tier struct {
	Tier   int      `json:"tier"` // 0 is the nearest
	Kind   TierKind `json:"kind"`
	Region Region   `json:"region"`
	Zone   Zone     `json:"zone,omitempty"`
	Weight float64  `json:"weight"` // share of traffic; all tiers sum to 1 when any endpoint is offered
	Usable int      `json:"usable"`
	Total  int      `json:"total"`
}

// Decision is the outcome of route.Decide without its endpoints.
type Decision struct {
	Reason Reason `json:"reason"`
	Detail string `json:"detail"` // one sentence for people
	Panic  bool   `json:"panic,omitempty"`
	// Short: what is usable has not the room for all of the traffic; it is shared out all the same.
	Short bool `json:"short,omitempty"`
	// Degraded: a region takes traffic of which all knowledge is older than the policy's stale limit.
	Degraded bool   `json:"degraded,omitempty"`
	Region   Region `json:"region,omitempty"` // that serves: of the tier with the greatest weight
	Tiers    []Tier `json:"tiers"`
	// ID names what the decision was made from: versions, policy, caller, breakers. Two answers of one id were
	// made from the same. Empty = not told.
	ID string `json:"id,omitempty"`
}

// Resolution is the body of GET /v1/resolve/{service}: endpoints best first.
type Resolution struct {
	Service   ServiceName `json:"service"`
	Namespace Namespace   `json:"ns"`
	Endpoints []Endpoint  `json:"endpoints"`
	Decision  Decision    `json:"decision"`
	// Policy is the one in force, merged with the default; nil = none is set.
	Policy *Policy `json:"policy,omitempty"`
	// Loads is how much of what the service's usable instances can take is used, by region, in
	// percent and classes (see LoadClass), where it is known.
	Loads map[Region]int `json:"loads,omitempty"`
	Views []Origin       `json:"views"` // what the answer was made from
}

// TraceStep is one step of the funnel: how many were left, and why the others went.
type TraceStep struct {
	Step    string      `json:"step"`
	In      int         `json:"in"`
	Out     int         `json:"out"`
	Note    string      `json:"note,omitempty"`    // what the step found, for people
	Dropped []TraceDrop `json:"dropped,omitempty"` // at most MaxTraceDrops, then counted only
}

// MaxTraceDrops bounds the named endpoints of one TraceStep.
const MaxTraceDrops = 32

// TraceDrop names an endpoint that left the funnel, and why.
type TraceDrop struct {
	ID     InstanceID `json:"id"`
	Region Region     `json:"region"`
	Why    string     `json:"why"`
}

// Trace is the record of one decision.
type Trace struct {
	Steps []TraceStep `json:"steps"`
	// WouldChange lists what would make the answer another one, nearest first.
	WouldChange []string `json:"would_change,omitempty"`
}

// Explanation is the body of GET /v1/explain/{service}.
type Explanation struct {
	Resolution
	From  string `json:"from"` // region or region/zone of the caller
	Trace Trace  `json:"trace"`
}
