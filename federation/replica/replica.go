package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

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
)

// ErrRefused is wrapped by the Err of every refusal that ends a link, except those that a
// snapshot cures (see Effects.Resync).
var ErrRefused = errors.New("refused")

// Effects tell the owner of the link what a step did and what to do now.
type Effects struct {
	// Refused is set when the frame, or rows of it, were not applied.
	Refused Refusal
	// Err, when not nil, says why the stream must be dropped. The rows stay.
	Err error
	// Resync asks for a whole snapshot at the next connection: what we hold does not add up.
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
	// Goodbye: the origin ends the stream and will be back.
	Goodbye bool
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

	// visible is truth, with the rows that are held back merged in (I7).
	visible *Table
	held    map[api.ServiceKey]heldRow

	// The stream's state; reset by Connect.
	greeted   bool
	stream    api.Epoch // of the last hello
	head      uint64    // newest revision that the stream told of
	completes bool      // what the last hello said
	snapshot  *pending
	delta     *pending
	delay     delay

	// confirmed is when the origin last said that version is its newest, and slack how much
	// older that word may have been by then. Zero until then; since and age then tell.
	confirmed time.Time
	slack     time.Duration
	rtt       time.Duration
	whole     bool          // a snapshot is wanted, whatever the version says
	since     time.Time     // when this replica was made or loaded
	age       time.Duration // at since; from a wall clock, for display only
	refused   map[Refusal]uint64
}

// pending is a snapshot or a delta of several frames on its way in.
type pending struct {
	edit     *edit
	from, to uint64
	bytes    int
	last     api.ServiceKey // newest key of a snapshot; keys ascend
	touched  []api.ServiceKey
}

// New returns an empty replica of origin, as a node of region self keeps it.
func New(self, origin api.Region, now time.Time) *Replica {
	empty := &Table{}
	return &Replica{
		self: self, origin: origin, truth: empty, visible: empty, since: now,
		held: make(map[api.ServiceKey]heldRow), refused: make(map[Refusal]uint64),
	}
}

// Have returns the version to tell the origin when connecting; zero when nothing is held.
func (r *Replica) Have() api.Version { return r.version }

// WantsSnapshot reports whether the next stream should begin with a whole snapshot although
// a version is held: something did not add up, or was written down by a version of this
// program that understood less.
func (r *Replica) WantsSnapshot() bool { return r.whole }

// SetRTT tells the measured round trip to the origin; it is part of the age.
func (r *Replica) SetRTT(d time.Duration) { r.rtt = d }

// Connect begins a new stream at now. What was on its way in the old one is forgotten;
// what was applied stays (I6).
func (r *Replica) Connect(now time.Time) {
	r.greeted, r.stream, r.head, r.completes = false, api.Epoch{}, 0, false
	r.snapshot, r.delta = nil, nil
	r.delay = delay{began: now}
}

// Step takes the next frame of the stream, received at now.
func (r *Replica) Step(f Frame, now time.Time) Effects {
	switch f.Kind {
	case Hello:
		return r.hello(f)
	case SnapshotBegin, SnapshotChunk, SnapshotEnd, Delta, Heartbeat:
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
	case Goodbye:
		return Effects{Goodbye: true}
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
	r.whole = true
	return Effects{Refused: why, Resync: true, Err: fmt.Errorf("asking for a snapshot (%s): %s", why, fmt.Sprintf(format, args...))}
}

func (r *Replica) hello(f Frame) Effects {
	switch {
	case f.Proto != Proto:
		return r.drop(RefusedProto, "it speaks version %d of the peer protocol, we speak %d; upgrade the older one", f.Proto, Proto)
	case f.Region == r.self:
		return r.drop(RefusedForeign, "it calls itself %s, which is our own name; two regions must not share one", r.self)
	case f.Region != r.origin:
		return r.drop(RefusedForeign, "it is region %s, not %s; correct the peer's URL", api.Quote(string(f.Region)), r.origin)
	}
	at := api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.Head}
	if !r.version.IsZero() {
		if o := at.Compare(r.version); o == api.Older || o == api.Conflict {
			// The origin learned from our request what we hold and should have moved to a higher
			// epoch; until it does, what we hold is the newest there is.
			return r.drop(RefusedStale, "it stands at %s, we hold %s", at, r.version)
		}
	}
	r.greeted, r.stream, r.head, r.completes = true, f.Epoch, f.Head, f.Complete
	r.snapshot, r.delta = nil, nil
	if f.Epoch == r.version.Epoch {
		r.complete = f.Complete
	}
	if a := usableAddresses(f.Addresses); !slices.Equal(a, r.addresses) {
		r.addresses = a
		return Effects{Changed: true, Applied: true}
	}
	return Effects{}
}

func (r *Replica) begin(f Frame) Effects {
	at := api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}
	if !r.version.IsZero() {
		if o := at.Compare(r.version); o == api.Older || o == api.Conflict {
			return r.drop(RefusedStale, "a snapshot at %s, we hold %s", at, r.version)
		}
	}
	r.delta = nil
	r.snapshot = &pending{edit: newEdit(&Table{}), to: f.To}
	return Effects{}
}

func (r *Replica) chunk(f Frame) Effects {
	p := r.snapshot
	if p == nil {
		return r.drop(RefusedOrder, "a chunk outside of a snapshot")
	}
	var eff Effects
	for _, row := range f.Rows {
		key, e, err := readRow(r.origin, row)
		switch {
		case err != nil:
			return r.drop(RefusedMalformed, "%s", err)
		case p.edit.t.count > 0 && compareKeys(key, p.last) <= 0:
			return r.drop(RefusedOrder, "snapshot rows are not in key order")
		}
		if d := r.put(p, key, e, len(row.Body), &eff); d.Err != nil {
			return d
		}
	}
	return eff
}

// put adds a row to what is pending, within bounds.
func (r *Replica) put(p *pending, key api.ServiceKey, e *Entry, size int, eff *Effects) Effects {
	p.bytes += size
	p.last = key
	if p.edit.t.count >= MaxRows || p.bytes > MaxSnapshotBytes {
		return r.drop(RefusedLimit, "over %d rows or %d bytes", MaxRows, MaxSnapshotBytes)
	}
	if e.Quarantined != "" {
		r.refused[RefusedRow]++
		eff.Refused = RefusedRow
		if old := r.truth.Get(key); old != nil {
			e.Summary = old.Summary // the last good one goes on being used
		}
	}
	p.edit.put(key, e)
	return Effects{}
}

func (r *Replica) end(f Frame, now time.Time) Effects {
	p := r.snapshot
	if p == nil || p.to != f.To {
		return r.drop(RefusedOrder, "the end of a snapshot that did not begin")
	}
	r.snapshot = nil
	next := p.edit.done()
	if next.Len() != f.Count || next.Digest() != f.Digest {
		return r.resync(RefusedDigest, "snapshot of %d rows with digest %s, the origin says %d and %s", next.Len(), next.Digest(), f.Count, f.Digest)
	}
	eff := r.apply(next, api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}, nil, now)
	eff.Snapshot = true
	r.whole = false
	return eff
}

func (r *Replica) change(f Frame, now time.Time) Effects {
	switch {
	case r.snapshot != nil:
		return r.drop(RefusedOrder, "a delta inside a snapshot")
	case f.Epoch != r.version.Epoch, f.From > r.version.Revision:
		return r.resync(RefusedGap, "a delta from %s/%d, we hold %s", f.Epoch, f.From, r.version)
	case f.To <= r.version.Revision:
		return r.ignore(RefusedStale) // said twice
	}
	p := r.delta
	if p == nil || p.from != f.From || p.to != f.To {
		p = &pending{edit: newEdit(r.truth), from: f.From, to: f.To, touched: []api.ServiceKey{}}
		r.delta = p
	}
	var eff Effects
	for _, row := range f.Rows {
		key, e, err := readRow(r.origin, row)
		if err != nil {
			return r.drop(RefusedMalformed, "%s", err)
		}
		p.touched = append(p.touched, key)
		if d := r.put(p, key, e, len(row.Body), &eff); d.Err != nil {
			return d
		}
	}
	for _, d := range f.Deletes {
		key, err := ParseKey(d)
		if err != nil {
			return r.drop(RefusedMalformed, "%s", err)
		}
		p.touched = append(p.touched, key)
		p.edit.remove(key)
	}
	if f.More {
		return eff
	}
	r.delta = nil
	next := p.edit.done()
	if next.Digest() != f.Digest {
		return r.resync(RefusedDigest, "digest %s after a delta, the origin says %s", next.Digest(), f.Digest)
	}
	refused := eff.Refused
	eff = r.apply(next, api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}, p.touched, now)
	eff.Refused = refused
	if f.To >= r.head {
		r.head = f.To
		r.confirm(f.SentMS, now)
		eff.Confirmed = true
	}
	return eff
}

func (r *Replica) heartbeat(f Frame, now time.Time) Effects {
	if r.snapshot != nil || f.Epoch != r.version.Epoch {
		r.head = max(r.head, f.Head)
		return Effects{} // proof of life while the snapshot is on its way
	}
	if f.Head < r.version.Revision {
		return r.ignore(RefusedStale)
	}
	r.head = max(r.head, f.Head)
	if f.Head > r.version.Revision {
		return Effects{} // behind: the age goes on growing
	}
	if f.Digest != r.truth.Digest() {
		return r.resync(RefusedDigest, "digest %s at %s, the origin says %s", r.truth.Digest(), r.version, f.Digest)
	}
	r.confirm(f.SentMS, now)
	return Effects{Confirmed: true}
}

func (r *Replica) confirm(sentMS int64, now time.Time) {
	r.slack = r.delay.observe(time.Duration(sentMS)*time.Millisecond, now)
	r.confirmed = now
}

// apply makes next the truth. touched lists the keys that may differ, nil for all.
func (r *Replica) apply(next *Table, at api.Version, touched []api.ServiceKey, now time.Time) Effects {
	newHistory := at.Epoch != r.version.Epoch
	changed := newHistory || next.Digest() != r.truth.Digest()
	eff := Effects{Applied: true}
	eff.Held = r.hold(next, touched, newHistory, now)
	r.truth, r.version, r.complete = next, at, r.completes
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

// Tick lets go of rows that were held back long enough. Call it about once a second.
func (r *Replica) Tick(now time.Time) Effects {
	if len(r.held) == 0 || !r.release(now) {
		return Effects{}
	}
	r.visible = r.truth
	if len(r.held) > 0 {
		r.visible = r.merge()
	}
	return Effects{Changed: true, Applied: true}
}

// View returns what is known now. It shares nothing that changes later.
func (r *Replica) View() View {
	return View{
		Region: r.origin, Version: r.version, Table: r.visible, Rows: r.truth.Len(), Digest: r.truth.Digest(),
		Head: r.head, Complete: r.complete && len(r.held) == 0, Held: len(r.held), Addresses: r.addresses,
		RTT: r.rtt, Refused: maps.Clone(r.refused),
		confirmed: r.confirmed, slack: r.slack, since: r.since, age: r.age,
	}
}

// View is an immutable picture of a replica.
type View struct {
	Region    api.Region
	Version   api.Version // applied; zero when nothing is known yet
	Table     *Table      // what readers get
	Rows      int         // of the origin at Version, and their digest: without what is held back
	Digest    summary.Digest
	Head      uint64 // newest revision that the origin told of, in this stream
	Complete  bool
	Held      int // services held back (I7)
	Addresses []string
	RTT       time.Duration
	Refused   map[Refusal]uint64

	confirmed  time.Time
	slack, age time.Duration
	since      time.Time
}

// Age returns an upper bound of the time since the origin was known to stand at Version:
// the time since its word arrived, and the round trip, and what the word was late.
func (v *View) Age(now time.Time) time.Duration {
	if v.confirmed.IsZero() {
		return v.age + now.Sub(v.since)
	}
	return now.Sub(v.confirmed) + v.slack + v.RTT
}

// Origin returns the public form at now.
func (v *View) Origin(now time.Time) api.Origin {
	age := v.Age(now)
	o := api.Origin{
		Region: v.Region, Epoch: v.Version.Epoch, Revision: v.Version.Revision,
		AgeMS: ceilMS(age), State: StateOf(age), Complete: v.Complete,
		Source: api.SourceReplica, RTTMS: ceilMS(v.RTT), Addresses: v.Addresses,
	}
	switch {
	case v.Version.IsZero():
		o.State, o.Source = api.AgeExpired, api.SourceNone
	case v.confirmed.IsZero():
		// From disk: the age rests on a wall clock, so it is not trusted to be young.
		o.Source = api.SourceSnapshot
		o.State = atLeastSuspect(o.State)
	case v.Held > 0:
		o.State = atLeastSuspect(o.State)
	}
	return o
}

// ceilMS rounds up, so that a short time is not taken for none.
func ceilMS(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}
