package registry

import (
	"context"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// EndDrain takes a drain back: an instance that drains has the status again that was set
// before, by hand or by itself, and the checks have their word; any other stays as it is, so
// it is safe to repeat. It is no sign of life. An incarnation of 0 is not compared; a lower
// one than the stored one is refused.
func (r *Registry) EndDrain(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.Instance, error) {
	return r.setStatus(ctx, key, incarnation, nil, func(in *api.Instance) {
		if in.Status == api.StatusDraining {
			c := api.StatusChange{Status: api.StatusPassing}
			if before := in.BeforeDrain; before != nil {
				c.Status, c.Note = before.Status, before.Note
			}
			putByHand(in, c)
		}
	})
}

// putByHand makes of an instance what SetStatus makes of it: of one with checks, the worse
// of the two counts. A drain puts what was set before aside, for its end.
func putByHand(in *api.Instance, c api.StatusChange) {
	switch {
	case c.Status != api.StatusDraining:
		in.BeforeDrain = nil
	case in.Status != api.StatusDraining:
		in.BeforeDrain = handOf(in)
	}
	in.Set = nil
	if !in.Checked() {
		in.Status, in.StatusNote = c.Status, c.Note
		return
	}
	if c.Status != api.StatusPassing {
		in.Set = &api.SetStatus{Status: c.Status, Note: c.Note}
	}
	in.Status, in.StatusNote = check.Effective(in.Set, in.CheckResults)
}

// handOf returns what was said of an instance, its checks apart; nil = passing.
func handOf(in *api.Instance) *api.SetStatus {
	switch {
	case in.Checked():
		return in.Set
	case in.Status == api.StatusPassing && in.StatusNote == "":
		return nil
	}
	return &api.SetStatus{Status: in.Status, Note: in.StatusNote}
}

// refreshed returns what the end of a drain goes back to after the instance registered with
// a status: what registering would have made of it without the drain.
func refreshed(before *api.SetStatus, asked api.Status, checked bool) *api.SetStatus {
	was := api.StatusPassing
	if before != nil {
		was = before.Status
	}
	switch {
	case asked == was, asked == api.StatusStarting && (was.Usable() || checked):
		return before
	case asked == api.StatusPassing:
		return nil
	}
	return &api.SetStatus{Status: asked}
}
