// Package peer is the wire between regions. A [Server] tells this region's summaries to
// readers in other regions; a [Client] reads those of another region. Both speak HTTP: a
// reader opens
//
//	GET /peer/v1/stream?proto=1&reader=us-east&node=n1&region=eu-west&have=eu-west/3-00f1e2d3c4b5a697/812
//
// and gets lines of JSON, one replica.Frame each, for as long as both live. "have" is the
// version that the reader holds (repeatable; versions of other regions are for a later
// relay and are ignored now), "full=true" asks for a snapshot whatever it holds, "digest"
// is that of what it holds, "region" is whom the reader believes to be talking to. GET
// /peer/v1/ping measures the round trip.
//
// An empty line means only that the origin lives. Parameters, fields and frame kinds that a
// side does not know are ignored; a change that is not compatible gets another proto. The
// stream carries summaries only: nothing that a reader sends changes the region's own
// records, except that a reader which proves that our history restarted makes us raise our
// epoch (refutation, see settle).
//
// TLS belongs to whoever makes the listener and the http.Client; with it, PeerRegion tells
// the authenticated region of a request.
package peer

import (
	"context"
	"errors"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Paths of the peer door.
const (
	PathStream = "/peer/v1/stream"
	PathPing   = "/peer/v1/ping"
)

// StreamType is the media type of a stream.
const StreamType = "application/x-ndjson"

// Cadence of a stream.
const (
	// HeartbeatInterval is how often a stream says where its origin stands, busy or idle.
	HeartbeatInterval = time.Second
	// SilenceLimit is how long a reader waits for a byte before it gives a stream up.
	SilenceLimit = 3 * time.Second
	// AnswerLimit bounds dialing and waiting for the answer to begin. The server may need a
	// moment in it to raise its epoch.
	AnswerLimit = 6 * time.Second
	// WriteLimit is how long the server waits for a slow reader to take a frame.
	WriteLimit = 10 * time.Second
	// MaxCoalesce bounds the wait between two deltas under churn. The first change after a
	// quiet moment goes at once.
	MaxCoalesce = 200 * time.Millisecond
)

// Image is an immutable picture of the region's catalogue. Safe for concurrent use.
type Image interface {
	// Version the picture stands at; zero while the catalogue is not loaded.
	Version() api.Version
	// Services returns the keys of all services, sorted by namespace and name.
	Services() []api.ServiceKey
	// Service returns a service's instances and the revision of its last change.
	Service(api.ServiceKey) (instances []*api.Instance, revision uint64)
}

// Source is this region's catalogue, as federation needs it. Safe for concurrent use.
type Source interface {
	// Image returns the newest picture; later calls never return an older one.
	Image() Image
	// Wait returns nil once the newest version is no longer after, or ctx's error.
	Wait(ctx context.Context, after api.Version) error
	// ChangedSince returns the services that changed after a version, at least up to the
	// newest Image made before the call. ok is false when that history is gone or of another
	// epoch.
	ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool)
	// RaiseEpoch makes the epoch's generation higher than above; the version changes with it.
	RaiseEpoch(ctx context.Context, above uint64) error
}

// Errors of a Client, wrapped with the subject.
var (
	// ErrSilent: the peer accepted, but no byte came in time.
	ErrSilent = errors.New("no sign of life from the peer")
	// ErrEnded: the peer closed the stream.
	ErrEnded = errors.New("the peer ended the stream")
	// ErrNotPeer: whatever answers at that address is no Nearside federation.
	ErrNotPeer = errors.New("not a Nearside federation address")
)
