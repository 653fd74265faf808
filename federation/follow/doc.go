// Package follow sees this region from outside: a federation that runs as its own process,
// beside the region's nodes, follows them through their public API. A [Follower] keeps an
// image of the region's catalogue as GET /v1/watch of all namespaces tells it, and is the
// mesh's Source: what it tells other regions is, revision by revision, what the nodes
// themselves would tell.
//
//	nodes' API --(items, synced, changes, bookmarks each second)--> Follower --> mesh --> peers
//
// One node is followed at a time; when it ends its stream, is silent for [SilenceLimit] or
// refuses, the next address is tried, resuming at the version that was reached. The image
// never goes back (P4), and never becomes empty because nobody answers (P10): it grows old.
// [Follower.Heard] says since when, and the mesh passes it on: a federation whose region is
// silent must not make its peers believe that the region is well.
//
// The package keeps nothing on disk. After a restart while no node answers there is no image,
// and readers are told to come back: they keep what they have.
package follow
