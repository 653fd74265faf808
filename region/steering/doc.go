// Package steering is what a region decides about where its callers' traffic goes: a policy
// for each service and a default ([api.Policy]), and how much less of its traffic a region is
// to get ([api.RegionDrain]). [Table] holds the use cases; [Drain] is the arithmetic of a
// drain, pure; [View] is the immutable content that readers see.
//
// The records live in the registry's store beside the catalogue, as policies/{ns}/{service}
// and drains/{region}, and reach this package through the registry's one watch
// ([registry.Follower]), so every node of the region goes by the same. A change is in force on a
// node, and told to whoever watches, before the write of it is acknowledged there.
//
// # Drains
//
// A drain belongs to the region that decides it, and is for the callers of that region; what a
// region decides about itself its peers follow too, because its federation tells them with each
// heartbeat. The percentage is a function of the record and the time, in equal steps: no node
// has to do anything for it to go on, all nodes agree as far as their clocks do, and a restart
// changes nothing. Only giving up by itself (the abort rule) needs somebody who looks: the node
// that owns liveness writes that into the record.
//
// # What it does not do
//
// It moves no traffic: it says what is wished, and route.Decide weighs it. It stops no instance, and
// needs nothing of the drained region.
package steering
