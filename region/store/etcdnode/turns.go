package etcdnode

import "time"

// Writing a database anew holds up its member, so the members take turns by the clock: slots go
// round, and a member may begin in the first third of its own. That needs no lock, which a
// full store could not keep; clocks that differ by less than half a slot keep the members
// apart, and two that meet nevertheless only slow the cluster down.
const (
	slotLength     = time.Minute
	slotLengthFull = 12 * time.Second // while puts are refused
)

// turn reports whether member index of n may begin at now.
func turn(now time.Time, slot time.Duration, index, n int) bool {
	if n <= 1 {
		return true
	}
	at := now.UnixNano()
	return int((at/int64(slot))%int64(n)) == index && at%int64(slot) < int64(slot)/3
}

// leadsLast reports whether a leader that has wanted its database written anew since then has
// let everyone else go first: a whole round has passed.
func leadsLast(wanted, now time.Time, slot time.Duration, n int) bool {
	return now.Sub(wanted) >= time.Duration(n)*slot
}
