package steering

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/nearside/nearside/sdk/api"
)

func regionAttribute(r api.Region) attribute.KeyValue { return attribute.String("region", string(r)) }

// tellChanges records what a commit changed. Every node sees the commit, so every node's log
// has it, told alike.
func (t *Table) tellChanges(before, after *head, revision uint64, now time.Time) {
	keys := maps.Clone(before.view.policies)
	maps.Copy(keys, after.view.policies)
	for _, k := range slices.SortedFunc(maps.Keys(keys), func(a, b api.ServiceKey) int { return strings.Compare(a.String(), b.String()) }) {
		was, is := before.view.policies[k], after.view.policies[k]
		if was == is {
			continue
		}
		e := api.Event{Kind: api.EventPolicy, Revision: revision, Subject: k.String(), Cause: api.EventCause{Kind: api.BecauseRequest}}
		switch {
		case is == nil:
			e.Detail = "deleted: " + changes(&was.Policy, nil)
		case was == nil:
			e.Actor, e.Detail = is.Actor, "set: "+changes(nil, &is.Policy)+note(is.Note)
		default:
			e.Actor, e.Detail = is.Actor, fmt.Sprintf("version %d: %s%s", is.Version, changes(&was.Policy, &is.Policy), note(is.Note))
		}
		t.record(e)
	}
	for _, region := range after.view.regions() {
		was, is := before.view.drains[region], after.view.drains[region]
		if was == is {
			continue
		}
		e := api.Event{Kind: api.EventRegionDrain, Revision: revision, Subject: string(region), Actor: is.Actor, Cause: api.EventCause{Kind: api.BecauseRequest}}
		switch {
		case is.End == api.DrainAborted:
			e.Cause.Kind, e.Detail = api.BecauseAbort, "given up at "+percent(is.From)+": "+is.Why
		case is.End != "":
			e.Detail = "undone at " + percent(is.From) + way(&is.Drain) + note(is.Note)
		case is.State(now) == api.DrainScheduled:
			e.Detail = fmt.Sprintf("planned for %s: %s to %s%s%s", stamp(*is.At), percent(is.From), percent(is.Percent), way(&is.Drain), note(is.Note))
		default:
			e.Detail = fmt.Sprintf("begun: %s to %s%s%s", percent(is.From), percent(is.Percent), way(&is.Drain), note(is.Note))
		}
		t.record(e)
	}
}

// tellPassed records what the passing of time changed.
func (t *Table) tellPassed(before, after *head) {
	for _, region := range after.view.regions() {
		d := after.view.drains[region]
		was, is := before.levels[region], after.levels[region]
		state := after.states[region]
		if was == is && before.states[region] == state {
			continue
		}
		e := api.Event{Kind: api.EventRegionDrain, Revision: d.revision, Subject: string(region), Actor: "node", Cause: api.EventCause{Kind: api.BecauseSchedule}}
		switch state {
		case api.DrainMoving:
			e.Detail = fmt.Sprintf("%s, on the way from %s to %s", percent(is), percent(d.From), percent(d.Percent))
		case api.DrainHolding:
			e.Detail = percent(is) + " reached"
		case api.DrainAborted, api.DrainEnded:
			e.Detail = "ended: nothing is drained any more"
		default:
			continue
		}
		t.record(e)
	}
}

func (t *Table) record(e api.Event) {
	if len(e.Detail) > api.MaxEventDetail {
		e.Detail = strings.ToValidUTF8(e.Detail[:api.MaxEventDetail-len("…")], "") + "…"
	}
	t.cfg.Registry.Record(e)
}

func changes(before, after *api.Policy) string {
	list := api.Differences(before, after)
	if len(list) == 0 {
		return "no field differs"
	}
	return strings.Join(list, "; ")
}

func note(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) + " %" }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// way says how a drain gets where it goes.
func way(d *Drain) string {
	s := " at once"
	if d.Over > 0 {
		s = fmt.Sprintf(" over %s in %d steps", d.Over.D(), d.Steps)
	}
	if d.Until != nil {
		s += ", until " + stamp(*d.Until)
	}
	return s
}
