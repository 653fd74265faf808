package api

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Bounds of one NodeReport and of its answer.
const (
	MaxReportHeartbeats = 4 * MaxBatchItems
	MaxReportChecks     = 1_000
	MaxReportBytes      = 4 << 20
	MaxNodeAnswerBytes  = 64 << 20 // the overlay may concern every instance of a region
)

// PathNodeReport returns the path of POST /v1/nodes/{node}/report. It is for the nodes of one
// region among themselves.
func PathNodeReport(node string) string { return "/v1/nodes/" + url.PathEscape(node) + "/report" }

// NodeReport is what a node of a region tells the one that owns liveness: at least once a
// second, and whenever it has heartbeats to forward.
type NodeReport struct {
	// Heartbeats that clients sent to the node, at most MaxReportHeartbeats.
	Heartbeats []BatchHeartbeat `json:"heartbeats,omitempty"`
	Address    string           `json:"address"` // base URL of the reporting node's API
	// Term is that of the claim by which the node takes the receiver for the owner.
	Term  uint64 `json:"term"`
	Epoch Epoch  `json:"epoch"` // that the node's memory is of
	// Revision is the newest of the records that the report is about: the receiver must have
	// seen it before it says what is not registered.
	Revision uint64 `json:"revision,omitempty"`
	// Overlay asks for the marks if they are not of this version; nil = not now.
	Overlay *uint64 `json:"overlay,omitempty"`
	// Checks are instances whose liveness checks failed for long enough, or no longer do.
	Checks  []NodeCheck `json:"checks,omitempty"`
	Leaving bool        `json:"leaving,omitempty"` // the node stops in good order
	Loads   bool        `json:"loads,omitempty"`   // asks how much the services are used
}

// NodeCheck says that the checks of an instance want it removed, or (Pardon) no longer do.
type NodeCheck struct {
	RecordRef
	Pardon bool `json:"pardon,omitempty"`
}

// RecordRef names one revision of an instance's record.
type RecordRef struct {
	Namespace Namespace   `json:"ns,omitempty"` // "" = DefaultNamespace
	Service   ServiceName `json:"service"`
	ID        InstanceID  `json:"id"`
	Revision  uint64      `json:"revision"`
}

// Key returns the instance's key.
func (r *RecordRef) Key() InstanceKey {
	k := InstanceKey{Namespace: r.Namespace, Service: r.Service, ID: r.ID}
	if k.Namespace == "" {
		k.Namespace = DefaultNamespace
	}
	return k
}

// RefOf returns the reference to a revision of an instance's record.
func RefOf(k InstanceKey, revision uint64) RecordRef {
	r := RecordRef{Namespace: k.Namespace, Service: k.Service, ID: k.ID, Revision: revision}
	if r.Namespace == DefaultNamespace {
		r.Namespace = ""
	}
	return r
}

// NodeAnswer answers a NodeReport.
type NodeAnswer struct {
	Term uint64 `json:"term"`
	// Epoch and Revision are where the owner's memory stood.
	Epoch    Epoch  `json:"epoch"`
	Revision uint64 `json:"revision"`
	// Refused are the heartbeats that were not taken, by their place in the report.
	Refused    []NodeRefusal `json:"refused,omitempty"`
	Overlay    *NodeOverlay  `json:"overlay,omitempty"` // when it was asked for and is another one
	Protection Protection    `json:"protection"`
	// TakesLoads: this node knows what heartbeats say of load, and Loads. An older one refuses a
	// report that has them.
	TakesLoads bool `json:"takes_loads,omitempty"`
	// Loads is how much services are used, of those that report it, when it was asked for.
	Loads []ServiceLoad `json:"loads,omitempty"`
}

// ServiceLoad is how much of what its usable instances can take a service is used.
type ServiceLoad struct {
	Namespace Namespace   `json:"ns,omitempty"` // "" = DefaultNamespace
	Service   ServiceName `json:"service"`
	Percent   float64     `json:"percent"`
}

// NodeRefusal says why a heartbeat was not taken; with CodeUnavailable the owner could not tell
// whether the instance is registered.
type NodeRefusal struct {
	Index       int    `json:"index"`
	Code        Code   `json:"code"`
	Incarnation uint64 `json:"incarnation,omitempty"` // the stored one, with CodeStaleIncarnation
}

// NodeOverlay is what the owner knows beside the catalogue: whose eviction is decided, and
// who is overdue.
type NodeOverlay struct {
	Version uint64      `json:"version"`
	Hidden  []RecordRef `json:"hidden,omitempty"`
	Overdue []RecordRef `json:"overdue,omitempty"`
}

// Validate checks everything but the instances' names, which are looked up only.
func (r *NodeReport) Validate() error {
	switch u, err := url.Parse(r.Address); {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, strings.ContainsAny(r.Address, "?#"), len(r.Address) > 2048:
		return FieldError("address", fmt.Sprintf("address %s is not a base URL", Quote(r.Address)), "write it like http://10.0.0.1:7400")
	case len(r.Heartbeats) > MaxReportHeartbeats:
		return FieldError("heartbeats", fmt.Sprintf("%d heartbeats in one report", len(r.Heartbeats)), fmt.Sprintf("send at most %d", MaxReportHeartbeats))
	case len(r.Checks) > MaxReportChecks:
		return FieldError("checks", fmt.Sprintf("%d checks in one report", len(r.Checks)), fmt.Sprintf("send at most %d", MaxReportChecks))
	}
	return nil
}

// CheckNode validates the name of a node.
func CheckNode(s string) error {
	if ValidLabel(s) {
		return nil
	}
	return FieldError("node", fmt.Sprintf("node %s is not a valid name", Quote(s)), "use 1 to 63 of a-z, 0-9 and '-'")
}

// NodeInfo is a node of the own region in GET /v1/regions/{region}.
type NodeInfo struct {
	Node    string `json:"node"`
	Address string `json:"address"`         // base URL of its API
	Owner   bool   `json:"owner,omitempty"` // it holds the deadlines of all heartbeats
	Self    bool   `json:"self,omitempty"`  // it gave this answer
}

// LivenessInfo says which node holds the deadlines of the region's heartbeats.
type LivenessInfo struct {
	Owner   string `json:"owner"` // "" = none at the moment
	Address string `json:"address,omitempty"`
	Term    uint64 `json:"term"` // rises with every owner; 0 in a region of one node
	// Since when, by the owner's clock, and why: the cause of the event liveness_owner.
	Since *time.Time `json:"since,omitempty"`
	Cause string     `json:"cause,omitempty"`
	// Reached tells that the answering node is the owner, or had an answer from it a moment ago.
	Reached bool   `json:"reached"`
	Why     string `json:"why"` // one sentence
}
