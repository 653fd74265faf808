package api

import "time"

// RegionInfo is one region in GET /v1/regions, as the answering region sees it.
type RegionInfo struct {
	Origin
	Self bool   `json:"self"`
	Link string `json:"link,omitempty"` // connected or unreachable; empty for self
	// Namespace is the one that the four counts are of (?ns=); empty = all of them.
	Namespace Namespace `json:"ns,omitempty"`
	Services  int       `json:"services"`
	Instances int       `json:"instances"`
	Passing   int       `json:"passing"`           // passing or warning, and not overdue
	Overdue   int       `json:"overdue,omitempty"` // of the own region: heartbeats stopped, and the eviction brake holds them
	// These are set for the own region; Checks only when the node runs some.
	Protection *Protection   `json:"protection,omitempty"`
	Checks     *ChecksInfo   `json:"checks,omitempty"`
	Liveness   *LivenessInfo `json:"liveness,omitempty"`
	// Nodes are those of the region that its owner of liveness hears of, by name.
	Nodes []NodeInfo `json:"nodes,omitempty"`
	// Verdict is set for another region while its federation does not answer.
	Verdict *RegionVerdict `json:"verdict,omitempty"`
}

// RegionList is the body of GET /v1/regions; the own region comes first.
type RegionList struct {
	Home    Region       `json:"home"`
	Regions []RegionInfo `json:"regions"`
}

// Protection shows the eviction brake and its arithmetic.
type Protection struct {
	Active bool       `json:"active"`
	Since  *time.Time `json:"since,omitempty"`
	// Registered instances, those whose heartbeats are overdue, and how many time-outs the
	// brake allows in one window (Share of Registered).
	Registered int      `json:"registered"`
	Overdue    int      `json:"overdue"`
	Evicted    int      `json:"evicted"` // in the current window
	Allowed    int      `json:"allowed"`
	Share      float64  `json:"share"`
	Window     Duration `json:"window"`
	// Grace is how much longer everyone is spared after a start, pause or stall; 0 = none.
	// GraceLongest is when that ends for the last one, which has the longest TTL.
	Grace        Duration `json:"grace"`
	GraceLongest Duration `json:"grace_longest,omitempty"`
	// Slow tells that this node is starved of processor time and so judges nobody; Lost is the
	// share of the last seconds in which it should have run and did not, 0 to 1.
	Slow bool    `json:"slow"`
	Lost float64 `json:"lost"`
	Why  string  `json:"why"` // one sentence: state, cause, and when it ends
}

// LinkInfo is one link in GET /v1/federation.
type LinkInfo struct {
	Peer      Region    `json:"peer"`
	Addresses []string  `json:"addresses"`
	State     string    `json:"state"` // connected or unreachable
	Since     time.Time `json:"since"`
	LastError string    `json:"last_error,omitempty"`
	Attempts  int       `json:"attempts"` // since the last success
	RTTMS     int64     `json:"rtt_ms"`
	BytesIn   uint64    `json:"bytes_in"`
	Frames    uint64    `json:"frames"`
	Snapshots uint64    `json:"snapshots"`
	Refused   uint64    `json:"refused"` // frames not applied: stale, broken, of another region
	Services  int       `json:"services"`
	// Details are the services of the peer of which all instances are known, because callers of
	// this region are sent there.
	Details int    `json:"details,omitempty"`
	Digest  string `json:"digest"`
	Replica Origin `json:"replica"`
	// Via is the region that the peer's rows are taken from while that knows it better than we do by
	// ourselves, and Depth through how many regions they come; "" and 0 = from the peer itself.
	Via     Region `json:"via,omitempty"`
	Depth   int    `json:"depth,omitempty"`
	HeadLag uint64 `json:"head_lag"` // origin's head minus applied
	// BehindMS is how long the oldest change that was announced has waited to be applied; 0 = none waits.
	BehindMS int64   `json:"behind_ms"`
	Canary   *Canary `json:"canary,omitempty"` // nil = none arrived yet
	// Of the last stream: the node that answered, the version of the frames, and the term of
	// the publisher; empty or 0 before the first one.
	Node  string `json:"node,omitempty"`
	Proto int    `json:"proto,omitempty"`
	Term  uint64 `json:"term,omitempty"`
	// BytesOut were sent to the peer's own readers.
	BytesOut  uint64            `json:"bytes_out"`
	RefusedBy map[string]uint64 `json:"refused_by,omitempty"` // Refused by reason
	Unheard   uint64            `json:"unheard"`              // our words to the peer that did not arrive
	// Quarantined rows have a newest form that is not used; at most MaxQuarantinedShown are named.
	Quarantined     int              `json:"quarantined"`
	QuarantinedRows []QuarantinedRow `json:"quarantined_rows,omitempty"`
	// Held services are shown although the origin lost them, with many others at once; the
	// last of them goes after HeldForMS.
	Held      int   `json:"held"`
	HeldForMS int64 `json:"held_for_ms,omitempty"`
	// PeerView is what the peer knows of us; nil = it has not said lately.
	PeerView *PeerView      `json:"peer_view,omitempty"`
	Verdict  *RegionVerdict `json:"verdict,omitempty"` // while the peer cannot be reached
	Resync   *ResyncInfo    `json:"resync,omitempty"`  // the last one asked for
	// Duplicate: another region has the peer's name. It is refused; nil = none has been met lately.
	Duplicate *DuplicateRegion `json:"duplicate,omitempty"`
}

// DuplicateRegion is a second region of one name, or a node that is cut off from its region.
type DuplicateRegion struct {
	Epoch Epoch     `json:"epoch"` // of the one that is refused
	At    string    `json:"at"`    // where it was met
	Ours  string    `json:"ours"`  // where the one that is read is alive at the same time
	Since time.Time `json:"since"`
}

// ReaderInfo is one region that reads our summaries.
type ReaderInfo struct {
	Region    Region    `json:"region"`
	Origin    Region    `json:"origin,omitempty"` // whose rows we pass on; "" = it reads our own
	Since     time.Time `json:"since"`
	Revision  uint64    `json:"revision"` // last sent
	BytesOut  uint64    `json:"bytes_out"`
	Digest    string    `json:"digest"`
	Snapshots uint64    `json:"snapshots"`
	Node      string    `json:"node,omitempty"`
	Proto     int       `json:"proto"`
	// What the reader said last, WordAgeMS ago, which is since the stream began when it said
	// nothing: where it stands, and how old it takes its knowledge of us to be.
	WordAgeMS int64    `json:"word_age_ms"`
	Applied   uint64   `json:"applied"`
	AgeMS     int64    `json:"age_ms"`
	State     AgeState `json:"state,omitempty"`
	// CanaryMS is the time from a moment here to the reader having everything older, and its
	// word of that back here: an upper bound by our own clock alone; 0 = not measured yet.
	CanaryMS        int64            `json:"canary_ms"`
	Quarantined     int              `json:"quarantined"`
	QuarantinedRows []QuarantinedRow `json:"quarantined_rows,omitempty"`
}

// FederationInfo is the body of GET /v1/federation.
type FederationInfo struct {
	Region   Region       `json:"region"`
	Epoch    Epoch        `json:"epoch"`
	Revision uint64       `json:"revision"`
	Enabled  bool         `json:"enabled"`
	Links    []LinkInfo   `json:"links"`
	Readers  []ReaderInfo `json:"readers"`
	// Doors are the base URLs at which nodes of the own region read what this one knows of others;
	// none while it has no federation.
	Doors []string `json:"doors,omitempty"`
	// Follows is set by a federation that is its own process: how it follows its region.
	Follows *FollowInfo `json:"follows,omitempty"`
}

// FollowInfo says how a federation that is its own process follows the nodes of its region.
type FollowInfo struct {
	URL       string    `json:"url"`            // of the node that is followed, or was tried last
	Node      string    `json:"node,omitempty"` // its name, once it answered
	State     string    `json:"state"`          // connected or unreachable
	Since     time.Time `json:"since"`
	AgeMS     int64     `json:"age_ms"` // since a node last said that what is known is all there is
	LastError string    `json:"last_error,omitempty"`
}

// Readiness is the body of GET /readyz.
type Readiness struct {
	Ready  bool             `json:"ready"`
	Region Region           `json:"region"`
	Node   string           `json:"node"`
	Checks []ReadinessCheck `json:"checks"`
}

// ReadinessCheck is one part of Readiness.
type ReadinessCheck struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Cause string `json:"cause,omitempty"` // what is wrong, or with OK what soon will be
}

// ReadyFile is what --ready-file holds once a node is ready.
type ReadyFile struct {
	PID            int    `json:"pid"`
	Region         Region `json:"region"`
	Zone           Zone   `json:"zone,omitempty"`
	Node           string `json:"node"`
	Version        string `json:"version"`
	HTTP           string `json:"http"` // base URL, such as "http://127.0.0.1:7400"
	HTTPAddr       string `json:"http_addr"`
	Federation     string `json:"federation,omitempty"` // base URL
	FederationAddr string `json:"federation_addr,omitempty"`
	DataDir        string `json:"data_dir"`
	Epoch          Epoch  `json:"epoch"`
}
