package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/sdk/api"
)

// actor of the events that the node itself is about.
const actor = "node"

// tellStart records that the node begins its work; the log knows how the last run ended.
func (n *node) tellStart(ready api.ReadyFile) {
	n.registry.Record(api.Event{
		Kind: api.EventNodeStart, Subject: n.cfg.Node, Actor: actor,
		Detail: fmt.Sprintf("version %s at %s, pid %d", ready.Version, ready.HTTP, os.Getpid()),
	})
}

// tellStop records why the node ends: it was told to, or it cannot go on.
func (n *node) tellStop(ctx context.Context, why error) {
	e := api.Event{Kind: api.EventNodeStop, Subject: n.cfg.Node, Actor: actor, Cause: api.EventCause{Kind: api.BecauseSignal}}
	if ctx.Err() == nil {
		e.Cause.Kind = api.BecauseFailure
	}
	if why != nil {
		e.Cause.Kind, e.Detail = api.BecauseFailure, why.Error()
	}
	n.registry.Record(e)
}

// tellLink records that another region answers, or does not.
func (n *node) tellLink(c mesh.LinkChange) {
	e := api.Event{Kind: api.EventLinkDown, Subject: string(c.Peer), Actor: actor, Detail: c.Detail}
	switch {
	case c.Up:
		e.Kind, e.Cause.Kind = api.EventLinkUp, api.BecauseLinkAnswers
	case c.Goodbye:
		e.Cause.Kind = api.BecauseGoodbye
	default:
		e.Cause.Kind = api.BecauseLinkError
	}
	n.registry.Record(e)
}

// tellNotice records another change of what is known of another region.
func (n *node) tellNotice(c mesh.Notice) {
	n.registry.Record(api.Event{
		Kind: c.Kind, Subject: string(c.Region), Actor: actor, Detail: c.Detail, Cause: api.EventCause{Kind: c.Cause},
	})
}

func closeEvents(l *events.Log, log *slog.Logger) {
	if err := l.Close(); err != nil {
		log.Warn("the event log was not closed in good order", "cause", err)
	}
}
