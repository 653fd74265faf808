// Package store is the contract between a region's registry and the place that keeps its
// records. Implementations: memstore (tests and --dev without a data directory) and
// etcdstore (etcd through client v3). storetest holds the one suite that all must pass.
//
// A store belongs to one region. It keeps small records under plain keys, numbers every
// commit with a revision, and can replay what happened after a revision. It knows nothing
// of instances, heartbeats or time.
package store

import (
	"context"
	"errors"

	"github.com/nearside/nearside/sdk/api"
)

// Errors that every implementation returns, possibly wrapped with the subject.
var (
	// ErrConflict: a guard did not hold; nothing was written.
	ErrConflict = errors.New("a record changed meanwhile")
	// ErrCompacted: the history after the asked revision is gone; Load again.
	ErrCompacted = errors.New("history before this revision is gone")
	// ErrUnavailable: the store did not answer in time or lost its quorum. The outcome of
	// a Commit is then unknown.
	ErrUnavailable = errors.New("the store does not answer")
	// ErrFull: no space is left for puts; deletes are taken all the same. The outcome of a
	// Commit is unknown, as with ErrUnavailable: etcd refuses the very write that crosses
	// its quota and may apply it nevertheless.
	ErrFull = errors.New("the store is full")
	// ErrWrongRegion: the data belongs to another region.
	ErrWrongRegion = errors.New("the data belongs to another region")
	// ErrTooLarge: the commit has too many operations or bytes.
	ErrTooLarge = errors.New("the commit is too large")
	// ErrEpochRaised: another epoch stands since the revision that was told last. Ask for it, and watch on.
	ErrEpochRaised = errors.New("the epoch was raised")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Bounds of one Commit. Beyond them Commit returns ErrTooLarge and writes nothing.
const (
	MaxOps   = 128     // operations (etcd's own limit)
	MaxBytes = 1 << 20 // keys and values together; below etcd's 1.5 MiB request, which also carries the guards
	MaxKey   = 640     // bytes of a key: the longest of the key-value records, with namespace and prefix, has 579
)

// Record is one stored record. Value must not be changed by the reader.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64 // of its last change
}

// Op is one write of a Commit, or a Check. No key may occur twice in a Commit.
type Op struct {
	Delete bool
	// Check writes nothing: the commit depends on the record as Guarded and If say. A commit of
	// checks alone takes no revision and is never ErrFull: it confirms with the store that the
	// records are still those.
	Check bool
	Key   string
	Value []byte
	// Guarded: the commit happens only if the record's revision is If; 0 = it must not exist.
	Guarded bool
	If      uint64
}

// Event is one change inside a Batch. For a delete, Record carries the key and the
// revision of the delete, with a nil Value.
type Event struct {
	Delete bool
	Record Record
}

// Batch is everything one Commit changed: it is applied whole or not at all (P5).
type Batch struct {
	Revision uint64
	Events   []Event // in key order
}

// Image is the whole content at one revision.
type Image struct {
	Epoch    api.Epoch
	Revision uint64
	Records  []Record // in key order
}

// Store keeps a region's records. All methods are safe for concurrent use and return when
// ctx ends; but for Watch the error then wraps both ctx's error and ErrUnavailable. Keys are 1 to
// MaxKey bytes; an implementation keeps them apart from its own bookkeeping (epoch, region
// stamp), which never shows in Load or Watch but does take revisions: a revision may pass
// without a batch, and progress and Barrier tell of it.
type Store interface {
	// Load returns the content at a revision that is at least the newest one acknowledged
	// before the call.
	Load(ctx context.Context) (Image, error)

	// Commit applies ops atomically and returns their revision once they are durable.
	// Errors: ErrConflict, ErrUnavailable and ErrFull (outcome unknown), ErrTooLarge, ErrClosed;
	// a plain error for ops that CheckOps refuses. After all but ErrUnavailable and ErrFull
	// nothing was written. A commit without puts is never ErrFull.
	// Deleting a missing record without a guard succeeds; when a commit changes nothing the
	// current revision is returned.
	Commit(ctx context.Context, ops []Op) (uint64, error)

	// Watch calls apply for every batch after revision from, in revision order, each exactly
	// once, from the caller's goroutine. It never returns nil: it returns apply's error as it
	// is, ctx's error, ErrClosed, ErrCompacted (also when from, or what was told already, is
	// ahead of the store: the history was replaced by an older one), ErrEpochRaised once it has told everything
	// before the new epoch and the revision that it took, or ErrUnavailable when the store has not been
	// heard of for some seconds (call again with the last revision seen).
	// progress, when not nil, is called with a never falling revision up to which nothing more will
	// come: soon after a Barrier that is ahead of the last batch, and at least every few
	// seconds while nothing happens, so it also proves that the store answers. progress and
	// apply are never called at the same time. Two watches do not wait for each other.
	Watch(ctx context.Context, from uint64, apply func(Batch) error, progress func(revision uint64)) error

	// Barrier returns a revision that is at least that of every commit acknowledged before
	// the call, confirmed with the store (strong reads). Every running Watch of this Store
	// reaches it soon, by a batch or by progress.
	Barrier(ctx context.Context) (uint64, error)

	// Epoch returns the epoch of the present history. It is set when the store is first opened.
	Epoch(ctx context.Context) (api.Epoch, error)

	// RaiseEpoch makes the epoch's generation at least above+1, with a fresh nonce, and
	// returns the epoch that stands afterwards. It changes nothing when the generation is
	// already higher than above. It is a write: ErrFull is possible.
	RaiseEpoch(ctx context.Context, above uint64) (api.Epoch, error)

	// Close releases everything; calls under way return ErrClosed or ErrUnavailable.
	Close() error
}
