package events

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// generation bounds how many instances the chain remembers: between one and two of it.
	generation = 16 << 10
	// near is how long ago an event may be to count as part of a reason.
	near = time.Minute
)

// chain knows the last event of each thing, and completes the causes of new ones from it.
// It belongs to the log's writer.
type chain struct {
	// The newest instances' last events; old holds those before them.
	young, old map[string]past
	// Regions, nodes, the store, the brake: as many as are configured.
	things map[string]past
}

// past is one earlier event.
type past struct {
	id   uint64
	kind api.EventKind
	at   time.Time
}

func newChain() *chain { return &chain{young: map[string]past{}, things: map[string]past{}} }

const (
	theStore  = "store"
	theBrake  = "brake"
	theOwner  = "owner" // of liveness
	thePace   = "pace"
	evictions = "evictions"
)

// thing names what a kind of event that has no instance is about; "" = nothing lasting.
func thing(e *api.Event) string {
	switch e.Kind {
	case api.EventProtectionOn, api.EventProtectionOff:
		return theBrake
	case api.EventLivenessOwner:
		return theOwner
	case api.EventSlowOn, api.EventSlowOff:
		return thePace
	case api.EventStoreAway, api.EventStoreFull, api.EventStoreBack:
		return theStore
	case api.EventLinkUp, api.EventLinkDown:
		return "link/" + e.Subject
	case api.EventNodeStart, api.EventNodeStop:
		return "node/" + e.Subject
	}
	return ""
}

// instance returns the last event of an instance.
func (c *chain) instance(subject string) past {
	if p, ok := c.young[subject]; ok {
		return p
	}
	return c.old[subject]
}

// remember makes e the last event of its subject.
func (c *chain) remember(e *api.Event) {
	p := past{e.ID, e.Kind, e.Time}
	if e.Kind.Instance() {
		if len(c.young) >= generation {
			c.old, c.young = c.young, make(map[string]past, generation)
		}
		c.young[e.Subject] = p
		if e.Kind == api.EventEvict {
			c.things[evictions] = p
		}
	} else if t := thing(e); t != "" {
		c.things[t] = p
	}
	if e.Kind == api.EventNodeStart {
		// What an earlier run said of these ended with it.
		delete(c.things, theBrake)
		delete(c.things, thePace)
		delete(c.things, theStore)
	}
}

// link completes the cause of e from what came before it. A Ref that is set stays.
func (c *chain) link(e *api.Event) {
	if e.Cause.Kind == "" {
		e.Cause.Kind = api.BecauseUnknown
	}
	if e.Cause.Ref != 0 {
		return
	}
	if e.Kind.Instance() {
		c.linkInstance(e, c.instance(e.Subject))
		return
	}
	last := c.things[thing(e)]
	switch e.Kind {
	case api.EventProtectionOn:
		if p := c.things[evictions]; p.id != 0 && soon(e, p) {
			e.Cause.Ref = p.id
		}
	case api.EventProtectionOff:
		refer(e, last, api.EventProtectionOn)
	case api.EventSlowOff:
		refer(e, last, api.EventSlowOn)
	case api.EventStoreBack:
		refer(e, last, api.EventStoreAway, api.EventStoreFull)
	case api.EventLivenessOwner:
		refer(e, last, api.EventLivenessOwner)
	case api.EventReload, api.EventEpoch:
		if p := c.things[theStore]; p.id != 0 && soon(e, p) {
			e.Cause.Ref = p.id
		}
	case api.EventLinkUp:
		refer(e, last, api.EventLinkDown)
	case api.EventNodeStart:
		switch last.kind {
		case api.EventNodeStop:
			e.Cause = api.EventCause{Kind: api.BecauseCleanStart, Ref: last.id}
		case api.EventNodeStart:
			e.Cause = api.EventCause{Kind: api.BecauseUncleanEnd, Ref: last.id}
		default:
			e.Cause.Kind = api.BecauseFirstStart
		}
	}
}

func (c *chain) linkInstance(e *api.Event, last past) {
	switch e.Kind {
	case api.EventRegister:
		switch {
		case last.kind == api.EventEvict || last.kind == api.EventDeregister:
			e.Cause = api.EventCause{Kind: api.BecauseReturned, Ref: last.id}
		case e.Cause.Kind == api.BecauseNewIncarnation:
			e.Cause.Ref = last.id
		}
	case api.EventDeregister:
		if last.kind == api.EventDrain {
			e.Cause = api.EventCause{Kind: api.BecauseDrained, Ref: last.id}
		}
	case api.EventEvict:
		if brake := c.things[theBrake]; brake.kind == api.EventProtectionOn && e.Cause.Kind != api.BecauseLiveness {
			e.Cause = api.EventCause{Kind: api.BecauseHeldTooLong, Ref: brake.id}
			return
		}
		refer(e, last, api.EventDrain, api.EventStatus)
	case api.EventStatus, api.EventDrain:
		refer(e, last, api.EventDrain, api.EventStatus)
	}
}

// soon reports that e came near p in time. A clock that was set back since makes p lie in the
// future: how long ago it was is then not known.
func soon(e *api.Event, p past) bool {
	d := e.Time.Sub(p.at)
	return d > -near && d < near
}

// refer makes an earlier event the cause's reference if it is of one of the kinds.
func refer(e *api.Event, p past, kinds ...api.EventKind) {
	for _, k := range kinds {
		if p.kind == k {
			e.Cause.Ref = p.id
		}
	}
}
