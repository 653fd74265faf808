package nearside

import (
	"time"
)

// moment is an instant by all the clocks there are. None of them does alone: the monotonic
// one stands still while a machine sleeps, the wall clock can be set.
type moment struct {
	mono time.Duration // since the client was made
	// boot is the time since the machine started, its sleep included; below 0 where that is
	// not known.
	boot time.Duration
	wall time.Time
}

func (c *Client) moment() moment {
	return moment{mono: c.clock(), boot: sinceBoot(), wall: time.Now().Round(0)}
}

// elapsed returns how long it is from a to b, sleep of the machine included. Where the time
// since the boot is known, the wall clock has no say: setting it by a day is no sleep. (A
// virtual machine that was stopped from outside may have missed time by all of its clocks.
// Its next heartbeat goes out within a third of a TTL, and the registry knows.) Elsewhere
// the wall clock is all there is, and setting it forward looks like sleep.
func elapsed(a, b moment) time.Duration {
	if a.boot >= 0 && b.boot >= 0 {
		return max(b.mono-a.mono, b.boot-a.boot)
	}
	return max(b.mono-a.mono, b.wall.Sub(a.wall))
}

// suspended reports whether the program did not run from a to b, from which no more than want
// should have passed, for so long that the registry, which heard of it last at acked, may have
// given the instance up by b. Who was away for a ttl is late by at least half of one: beats
// are a third of it apart. A program that ran all the time, and found no registry, is not; with
// a short ttl it may well be late by half of it on a busy machine.
func suspended(acked, a, b moment, want, ttl time.Duration) bool {
	late := ttl / 2
	if elapsed(acked, a) > ttl {
		late = max(late, time.Second)
	}
	return elapsed(a, b)-want > late && elapsed(acked, b) > ttl
}

// woke notices that the program did not run for long, since a moment from which no more than
// want should have passed. Others may have counted the instance out then, or taken its place:
// it comes back as a new incarnation before it claims to be well. The number rises by one
// only, so that a successor, which began with the time of its start, keeps the id (P9).
func (b *beats) woke(since moment, want time.Duration) bool {
	r := b.r
	now := r.c.now()
	if !b.registered || !suspended(b.acked, since, now, want, r.ttl()) {
		return false
	}
	r.setIncarnation(r.Incarnation() + 1)
	b.registered = false
	r.c.log().Warn("program was suspended; registering as a new incarnation",
		"instance", r.key.String(), "for", elapsed(since, now)-want)
	return true
}

// lost prepares for a registration after the registry said that it does not know the instance. One
// that was not heard for a ttl was given up, whatever the reason: a sleep too short to be
// told from a slow request is among them. It comes back as a new incarnation.
func (b *beats) lost() {
	b.registered = false
	if elapsed(b.acked, b.r.c.now()) > b.r.ttl() {
		b.r.setIncarnation(b.r.Incarnation() + 1)
	}
}

// beatAtMost bounds what one turn of the loop takes of its own: three requests to every node.
func (b *beats) beatAtMost() time.Duration {
	return 3 * time.Duration(max(1, len(b.r.c.nodes.homeNodes()))) * beatWithin
}
