package steering

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// look is how often abort rules are looked at.
	look = time.Second
	// abortAfter is how long an abort rule must hold without a break before a drain is given
	// up: links are up again a second after a restart, and instances come back after a deploy.
	abortAfter = 5 * time.Second
	// lookLate bounds the sleep to a step: the wall clock, by which steps go, may jump.
	lookLate = time.Second
)

// Run moves drains on as their time comes, and gives up those whose abort rule holds, until
// ctx ends; it then returns nil. It may be called once.
func (t *Table) Run(ctx context.Context) error {
	holds := map[api.Region]*since{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-timer.C:
		}
		now := time.Now()
		if before, after := t.pass(now); before != nil {
			t.tellPassed(before, after)
		}
		t.abort(ctx, holds, now)
		if d := t.idle(now); d > 0 {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
	}
}

// idle returns how long nothing is due; 0 = until a record changes.
func (t *Table) idle(now time.Time) time.Duration {
	var wait time.Duration
	sooner := func(d time.Duration) {
		if d = min(max(d, time.Millisecond), lookLate); wait == 0 || d < wait {
			wait = d
		}
	}
	for _, d := range t.head.Load().view.drains {
		if next := d.Next(now); !next.IsZero() {
			sooner(next.Sub(now))
		}
		if d.watched(now) {
			sooner(look)
		}
	}
	return wait
}

// watched reports whether the drain's abort rule is to be looked at.
func (d *Drain) watched(now time.Time) bool {
	s := d.State(now)
	return d.Abort != nil && d.End == "" && (s == api.DrainMoving || s == api.DrainHolding)
}

// since is when an abort rule began to hold, for which record.
type since struct {
	revision uint64
	at       time.Time // with a monotonic reading
	told     bool      // that it cannot be given up now
}

// abort gives up the drains whose abort rule has held for long enough. Of the region's nodes one does.
func (t *Table) abort(ctx context.Context, holds map[api.Region]*since, now time.Time) {
	judges := t.cfg.Registry.Judges()
	var overview []api.RegionInfo
	v := t.head.Load().view
	for region, d := range v.drains {
		if !judges || !d.watched(now) {
			delete(holds, region)
			continue
		}
		if overview == nil {
			overview = t.cfg.Registry.Overview()
		}
		why := abortRule(*d.Abort).reason(region, overview)
		if why == "" {
			delete(holds, region)
			continue
		}
		h := holds[region]
		if h == nil || h.revision != d.revision {
			holds[region] = &since{revision: d.revision, at: now}
			continue
		}
		if now.Sub(h.at) < abortAfter {
			continue
		}
		switch err := t.giveUp(ctx, region, d, why, now); {
		case err == nil:
			t.log.Warn("a drain was given up", "region", string(region), "at", percent(d.Level(now)), "why", why)
		case !h.told:
			h.told = true
			t.log.Warn("a drain is to be given up, and the store does not take that: it is tried again", "region", string(region), "why", why, "cause", err)
		}
	}
}

func (t *Table) giveUp(ctx context.Context, region api.Region, d *heldDrain, why string, now time.Time) error {
	begin := now.UTC().Truncate(time.Millisecond)
	next := Drain{
		DrainRequest: api.DrainRequest{At: &begin, Steps: d.Steps, Abort: d.Abort, Note: d.Note},
		From:         d.Level(now), End: api.DrainAborted, Actor: "node", Why: why,
	}
	value, err := encodeDrain(&next)
	if err != nil {
		return err
	}
	// Steps of other drains wait for this, so it may not take long; it is tried again.
	ctx, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	_, err = t.cfg.Registry.Write(ctx, func() ([]store.Op, error) {
		if t.head.Load().view.guard(DrainKey(region)) != d.revision {
			return nil, nil // somebody decided anew
		}
		return []store.Op{{Key: DrainKey(region), Value: value, Guarded: true, If: d.revision}}, nil
	})
	return err
}

// abortRule is the arithmetic of api.DrainAbort.
type abortRule api.DrainAbort

// takes reports whether a region takes the traffic of drained.
func takes(r *api.RegionInfo, drained api.Region) bool {
	return r.Region != drained && r.Drained < 100
}

// reason says why a drain of region is to be given up, "" when it is not.
func (a abortRule) reason(region api.Region, overview []api.RegionInfo) string {
	passing, instances, reached := 0, 0, 0
	var names []string
	for i := range overview {
		r := &overview[i]
		if !takes(r, region) {
			continue
		}
		names = append(names, string(r.Region))
		passing += r.Passing
		instances += r.Instances
		if r.Self || r.Link == "connected" {
			reached++
		}
	}
	if a.RegionsBelow > 0 && reached < a.RegionsBelow {
		return fmt.Sprintf("%d regions that could take the traffic can be reached, fewer than %d", reached, a.RegionsBelow)
	}
	if a.BelowPassing <= 0 {
		return ""
	}
	if instances == 0 {
		return "no region that could take the traffic has an instance"
	}
	if share := 100 * float64(passing) / float64(instances); share < a.BelowPassing {
		return fmt.Sprintf("%d of %d instances (%.1f %%) are usable in the regions that take the traffic (%s), below %s", passing, instances, share, strings.Join(names, ", "), percent(a.BelowPassing))
	}
	return ""
}
