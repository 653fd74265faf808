package api

// FrameKind is the SSE event name of a watch frame.
type FrameKind string

// The frames of GET /v1/watch. After connecting: items, then (with ?far=true) replicas,
// then synced, then changes in revision order. A reset means that the history asked for
// is gone: forget nothing yet, items follow on the same stream, and at the next synced
// whatever was not sent again no longer exists.
const (
	FrameItem     FrameKind = "item"     // an instance that exists
	FrameSynced   FrameKind = "synced"   // all items were sent
	FrameChange   FrameKind = "change"   // one change
	FrameReset    FrameKind = "reset"    // start over; Reason says why
	FrameBookmark FrameKind = "bookmark" // nothing happened up to Version; proof of life
	FrameReplica  FrameKind = "replica"  // only with ?far=true: another region's summary of a service
	FramePolicy   FrameKind = "policy"   // only with ?far=true: the policy for a service, before synced and at each change
)

// Op says what a change did.
type Op string

// The operations of a change.
const (
	OpPut    Op = "put"
	OpDelete Op = "delete"
)

// Cause says why a change happened.
type Cause string

// The causes.
const (
	CauseRegister   Cause = "register"
	CauseStatus     Cause = "status"
	CauseDeregister Cause = "deregister"
	CauseEvict      Cause = "evict" // heartbeats stopped, or a check failed for its deregister_after
	// CausePlanned: an operator removed the service as a whole. Other regions follow at once.
	CausePlanned Cause = "planned"
	CauseUnknown Cause = "unknown"
)

// Frame is one frame of a watch: the data of an SSE event, whose name is Kind and whose
// id is Version (set where resuming from it is safe: synced, bookmark, and the last change
// of a revision).
type Frame struct {
	Kind    FrameKind `json:"-"`
	Version Version   `json:"version"`

	// Item and change. A change of OpDelete carries the last known instance.
	Op       Op        `json:"op,omitempty"`
	Cause    Cause     `json:"cause,omitempty"`
	Instance *Instance `json:"instance,omitempty"`
	// Service and Namespace name the service of an item, change or replica.
	Service   ServiceName `json:"service,omitempty"`
	Namespace Namespace   `json:"ns,omitempty"` // set when it is not the default
	// More is set on a change when others of the same revision follow: apply them together.
	More bool `json:"more,omitempty"`

	// KV is what an item or change of a watch of keys is about, instead of an instance. A
	// change of OpDelete carries the last known entry without its value.
	KV *KVEntry `json:"kv,omitempty"`

	// Reset: why.
	Reason string `json:"reason,omitempty"`

	// Replica: Origin says whose summary it is; a nil Summary means that the origin has no
	// such service (any more).
	Origin  *Origin  `json:"origin,omitempty"`
	Summary *Summary `json:"summary,omitempty"`

	// Policy is the one in force for the service, merged with the default; nil = none is set. A
	// watch of all services is told the default as service "*", and a service only when it has
	// a policy of its own.
	Policy *Policy `json:"policy,omitempty"`

	// Synced and bookmark, with ?far=true: what is known of every other region, and the own
	// region while it is drained. A bookmark comes at once when a drain changes.
	Origins []Origin `json:"origins,omitempty"`
	// Synced and bookmark, with ?far=true: how much the watched services of this region are used,
	// in classes (see LoadClass). Synced tells all that are known; a bookmark those that
	// changed since, 0 = not known any more. An older registry tells none.
	Loads []ServiceLoad `json:"loads,omitempty"`
	// Synced and bookmark: base URLs of this region's own nodes for clients.
	Addresses []string `json:"addresses,omitempty"`
}
