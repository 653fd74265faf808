package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Proto is the newest version of the frames that we speak, and MinProto the oldest. Both
// ends use the newest that both speak; a peer that speaks none of ours is refused. Fields and
// kinds that are unknown within one version are ignored, so both ends may grow.
//
// Version 2 came with buckets (sums, a snapshot of some buckets, rows in order of buckets),
// deltas from one epoch to another, and versions without changes that travel as heartbeats.
const (
	Proto    = 2
	MinProto = 1
)

// Bounds of what a peer may send.
const (
	MaxFrameBytes    = 4 << 20   // one frame
	MaxFrameRows     = 4_096     // rows or deletes of one frame
	MaxRows          = 200_000   // rows of one origin
	MaxSnapshotBytes = 512 << 20 // bodies of one origin, and of one snapshot or delta, together
	MaxAddresses     = 16        // public addresses of an origin
)

// Bounds of the certificates in a hello.
const (
	maxChain      = 16
	maxChainBytes = 128 << 10
)

func chainBytes(chain [][]byte) (n int) {
	for _, c := range chain {
		n += len(c)
	}
	return n
}

// maxStreamMS bounds the age of a stream, so that a sum with it does not overflow.
const maxStreamMS = 100 * 365 * 24 * 3600 * 1000

// MaxGenerationJump bounds by how much an epoch that is told may be beyond what is held, so that an origin
// that lies cannot use up the numbers. It is far wider than what the claims of readers can lead an origin to
// (origin.MaxClaim each) while another reader is away: that one must be able to follow.
const MaxGenerationJump = 1 << 62

// ChunkRows and ChunkBytes bound the rows that an origin puts into one frame. One row may
// exceed ChunkBytes by itself, but summary.MaxExtraBytes keeps it within MaxFrameBytes.
const (
	ChunkRows  = 500
	ChunkBytes = 1 << 20
)

// Kind says what a frame is.
type Kind string

// The frames. A stream begins with hello. Then either a snapshot (begin, chunks in key
// order, end) or deltas that join on to what the reader has; heartbeats once a second. A
// hello may come again: with new addresses, or with a new epoch, after which a snapshot
// follows.
const (
	Hello         Kind = "hello"
	SnapshotBegin Kind = "snapshot_begin"
	SnapshotChunk Kind = "snapshot_chunk"
	SnapshotEnd   Kind = "snapshot_end"
	Delta         Kind = "delta"
	Heartbeat     Kind = "heartbeat"
	Goodbye       Kind = "goodbye"
	// Sums asks the reader to come back with the digests of its buckets: the origin does not
	// know what changed since the version that the reader holds.
	Sums Kind = "sums"
	// Hashes asks the reader to come back with the hashes of its rows in some buckets: those in
	// which it differs from the origin's version To. Sent in answer to the digests, to a reader
	// that can do it.
	Hashes Kind = "hashes"
	// LoadKind tells how much services are used. It has no version: see load.go.
	LoadKind Kind = "load"
)

// Frame is one line of a stream. Which fields count depends on Kind.
type Frame struct {
	Kind  Kind      `json:"kind"`
	Epoch api.Epoch `json:"epoch,omitzero"` // every frame but goodbye
	// Head is the origin's revision when the frame was made (hello, heartbeat).
	Head uint64 `json:"head,omitempty"`
	// SentMS is how long after the stream's begin the frame was made, in milliseconds of the
	// origin's monotonic clock (heartbeat, delta). Only differences of it are used.
	SentMS int64 `json:"sent_ms,omitempty"`
	// From and To are revisions. A delta leads from From to To; a snapshot stands at To; a
	// heartbeat's digest is that of To, which the stream has led to.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// More is set on a delta that goes on in the next frame; only the last has the digest.
	More bool `json:"more,omitempty"`
	// FromEpoch is the epoch of From when it is not Epoch (delta): the origin's history began
	// anew, and it knows what the reader has.
	FromEpoch api.Epoch `json:"from_epoch,omitzero"`
	// Buckets are those that a snapshot replaces (snapshot_begin); nil means all rows. Of a
	// patch they are where its drops are, and of hashes what is asked for.
	Buckets *summary.BucketSet `json:"buckets,omitempty"`
	// Patch: the snapshot replaces nothing but what it names (snapshot_begin): it adds its rows,
	// and removes those in Drops, by their hashes, and in Deletes of its chunks. From, when it
	// is set, is the version that the reader must hold.
	Patch bool           `json:"patch,omitempty"`
	Drops summary.Hashes `json:"drops,omitempty"`
	// Rows of a snapshot_chunk, or the rows that a delta adds or replaces.
	Rows []Row `json:"rows,omitempty"`
	// Deletes of a delta, or of a chunk of a snapshot that patches: "namespace/service".
	Deletes []string `json:"deletes,omitempty"`
	// Planned are services of which the origin says that whatever they lost between From and To
	// was meant to go, in the same form and the same frames. It counts within one epoch only.
	Planned []string `json:"planned,omitempty"`
	// Loads of a load frame. Full begins a list of all that are known, which More continues;
	// otherwise they are changes.
	Loads []Load `json:"loads,omitempty"`
	Full  bool   `json:"full,omitempty"`
	// LoadDigest is that of all loads that the stream has told (heartbeat); nil while it is
	// telling some, and of an origin that tells none.
	LoadDigest *summary.Digest `json:"load_digest,omitempty"`
	// Count is the number of rows of the whole snapshot (snapshot_end).
	Count int `json:"count,omitempty"`
	// Digest of all of the origin's rows at To, or at Head (snapshot_end, delta, heartbeat).
	Digest summary.Digest `json:"digest"`

	// RTTMS is the sender's round trip to the origin, in milliseconds: told to other nodes of its own region
	// (heartbeat). 0 = not known.
	RTTMS int64 `json:"rtt_ms,omitempty"`
	// Drained is what the origin wishes about itself (hello, heartbeat; elsewhere because it is signed): how much less of its
	// traffic it is to get, in percent, 0 to 100. One that does not know of such a thing wishes none.
	Drained float64 `json:"drained,omitempty"`
	// DueMS is when the heartbeat was due, on the clock of SentMS: the canary. The frame was
	// made when all changes before that had been sent.
	DueMS int64 `json:"due_ms,omitempty"`
	// WireMS is when the heartbeat was handed to the network, on the same clock.
	WireMS int64 `json:"wire_ms,omitempty"`
	// AgeMS is how old the word of the origin was already at SentMS, in milliseconds (heartbeat,
	// delta): a relay passes it on, or the origin's federation follows its region from outside and has
	// not heard of it since. 0 from a node of the origin itself. The reader adds it.
	AgeMS int64 `json:"age_ms,omitempty"`
	// Signed is the origin's signature of what the frame says of itself (hello, delta,
	// snapshot_end, heartbeat), see Statement. nil where nobody signs.
	Signed *Signed `json:"signed,omitempty"`
	// Standings is where the sender stands with the regions that it reads, the reader's among
	// them, by name (heartbeat).
	Standings []Standing `json:"standings,omitempty"`

	// Hello only.
	Proto     int        `json:"proto,omitempty"`
	Region    api.Region `json:"region,omitempty"`
	Node      string     `json:"node,omitempty"`
	Complete  bool       `json:"complete,omitempty"` // the origin tells all of its services
	Addresses []string   `json:"addresses,omitempty"`
	// Term orders the publishers of one region within one epoch: a lower one than heard of
	// before is refused. 0 where a region has no such thing.
	Term uint64 `json:"term,omitempty"`
	// Echo is what the reader gave with its request; a recording has another.
	Echo string `json:"echo,omitempty"`
	// Stream names the stream, for the reader's Acks.
	Stream string `json:"stream,omitempty"`
	// Can is what the origin can do beyond the version of the frames.
	Can Features `json:"can,omitzero"`
	// Relay is the region that passes Region's rows on, and Depth the number of relays that
	// they came through, that one included. Empty and 0 from the origin itself.
	Relay api.Region `json:"relay,omitempty"`
	Depth int        `json:"depth,omitempty"`
	// Chain is the origin's certificate in DER, and those that lead to its authority, to which
	// Signed is held.
	Chain [][]byte `json:"chain,omitempty"`

	// Reason of a goodbye, one of the Reasons. RetryMS is how long to stay away at least.
	Reason  string `json:"reason,omitempty"`
	RetryMS int64  `json:"retry_ms,omitempty"`
}

// The reasons of a goodbye.
const (
	ReasonRestart = "restart" // a node stops: keep my rows, I come back
	ReasonForget  = "forget"  // the region ends for good: remove my rows after ForgetGrace
	ReasonBusy    = "busy"    // too many want a snapshot: come back later
)

// Load is how much of what its usable instances can take a service is used: its class in percent
// (summary.LoadClass), 0 when that is not known any more. Key is as in Deletes.
type Load struct {
	Key     string `json:"k"`
	Percent int    `json:"p"`
}

// Row is one service of the origin. Body is the summary as summary.Encode wrote it; it is
// kept as bytes because its hash is over the bytes.
type Row struct {
	Revision uint64          `json:"revision"`
	Body     json.RawMessage `json:"body"`
}

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed frame")

// Decode reads one frame. It accepts unknown fields and unknown kinds, and refuses what no
// version of the protocol would send. Rows are looked at only by Step.
func Decode(line []byte) (Frame, error) {
	var f Frame
	if len(line) > MaxFrameBytes {
		return f, fmt.Errorf("%w: %d bytes, %d are allowed", ErrMalformed, len(line), MaxFrameBytes)
	}
	if Wide(line, maxFrameElements) {
		return f, fmt.Errorf("%w: lists of over %d elements", ErrMalformed, maxFrameElements)
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return f, fmt.Errorf("%w: %s", ErrMalformed, cut(err.Error()))
	}
	return f, f.check()
}

func (f *Frame) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s: %s", ErrMalformed, f.Kind, what) }
	switch f.Kind {
	case "":
		return fmt.Errorf("%w: it has no kind", ErrMalformed)
	case Hello, SnapshotBegin, SnapshotChunk, SnapshotEnd, Delta, Heartbeat, Hashes, LoadKind:
		if f.Epoch.IsZero() {
			return bad("no epoch")
		}
	}
	switch {
	case len(f.Rows) > MaxFrameRows || len(f.Deletes) > MaxFrameRows || len(f.Planned) > MaxFrameRows || len(f.Loads) > MaxFrameRows:
		return bad(fmt.Sprintf("over %d rows", MaxFrameRows))
	case f.Count < 0 || f.Count > MaxRows:
		return bad(fmt.Sprintf("%d rows, %d are allowed", f.Count, MaxRows))
	case f.Kind == Delta && f.From >= f.To && f.FromEpoch.IsZero():
		return bad("it leads nowhere")
	case f.Kind == Hashes && f.Buckets == nil:
		return bad("it names no buckets")
	case len(f.Drops) > MaxRows:
		return bad(fmt.Sprintf("%d rows to drop, %d are allowed", len(f.Drops), MaxRows))
	case f.SentMS < 0 || f.SentMS > maxStreamMS:
		return bad("sent before its stream began, or after a hundred years")
	case f.AgeMS < 0 || f.AgeMS > maxStreamMS:
		return bad("of the future, or over a hundred years old")
	case f.DueMS < 0 || f.WireMS < 0 || f.WireMS > maxStreamMS:
		return bad("due before its stream began")
	case f.RTTMS < 0 || f.RTTMS > maxStreamMS:
		return bad("a round trip that cannot be")
	case f.Depth < 0:
		return bad("a negative depth")
	case f.Node != "" && !api.ValidInstanceID(f.Node):
		return bad("its node has no valid name")
	case f.Stream != "" && !api.ValidInstanceID(f.Stream):
		return bad("its stream has no valid name")
	case len(f.Chain) > maxChain || chainBytes(f.Chain) > maxChainBytes:
		return bad("a chain of certificates that cannot be")
	}
	return nil
}

// cut keeps a message that may quote a stranger's bytes short.
func cut(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '?' // it may end on somebody's terminal
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}

// FormatKey returns the form of a key in Deletes.
func FormatKey(k api.ServiceKey) string { return string(k.Namespace) + "/" + string(k.Service) }

// ParseKey reads the form of FormatKey.
func ParseKey(s string) (api.ServiceKey, error) {
	ns, service, ok := strings.Cut(s, "/")
	if !ok || !api.ValidLabel(ns) || !api.ValidLabel(service) {
		return api.ServiceKey{}, fmt.Errorf("%w: key %s", ErrMalformed, api.Quote(s))
	}
	return api.ServiceKey{Namespace: api.Namespace(ns), Service: api.ServiceName(service)}, nil
}
