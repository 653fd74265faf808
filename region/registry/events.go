package registry

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/sdk/api"
)

// Events is the event log that the registry writes to and reads from: an *events.Log. All
// methods are safe for concurrent use.
type Events interface {
	// Record takes an event at once: it never waits, whatever the disk does.
	Record(e api.Event)
	Read(ctx context.Context, q events.Query) (api.EventList, error)
	Follow(ctx context.Context, q events.Query, send func(api.EventFrame) error) error
}

// actorNode is the actor of what nobody asked for.
const actorNode = "node"

// Record tells the region's event log of something that happened outside the registry: to a
// link or to the node. The present revision is filled in.
func (r *Registry) Record(e api.Event) {
	if r.cfg.Events == nil {
		return
	}
	if e.Revision == 0 {
		e.Revision = r.Snapshot().Version().Revision
	}
	if e.Subject == "" {
		e.Subject = string(r.cfg.Region)
	}
	r.cfg.Events.Record(e)
}

// Events reads the event log. It concerns the whole region, so it needs the right to read
// all of it. It works before the catalogue is loaded: that is when people look.
func (r *Registry) Events(ctx context.Context, q events.Query) (api.EventList, Stamp, error) {
	if err := r.mayReadEvents(ctx); err != nil {
		return api.EventList{}, Stamp{}, err
	}
	list, err := r.cfg.Events.Read(ctx, q)
	return list, r.Stamp(), err
}

// FollowEvents sends what q asks for and what happens afterwards, until ctx ends, send
// fails or the node stops. It counts as a watch.
func (r *Registry) FollowEvents(ctx context.Context, q events.Query, send func(api.EventFrame) error) error {
	if err := r.mayReadEvents(ctx); err != nil {
		return err
	}
	leave, err := r.OpenWatch()
	if err != nil {
		return err
	}
	defer leave()
	return r.cfg.Events.Follow(ctx, q, send)
}

func (r *Registry) mayReadEvents(ctx context.Context) error {
	if err := r.authorize(ctx, VerbRead, ""); err != nil {
		return err
	}
	if r.cfg.Events == nil {
		return &api.Error{Code: api.CodeNotFound, Detail: "this node keeps no event log", Remedy: "ask another node of the region"}
	}
	return nil
}

// tellChanges records what one commit changes. It comes before the ledger and readers learn
// of it, while the overlay still tells which evictions this node decided: those are
// recorded already, at the moment they took effect.
func (r *Registry) tellChanges(before *catalog.Snapshot, changes []catalog.Change) {
	if r.cfg.Events == nil {
		return
	}
	overlay := r.overlay.Load()
	for i := range changes {
		c := &changes[i]
		key := c.Instance.Key()
		actor := r.actors.of(key)
		e := api.Event{Revision: c.Revision, Subject: key.String(), Actor: actor, Cause: api.EventCause{Kind: api.BecauseRequest}}
		if c.Op == api.OpDelete {
			switch {
			case overlay.Hidden(key, c.Instance.Revision):
				continue
			case c.Cause == api.CauseEvict:
				e.Kind, e.Cause.Kind = api.EventEvict, api.BecauseSilence
			case c.Cause == api.CauseDeregister || actor != "":
				e.Kind = api.EventDeregister
			default:
				e.Kind, e.Cause.Kind = api.EventDeregister, api.BecauseUnknown
			}
			r.Record(e)
			continue
		}
		for _, e := range putEvents(e, before.Instance(key), c.Instance) {
			r.Record(e)
		}
	}
}

// putEvents returns the events of an instance that was old (nil = not there) and is now.
func putEvents(e api.Event, old, now *api.Instance) []api.Event {
	if old == nil || now.Incarnation > old.Incarnation {
		e.Kind = api.EventRegister
		if old != nil {
			e.Cause.Kind = api.BecauseNewIncarnation
		}
		e.Detail = fmt.Sprintf("at %s, ttl %s, incarnation %d, %s",
			net.JoinHostPort(now.Address, strconv.Itoa(now.Port)), time.Duration(now.TTL), now.Incarnation, now.Status)
		return []api.Event{e}
	}
	var out []api.Event
	if what := differences(old, now); len(what) > 0 {
		u := e
		u.Kind, u.Cause.Kind, u.Detail = api.EventUpdate, api.BecauseChange, "other "+strings.Join(what, ", ")
		out = append(out, u)
	}
	if old.Status != now.Status || old.StatusNote != now.StatusNote {
		e.Kind = api.EventStatus
		if now.Status == api.StatusDraining && old.Status != now.Status {
			e.Kind = api.EventDrain
		}
		e.Detail = fmt.Sprintf("%s to %s", old.Status, now.Status)
		if now.StatusNote != "" {
			e.Detail += ": " + now.StatusNote
		}
		out = append(out, e)
	}
	return out
}

// differences names the fields in which two records of an instance differ. Values of tags
// and metadata stay out of the log: secrets are found in such places.
func differences(a, b *api.Instance) []string {
	if catalog.SameContent(a, b) {
		return nil
	}
	var out []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"zone", a.Zone == b.Zone},
		{"address", a.Address == b.Address && a.Port == b.Port},
		{"weight", a.Weight == b.Weight},
		{"capacity", a.Capacity == b.Capacity},
		{"version", a.Version == b.Version},
		{"tags", slices.Equal(a.Tags, b.Tags)},
		{"ttl", a.TTL == b.TTL},
		{"ports", maps.Equal(a.Ports, b.Ports)},
		{"metadata", maps.Equal(a.Metadata, b.Metadata)},
	} {
		if !f.same {
			out = append(out, f.name)
		}
	}
	if len(out) == 0 {
		out = append(out, "content")
	}
	return out
}

// tellVerdict records what a tick decided; state is set when protection changed.
func (r *Registry) tellVerdict(v liveness.Verdict, state liveness.State) {
	if v.Gap > 0 {
		r.Record(api.Event{
			Kind: api.EventPause, Actor: actorNode, Cause: api.EventCause{Kind: api.BecausePaused},
			Detail: fmt.Sprintf("this node did not run for %s: everyone gets a full ttl to send a heartbeat", v.Gap.Round(time.Millisecond)),
		})
	}
	if v.ProtectionChanged {
		e := api.Event{Kind: api.EventProtectionOff, Actor: actorNode, Cause: api.EventCause{Kind: api.BecauseWithinShare}, Detail: state.Why}
		if state.Active {
			e.Kind, e.Cause.Kind = api.EventProtectionOn, api.BecauseShare
		}
		r.Record(e)
	}
	for i := range v.Evicted {
		e := &v.Evicted[i]
		since := time.Now().Add(-e.Overdue).UTC().Truncate(time.Millisecond)
		r.Record(api.Event{
			Kind: api.EventEvict, Subject: e.Key.String(), Actor: actorNode, Cause: api.EventCause{Kind: api.BecauseSilence},
			Detail: fmt.Sprintf("overdue since %s: no heartbeat for its ttl of %s and %s", since.Format(time.RFC3339Nano), e.TTL, api.DeadlineGrace),
		})
	}
}

// tellStore records what became of the store.
func (r *Registry) tellStore(kind api.EventKind, detail string) {
	cause := api.BecauseStoreError
	if kind == api.EventStoreBack {
		cause = api.BecauseStoreAnswers
	}
	r.Record(api.Event{Kind: kind, Actor: actorNode, Cause: api.EventCause{Kind: cause}, Detail: detail})
}

// tellLoaded records a load that lost history since known, the newest version that is known
// to have been, or that was not the first: the changes that it skipped are in no event.
func (r *Registry) tellLoaded(known, was api.Version, snap *catalog.Snapshot) {
	now := snap.Version()
	switch {
	case !known.Epoch.IsZero() && known.Epoch != now.Epoch:
		r.tellEpoch(known.Epoch, now.Epoch, api.BecauseHistoryLost)
	case !was.Epoch.IsZero():
		r.Record(api.Event{
			Kind: api.EventReload, Actor: actorNode, Revision: now.Revision, Cause: api.EventCause{Kind: api.BecauseHistoryGap},
			Detail: fmt.Sprintf("the catalogue was loaded again; changes after revision %d may be missing from this log", was.Revision),
		})
	}
}

func (r *Registry) tellEpoch(was, now api.Epoch, why string) {
	r.Record(api.Event{
		Kind: api.EventEpoch, Actor: actorNode, Cause: api.EventCause{Kind: why}, Detail: fmt.Sprintf("from %s to %s", was, now),
	})
}
