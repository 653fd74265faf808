package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Proto is the version of the frames. A peer that speaks another one is refused; fields and
// kinds that are unknown within one version are ignored, so both ends may grow.
const Proto = 1

// Bounds of what a peer may send.
const (
	MaxFrameBytes    = 4 << 20   // one frame
	MaxFrameRows     = 4_096     // rows or deletes of one frame
	MaxRows          = 200_000   // rows of one origin
	MaxSnapshotBytes = 512 << 20 // bodies of one snapshot or delta, together
	MaxAddresses     = 16        // public addresses of an origin
)

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
	// From and To are revisions. A delta leads from From to To; a snapshot stands at To.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// More is set on a delta that goes on in the next frame; only the last has the digest.
	More bool `json:"more,omitempty"`
	// Rows of a snapshot_chunk, or the rows that a delta adds or replaces.
	Rows []Row `json:"rows,omitempty"`
	// Deletes of a delta: "namespace/service".
	Deletes []string `json:"deletes,omitempty"`
	// Count is the number of rows of the whole snapshot (snapshot_end).
	Count int `json:"count,omitempty"`
	// Digest of all of the origin's rows at To, or at Head (snapshot_end, delta, heartbeat).
	Digest summary.Digest `json:"digest"`

	// Hello only.
	Proto     int        `json:"proto,omitempty"`
	Region    api.Region `json:"region,omitempty"`
	Node      string     `json:"node,omitempty"`
	Complete  bool       `json:"complete,omitempty"` // the origin tells all of its services
	Addresses []string   `json:"addresses,omitempty"`

	// Reason of a goodbye: "restart" (keep my rows, I come back).
	Reason string `json:"reason,omitempty"`
}

// ReasonRestart is the goodbye of a node that stops.
const ReasonRestart = "restart"

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
	case Hello, SnapshotBegin, SnapshotChunk, SnapshotEnd, Delta, Heartbeat:
		if f.Epoch.IsZero() {
			return bad("no epoch")
		}
	}
	switch {
	case len(f.Rows) > MaxFrameRows || len(f.Deletes) > MaxFrameRows:
		return bad(fmt.Sprintf("over %d rows", MaxFrameRows))
	case f.Count < 0 || f.Count > MaxRows:
		return bad(fmt.Sprintf("%d rows, %d are allowed", f.Count, MaxRows))
	case f.Kind == Delta && f.From >= f.To:
		return bad("it leads nowhere")
	case f.SentMS < 0:
		return bad("sent before its stream began")
	}
	return nil
}

// cut keeps a message that may quote a stranger's bytes short.
func cut(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "?")
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
