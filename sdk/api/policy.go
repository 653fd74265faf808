package api

import "time"

// OrderBy says how a policy ranks other regions.
type OrderBy string

// The ways to rank other regions.
const (
	OrderListed OrderBy = "listed" // Policy.Order first, the others by measured round-trip time
	OrderRTT    OrderBy = "rtt"    // measured round-trip time alone
)

// Policy is a consumer region's rule for the callers of a service. A zero field takes the
// value of the region's default policy, and where that is zero too the default named here.
// Residency (Allowed, LocalOnly) holds under all circumstances; everything else yields
// before an empty answer would.
type Policy struct {
	// Allowed lists the only regions that may serve; empty = all.
	Allowed []Region `json:"allowed,omitempty"`
	// LocalOnly forbids every region but the caller's own; nil = the default's, at last false.
	LocalOnly *bool `json:"local_only,omitempty"`
	// OrderBy ranks the other regions; default listed.
	OrderBy OrderBy `json:"order_by,omitempty"`
	// Order lists other regions to prefer, nearest first.
	Order []Region `json:"order,omitempty"`
	// MinHealthy is the share of a region's instances, in percent, 0 to 100, below which
	// the region's tier gives up all of its traffic while another has more; default 0 = never.
	MinHealthy *float64 `json:"min_healthy,omitempty"`
	// OverProvisioning says how much more than its share of healthy instances a tier carries
	// before traffic spills: 1.4 (the default) means all of it down to 71 % healthy. 1 to 100. Where
	// the region's load is known that decides instead.
	OverProvisioning *float64 `json:"over_provisioning,omitempty"`
	// SpillStart and SpillStop are the utilisation, in percent, above which a tier with known load
	// begins to spill, and below which that comes back; defaults 80 and 65. Stop must be below
	// start. What is spilled brings the tier to two thirds of the way from stop to start: 75.
	SpillStart *float64 `json:"spill_start,omitempty"`
	SpillStop  *float64 `json:"spill_stop,omitempty"`
	// StaleLimit is the age from which another region is used only when nothing else is left;
	// default 15 minutes, 5 s to 30 days.
	StaleLimit Duration `json:"stale_limit,omitempty"`
	// FailbackRamp is the time over which traffic returns to a nearer tier; default 30 s, at most
	// an hour; a pointer, because 0 = at once.
	FailbackRamp *Duration `json:"failback_ramp,omitempty"`
	// KeepWarm is the share of calls, in percent, 0 to 10, sent to the next region while nothing is
	// wrong, so that the way there is known to work; default 0.
	KeepWarm *float64 `json:"keep_warm,omitempty"`
}

// PolicyRecord is a stored policy. Service "*" is the namespace's default.
type PolicyRecord struct {
	Namespace Namespace   `json:"ns"`
	Service   ServiceName `json:"service"`
	Policy    Policy      `json:"policy"`
	// Revision of the last change in this region; give it back as ?if_revision= to write
	// only over what was read.
	Revision uint64 `json:"revision"`
	// Version counts the changes of this record, from 1.
	Version uint64    `json:"version"`
	Note    string    `json:"note,omitempty"`
	Actor   string    `json:"actor,omitempty"`
	Time    time.Time `json:"time,omitzero"`
}

// PolicyDefault is the service name under which a namespace's default policy stands.
const PolicyDefault ServiceName = "*"
