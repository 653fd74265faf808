package route

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// drawLosses draws a few things to take away.
func drawLosses(r *rand.Rand) (m Mask) {
	names := []api.Region{"us", "eu", "ap", "sa"}
	for range r.IntN(4) {
		a, b := names[r.IntN(4)], names[r.IntN(4)]
		switch l := (api.Loss{}); r.IntN(3) {
		case 0:
			m.Losses = append(m.Losses, api.Loss{Region: a})
		case 1:
			m.Losses = append(m.Losses, api.Loss{Region: a, Zone: []api.Zone{"a", "b"}[r.IntN(2)]})
		default:
			if l.Link = []api.Region{a, b}; a != b {
				m.Losses = append(m.Losses, l)
			}
		}
	}
	return m
}

func (d *drawing) question(r *rand.Rand, m Mask) Question {
	q := Question{View: d.v, Policy: d.p, Caller: d.c, Mask: m, RTT: map[api.Region]int64{}}
	for i := range d.v.Regions {
		rv := &d.v.Regions[i]
		f := Facts{Zones: map[api.Zone]api.ZoneCount{}}
		for _, e := range rv.Endpoints {
			n := f.Zones[e.Zone]
			n.Total++
			if e.Status.Usable() {
				n.Passing++
			}
			f.Zones[e.Zone] = n
		}
		if r.IntN(2) == 0 {
			f.Load = 150 * r.Float64()
		}
		q.Facts = append(q.Facts, f)
		if r.IntN(3) > 0 {
			q.RTT[rv.Origin.Region] = rv.Origin.RTTMS
		}
	}
	return q
}

// without is the view after the loss has really happened, made in another way than by a Mask: the
// regions are gone from it, and so are the instances of the zones.
func (d *drawing) without(m Mask) View {
	v := View{Key: d.v.Key}
	for _, rv := range d.v.Regions {
		gone := false
		zones := map[api.Zone]bool{}
		for _, l := range m.Losses {
			switch {
			case len(l.Link) == 2:
				gone = gone || slices.Contains(l.Link, d.c.Region) && slices.Contains(l.Link, rv.Origin.Region) && rv.Origin.Region != d.c.Region
			case l.Zone != "":
				zones[l.Zone] = zones[l.Zone] || l.Region == rv.Origin.Region
			case l.Region == rv.Origin.Region:
				gone = true
			}
		}
		if gone {
			continue
		}
		rv.Endpoints = slices.DeleteFunc(slices.Clone(rv.Endpoints), func(e api.Endpoint) bool { return zones[e.Zone] })
		v.Regions = append(v.Regions, rv)
	}
	return v
}

// P3, P7: what a what-if calls down is down when it has happened, and nothing else is; losing regions
// shares out as their absence does; nothing forbidden is foretold; and what was asked stays as it is.
func TestWhatIfIsWhatWouldBeDecided(t *testing.T) {
	r := seeded(t)
	effects := map[api.Effect]int{}
	for range 6_000 {
		d := draw(r).mixed(r)
		d.c.Memory = Memory{} // it is asked where it ends
		m := drawLosses(r)
		q := d.question(r, m)
		seen := deepCopy(d.v)
		im := WhatIf(q)
		effects[im.Row.Effect]++
		if !reflect.DeepEqual(seen, d.v) {
			t.Fatalf("the view was changed by %v", m)
		}
		if again := WhatIf(q); !reflect.DeepEqual(im, again) {
			t.Fatalf("asked twice, two answers: %+v, %+v", im, again)
		}
		before := d.decide()
		then := Decide(d.without(m), d.p, d.c, nil)
		down := im.Row.Effect == api.EffectDown || im.Row.Effect == api.EffectWasDown
		if down != then.Down() || (im.Row.Effect == api.EffectWasDown) != (before.Down() && then.Down()) {
			t.Fatalf("foretold %s, after %v it is %+v\nview %+v\npolicy %+v", im.Row.Effect, m, then.Wire(), d.v, d.p)
		}
		regionsOnly := !slices.ContainsFunc(m.Losses, func(l api.Loss) bool { return l.Zone != "" })
		moved := 0.0
		for _, rv := range d.v.Regions {
			name := rv.Origin.Region
			was, is := rowShare(im.Row, name)
			if diff(was, regionShare(before, name)) {
				t.Fatalf("%s has %v before, by Decide %v", name, was, regionShare(before, name))
			}
			if regionsOnly && !then.Down() && diff(is, regionShare(then, name)) {
				t.Fatalf("%s would get %v, gets %v after %v\n%+v\n%+v", name, is, regionShare(then, name), m, then.Wire(), d.v)
			}
			if is > 0 && !d.p.allows(name, d.c.Region) {
				t.Fatalf("%s, which the policy forbids, would get %v", name, is)
			}
			moved += max(0, was-is)
		}
		if diff(moved, im.Row.Moved) {
			t.Fatalf("moved %v, by the shares %v: %+v", im.Row.Moved, moved, im.Row)
		}
		if len(m.Losses) == 0 && (im.Touched || im.Row.Moved != 0 || im.Row.Effect != api.EffectNone && im.Row.Effect != api.EffectWasDown) {
			t.Fatalf("losing nothing does %+v", im)
		}
		if s := slices.IndexFunc(im.Row.Regions, func(s api.WhatIfShare) bool { return s.Over }); im.Row.Effect == api.EffectOver && s < 0 || im.Row.Effect == api.EffectNone && s >= 0 {
			t.Fatalf("over does not agree with the regions: %+v", im.Row)
		}
	}
	t.Log(effects)
	for _, e := range api.Effects {
		if effects[e] < 20 {
			t.Errorf("only %d of 6,000 scenes are %s: the draw does not try that", effects[e], e)
		}
	}
}

// Losing more never brings a service back.
func TestWhatIfLosingMoreNeverHelps(t *testing.T) {
	r := seeded(t)
	worse := 0
	for range 3_000 {
		d := draw(r).mixed(r)
		few := drawLosses(r)
		more := Mask{append(slices.Clone(few.Losses), drawLosses(r).Losses...)}
		a, b := WhatIf(d.question(r, few)).Row, WhatIf(d.question(r, more)).Row
		wasDown := a.Effect == api.EffectDown || a.Effect == api.EffectWasDown
		isDown := b.Effect == api.EffectDown || b.Effect == api.EffectWasDown
		if wasDown && !isDown {
			t.Fatalf("down after %v and up after %v\nview %+v\npolicy %+v", few, more, d.v, d.p)
		}
		if !wasDown && isDown {
			worse++
		}
	}
	if worse < 30 {
		t.Errorf("only %d scenes became worse", worse)
	}
}

// rowShare is what a region gets before and after.
func rowShare(row api.WhatIfService, r api.Region) (before, after float64) {
	for _, s := range row.Regions {
		if s.Region == r {
			return s.Before, s.After
		}
	}
	return 0, 0
}

func diff(a, b float64) bool { return a-b > rounding || b-a > rounding }

func deepCopy(v View) View {
	v.Regions = slices.Clone(v.Regions)
	for i := range v.Regions {
		rv := &v.Regions[i]
		rv.Endpoints = slices.Clone(rv.Endpoints)
		for j := range rv.Endpoints {
			rv.Endpoints[j].Metadata = maps.Clone(rv.Endpoints[j].Metadata)
		}
	}
	return v
}
