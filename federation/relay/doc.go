// Package relay decides about rows that come through a third region: when to take an origin's
// rows from a peer that knows it better than we do ([Choose]), and what we have to pass on
// to others ([Picture], [History]). It is pure: no I/O, no clock, no goroutine.
//
// A relay passes rows, versions and the origin's signatures on as they came. It never speaks
// for the origin: it does not raise an epoch, does not refute, does not say goodbye for it, and
// it says how old its own knowledge is.
package relay
