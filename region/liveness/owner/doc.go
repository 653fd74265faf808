// Package owner decides which of a region's nodes holds the heartbeat deadlines. It is pure:
// a Machine is told what the store shows and how its own commits ended, and says what to
// commit next. It reads no clock and keeps no lease of the store.
//
// Three records carry it (see record.go). The claim names the owner and changes only with it.
// The beat is renewed by the owner, at least once a second. The members name the nodes that
// live, as the owner sees them. Every commit of an owner depends on the claim's revision, so
// whoever lost the claim can write nothing more.
//
//	follower ── claim released or never made ──────────────┐
//	   │  ▲                                                ▼
//	   │  └── conflict, or another's claim shows ◀──── claiming ── own claim shows ──▶ owner
//	   └── the beat stood still for Patience of own, ──────▲                            │
//	       confirmed time                                  another's claim shows ───────┤
//	                                                       release (clean stop) ────────┘
//
// An owner holds (may acknowledge heartbeats, and evict) only for Hold after the begin of its last
// commit that the store took: after that another node may have taken over unseen. A new
// owner spares everyone Hold longer than their TTL, so that nothing an old owner
// acknowledged in that time is forgotten (P1).
package owner
