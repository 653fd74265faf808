package owner

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Keys of the records in the region's store. The catalogue passes over them.
const (
	Prefix     = "liveness/"
	ClaimKey   = Prefix + "claim"
	BeatKey    = Prefix + "beat"
	MembersKey = Prefix + "members"
)

// Node is a node of the region and where the others reach it.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address"` // base URL of its API
}

// Claim is the record of who owns liveness.
type Claim struct {
	V    int    `json:"v"`
	Term uint64 `json:"term"` // rises with every claim
	// Node is empty when the last owner released it.
	Node Node `json:"node"`
	// Run tells one process of a node from the next.
	Run   string    `json:"run"`
	Cause string    `json:"cause"` // one of api's Because values
	Since time.Time `json:"since"` // by the owner's wall clock, for people
}

// Released reports whether nobody owns: never claimed, or given back.
func (c *Claim) Released() bool { return c.Node.Name == "" }

// Beat is what the owner renews.
type Beat struct {
	V    int    `json:"v"`
	Term uint64 `json:"term"`
	// Evicted are the time-outs decided within the brake's window: seconds ago, and how many.
	Evicted [][2]int `json:"evicted,omitempty"`
}

// Members are the nodes that the owner hears of, by name.
type Members struct {
	V     int    `json:"v"`
	Nodes []Node `json:"nodes"`
}

const version = 1

// Encode returns the record's value.
func (c Claim) Encode() []byte { c.V = version; return encode(c) }

// Encode returns the record's value.
func (b Beat) Encode() []byte { b.V = version; return encode(b) }

// Encode returns the record's value.
func (m Members) Encode() []byte { m.V = version; return encode(m) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and times: it always encodes
	}
	return b
}

// DecodeClaim reads a claim. What cannot be read is no claim: anybody may replace it.
func DecodeClaim(value []byte) (Claim, error) {
	var c Claim
	if err := decode(value, &c); err != nil {
		return Claim{}, err
	}
	if err := checkNode(c.Node); c.V != version || c.Node.Name != "" && err != nil {
		return Claim{}, fmt.Errorf("claim of form %d: %w", c.V, err)
	}
	return c, nil
}

// DecodeBeat reads a beat.
func DecodeBeat(value []byte) (Beat, error) {
	var b Beat
	if err := decode(value, &b); err != nil {
		return Beat{}, err
	}
	if b.V != version {
		return Beat{}, fmt.Errorf("beat of form %d", b.V)
	}
	return b, nil
}

// DecodeMembers reads the live nodes.
func DecodeMembers(value []byte) (Members, error) {
	var m Members
	if err := decode(value, &m); err != nil {
		return Members{}, err
	}
	if m.V != version {
		return Members{}, fmt.Errorf("members of form %d", m.V)
	}
	for _, n := range m.Nodes {
		if err := checkNode(n); err != nil {
			return Members{}, err
		}
	}
	return m, nil
}

func decode(value []byte, v any) error {
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("a liveness record: %w", err)
	}
	return nil
}

func checkNode(n Node) error {
	if !api.ValidLabel(n.Name) {
		return fmt.Errorf("node %s is not a name", api.Quote(n.Name))
	}
	return nil
}

// SameNodes reports whether two lists, both by name, are the same.
func SameNodes(a, b []Node) bool { return slices.Equal(a, b) }

// SortNodes puts nodes in order of name.
func SortNodes(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
}
