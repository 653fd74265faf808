package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// EventKind says what an event is about.
type EventKind string

// The kinds of events. A closed list: new kinds come with a new minor version.
const (
	EventRegister   EventKind = "register"   // an instance is there: new, or a new incarnation
	EventUpdate     EventKind = "update"     // an instance changed what it says of itself
	EventDeregister EventKind = "deregister" // an instance was removed on request
	EventStatus     EventKind = "status"     // the status of an instance, or its note, changed
	EventDrain      EventKind = "drain"      // the status of an instance changed to draining
	EventEvict      EventKind = "evict"      // heartbeats stopped for longer than the TTL

	EventProtectionOn  EventKind = "protection_on"  // the eviction brake holds everyone
	EventProtectionOff EventKind = "protection_off" // it no longer does
	EventSlowOn        EventKind = "slow_on"        // the node is starved of processor time and judges nobody
	EventSlowOff       EventKind = "slow_off"       // it keeps time again
	EventPause         EventKind = "pause"          // the node did not run for a while: everyone gets a full TTL

	EventLivenessOwner EventKind = "liveness_owner" // another node of the region holds the deadlines of heartbeats

	EventStoreAway EventKind = "store_away" // the store does not answer; reads go on
	EventStoreFull EventKind = "store_full" // the store refuses writes for lack of space
	EventStoreBack EventKind = "store_back" // it answers, and takes writes, again
	EventReload    EventKind = "reload"     // the catalogue was loaded again: changes may be missing from the log
	EventEpoch     EventKind = "epoch"      // the region's history restarted

	EventLinkUp          EventKind = "link_up"          // another region answers
	EventLinkDown        EventKind = "link_down"        // it does not; what is known of it is kept
	EventOriginState     EventKind = "origin_state"     // what is known of another region changed its age state; at most one in 30 s
	EventRowQuarantined  EventKind = "row_quarantined"  // a row of another region is not usable; its last good form stays
	EventRemovalHeld     EventKind = "removal_held"     // another region lost many services at once; they are kept for a while
	EventRemovalReleased EventKind = "removal_released" // they came back, or were removed after all
	EventRegionDown      EventKind = "region_down"      // k of n regions and its endpoints agree that another region is down
	EventRegionUp        EventKind = "region_up"        // it no longer is
	EventRelay           EventKind = "relay"            // the rows of another region are taken from a third, which knows it better; or no longer
	EventRelayRefused    EventKind = "relay_refused"    // what a third region passed on of another one is not what that one signed
	EventDuplicate       EventKind = "duplicate_region" // another region has our name, or that of one that is read, and is refused; or it is gone
	EventReaderRefused   EventKind = "reader_refused"   // whoever wants to read this region did not prove to be the region it says; at most one in 30 s for each cause
	EventResync          EventKind = "resync"           // an operator asked for all rows of another region anew
	EventNodeStart       EventKind = "node_start"       // a node of the region began its work
	EventNodeStop        EventKind = "node_stop"        // it ends in good order

	EventMemberAdd    EventKind = "member_add"    // a node's member of the region's cluster was added
	EventMemberRemove EventKind = "member_remove" // one was removed
	EventRecover      EventKind = "recover"       // the region was recovered from one node after its quorum was lost

	EventPolicy      EventKind = "policy"       // the policy for a service was set, changed or deleted
	EventRegionDrain EventKind = "region_drain" // the drain of a region began, moved, ended or gave up

	EventDropped EventKind = "dropped" // events that the log could not take
)

// EventKinds lists all kinds.
var EventKinds = []EventKind{
	EventRegister, EventUpdate, EventDeregister, EventStatus, EventDrain, EventEvict,
	EventProtectionOn, EventProtectionOff, EventSlowOn, EventSlowOff, EventPause, EventLivenessOwner,
	EventStoreAway, EventStoreFull, EventStoreBack, EventReload, EventEpoch,
	EventLinkUp, EventLinkDown, EventOriginState, EventRowQuarantined, EventRemovalHeld, EventRemovalReleased,
	EventRegionDown, EventRegionUp, EventRelay, EventRelayRefused, EventDuplicate, EventReaderRefused, EventResync, EventNodeStart, EventNodeStop,
	EventMemberAdd, EventMemberRemove, EventRecover, EventPolicy, EventRegionDrain, EventDropped,
}

// Valid reports whether k is one of EventKinds.
func (k EventKind) Valid() bool { return slices.Contains(EventKinds, k) }

// Instance reports whether events of kind k have an instance as their subject.
func (k EventKind) Instance() bool {
	switch k {
	case EventRegister, EventUpdate, EventDeregister, EventStatus, EventDrain, EventEvict:
		return true
	}
	return false
}

// Why an event happened: EventCause.Kind. With a Ref, the earlier event is part of the
// reason, or what this one ends.
const (
	BecauseRequest        = "request"            // somebody asked for it
	BecauseChange         = "change"             // the instance registered with other content
	BecauseNewIncarnation = "new_incarnation"    // the program started anew
	BecauseReturned       = "returned"           // it had left and registered again
	BecauseDrained        = "drained"            // it had been drained before
	BecauseChecks         = "checks"             // what the region's checks found
	BecauseLiveness       = "liveness_failed"    // a liveness or startup check failed for its deregister_after
	BecauseSilence        = "heartbeats_stopped" // no heartbeat for the TTL and a second
	BecauseHeldTooLong    = "held_too_long"      // protection held it, and its patience is over
	BecauseShare          = "overdue_share"      // more are overdue than one window may lose
	BecauseWithinShare    = "within_share"       // no longer more than that
	BecausePaused         = "paused"             // this process was stopped, starved or suspended
	BecauseInTime         = "in_time"            // this process gets its processor time
	BecauseOwnerSilent    = "owner_silent"       // the node that held the deadlines did not renew its claim
	BecauseOwnerStopped   = "owner_stopped"      // it gave its claim back
	BecauseOtherOwner     = "other_owner"        // another node holds the deadlines now
	BecauseStoreError     = "store_error"        // what a call of the store returned
	BecauseStoreAnswers   = "store_answers"      // a call of the store went well
	BecauseHistoryLost    = "history_lost"       // wiped, restored or swapped data
	BecausePeersAhead     = "peers_ahead"        // other regions hold a later history
	BecauseNodeRaised     = "node_raised"        // another node of the region raised it
	BecauseHistoryGap     = "history_gap"        // compacted before it was read
	BecauseLinkError      = "link_error"         // a connection to the peer failed
	BecauseGoodbye        = "goodbye"            // the peer said that it stops
	BecauseLinkAnswers    = "link_answers"       // the peer answers
	BecauseAge            = "age"                // nothing was confirmed for too long
	BecauseConfirmed      = "confirmed"          // the origin confirmed what is known of it
	BecauseBadRow         = "bad_row"            // a row that no version of the program would use
	BecauseMassRemoval    = "mass_removal"       // more went at once than everyday life explains
	BecauseHoldOver       = "hold_over"          // it was kept for long enough
	BecauseFresher        = "fresher"            // a third region knows it better than we do
	BecauseTwoHistories   = "two_histories"      // two histories under one name are told at the same time
	BecauseOurName        = "our_name"           // it calls itself by our own name
	BecauseNoIdentity     = "no_identity"        // it shows no certificate, or one that names no region
	BecauseCertificate    = "certificate"        // its certificate is that of another region
	BecauseNotMet         = "not_met"            // it has not been met for a while
	BecauseSignature      = "signature"          // the origin did not sign what was passed on
	BecauseAgreed         = "agreed"             // enough regions said so, and probes agreed
	BecauseProbeAnswers   = "probe_answers"      // an endpoint answered
	BecauseNotAgreed      = "not_agreed"         // not enough regions say so any more
	BecauseFirstStart     = "first_start"        // the log knows of no earlier one
	BecauseCleanStart     = "clean_start"        // after a stop in good order
	BecauseUncleanEnd     = "unclean_end"        // the node had ended without saying so: killed, or its machine
	BecauseSignal         = "signal"             // the node was told to stop
	BecauseFailure        = "failure"            // the node cannot go on
	BecauseQueueFull      = "queue_full"         // more events than the log could write
	BecauseDisk           = "disk"               // the log's disk did not take them
	BecauseSchedule       = "schedule"           // its time had come
	BecauseAbort          = "abort"              // its own abort rule
	BecauseUnknown        = "unknown"
)

// EventCause says why an event happened.
type EventCause struct {
	Kind string `json:"kind"`          // one of the Because values
	Ref  uint64 `json:"ref,omitempty"` // the id of an earlier event of the same log; 0 = none is known
}

// Event is one change of note in a region. It never holds a token, metadata or tags.
type Event struct {
	// ID rises with each event of a node's log, by one but for gaps; none is given twice.
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"` // of the node's wall clock, which may jump
	Region Region    `json:"region"`
	Node   string    `json:"node"`
	// Revision of the region at that moment; of the change itself where there is one.
	Revision uint64    `json:"revision,omitempty"`
	Kind     EventKind `json:"kind"`
	// Namespace of the instance that is the subject; empty for other kinds.
	Namespace Namespace `json:"ns,omitempty"`
	// Subject is what it happened to: an instance as "service/id" ("ns/service/id" outside
	// the default namespace), a service as "service" or "ns/service" ("*" for the default
	// policy), a peer's region, the node, or the own region.
	Subject string     `json:"subject"`
	Cause   EventCause `json:"cause"`
	Actor   string     `json:"actor,omitempty"`  // who did it: "client ADDRESS", "checks" or "node"
	Detail  string     `json:"detail,omitempty"` // one sentence for people
	// Of a status or drain event: what the status was and is, and since when it is by the
	// record, which is the same on every node.
	From  Status    `json:"from,omitempty"`
	To    Status    `json:"to,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// EventList is the body of GET /v1/events: events by rising id.
type EventList struct {
	Region Region  `json:"region"`
	Node   string  `json:"node"` // whose log it is
	Events []Event `json:"events"`
	First  uint64  `json:"first"` // the oldest id that is kept; 0 = none
	Last   uint64  `json:"last"`  // the newest id when this was read: go on with ?since=LAST
	// Gap tells that events may be missing after the id asked for, or among these: they were
	// too old to be kept, or the node was killed and ids that were in use were left out.
	Gap bool `json:"gap,omitempty"`
	// Durable tells that the log is written to disk; if not, a restart forgets it.
	Durable bool   `json:"durable"`
	Cursor  string `json:"cursor,omitempty"` // give it back as ?cursor= for the next page
}

// EventGap is the data of a gap frame: events between the two ids may be missing, since
// they are too old, or the node was killed and ids that may have been in use were left out.
type EventGap struct {
	After uint64 `json:"after"` // the last id that was read
	Next  uint64 `json:"next"`  // the id that the stream goes on with
}

// The frames of GET /v1/events?follow=true by their SSE event names. An event and a
// bookmark carry their id, from which the stream can be resumed.
const (
	EventFrameEvent    = "event"    // data: an Event
	EventFrameGap      = "gap"      // data: an EventGap
	EventFrameBookmark = "bookmark" // data: {"last":ID}; nothing that was asked for up to there
)

// EventFrame is one frame of a stream of events: exactly one of Event and Gap is set, or
// neither in a bookmark.
type EventFrame struct {
	Event *Event
	Gap   *EventGap
	Last  uint64 // everything that was asked for, up to this id, was sent
}

// InstanceSubject takes the subject of an event of an instance apart, into its namespace and
// "service/id"; ok is false for events of other kinds.
func (e *Event) InstanceSubject() (ns Namespace, rest string, ok bool) {
	if !e.Kind.Instance() {
		return "", "", false
	}
	if first, rest, _ := strings.Cut(e.Subject, "/"); strings.Contains(rest, "/") {
		return Namespace(first), rest, true
	}
	return DefaultNamespace, e.Subject, true
}

// CheckEventSubject validates a filter of subjects: a subject, or the part of one before a
// slash.
func CheckEventSubject(s string) error {
	ok := len(s) <= MaxEventSubject && s != ""
	for part := range strings.SplitSeq(s, "/") {
		ok = ok && (ValidInstanceID(part) || part == string(PolicyDefault))
	}
	if ok {
		return nil
	}
	return FieldError("subject", fmt.Sprintf("subject %s is not valid", Quote(s)),
		"use a service, SERVICE/ID, a region or a node, with NS/ in front outside the default namespace")
}

// MatchesSubject reports whether the filter names the subject or a part of it before a
// slash; the empty filter matches everything.
func MatchesSubject(filter, subject string) bool {
	rest, ok := strings.CutPrefix(subject, filter)
	return ok && (filter == "" || rest == "" || rest[0] == '/')
}
