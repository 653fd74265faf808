package api

import (
	"time"
)

// Status of an instance, as the registry sees it.
type Status string

// The statuses. Only passing and warning instances are offered while one is left.
const (
	StatusStarting Status = "starting" // not yet offered
	StatusPassing  Status = "passing"
	StatusWarning  Status = "warning"  // offered like passing, listed after it
	StatusCritical Status = "critical" // offered only when nothing else is known
	StatusDraining Status = "draining" // going away: no new calls while another is left
)

// Statuses lists all statuses, best first.
var Statuses = []Status{StatusPassing, StatusWarning, StatusStarting, StatusDraining, StatusCritical}

// Valid reports whether s is one of Statuses.
func (s Status) Valid() bool {
	switch s {
	case StatusStarting, StatusPassing, StatusWarning, StatusCritical, StatusDraining:
		return true
	}
	return false
}

// Usable reports whether an instance of status s is offered in normal times.
func (s Status) Usable() bool { return s == StatusPassing || s == StatusWarning }

// Instance is one running copy of a service, as stored and as shown.
type Instance struct {
	Namespace Namespace         `json:"ns"`
	Service   ServiceName       `json:"service"`
	ID        InstanceID        `json:"id"`
	Region    Region            `json:"region"`
	Zone      Zone              `json:"zone,omitempty"`
	Address   string            `json:"address"`
	Port      int               `json:"port"`
	Ports     map[string]int    `json:"ports,omitempty"` // by name, such as "grpc"
	Weight    int               `json:"weight"`
	Capacity  int               `json:"capacity,omitempty"` // requests/s it can take; 0 = not told
	Version   string            `json:"version,omitempty"`  // of the program, not of the record
	Tags      []string          `json:"tags,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	// TTL, Incarnation and the times are set for a region's own instances; a summary of
	// another region's does not tell them, and they are left out then. Without a TTL no
	// heartbeat is expected: the instance lives by its checks.
	TTL         Duration `json:"ttl,omitzero"`
	Checks      []Check  `json:"checks,omitempty"`
	Incarnation uint64   `json:"incarnation,omitzero"`

	Status      Status    `json:"status"`
	StatusNote  string    `json:"status_note,omitempty"`
	StatusSince time.Time `json:"status_since,omitzero"`
	// Overdue is set in answers when heartbeats stopped but the eviction brake holds the
	// instance: it is offered only after instances that are not overdue.
	Overdue bool `json:"overdue,omitempty"`
	// CheckResults has one entry for every check that the region runs, in their order.
	CheckResults []CheckResult `json:"check_results,omitempty"`
	// Set is the status set by hand while there are checks; nil = passing.
	Set *SetStatus `json:"set,omitempty"`
	// BeforeDrain is what was set before the drain, and will be again when it is taken back;
	// nil = passing, or what the checks say. Only while the instance drains.
	BeforeDrain *SetStatus `json:"before_drain,omitempty"`

	RegisteredAt time.Time `json:"registered_at,omitzero"`
	Revision     uint64    `json:"revision"` // of the last change of this record
}

// Key returns the instance's identity within its region.
func (i *Instance) Key() InstanceKey {
	return InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
}

// Registration is the body of PUT /v1/services/{service}/instances/{id}: the whole
// instance. The same body again refreshes it. See Normalize for defaults and ranges.
type Registration struct {
	Address  string            `json:"address"`
	Port     int               `json:"port"`
	Ports    map[string]int    `json:"ports,omitempty"`
	Zone     Zone              `json:"zone,omitempty"`
	Weight   *int              `json:"weight,omitempty"` // nil = DefaultWeight; 0 = no share
	Capacity int               `json:"capacity,omitempty"`
	Version  string            `json:"version,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// TTL of the heartbeat. 0 = DefaultTTL, but with checks that the region runs and none of
	// kind ttl, no heartbeat: such an instance stays until it is deregistered or a liveness
	// check says so.
	TTL         Duration `json:"ttl,omitempty"`
	Checks      []Check  `json:"checks,omitempty"`
	Incarnation uint64   `json:"incarnation,omitempty"` // 0 = keep the stored one
	Status      Status   `json:"status,omitempty"`      // initial: passing (default) or starting
}

// StatusChange is the body of PUT …/{id}/status.
type StatusChange struct {
	Status Status `json:"status"`
	Note   string `json:"note,omitempty"`
	// Incarnation, when not 0, must not be lower than the stored one (409 stale_incarnation).
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// Drain is the optional body of PUT …/{id}/drain, which sets the status draining. DELETE of
// the same path takes it back.
type Drain struct {
	Note        string `json:"note,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"` // as in StatusChange
}

// Heartbeat is the optional body of PUT …/{id}/heartbeat; ?incarnation= says the same.
type Heartbeat struct {
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Load may say how much the instance is used; it costs no write and counts until the next
	// one, for 30 s or two ttl.
	Load Load `json:"load,omitzero"`
}

// HeartbeatAck answers a heartbeat.
type HeartbeatAck struct {
	ID          InstanceID `json:"id"`
	Status      Status     `json:"status"`
	Incarnation uint64     `json:"incarnation"`
	TTL         Duration   `json:"ttl"`
	Epoch       Epoch      `json:"epoch"`
}

// ServiceCount is one service in GET /v1/services.
type ServiceCount struct {
	Namespace Namespace      `json:"ns"`
	Service   ServiceName    `json:"service"`
	Instances int            `json:"instances"`
	Statuses  map[Status]int `json:"statuses"`          // by the status stored, overdue or not
	Passing   int            `json:"passing"`           // of status passing, with heartbeats in time
	Overdue   int            `json:"overdue,omitempty"` // of any status, whose heartbeats stopped; see Instance.Overdue
	Regions   []Region       `json:"regions,omitempty"` // every region known to have it, home first
}

// ServiceList is the body of GET /v1/services.
type ServiceList struct {
	Services []ServiceCount `json:"services"`
	// Cursor, when not empty, fetches the next page with ?cursor=.
	Cursor string `json:"cursor,omitempty"`
}

// ServiceRemoved is the answer to DELETE /v1/services/{service}.
type ServiceRemoved struct {
	Namespace Namespace   `json:"ns"`
	Service   ServiceName `json:"service"`
	Removed   int         `json:"removed"`  // how many instances
	Revision  uint64      `json:"revision"` // of the last removal
}

// InstanceList is the body of GET /v1/services/{service}/instances. Region says whose
// instances they are; for another region than the answering one they come from its
// summary and Complete tells whether all of its passing instances are in it.
type InstanceList struct {
	Service   ServiceName `json:"service"`
	Namespace Namespace   `json:"ns"`
	Region    Region      `json:"region"`
	Instances []Instance  `json:"instances"`
	Complete  bool        `json:"complete"`
	Cursor    string      `json:"cursor,omitempty"` // give it back as ?cursor= for the next page
}
