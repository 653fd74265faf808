package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// loaded returns the drawing with the loads of some regions, any thresholds, and sometimes a memory
// of decisions before.
func (d drawing) loaded(r *rand.Rand) drawing {
	set := func() {
		d.v.Regions = slices.Clone(d.v.Regions)
		for i := range d.v.Regions {
			d.v.Regions[i].Load = 0
			if r.IntN(4) > 0 {
				d.v.Regions[i].Load = float64(5 * (1 + r.IntN(40)))
			}
		}
	}
	switch r.IntN(4) {
	case 0:
		d.p.SpillStart = 1 + 99*r.Float64()
	case 1:
		d.p.SpillStart, d.p.SpillStop = 1+99*r.Float64(), 100*r.Float64()
	}
	for range r.IntN(4) {
		set()
		d.c.Memory = d.decide().Memory
		if r.IntN(3) == 0 {
			d.c.Memory = d.c.Memory.Loads()
		}
		d.c.Elapsed = time.Duration(r.IntN(30_000)) * time.Millisecond
	}
	set()
	return d
}

// at returns the drawing with another load of a region.
func (d drawing) at(region api.Region, load float64) drawing {
	d.v.Regions = slices.Clone(d.v.Regions)
	for i := range d.v.Regions {
		if d.v.Regions[i].Origin.Region == region {
			d.v.Regions[i].Load = load
		}
	}
	return d
}

// Monotone: the more home is used, the less traffic it gets, all else the same. The same holds
// for each other region.
func TestMoreLoadNeverBringsMoreTraffic(t *testing.T) {
	r, moved := seeded(t), 0
	for range 800 {
		d := draw(r).mixed(r).loaded(r)
		for _, name := range []api.Region{"us", "eu", "ap", "sa"} {
			last, dec := 2.0, Decision{}
			for load := 1.0; load < 1100; load *= 1 + r.Float64() {
				next := d.at(name, load).decide()
				share := regionShare(next, name)
				if share > last+rounding {
					t.Fatalf("%s gets %v at a load of %v %%, and %v with less\n%+v\n%+v\nview %+v\npolicy %+v\ncaller %+v", name, share, load, last, next.Wire(), dec.Wire(), d.v, d.p, d.c)
				}
				if last < 2 && share < last {
					moved++
				}
				last, dec = share, next
			}
		}
	}
	t.Logf("%d times it gets less", moved)
}

// A load moves shares and nothing else: which endpoints there are, in which tiers and in which
// order, is a matter of their health, of distance and of policy.
func TestLoadKeepsTheOrder(t *testing.T) {
	order := func(d Decision) string {
		s := fmt.Sprint(d.Panic)
		for i := range d.Tiers {
			t := &d.Tiers[i]
			s += fmt.Sprintf(" %s %s %s: %s", t.Kind, t.Region, t.Zone, ids(t.Endpoints))
		}
		return s
	}
	r := seeded(t)
	for range 2_500 {
		d := draw(r).mixed(r).loaded(r)
		with := order(d.decide())
		for i := range d.v.Regions {
			d.v.Regions[i].Load = 0
		}
		d.c.Memory = Memory{}
		if without := order(d.decide()); with != without {
			t.Fatalf("%s\nwithout loads %s", with, without)
		}
	}
}

// A load takes away from home no more than 20 points in a second, whatever it tells.
func TestSpillRisesSlowly(t *testing.T) {
	r, rose := seeded(t), 0
	for range 5_000 {
		d := draw(r).mixed(r).loaded(r)
		before := d.decide()
		d.c.Memory, d.c.Elapsed = before.Memory, time.Duration(r.IntN(3_000))*time.Millisecond
		had := regionShare(d.at("us", 1).decide(), "us") // with its load out of the way
		got := regionShare(d.at("us", 1000).decide(), "us")
		was := min(had, regionShare(before, "us"))
		if was-got > spillRate*d.c.Elapsed.Seconds()+rounding {
			t.Fatalf("home had %v and has %v after %s\nview %+v\npolicy %+v\ncaller %+v", was, got, d.c.Elapsed, d.v, d.p, d.c)
		}
		if was > got+rounding {
			rose++
		}
	}
	t.Logf("%d spills rose", rose)
}

// What is left of a region after a loss has to do the work of all.
func TestALossRaisesTheLoad(t *testing.T) {
	v := View{Regions: []RegionView{busyAt(region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "b", pass), ep("3", "us", "b", crit)), 50)}}
	m := Mask{Losses: []api.Loss{{Region: "us", Zone: "a"}}}
	left, touched := m.Apply(v, "us", nil)
	if !touched || left.Regions[0].Load != 100 || v.Regions[0].Load != 50 {
		t.Errorf("%v, %+v", touched, left.Regions[0])
	}
}
