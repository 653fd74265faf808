// Package etcdcluster is what a node knows of the cluster that its etcd member is part of, seen
// from outside the member: which nodes there are and how their members prove themselves to each
// other ([Config]), what the other members say of the cluster ([Ask], [Decide]), and the list of
// members with its changes ([Members]). It uses etcd's client only, so it works from any
// process of the node; the member itself is etcdnode's.
package etcdcluster
