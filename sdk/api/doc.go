// Package api holds the nouns of Nearside and their wire forms: names, instances,
// versions, watch frames, decisions, errors and limits. Every module imports it, so it
// depends on the standard library only and does no I/O.
//
// The JSON shapes here are the product's public contract (HTTP v1). Fields may be added;
// they are never renamed. Readers ignore fields they do not know; writers are refused
// when they send one (see [DecodeStrict]).
//
// A record's place in history is its [Version]: (region, epoch, revision). Versions of
// different regions are never compared, and no wall clock takes part in the order.
package api
