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

// Actors of what nobody asked for.
const (
	actorNode   = "node"
	actorChecks = "checks"
)

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
// of it, while the ledger still tells which evictions this node decided: those are
// recorded already, at the moment they took effect.
func (r *Registry) tellChanges(before *catalog.Snapshot, changes []catalog.Change) {
	if r.cfg.Events == nil {
		return
	}
	for i := range changes {
		c := &changes[i]
		key := c.Instance.Key()
		actor := r.actors.of(key)
		e := api.Event{Revision: c.Revision, Subject: key.String(), Actor: actor, Cause: api.EventCause{Kind: api.BecauseRequest}}
		if c.Op == api.OpDelete {
			switch {
			case r.decided(key, c.Instance.Revision):
				continue
			case c.Cause == api.CauseEvict:
				e.Kind, e.Cause.Kind = api.EventEvict, api.BecauseSilence
			case c.Cause == api.CauseDeregister || c.Cause == api.CausePlanned || actor != "":
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

// decided reports whether this node has decided the eviction of the record.
func (r *Registry) decided(key api.InstanceKey, revision uint64) bool {
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	return r.ledger.Decided(key, revision)
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
		if byChecks(old, now) {
			e.Actor, e.Cause.Kind = actorChecks, api.BecauseChecks
		}
		if now.Status == api.StatusDraining && old.Status != now.Status {
			e.Kind = api.EventDrain
		}
		e.From, e.To, e.Since = old.Status, now.Status, now.StatusSince
		e.Detail = fmt.Sprintf("%s to %s", old.Status, now.Status)
		if now.StatusNote != "" {
			e.Detail += ": " + now.StatusNote
		}
		out = append(out, e)
	}
	return out
}

// byChecks reports whether a change of status comes from the checks alone. The record says
// so itself, hence every node of a region tells the same.
func byChecks(old, now *api.Instance) bool {
	return now.Checked() && catalog.SameContent(old, now) && catalog.SameSet(old.Set, now.Set) &&
		catalog.SameSet(old.BeforeDrain, now.BeforeDrain) && !catalog.SameResults(old.CheckResults, now.CheckResults)
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
		{"checks", slices.Equal(a.Checks, b.Checks)},
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

// tellVerdict records what a tick decided; state is set when protection or pace changed.
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
	if v.SlowChanged {
		e := api.Event{Kind: api.EventSlowOff, Actor: actorNode, Cause: api.EventCause{Kind: api.BecauseInTime}}
		if state.Slow {
			e.Kind, e.Cause.Kind, e.Detail = api.EventSlowOn, api.BecausePaused, state.Why
		}
		r.Record(e)
	}
	for i := range v.Evicted {
		e := &v.Evicted[i]
		if e.Condemned {
			r.Record(api.Event{
				Kind: api.EventEvict, Subject: e.Key.String(), Actor: actorChecks, Cause: api.EventCause{Kind: api.BecauseLiveness},
				Detail: "removed: a liveness or startup check failed for its deregister_after",
			})
			continue
		}
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
		why := api.BecauseHistoryLost
		if r.raised {
			why = api.BecauseNodeRaised
		}
		r.tellEpoch(known.Epoch, now.Epoch, why)
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
