package replica

import (
	"slices"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// want is what the next stream is to begin with.
type want int

const (
	wantNothing    want = iota // what changed since the version that is held
	wantSums                   // the buckets that differ
	wantEverything             // all rows
)

// Ask is what a reader tells the origin when it opens a stream.
type Ask struct {
	Have   api.Version    // zero: nothing is held
	Digest summary.Digest // of what is held at Have
	Term   uint64         // of the publisher that Have came from
	// Sums, when not nil, asks for the buckets that differ from these; Full for all rows.
	Sums summary.Sums
	Full bool
	// Holding, when not nil, answers a frame of kind Hashes, which the origin sent at version At.
	// Sums are told too, for an origin that does not know what it asked for: another node of it.
	Holding *summary.Holding
	At      api.Version
	// Can is what the reader can do beyond the version of the frames.
	Can Features
}

// Plain returns a as an origin with none of the Features takes it.
func (a Ask) Plain() Ask {
	if a.Sums != nil {
		a.Sums = a.Sums.Fold()
	}
	a.Holding, a.At, a.Can = nil, api.Version{}, 0
	return a
}

// asked is what the origin wants to know: which rows we have in some buckets of a table.
type asked struct {
	at    api.Version
	set   *summary.BucketSet
	table *Table
}

// hashes takes the origin's question.
func (r *Replica) hashes(f Frame) Effects {
	if r.told == nil {
		return r.drop(RefusedOrder, "a question about buckets that were not told")
	}
	r.want = max(r.want, wantSums)
	r.asked = asked{api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}, f.Buckets, r.told}
	return Effects{Resync: true, Err: errHashes}
}

// Ask returns what to open the next stream with. Connect goes with it.
func (r *Replica) Ask() Ask {
	a := Ask{Have: r.version, Digest: r.truth.Digest(), Term: r.term, Can: Able}
	r.told = nil
	switch {
	case r.want == wantNothing:
	case r.want == wantSums && r.proto >= 2:
		r.told = r.truth
		if r.staged != nil {
			r.told = r.staged
		}
		buckets := summary.Buckets
		if r.can.Has(CanHashes) {
			buckets = summary.FineBuckets(r.told.Len())
		}
		a.Sums = r.told.Sums(buckets)
		if r.asked.table == r.told {
			a.Holding, a.At = r.told.Holding(r.asked.set), r.asked.at
		}
	default:
		a.Full = true
	}
	r.asked = asked{}
	return a
}

// WantsSnapshot reports whether the next stream should begin with rows although a version is
// held: something did not add up, or was written down by a version of this program that
// understood less.
func (r *Replica) WantsSnapshot() bool { return r.want != wantNothing }

// Resync makes the next stream begin with all rows. What is held stays in use until theirs
// are complete and fit their digest.
func (r *Replica) Resync() { r.want, r.staged, r.told = wantEverything, nil, nil }

// incoming counts the rows of a snapshot that is on its way in.
func (r *Replica) incoming() int {
	if r.snapshot == nil {
		return 0
	}
	return r.snapshot.rows
}

// Have returns the version to tell the origin when connecting; zero when nothing is held.
func (r *Replica) Have() api.Version { return r.version }

// SetRTT tells the measured round trip to the origin; it is part of the age.
func (r *Replica) SetRTT(d time.Duration) { r.rtt = d }

// SetDistance tells how far the origin is: the shortest round trip of late, without what busy
// machines add to it. It ranks regions and is no part of the age. Until it is told, the round trip is it.
func (r *Replica) SetDistance(d time.Duration) { r.distance = d }

// SetHop tells the round trip to the relay in use.
func (r *Replica) SetHop(d time.Duration) { r.hop = d }

// Connect begins a new stream of the origin, whose answer arrived at now to a request made with the last Ask. What was on its way
// in the old one stays hidden, and of a snapshot is used to ask for less; what was applied
// stays (I6).
func (r *Replica) Connect(now time.Time) { r.ConnectVia("", 0, now) }

// ConnectVia is Connect for a stream of relay, a region that passes the origin's rows on; hop is the
// round trip to it, and becomes part of the age in place of that to the origin.
func (r *Replica) ConnectVia(relay api.Region, hop time.Duration, now time.Time) {
	r.keep()
	r.via, r.hop, r.depth, r.says = relay, hop, 0, Statement{}
	if relay != "" {
		r.depth = MaxDepth // until its hello says better
	}
	r.greeted, r.stream, r.head, r.completes, r.leads = false, api.Epoch{}, 0, false, 0
	r.snapshot, r.delta = nil, nil
	r.loads.incoming, r.loads.wrong = nil, false
	r.delay, r.path, r.due, r.carried = delay{began: now}, delay{began: now}, 0, 0
	// The answer itself is a word of the moment at which the stream began over there: by it the
	// first frame can be seen to be late.
	r.delay.observe(0, now)
	r.path.observe(0, now)
}

// Disconnect ends a stream: call it before the next Ask.
func (r *Replica) Disconnect() {
	r.keep()
	r.greeted, r.snapshot, r.delta = false, nil, nil
	if r.off.Disconnect {
		r.truth, r.visible = &Table{}, &Table{}
	}
}

// keep stages the rows of a snapshot that was cut off. They are not part of the truth; the
// next stream is opened with their digests, so that only those still wrong are sent. Not those of a relay
// that must prove what it tells: its rows are held to the seal at the end of a snapshot, and rows made up for
// the digest would pass for the origin's own in a stream of the origin.
func (r *Replica) keep() {
	if p := r.snapshot; p != nil && p.rows > 0 && r.proto >= 2 && r.want != wantEverything && !(r.proves && r.hearsay()) {
		r.staged = p.edit.done()
		r.want = wantSums
	}
	r.snapshot = nil
}

// Nack names a row that was not used.
type Nack struct {
	Key    string       `json:"key"`
	Hash   summary.Hash `json:"hash"`
	Reason string       `json:"reason"`
}

// Ack is what a reader tells the origin about once a second: where it stands, and how old it
// takes its knowledge to be. So an origin whose words do not arrive can know.
type Ack struct {
	Epoch    api.Epoch      `json:"epoch,omitzero"`
	Revision uint64         `json:"revision"`
	Digest   summary.Digest `json:"digest"`
	AgeMS    int64          `json:"age_ms"`
	State    api.AgeState   `json:"state"`
	// Quarantined counts rows whose newest form the reader does not use, and Nacks names
	// those that were not named before.
	Quarantined int    `json:"quarantined,omitempty"`
	Nacks       []Nack `json:"nacks,omitempty"`
	// Loads asks for all loads again: what was told does not add up.
	Loads bool `json:"loads,omitempty"`
	// DueMS gives the newest canary back, which was shown here HeldMS ago (Frame.DueMS); 0 = none
	// came since the last ack.
	DueMS  int64 `json:"due_ms,omitempty"`
	HeldMS int64 `json:"held_ms,omitempty"`
}

// Plausible returns a without what no reader can mean, and short enough to keep and to show.
func (a Ack) Plausible() Ack {
	within := func(n int64) int64 { return min(max(n, 0), maxStreamMS) }
	a.AgeMS, a.DueMS, a.HeldMS, a.Quarantined = within(a.AgeMS), within(a.DueMS), within(a.HeldMS), max(a.Quarantined, 0)
	if !slices.Contains([]api.AgeState{api.AgeFresh, api.AgeStale, api.AgeSuspect, api.AgeExpired}, a.State) {
		a.State = ""
	}
	a.Nacks = slices.Clone(a.Nacks[:min(len(a.Nacks), MaxNacks)])
	for i := range a.Nacks {
		n := &a.Nacks[i]
		n.Key, n.Reason = cut(n.Key), cut(n.Reason)
	}
	return a
}

// Bounds of what is named in one Ack, and of what waits for it.
const (
	MaxNacks  = 16
	maxUnsaid = 256
)

func (r *Replica) nack(key api.ServiceKey, e *Entry) {
	if len(r.nacks) < maxUnsaid {
		r.nacks = append(r.nacks, Nack{Key: FormatKey(key), Hash: e.Hash, Reason: cut(e.Quarantined)})
	}
}

// Ack returns what to tell the origin now. The rows named in it are not named again.
func (r *Replica) Ack(now time.Time) Ack {
	v := r.View()
	n := min(len(r.nacks), MaxNacks)
	a := Ack{
		Epoch: r.version.Epoch, Revision: r.version.Revision, Digest: r.truth.Digest(),
		AgeMS: ceilMS(v.Age(now)), State: v.Origin(now).State, Quarantined: r.truth.quarantined,
		Nacks: r.nacks[:n:n], Loads: r.loads.wrong,
	}
	r.nacks = r.nacks[n:]
	if r.due > 0 {
		a.DueMS, a.HeldMS = r.due, now.Sub(r.dueAt).Milliseconds() // rounded down: the origin subtracts it
		r.due = 0
	}
	return a
}
