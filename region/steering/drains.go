package steering

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// PutDrain begins (or plans) the drain of a region, from where it stands. It needs nothing of that
// region. The same request as the one that is under way changes nothing, so repeating is safe.
func (t *Table) PutDrain(ctx context.Context, region api.Region, r api.DrainRequest) (api.RegionDrain, registry.Stamp, error) {
	if err := t.beginDrain(ctx, registry.VerbDrain, region); err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	now := time.Now()
	scheduled := r.At != nil && r.At.After(now)
	r, err := r.Normalize(now)
	if err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	next := Drain{DrainRequest: r, Actor: registry.ActorOf(ctx)}
	return t.writeDrain(ctx, region, func(cur *heldDrain) *Drain {
		next.From = 0
		if cur != nil {
			if cur.asksTheSame(&r, scheduled, now) {
				return nil
			}
			next.From = cur.Level(now)
		}
		return &next
	})
}

// UndoDrain takes back what this region decided about a region: at once, or over a time in steps. It
// changes nothing where nothing is drained or planned.
func (t *Table) UndoDrain(ctx context.Context, region api.Region, over time.Duration) (api.RegionDrain, registry.Stamp, error) {
	if err := t.beginDrain(ctx, registry.VerbDrain, region); err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	now := time.Now()
	r, err := api.DrainRequest{Over: api.Duration(over)}.Normalize(now)
	if err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	next := Drain{DrainRequest: r, Actor: registry.ActorOf(ctx), End: api.DrainEnded, Why: "undone on request"}
	return t.writeDrain(ctx, region, func(cur *heldDrain) *Drain {
		if cur == nil || cur.over(now) || cur.End != "" && cur.Over == r.Over {
			return nil
		}
		next.From = cur.Level(now)
		if next.From == 0 {
			next.Over = 0 // there is no way to go
		}
		return &next
	})
}

// writeDrain commits what decide makes of the record that there is; nil = leave it.
func (t *Table) writeDrain(ctx context.Context, region api.Region, decide func(cur *heldDrain) *Drain) (api.RegionDrain, registry.Stamp, error) {
	revision, err := t.write(ctx, func(v *View) ([]store.Op, error) {
		next := decide(v.drains[region])
		if next == nil {
			return nil, nil
		}
		value, err := encodeDrain(next)
		if err != nil {
			return nil, err
		}
		return []store.Op{{Key: DrainKey(region), Value: value, Guarded: true, If: v.guard(DrainKey(region))}}, nil
	})
	if err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	st, err := t.cfg.Registry.Fresh(ctx, registry.ReadOptions{})
	if err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	st.Version.Revision = max(st.Version.Revision, revision)
	return t.show(region, time.Now()), st, nil
}

// GetDrain returns where the drain of a region stands here, also when there is none.
func (t *Table) GetDrain(ctx context.Context, region api.Region, o registry.ReadOptions) (api.RegionDrain, registry.Stamp, error) {
	if err := t.beginDrain(ctx, registry.VerbRead, region); err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	st, err := t.cfg.Registry.Fresh(ctx, o)
	if err != nil {
		return api.RegionDrain{}, registry.Stamp{}, err
	}
	return t.show(region, time.Now()), st, nil
}

func (t *Table) beginDrain(ctx context.Context, verb registry.Verb, region api.Region) error {
	if err := t.cfg.Registry.Authorize(ctx, registry.Access{Verb: verb, Region: region}); err != nil {
		return err
	}
	if err := api.CheckRegion(string(region)); err != nil {
		return err
	}
	if _, known := t.wish(region); known || region == t.region || t.head.Load().view.drains[region] != nil {
		return nil
	}
	return &api.Error{
		Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("region %s is not known here", api.Quote(string(region))), Remedy: "GET /v1/regions lists the regions",
	}
}

// wish returns a peer as it was last heard of: Drained is what it wishes about itself.
func (t *Table) wish(region api.Region) (api.Origin, bool) {
	for _, o := range t.cfg.Registry.Wishes() {
		if o.Region == region {
			return o, true
		}
	}
	return api.Origin{}, false
}

// show is the drain of a region at now, for people and programs.
func (t *Table) show(region api.Region, now time.Time) api.RegionDrain {
	v := t.head.Load().view
	wish, _ := t.wish(region)
	out := api.RegionDrain{Region: region, By: t.region, State: api.DrainEnded, Why: "nothing was ever drained here", Effective: wish.Drained}
	d := v.drains[region]
	if wish.Drained > 0 && (d == nil || d.over(now)) {
		out.By, out.Percent, out.Now, out.State = region, wish.Drained, wish.Drained, api.DrainHolding
		out.Why = fmt.Sprintf("%s's own wish, as it was heard of %s ago", region, (time.Duration(wish.AgeMS) * time.Millisecond).Round(time.Second))
		out.Warning = fmt.Sprintf("%s decided that about itself: it is undone there", region)
		return out
	}
	if d == nil {
		return out
	}
	out = api.RegionDrain{
		Region: region, By: t.region, DrainRequest: d.DrainRequest, From: d.From, Started: *d.At, Actor: d.Actor, Revision: d.revision,
		Now: d.Level(now), State: d.State(now), Why: d.Why,
	}
	if out.State == api.DrainEnded && out.Why == "" {
		out.Why = "its time was over"
		if !d.past(now) {
			out.Why = "0 % were asked for, and are reached"
		}
	}
	out.Effective = max(out.Now, wish.Drained)
	switch {
	case wish.Drained > out.Now:
		out.Warning = fmt.Sprintf("%s wishes %s itself, and callers here follow the larger", region, percent(wish.Drained))
	case d.Percent > 0 && !d.past(now):
		out.Warning = t.nobodyLeft(v, now)
	}
	return out
}

// nobodyLeft returns a warning when every region that is known is, or will be, drained wholly.
func (t *Table) nobodyLeft(v *View, now time.Time) string {
	goal := func(region api.Region, wish float64) float64 {
		if d := v.drains[region]; d != nil && !d.over(now) {
			return max(wish, d.Percent)
		}
		return wish
	}
	names := []string{string(t.region)}
	least := goal(t.region, 0)
	for _, o := range t.cfg.Registry.Wishes() {
		names = append(names, string(o.Region))
		least = min(least, goal(o.Region, o.Drained))
	}
	if least < 100 {
		return ""
	}
	return fmt.Sprintf("every region that is known here (%s) is drained then: callers go on using what there is", strings.Join(names, ", "))
}
