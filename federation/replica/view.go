package replica

import (
	"cmp"
	"maps"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// View returns what is known now. It shares nothing that changes later.
func (r *Replica) View() View {
	return View{
		Region: r.origin, Version: r.version, Table: r.visible, Rows: r.truth.Len(), Digest: r.truth.Digest(),
		Head: r.head, Complete: r.complete && len(r.held) == 0 && r.leaves.IsZero(), Held: len(r.held), Addresses: r.addresses,
		Drained: r.drained, Proto: r.proto, Term: r.term, Quarantined: r.truth.quarantined, Leaving: !r.leaves.IsZero(), Gone: r.gone,
		Planned: r.planned, PlannedAt: r.plannedAt, Truth: r.truth, HeldUntil: r.heldUntil(), Incoming: r.incoming(),
		Via: r.via, Depth: r.depth, Statement: r.statement, RTT: r.rtt, Distance: cmp.Or(r.distance, r.rtt), Carried: r.carried, way: r.way(r.relayed), Refused: maps.Clone(r.refused),
		confirmed: r.confirmed, slack: r.slack, since: r.since, age: r.age,
	}
}

// View is an immutable picture of a replica.
type View struct {
	Region   api.Region
	Version  api.Version // applied; zero when nothing is known yet
	Table    *Table      // what readers get
	Rows     int         // of the origin at Version, and their digest: without what is held back
	Digest   summary.Digest
	Head     uint64 // newest revision that the origin told of, in this stream
	Complete bool
	// Planned are the services of which the origin said that what they lost in the step to PlannedAt was meant to go.
	Planned   map[api.ServiceKey]struct{}
	PlannedAt api.Version
	// Truth is exactly the origin's rows at Version; Table shows those that are held back too.
	Truth     *Table
	Held      int       // services held back (I7)
	HeldUntil time.Time // when the last of them is let go
	Incoming  int       // rows of a snapshot on its way in; not visible yet
	Addresses []string
	Drained   float64 // what the origin last wished about itself, in percent
	RTT       time.Duration
	Distance  time.Duration // the shortest RTT of late
	// Carried is how old the sender's last word was already when it was sent.
	Carried time.Duration
	Refused map[Refusal]uint64
	Proto   int    // version of the frames in the last stream, 0 before the first
	Term    uint64 // of the publisher whose rows these are
	// Via is the region that the rows are taken from, "" = the origin, and Depth how many
	// relays they came through in the last stream.
	Via   api.Region
	Depth int
	// Statement is the origin's signed word for Version; nil where it signs nothing.
	Statement *Statement
	// Quarantined counts rows whose newest form is not used.
	Quarantined int
	// Leaving: the origin said that it ends for good; Gone: its rows were removed for that.
	Leaving, Gone bool

	confirmed  time.Time
	slack, age time.Duration
	way        time.Duration // round trip to whoever confirmed it
	since      time.Time
}

// Age returns an upper bound of the time since the origin was known to stand at Version:
// the time since its word arrived, and the round trip, and what the word was late.
func (v *View) Age(now time.Time) time.Duration {
	if v.confirmed.IsZero() {
		return v.age + now.Sub(v.since)
	}
	return max(now.Sub(v.confirmed), 0) + v.slack + v.way
}

// Confirmed reports whether the origin has confirmed what is held since we started, by itself
// or through a relay.
func (v *View) Confirmed() bool { return !v.confirmed.IsZero() }

// Origin returns the public form at now.
func (v *View) Origin(now time.Time) api.Origin {
	age := v.Age(now)
	o := api.Origin{
		Region: v.Region, Epoch: v.Version.Epoch, Revision: v.Version.Revision,
		AgeMS: ceilMS(age), State: StateOf(age), Complete: v.Complete,
		Drained: v.Drained, Source: api.SourceReplica, RTTMS: ceilMS(v.Distance), Addresses: v.Addresses,
	}
	switch {
	case v.Version.IsZero(), v.Gone:
		o.State, o.Source = api.AgeExpired, api.SourceNone
	case v.confirmed.IsZero():
		// From disk: the age rests on a wall clock, so it is not trusted to be young.
		o.Source = api.SourceSnapshot
		o.State = atLeastSuspect(o.State)
	case v.Held > 0, v.Leaving:
		o.State = atLeastSuspect(o.State)
	}
	return o
}

// ceilMS rounds up, so that a short time is not taken for none.
func ceilMS(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}
