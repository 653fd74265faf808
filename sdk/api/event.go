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
	EventPause         EventKind = "pause"          // the node did not run for a while: everyone gets a full TTL

	EventStoreAway EventKind = "store_away" // the store does not answer; reads go on
	EventStoreFull EventKind = "store_full" // the store refuses writes for lack of space
	EventStoreBack EventKind = "store_back" // it answers, and takes writes, again
	EventReload    EventKind = "reload"     // the catalogue was loaded again: changes may be missing from the log
	EventEpoch     EventKind = "epoch"      // the region's history restarted

	EventLinkUp    EventKind = "link_up"    // another region answers
	EventLinkDown  EventKind = "link_down"  // it does not; what is known of it is kept
	EventNodeStart EventKind = "node_start" // a node of the region began its work
	EventNodeStop  EventKind = "node_stop"  // it ends in good order

	EventDropped EventKind = "dropped" // events that the log could not take
)

// EventKinds lists all kinds.
var EventKinds = []EventKind{
	EventRegister, EventUpdate, EventDeregister, EventStatus, EventDrain, EventEvict,
	EventProtectionOn, EventProtectionOff, EventPause,
	EventStoreAway, EventStoreFull, EventStoreBack, EventReload, EventEpoch,
	EventLinkUp, EventLinkDown, EventNodeStart, EventNodeStop, EventDropped,
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
	BecauseSilence        = "heartbeats_stopped" // no heartbeat for the TTL and a second
	BecauseHeldTooLong    = "held_too_long"      // protection held it, and its patience is over
	BecauseShare          = "overdue_share"      // more are overdue than one window may lose
	BecauseWithinShare    = "within_share"       // no longer more than that
	BecausePaused         = "paused"             // this process was stopped, starved or suspended
	BecauseStoreError     = "store_error"        // what a call of the store returned
	BecauseStoreAnswers   = "store_answers"      // a call of the store went well
	BecauseHistoryLost    = "history_lost"       // wiped, restored or swapped data
	BecausePeersAhead     = "peers_ahead"        // other regions hold a later history
	BecauseHistoryGap     = "history_gap"        // compacted before it was read
	BecauseLinkError      = "link_error"         // a connection to the peer failed
	BecauseGoodbye        = "goodbye"            // the peer said that it stops
	BecauseLinkAnswers    = "link_answers"       // the peer answers
	BecauseFirstStart     = "first_start"        // the log knows of no earlier one
	BecauseCleanStart     = "clean_start"        // after a stop in good order
	BecauseUncleanEnd     = "unclean_end"        // the node had ended without saying so: killed, or its machine
	BecauseSignal         = "signal"             // the node was told to stop
	BecauseFailure        = "failure"            // the node cannot go on
	BecauseQueueFull      = "queue_full"         // more events than the log could write
	BecauseDisk           = "disk"               // the log's disk did not take them
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
	// Subject is what it happened to: an instance as "service/id" ("ns/service/id" outside
	// the default namespace), a peer's region, the node, or the own region.
	Subject string     `json:"subject"`
	Cause   EventCause `json:"cause"`
	Actor   string     `json:"actor,omitempty"`  // who did it: "client ADDRESS", or "node"
	Detail  string     `json:"detail,omitempty"` // one sentence for people
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

// CheckEventSubject validates a filter of subjects: a subject, or the part of one before a
// slash.
func CheckEventSubject(s string) error {
	ok := len(s) <= MaxEventSubject && s != ""
	for part := range strings.SplitSeq(s, "/") {
		ok = ok && ValidInstanceID(part)
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
