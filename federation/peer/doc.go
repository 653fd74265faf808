// Package peer is the wire between regions. A [Server] tells this region's summaries to
// readers in other regions; a [Client] reads those of another region. Both speak HTTP: a
// reader opens
//
//	GET /peer/v1/stream?proto=1&max_proto=2&reader=us-east&node=n1&region=eu-west&have=eu-west/3-00f1e2d3c4b5a697/812
//
// and gets lines of JSON, one replica.Frame each, for as long as both live. "proto" and
// "max_proto" are the oldest and the newest version of the frames that the reader speaks;
// "have" is the version that it holds (repeatable; versions of other regions are ignored),
// "digest" is that of what it holds, "term" that of the publisher it came from, "region" is
// whom the reader believes to be talking to; "full=true" asks for all rows; "can" lists what the
// reader can do beyond that version (replica.Features); the greeting says "echo" again, so that no
// recording passes for it. A POST of the same with the 8 to 128 KiB
// of replica.Ask.Sums as its body asks for the rows that differ; an origin that would have to send
// whole buckets asks back, and the reader comes again with its replica.Ask.Holding and, as "at",
// the version at which it was asked.
//
// With "Accept-Encoding: zstd" the answer is compressed, and every frame flushed.
//
// Beside the stream the reader says about once a second where it stands and how old it takes
// its knowledge to be, POST /peer/v1/ack?stream=…, and measures the round trip with GET
// /peer/v1/ping. POST /peer/v1/verify, with "have" and the 8 KiB of digests, answers with the
// rows in which the reader may differ (origin.Comparison), for operators who want proof.
//
// GET /peer/v1/detail, with "ns" and "service", tells all usable instances of one service (Detail).
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

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/sdk/api"
)

// Paths of the peer door.
const (
	PathStream = "/peer/v1/stream"
	PathPing   = "/peer/v1/ping"
	PathAck    = "/peer/v1/ack"
	PathVerify = "/peer/v1/verify"
	// PathOrigins lists the regions that are read here, for nodes of the same region.
	PathOrigins = "/peer/v1/origins"
)

// StreamType is the media type of a stream, and SumsType that of the digests it may be opened with.
const (
	StreamType = "application/x-ndjson"
	SumsType   = "application/octet-stream"
	// HoldingType is the media type of the hashes of a reader's rows.
	HoldingType = "application/vnd.nearside.holding"
)

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
	// AckInterval is how often a reader tells where it stands; after AckBytes it does so sooner.
	AckInterval = time.Second
	AckBytes    = 1 << 20
	// MaxCoalesce bounds the wait between two deltas under churn. The first change after a
	// quiet moment goes at once.
	MaxCoalesce = 200 * time.Millisecond
)

// Image is an immutable picture of the region's catalogue. Safe for concurrent use.
type Image = origin.Image

// Source is this region's catalogue, as federation needs it. Safe for concurrent use.
type Source interface {
	origin.Source
	// Wait returns nil once something has changed after the version, or its epoch is no longer
	// the region's, or ctx's error. It may sleep through revisions that change nothing.
	Wait(ctx context.Context, after api.Version) error
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
