package api

import "time"

// PathVerify and PathResync take ?region=, another region.
const (
	PathVerify = PathFederation + "/verify" // POST
	PathResync = PathFederation + "/resync" // POST
)

// Whether somebody reaches a region's federation (RegionWord.Link), and what a region's
// endpoints did when somebody without a link tried to connect to some (RegionWord.Probes).
const (
	LinkUp       = "up"
	LinkDown     = "down"
	ProbesAnswer = "answer"
	ProbesSilent = "silent"
)

// RegionVerdict says whether a region that cannot be reached is down, and how that came out:
// when Agree reaches Needed and the endpoints do not answer this region's probes either.
type RegionVerdict struct {
	Down  bool       `json:"down"`
	Since *time.Time `json:"since,omitempty"` // when it was found to be down
	// Agree of Of regions that could know say that neither its federation nor, as far as
	// they tried, its endpoints answer.
	Agree  int          `json:"agree"`
	Of     int          `json:"of"`
	Needed int          `json:"needed"`
	Says   []RegionWord `json:"says"` // the own region's word first
	// Probed counts connections to the region's endpoints that this node tried since the link
	// was lost, and Failed those that did not come about.
	Probed int    `json:"probed"`
	Failed int    `json:"failed"`
	Why    string `json:"why"` // one sentence
}

// RegionWord is what one region says of another.
type RegionWord struct {
	By     Region `json:"by"`
	Link   string `json:"link,omitempty"`   // LinkUp or LinkDown; empty = it cannot say
	Probes string `json:"probes,omitempty"` // ProbesAnswer or ProbesSilent; empty = not tried
}

// PeerView is what a peer says that it knows of the answering region, by its acks and
// heartbeats. A peer that does not hear us says so here although we hear it.
type PeerView struct {
	State    AgeState `json:"state"`
	AgeMS    int64    `json:"age_ms"`
	Revision uint64   `json:"revision"`
	SaidMS   int64    `json:"said_ms"` // since it said so
	// Complaint is one sentence when all is not well, else empty.
	Complaint string `json:"complaint,omitempty"`
}

// Canary is the measured time from a moment in the origin to everything older than it being
// visible here: queueing at both ends and the way, as an upper bound that is at most one
// round trip too high. No clocks are compared.
type Canary struct {
	LastMS int64  `json:"last_ms"`
	P50MS  int64  `json:"p50_ms"` // of the last 60, about a minute
	P99MS  int64  `json:"p99_ms"`
	AgeMS  int64  `json:"age_ms"` // since the last one arrived
	Count  uint64 `json:"count"`
}

// QuarantinedRow is a row whose newest form a reader does not use.
type QuarantinedRow struct {
	Row    string `json:"row"` // namespace/service
	Reason string `json:"reason"`
}

// MaxQuarantinedShown bounds the rows named per link or reader.
const MaxQuarantinedShown = 20

// The results of a verification.
const (
	VerifyEqual   = "equal"   // every row is as in the origin, at the same version
	VerifyDiffers = "differs" // rows differ although nothing on its way explains it
	VerifyMoving  = "moving"  // rows kept changing; all that did not change are equal
)

// Verification is the body of POST /v1/federation/verify: what this node holds of a region,
// compared with what that region's federation says it should hold.
type Verification struct {
	Region Region `json:"region"`
	Result string `json:"result"` // one of the Verify values
	// Held is what was compared here, and Origin where the origin stood when it answered.
	Held         Version `json:"held"`
	Origin       Version `json:"origin"`
	Digest       string  `json:"digest"`
	OriginDigest string  `json:"origin_digest"`
	Rows         int     `json:"rows"`
	OriginRows   int     `json:"origin_rows"`
	// Differences by row; More tells that there are more than are listed.
	Differences []RowDifference `json:"differences"`
	More        bool            `json:"more,omitempty"`
	// Moving is how many rows changed in the origin after Held.
	Moving int `json:"moving"`
	// Quarantined rows count as equal, but their last good form is used; Held rows are
	// shown although the origin no longer has them, for a while.
	Quarantined []QuarantinedRow `json:"quarantined,omitempty"`
	HeldBack    int              `json:"held_back,omitempty"`
	Tries       int              `json:"tries"`
	TookMS      int64            `json:"took_ms"`
}

// How a row differs: RowDifference.Kind.
const (
	RowMissing   = "missing"   // the origin has it, we do not
	RowExtra     = "extra"     // we have it, the origin does not
	RowDifferent = "different" // both have it with other content
)

// RowDifference is one row that is not as in the origin.
type RowDifference struct {
	Row    string `json:"row"` // namespace/service
	Kind   string `json:"kind"`
	Held   string `json:"held,omitempty"`   // hash of the row here
	Origin string `json:"origin,omitempty"` // hash of the row there
}

// The states of a resync.
const (
	ResyncWaiting   = "waiting"   // for the peer to answer
	ResyncReceiving = "receiving" // rows arrive; nothing is replaced yet
	ResyncDone      = "done"      // the digest matched and the rows were replaced
)

// ResyncInfo is how far a full snapshot that an operator asked for has come. Until it is
// done the rows stay as they are.
type ResyncInfo struct {
	Region   Region     `json:"region"`
	State    string     `json:"state"` // one of the Resync values
	Asked    time.Time  `json:"asked"`
	Finished *time.Time `json:"finished,omitempty"`
	Received int        `json:"received"` // rows so far
	Expected int        `json:"expected"` // rows held when it began
	Rows     int        `json:"rows"`     // when done: rows held now
	Changed  int        `json:"changed"`  // when done: how many of them were not as before
	Cause    string     `json:"cause,omitempty"`
}
