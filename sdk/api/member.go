package api

// MemberRole is what a member of a region's cluster may do.
type MemberRole string

// The roles of a member.
const (
	RoleVoter   MemberRole = "voter"   // counts towards the quorum
	RoleLearner MemberRole = "learner" // copies until it has caught up, then becomes a voter
)

// Member is one member of the cluster that keeps a region's records: one per node.
type Member struct {
	Node    string     `json:"node"`    // name of the node that it runs on; "" until a node added has started
	ID      string     `json:"id"`      // 16 hex digits; new for each member ever added
	Address string     `json:"address"` // HOST:PORT at which the other members reach it
	Role    MemberRole `json:"role"`
	Started bool       `json:"started"` // it has joined at least once
	Answers bool       `json:"answers"` // it does now
	Leader  bool       `json:"leader,omitempty"`
	Version string     `json:"version,omitempty"` // of its store's software; "" when it does not answer
}

// MemberList is the answer of GET /v1/regions/{region}/members, by node.
type MemberList struct {
	Region  Region   `json:"region"`
	Members []Member `json:"members"`
}

// MemberAdd is the body of POST /v1/regions/{region}/members.
type MemberAdd struct {
	Node    string `json:"node"`
	Address string `json:"address"` // HOST:PORT at which the others will reach its member
}
