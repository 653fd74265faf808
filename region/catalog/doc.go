// Package catalog holds everything a region knows about its instances as an immutable
// [Snapshot], and the pure step from one snapshot to the next.
package catalog
