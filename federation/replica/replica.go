package replica

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nearside/nearside/federation/internal/rules"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Refusal says why a frame or a row was not applied. The list is closed; each is counted.
type Refusal string

// The refusals. After those marked (link) the stream cannot be used any more.
const (
	RefusedProto     Refusal = "proto"     // (link) another version of the frames
	RefusedForeign   Refusal = "foreign"   // (link) not the origin that we asked for
	RefusedStale     Refusal = "stale"     // an older version than we hold; (link) in a hello or snapshot
	RefusedGap       Refusal = "gap"       // (link) a delta that does not join on
	RefusedDigest    Refusal = "digest"    // (link) rows that do not add up to the digest
	RefusedOrder     Refusal = "order"     // (link) a frame out of place
	RefusedLimit     Refusal = "limit"     // (link) more than the bounds allow
	RefusedMalformed Refusal = "malformed" // (link) a row without a readable key
	RefusedRow       Refusal = "row"       // one row, quarantined; the rest was applied
	RefusedUnknown   Refusal = "unknown"   // a kind of a newer version, ignored
	RefusedTerm      Refusal = "term"      // (link) a publisher that another one of its region has replaced
	RefusedDepth     Refusal = "depth"     // (link) more than MaxDepth relays in between
	RefusedSignature Refusal = "signature" // (link) rows of a relay that their origin did not sign so
)

// ErrRefused is wrapped by the Err of every refusal that ends a link, except those that a
// snapshot cures (see Effects.Resync).
var ErrRefused = errors.New("refused")

// ErrResync is wrapped by the Err of every effect with Resync: connect again, at once.
var ErrResync = errors.New("asking for rows")

var (
	errSums   = fmt.Errorf("%w: the origin's history does not reach back to what we hold", ErrResync)
	errHashes = fmt.Errorf("%w: the origin wants to know which rows of some buckets we have", ErrResync)
)

// Effects tell the owner of the link what a step did and what to do now.
type Effects struct {
	// Refused is set when the frame, or rows of it, were not applied.
	Refused Refusal
	// Err, when not nil, says why the stream must be dropped. The rows stay.
	Err error
	// Resync asks for rows at the next connection, see Ask: what we hold does not add up, or
	// the origin can not tell what changed since.
	Resync bool
	// Changed: visible rows, the epoch or the addresses changed.
	Changed bool
	// Applied: the version moved on, so there is something to write to disk.
	Applied bool
	// Snapshot: a whole snapshot was applied.
	Snapshot bool
	// Confirmed: the origin confirmed that we hold its newest version.
	Confirmed bool
	// Held is how many services this step began to hold back (I7).
	Held int
	// Quarantined are rows of this frame whose newest form is not used, at most MaxNacks of them.
	Quarantined []Nack
	// Canary is how long ago the heartbeat was due when this step showed all that is older: an
	// upper bound, once the round trip is known; 0 = the frame had none.
	Canary time.Duration
	// Goodbye: the origin ends the stream and will be back, not before RetryAfter.
	Goodbye    bool
	RetryAfter time.Duration
	// Leaving: the origin ends for good; its rows go after ForgetGrace. Gone: they went.
	Leaving, Gone bool
}

// Replica is the state machine of one origin. Not safe for concurrent use: it belongs to
// the owner of the link. Views taken from it are immutable.
type Replica struct {
	self, origin api.Region

	// version is the newest version applied. Invariant: it never goes backwards (I2), and
	// truth has exactly the origin's rows at version.
	version   api.Version
	truth     *Table
	complete  bool
	addresses []string
	drained   float64 // what the origin last wished about itself

	// visible is truth, with the rows that are held back merged in (I7).
	visible *Table
	held    map[api.ServiceKey]heldRow
	recent  map[api.ServiceKey]loss // removals of the last HoldFor, held back or not

	// planned is what the origin said of the step to plannedAt.
	planned   map[api.ServiceKey]struct{}
	plannedAt api.Version

	// term is that of the publisher whose word version is, within version's epoch.
	term uint64
	// leaves is when the rows of an origin that ends for good are removed, and gone that they
	// were. version stays: should the origin come back, it is still not to go backwards.
	leaves time.Time
	gone   bool

	// The stream's state; reset by Connect.
	greeted   bool
	stream    api.Epoch  // of the last hello
	head      uint64     // newest revision that the stream told of
	completes bool       // what the last hello said
	leads     uint64     // term of the last hello
	proto     int        // of the last hello
	via       api.Region // who is asked for the rows; "" = the origin itself
	depth     int        // of the last hello
	proves    bool       // what a relay tells is held to the seal that was signed
	says      Statement  // of the last hello: what all that is signed in the stream says of the origin
	can       Features   // of the last hello
	snapshot  *pending
	delta     *pending
	delay     delay
	path      delay // as delay, of canaries

	// want is what the next stream is to begin with. staged is what came of a snapshot that
	// was cut off, on top of what was there; told is the table whose digests the stream was
	// opened with, nil when without.
	want         want
	staged, told *Table
	asked        asked
	loads        loads
	nacks        []Nack

	// confirmed is when the origin last said that version is its newest, and slack how much
	// older that word may have been by then. Zero until then; since and age then tell.
	confirmed time.Time
	slack     time.Duration
	carried   time.Duration // age that the last word had at its sender already
	rtt       time.Duration
	distance  time.Duration // see SetDistance
	hop       time.Duration // the round trip to the relay in use
	relayed   bool          // confirmed is the word of a relay
	statement *Statement    // the origin's word for version; nil = it was not signed
	due       int64         // the newest canary that was not acknowledged, on the origin's clock; 0 = none
	dueAt     time.Time     // when it was shown here
	since     time.Time     // when this replica was made or loaded
	age       time.Duration // at since; from a wall clock, for display only
	refused   map[Refusal]uint64
	off       rules.Off
}

// pending is a snapshot or a delta of several frames on its way in.
type pending struct {
	edit     *edit
	from, to uint64
	set      *summary.BucketSet // of a snapshot: the buckets that its rows are in; nil = all
	answer   bool               // it answers digests that we told
	bytes    int
	rows     int
	last     api.ServiceKey // newest key of a snapshot; keys ascend
	// touched lists the keys that may differ; nil = all.
	touched []api.ServiceKey
	patch   bool
	planned map[api.ServiceKey]struct{}
}

// New returns an empty replica of origin, as a node of region self keeps it.
func New(self, origin api.Region, now time.Time) *Replica {
	empty := &Table{}
	return &Replica{
		self: self, origin: origin, truth: empty, visible: empty, since: now,
		held: make(map[api.ServiceKey]heldRow), recent: make(map[api.ServiceKey]loss), refused: make(map[Refusal]uint64),
	}
}

// Prove holds what relays tell to the seal that the origin signed from now on; whoever steps the replica
// has verified the signature. Call it before the Ask of a stream of a relay.
func (r *Replica) Prove() {
	r.proves = true
	r.truth = r.truth.sealed()
	if r.staged != nil {
		r.staged = r.staged.sealed()
	}
}

// forged reports whether rows that a relay told are not those that the origin signed. The digest
// alone would not do: rows can be made up for any.
func (r *Replica) forged(f Frame, rows *Table) bool {
	return r.proves && r.hearsay() && !f.Signed.Fits(rows)
}

// strange reports whether rows that the origin itself told are not those of its seal though they fit its
// digest: some were made up to fit it before anything was proved here. Comparing digests can not find
// them, so all rows are to be asked for.
func (r *Replica) strange(f Frame, rows *Table) bool {
	return r.via == "" && rows.seal != nil && f.Signed != nil && len(f.Signed.Seal) > 0 && !f.Signed.Fits(rows)
}

// hearsay reports whether the stream is that of another region, which passes rows on.
func (r *Replica) hearsay() bool { return r.via != "" && r.via != r.self }

// renew drops the stream in order to ask for all rows.
func (r *Replica) renew(f Frame) Effects {
	r.want, r.staged, r.told = wantEverything, nil, nil
	return r.resync(RefusedDigest, "the rows fit the digest of the origin at %s, but not its seal", f.Epoch)
}

// Without switches rules off, for the simulation.
func (r *Replica) Without(off rules.Off) { r.off = off }

// Step takes the next frame of the stream, received at now.
func (r *Replica) Step(f Frame, now time.Time) Effects {
	switch f.Kind {
	case Hello:
		return r.hello(f, now)
	case SnapshotBegin, SnapshotChunk, SnapshotEnd, Delta, Heartbeat, Hashes, LoadKind:
		if !r.greeted || f.Epoch != r.stream {
			return r.drop(RefusedOrder, "%s of epoch %s without a hello", f.Kind, f.Epoch)
		}
	}
	switch f.Kind {
	case SnapshotBegin:
		return r.begin(f)
	case SnapshotChunk:
		return r.chunk(f)
	case SnapshotEnd:
		return r.end(f, now)
	case Delta:
		return r.change(f, now)
	case Heartbeat:
		return r.heartbeat(f, now)
	case Sums:
		r.want = max(r.want, wantSums)
		return Effects{Resync: true, Err: errSums}
	case Hashes:
		return r.hashes(f)
	case LoadKind:
		return r.load(f)
	case Goodbye:
		return r.goodbye(f, now)
	}
	return r.ignore(RefusedUnknown)
}

// Refuse counts a frame that could not even be read.
func (r *Replica) Refuse(why Refusal) { r.refused[why]++ }

func (r *Replica) ignore(why Refusal) Effects {
	r.refused[why]++
	return Effects{Refused: why}
}

func (r *Replica) drop(why Refusal, format string, args ...any) Effects {
	r.refused[why]++
	return Effects{Refused: why, Err: fmt.Errorf("%w (%s): %s", ErrRefused, why, fmt.Sprintf(format, args...))}
}

// resync drops the stream in order to ask for a snapshot. It is a repair, no offence, so
// the error does not wrap ErrRefused.
func (r *Replica) resync(why Refusal, format string, args ...any) Effects {
	r.refused[why]++
	r.want = max(r.want, wantSums)
	return Effects{Refused: why, Resync: true, Err: fmt.Errorf("%w (%s): %s", ErrResync, why, fmt.Sprintf(format, args...))}
}

func (r *Replica) hello(f Frame, now time.Time) Effects {
	switch {
	case f.Proto < MinProto || f.Proto > Proto:
		return r.drop(RefusedProto, "it speaks version %d of the peer protocol, we speak %d to %d; upgrade the older one", f.Proto, MinProto, Proto)
	case f.Region == r.self:
		// Also in what a relay passes on: nobody has anything to tell us of ourselves.
		return r.drop(RefusedForeign, "it calls itself %s, which is our own name; two regions must not share one", r.self)
	case f.Region != r.origin:
		return r.drop(RefusedForeign, "it is region %s, not %s; correct the peer's URL", api.Quote(string(f.Region)), r.origin)
	case f.Relay != r.via:
		return r.drop(RefusedForeign, "the rows of %s are told by %s, not by %s", r.origin, api.Quote(string(f.Relay)), cmp.Or(r.via, r.origin))
	case f.Depth > MaxDepth, r.via != "" && r.via != r.self && f.Depth < 1:
		return r.drop(RefusedDepth, "the rows come through %d relays, 1 to %d may be in between", f.Depth, MaxDepth)
	}
	if f.Epoch == r.version.Epoch && f.Proto >= 2 && f.Term < r.term && !r.off.Term {
		return r.drop(RefusedTerm, "node %s publishes under term %d, we heard of term %d", api.Quote(f.Node), f.Term, r.term)
	}
	at := api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.Head}
	if r.older(at) {
		// The origin learned from our request what we hold and should have moved to a higher
		// epoch; until it does, what we hold is the newest there is.
		return r.drop(RefusedStale, "it stands at %s, we hold %s", at, r.version)
	}
	if !r.version.IsZero() && f.Epoch.Generation-r.version.Epoch.Generation > MaxGenerationJump && !r.off.StaleEpoch {
		// Whoever follows it there could never come back: the numbers would be used up.
		return r.drop(RefusedLimit, "generation %d is far beyond that of %s, which we hold", f.Epoch.Generation, r.version)
	}
	r.greeted, r.stream, r.head, r.completes = true, f.Epoch, f.Head, f.Complete
	r.leads, r.proto, r.can, r.depth = f.Term, f.Proto, f.Can, f.Depth
	r.says = statementOf(f)
	r.snapshot, r.delta = nil, nil
	if !f.Can.Has(CanLoad) {
		r.setLoads(nil)
	}
	if f.Epoch == r.version.Epoch {
		r.complete, r.term = f.Complete, max(r.term, f.Term)
	}
	var eff Effects
	if !r.leaves.IsZero() {
		r.leaves = time.Time{}
		eff.Changed, eff.Applied = true, true
	}
	if a := usableAddresses(f.Addresses); !slices.Equal(a, r.addresses) {
		r.addresses = a
		eff.Changed, eff.Applied = true, true
	}
	r.wish(f, &eff)
	return eff
}

// wish takes what the origin, or a node of our own that hears it, says that it wishes about itself. It is kept like a row: silence
// does not end it.
func (r *Replica) wish(f Frame, eff *Effects) {
	if r.hearsay() && !r.proves {
		return // nobody signed it, and another region has no say in it
	}
	if d := percentage(f.Drained); d != r.drained {
		r.drained = d
		eff.Changed, eff.Applied = true, true
	}
}

// percentage keeps a stranger's number within its range.
func percentage(f float64) float64 { return min(max(f, 0), 100) }

// older reports whether at is of the past, or of another history, as seen from what we hold.
func (r *Replica) older(at api.Version) bool {
	if r.version.IsZero() || r.off.StaleEpoch {
		return false
	}
	o := at.Compare(r.version)
	return (o == api.Older || o == api.Conflict) && brown != "old-epoch"
}

// apply makes next, which p led to, the truth.
func (r *Replica) apply(p *pending, next *Table, at api.Version, now time.Time) Effects {
	newHistory := at.Epoch != r.version.Epoch
	changed := newHistory || next.Digest() != r.truth.Digest()
	eff := Effects{Applied: true}
	eff.Held = r.hold(p, next, newHistory, now)
	r.truth, r.version, r.complete = next, at, r.completes
	r.statement = nil
	if len(p.planned) > 0 {
		r.planned, r.plannedAt = p.planned, at
	}
	if newHistory {
		r.term = 0
	}
	r.term = max(r.term, r.leads)
	r.want, r.staged, r.told, r.gone = wantNothing, nil, nil, false
	r.asked = asked{}
	r.head = max(r.head, at.Revision)
	released := r.release(now)
	if len(r.held) == 0 {
		r.visible = next
	} else {
		r.visible = r.merge()
	}
	eff.Changed = changed || released
	return eff
}

// Tick lets go of rows that were held back long enough, and of those of an origin that said
// that it ends. Call it about once a second.
func (r *Replica) Tick(now time.Time) Effects {
	if !r.leaves.IsZero() && !now.Before(r.leaves) {
		return r.forget()
	}
	if len(r.held) == 0 || !r.release(now) {
		return Effects{}
	}
	r.visible = r.truth
	if len(r.held) > 0 {
		r.visible = r.merge()
	}
	return Effects{Changed: true, Applied: true}
}
