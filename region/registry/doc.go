// Package registry is the use cases of a region: register, heartbeat, deregister, list,
// resolve, explain, watch. Doors (HTTP and the others) decode a request, call one of them and
// encode the answer; nothing else in a node writes to the catalogue.
//
// # How it works
//
// A [Registry] follows its store: it loads the records, then applies every commit to an
// immutable [catalog.Snapshot] and publishes it. Reads look at the published snapshot and
// never wait, whatever happens to the store (P10). Writes go to the store, guarded by the
// revision they were decided on, and return once the commit is durable and shows in the
// snapshot.
//
// Heartbeats touch memory only. A [liveness.Ledger] holds the deadlines; a tick every
// 200 ms asks it who is overdue and who is to be evicted. Readers see its verdict through
// an overlay that each tick publishes; they never judge by their own clock, since a reader
// may run before the first tick after a pause of the process (P2).
//
// # Lifecycle
//
// New, then Run in a goroutine of the caller's; Run owns every loop and ends with its
// context. Before Loaded is closed, reads and writes fail with CodeUnavailable: an empty
// catalogue would be a lie (P7).
package registry
