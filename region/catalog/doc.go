// Package catalog holds everything a region knows about its instances as an immutable
// [Snapshot], and the pure step from one snapshot to the next.
//
// [Load] builds a snapshot from the store's image, [Snapshot.Apply] takes it one batch
// further. Applying batches one by one gives the same snapshot as loading the end result,
// so a node that restarts sees what it saw before. [History] remembers the most recent
// changes, for watches that resume.
//
// # Records
//
//	instances/{ns}/{service}/{id}   one instance (EncodeInstance)
//	services/{ns}/{service}         the last departure from a service (EncodeDeparture)
//
// Every commit that deletes instances also writes the departure record of each service
// concerned. It carries the cause, which the bare delete of a record cannot, and keeps the
// service's revision from going back when a node loads the records afresh.
//
// A record that cannot be read is reported and left out, never fatal: one bad record must
// not take the region down.
//
// The package does no I/O, reads no clock and starts no goroutine. Snapshots may be shared
// between goroutines; what they hand out must not be changed.
package catalog
