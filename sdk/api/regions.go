package api

import "time"

// RegionInfo is one region in GET /v1/regions, as the answering region sees it.
type RegionInfo struct {
	Origin
	Self      bool   `json:"self"`
	Link      string `json:"link,omitempty"` // connected or unreachable; empty for self
	Services  int    `json:"services"`
	Instances int    `json:"instances"`
	Passing   int    `json:"passing"`           // passing or warning, and not overdue
	Overdue   int    `json:"overdue,omitempty"` // of the own region: heartbeats stopped, and the eviction brake holds them
	// Protection and Checks are set for the own region; Checks only when the node runs some.
	Protection *Protection `json:"protection,omitempty"`
	Checks     *ChecksInfo `json:"checks,omitempty"`
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
	Grace Duration `json:"grace"`
	Why   string   `json:"why"` // one sentence: state, cause, and when it ends
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
	Digest    string    `json:"digest"`
	Replica   Origin    `json:"replica"`
	HeadLag   uint64    `json:"head_lag"` // origin's head minus applied
}

// ReaderInfo is one region that reads our summaries.
type ReaderInfo struct {
	Region    Region    `json:"region"`
	Since     time.Time `json:"since"`
	Revision  uint64    `json:"revision"` // last sent
	BytesOut  uint64    `json:"bytes_out"`
	Digest    string    `json:"digest"`
	Snapshots uint64    `json:"snapshots"`
}

// FederationInfo is the body of GET /v1/federation.
type FederationInfo struct {
	Region   Region       `json:"region"`
	Epoch    Epoch        `json:"epoch"`
	Revision uint64       `json:"revision"`
	Enabled  bool         `json:"enabled"`
	Links    []LinkInfo   `json:"links"`
	Readers  []ReaderInfo `json:"readers"`
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
	Cause string `json:"cause,omitempty"`
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
