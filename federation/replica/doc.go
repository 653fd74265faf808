// Package replica holds what a region knows of ONE other region, its origin: the origin's
// rows (one summary per service), the version they stand at, and when the origin last
// confirmed it. [Replica.Step] takes one frame of the origin's stream and the time, and
// says what follows. The package does no I/O, starts nothing and reads no clock; the owner
// of the link does.
//
// What it holds to (the numbers are those of the protocol):
//
//   - I1 only frames under the origin's own name count, and never rows of our own region;
//   - I2 it never applies a version below the one it stands at;
//   - I3 a delta is applied only when it joins on;
//   - I5 a snapshot becomes visible as a whole, and only when its rows match the digest;
//   - I6 a lost connection removes nothing: only an applied delta or snapshot does;
//   - I7 a mass removal is held back for a while, see guard.go;
//   - I9 absence means something only when the origin said that it told everything.
//
// Versions order everything; clocks order nothing. Times are the caller's monotonic ones
// and serve only to say how old the knowledge is.
package replica
