package api

// Endpoint is an instance as a caller needs it. Tier is set in decisions only.
type Endpoint struct {
	ID       InstanceID        `json:"id"`
	Address  string            `json:"address"`
	Port     int               `json:"port"`
	Ports    map[string]int    `json:"ports,omitempty"`
	Region   Region            `json:"region"`
	Zone     Zone              `json:"zone,omitempty"`
	Weight   int               `json:"weight"`
	Capacity int               `json:"capacity,omitempty"`
	Status   Status            `json:"status"`
	Overdue  bool              `json:"overdue,omitempty"`
	Version  string            `json:"version,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Tier     int               `json:"tier"`
}

// Endpoint returns the caller's view of i.
func (i *Instance) Endpoint() Endpoint {
	return Endpoint{
		ID: i.ID, Address: i.Address, Port: i.Port, Ports: i.Ports, Region: i.Region, Zone: i.Zone,
		Weight: i.Weight, Capacity: i.Capacity, Status: i.Status, Overdue: i.Overdue,
		Version: i.Version, Tags: i.Tags, Metadata: i.Metadata,
	}
}

// ZoneCount counts a service's instances in one zone.
type ZoneCount struct {
	Total   int `json:"total"`
	Passing int `json:"passing"`
}

// Summary is what a region tells another about one of its services.
type Summary struct {
	Namespace Namespace   `json:"ns"`
	Service   ServiceName `json:"service"`
	Total     int         `json:"total"`
	Passing   int         `json:"passing"` // passing or warning
	Draining  int         `json:"draining,omitempty"`
	Capacity  int         `json:"capacity,omitempty"` // sum of declared capacity x weight / 100 of usable instances
	// Load is how much of what the usable instances can take is used, in percent, rounded up to a
	// multiple of 5, 200 at most; 0 = not known. It is told about every 5 s, apart from the
	// rest, and neither Revision nor any digest moves with it.
	Load     int                `json:"load,omitempty"`
	Zones    map[Zone]ZoneCount `json:"zones,omitempty"`
	Versions []string           `json:"versions,omitempty"`
	SpecHash string             `json:"spec_hash,omitempty"`
	Flags    []string           `json:"flags,omitempty"` // of the Flag values, sorted; a newer origin may have more
	// Endpoints is the fail-over set: at most MaxFailoverSet usable instances, chosen for
	// this reader. When no instance is usable it holds others, worst last.
	Endpoints []Endpoint `json:"endpoints"`
	// Complete tells that every usable instance is among Endpoints.
	Complete bool `json:"complete"`
	// Revision is the origin's revision of the last change of this service.
	Revision uint64 `json:"revision"`
}

// The flags of a summary.
const (
	// FlagDraining: instances drain and none is left that is usable.
	FlagDraining = "draining"
	// FlagDeprecated: every usable instance has the tag TagDeprecated; all of them when none is
	// usable.
	FlagDeprecated = "deprecated"
)

// TagDeprecated is the tag by which an instance says that its service should not get new callers.
const TagDeprecated = "deprecated"

// MaxFlags bounds the flags of a summary.
const MaxFlags = 16

// Key returns the service's identity within its region.
func (s *Summary) Key() ServiceKey {
	return ServiceKey{Namespace: s.Namespace, Service: s.Service}
}

// AgeState grades how old the knowledge of an origin is.
type AgeState string

// The states and the ages at which they begin. Disconnection only ages; it never deletes.
const (
	AgeFresh   AgeState = "fresh"   // under 5 s
	AgeStale   AgeState = "stale"   // under 30 s
	AgeSuspect AgeState = "suspect" // under 15 min
	AgeExpired AgeState = "expired" // used only when there is nothing else
)

// Origin is what is known of a region: of another one through its replica, or of the home
// region from its own catalogue (age 0).
type Origin struct {
	Region   Region   `json:"region"`
	Epoch    Epoch    `json:"epoch"`
	Revision uint64   `json:"revision"`
	AgeMS    int64    `json:"age_ms"` // upper bound of the time since the origin confirmed it
	State    AgeState `json:"state"`
	// Complete tells that every service of the origin is known, so that absence means absence.
	Complete bool `json:"complete"`
	// Source is one of the Source values.
	Source string `json:"source,omitempty"`
	RTTMS  int64  `json:"rtt_ms,omitempty"` // measured between the federations; 0 = not known
	// Drained is how much of the region's traffic, in percent, callers of the answering region
	// shall send elsewhere: the larger of the region's own wish and the answering region's. 0 to 100, in steps of 0.1.
	Drained float64 `json:"drained,omitempty"`
	// Down tells that the region's endpoints do not answer either, agreed by k of n regions. A
	// region that merely cannot be reached by its peers is not down, it ages.
	Down bool `json:"down,omitempty"`
	// Addresses are base URLs of the origin's nodes for clients, such as "http://10.0.0.1:7400".
	Addresses []string `json:"addresses,omitempty"`
}

// Version returns the version that o stands at.
func (o *Origin) Version() Version {
	return Version{Region: o.Region, Epoch: o.Epoch, Revision: o.Revision}
}

// Replica is another region's summary of one service, and how far it can be trusted.
// A nil Summary means that the origin has no such service, as far as is known.
type Replica struct {
	Origin  Origin   `json:"origin"`
	Summary *Summary `json:"summary,omitempty"`
}
