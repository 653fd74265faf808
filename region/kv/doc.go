// Package kv is a region's small key-value records: configuration that belongs to a region
// and is wanted where its services are. [Table] holds the use cases get, put, delete, list
// and watch; [View] is the immutable, sorted content that they read.
//
// The records live in the registry's store beside the catalogue, as kv/{ns}/{key}, and reach
// this package through the registry's one watch ([registry.Follower]). So a key has the same
// revisions, epochs, freshness options and watch guarantees as an instance: reads never
// wait for the store unless they ask to, and go on without it; a write is acknowledged
// once it is durable and this node's next read shows it.
//
// # Records
//
// The value of a record is one byte for its form (1), the revision that created the key as
// an unsigned varint (0 = this very commit), then the value as it came.
//
// # What it does not do
//
// No expiry, no locks, no transactions over several keys, no replication to other regions:
// a region's keys are its own.
package kv
