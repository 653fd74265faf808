// Package liveness decides who is dead. A [Ledger] holds the heartbeat deadline of every
// instance of a region and says, tick by tick, whose heartbeats are overdue and who is to be
// evicted, holding to the brake of promise P2:
//
//   - after a pause or stall of this process, a start or a reload, everyone gets a full TTL
//     again: silence while nobody listened is no evidence;
//   - at most Share of the instances are evicted in any Window. When more than that are
//     overdue, the fault is more likely on our side or in the network than in all of them:
//     protection begins, nobody is evicted, and those overdue stay in answers, marked;
//   - a service that had several instances never loses its last one in the same window as
//     the others.
//
// The package is pure: the time is given by the caller, as a duration since any fixed
// moment of a monotonic clock, so a jump of the wall clock means nothing (etcd leases lost
// 200 of 200 live instances to one pause of 8 s; here that is a tick with a gap).
package liveness
