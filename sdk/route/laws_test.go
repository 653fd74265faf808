package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// drawing is one random scene.
type drawing struct {
	v View
	p Policy
	c Caller
}

// draw draws a view with every kind of endpoint in up to four regions, and any policy.
func draw(r *rand.Rand) drawing {
	names := []api.Region{"us", "eu", "ap", "sa"}
	states := []api.AgeState{api.AgeFresh, api.AgeStale, api.AgeSuspect, api.AgeExpired}
	ages := []int64{0, 15_000, 120_000, 3_600_000}
	some := func(p int, x float64) float64 {
		if r.IntN(p) == 0 {
			return x
		}
		return 0
	}
	d := drawing{v: View{Key: api.ServiceKey{Service: "s"}}}
	d.c = Caller{Region: "us", Zone: api.Zone([]string{"", "a", "b"}[r.IntN(3)]), Broken: map[EndpointRef]struct{}{}}
	d.p = Policy{
		LocalOnly: r.IntN(8) == 0, MinHealthy: some(4, 100*r.Float64()), OverProvisioning: some(3, 1+2*r.Float64()),
		KeepWarm: some(4, 10*r.Float64()),
	}
	if r.IntN(4) == 0 {
		d.p.Order = []api.Region{names[r.IntN(4)]}
	}
	healthy, told := r.IntN(2) == 0, r.IntN(4) == 0
	residency := r.IntN(2) == 0
	for _, n := range names {
		if residency && r.IntN(2) == 0 {
			d.p.Allowed = append(d.p.Allowed, n)
		}
		if r.IntN(4) == 0 {
			continue
		}
		age := r.IntN(4)
		rv := RegionView{Origin: api.Origin{Region: n, State: states[age], AgeMS: ages[age], RTTMS: int64(r.IntN(200)), Down: r.IntN(8) == 0}}
		switch r.IntN(6) {
		case 0:
			rv.Origin.Drained = 100
		case 1:
			rv.Origin.Drained = 100 * r.Float64()
		}
		for i := range r.IntN(7) {
			e := ep(fmt.Sprint(i), string(n), []string{"a", "b"}[r.IntN(2)], pass)
			if !healthy || r.IntN(3) == 0 {
				e.Status = api.Statuses[r.IntN(5)]
			}
			e.Overdue = r.IntN(6) == 0
			if told {
				e.Capacity = 1 + r.IntN(1000)
			}
			switch r.IntN(8) {
			case 0:
				e.Weight = 0
			case 1:
				e.Weight = 1 + r.IntN(300)
			}
			if r.IntN(6) == 0 {
				d.c.Broken[EndpointRef{n, e.ID}] = struct{}{}
			}
			rv.Endpoints = append(rv.Endpoints, e)
		}
		rv.Total = len(rv.Endpoints)
		if n != "us" && r.IntN(3) == 0 { // a fail-over set of more
			rv.Passing, rv.Draining = len(rv.Endpoints)+r.IntN(50), r.IntN(5)
			rv.Total = rv.Passing + rv.Draining + r.IntN(50)
		}
		d.v.Regions = append(d.v.Regions, rv)
	}
	if r.IntN(3) == 0 {
		left := 1.0
		for _, n := range names {
			share := left * r.Float64()
			left -= share
			d.c.Memory.Shares = append(d.c.Memory.Shares, RegionShare{n, share})
		}
		d.c.Elapsed = time.Duration(r.IntN(20)) * time.Second
	}
	return d
}

// classes returns the class of every endpoint.
func (d *drawing) classes() map[EndpointRef]class {
	m := map[EndpointRef]class{}
	places := survey(&d.v, &d.p, &d.c)
	for i := range places {
		for ei, k := range places[i].kinds {
			e := &places[i].view.Endpoints[ei]
			m[EndpointRef{e.Region, e.ID}] = places[i].within(k)
		}
	}
	return m
}

func (d drawing) decide() Decision { return Decide(d.v, d.p, d.c, nil) }

// regionShare is what a region gets.
func regionShare(d Decision, r api.Region) float64 {
	sum := 0.0
	for _, t := range d.Tiers {
		if t.Region == r {
			sum += t.Weight
		}
	}
	return sum
}

// rounding is what shares may differ by for being rounded.
const rounding = 5e-6

func checkLaws(t *testing.T, d drawing) {
	t.Helper()
	var tr api.Trace
	dec := Decide(d.v, d.p, d.c, &tr)
	k := d.classes()
	known, best := 0, class(255)
	usableIn := map[api.Region]bool{}
	drainedAway := map[api.Region]bool{}
	for _, r := range d.v.Regions {
		drainedAway[r.Origin.Region] = r.Origin.Drained >= 100
		for _, e := range r.Endpoints {
			c := k[EndpointRef{e.Region, e.ID}]
			if c == refused {
				continue
			}
			known++
			best = min(best, c)
			usableIn[e.Region] = usableIn[e.Region] || c == usable
		}
	}
	sum, offeredTo := 0.0, 0
	for i, tier := range dec.Tiers {
		sum += tier.Weight
		if tier.Tier.Tier != i || !(tier.Weight >= 0 && tier.Weight <= 1) || len(tier.Endpoints) == 0 {
			t.Fatalf("tier %d: %+v", i, tier.Tier)
		}
		offeredTo += len(tier.Endpoints)
		for _, e := range tier.Endpoints {
			if !d.p.allows(e.Region, d.c.Region) {
				t.Fatalf("%s/%s is offered although the policy forbids its region", e.Region, e.ID)
			}
			this, first := k[EndpointRef{e.Region, e.ID}], k[EndpointRef{dec.Tiers[0].Region, dec.Tiers[0].Endpoints[0].ID}]
			if tier.Weight > 0 && this != first && !(first.panicking() && this.rank() == first.rank()) {
				t.Fatalf("%s/%s takes traffic beside a better class", e.Region, e.ID)
			}
		}
	}
	if known > 0 && math.Abs(sum-1) > 1e-9 {
		t.Fatalf("weights sum to %v: %+v", sum, dec.Wire())
	}
	if offeredTo != known {
		t.Fatalf("%d of %d known and allowed endpoints are in the tiers", offeredTo, known)
	}
	if known > 0 && (len(dec.Offered()) == 0 || len(dec.Endpoints(0)) == 0 || len(dec.EndpointsAt(0.99, 1)) != 1) {
		t.Fatal("P3: nothing is offered although something is known")
	}
	for _, e := range dec.Offered() {
		switch {
		case len(usableIn) > 0 && slices.Contains([]api.Status{drain, crit, start}, e.Status) && anyTrue(usableIn):
			t.Fatalf("%s/%s, %s, is offered while a usable one is allowed", e.Region, e.ID, e.Status)
		case anyTrue(usableIn) && drainedAway[e.Region]:
			t.Fatalf("%s/%s is offered although its region is drained and another has usable ones", e.Region, e.ID)
		}
	}
	if first := class(0); len(dec.Tiers) > 0 {
		first = k[EndpointRef{dec.Tiers[0].Region, dec.Tiers[0].Endpoints[0].ID}]
		if dec.Panic != first.panicking() || dec.Panic != (dec.Reason == api.ReasonPanic) || first > best && best%down != starting {
			t.Fatalf("panic is %v, class %d, best %d, reason %s", dec.Panic, first, best, dec.Reason)
		}
	}
	if last := tr.Steps[len(tr.Steps)-1]; !dec.Panic && last.Out != len(dec.Offered()) {
		t.Fatalf("the funnel ends at %d, %d are offered: %+v", last.Out, len(dec.Offered()), tr)
	}
}

func anyTrue(m map[api.Region]bool) bool {
	for _, b := range m {
		if b {
			return true
		}
	}
	return false
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// The laws of the package comment, over random views (P3, P7).
func TestLaws(t *testing.T) {
	r := seeded(t)
	for range 4_000 {
		d := draw(r).mixed(r)
		checkLaws(t, d)
		checkLaws(t, d.loaded(r))
	}
}

// loss is a way to lose an endpoint, and what it does to the counts of the region.
type loss struct {
	endpoint                 func(*api.Endpoint) // nil = it goes
	total, passing, draining int
}

// lose returns the drawing without one endpoint.
func (d drawing) lose(of *api.Endpoint, l loss) drawing {
	v := View{Key: d.v.Key}
	for _, rv := range d.v.Regions {
		if i := slices.IndexFunc(rv.Endpoints, func(e api.Endpoint) bool { return e.ID == of.ID }); i >= 0 && rv.Origin.Region == of.Region {
			rv.Endpoints = slices.Clone(rv.Endpoints)
			if l.endpoint == nil {
				rv.Endpoints = slices.Delete(rv.Endpoints, i, i+1)
			} else {
				l.endpoint(&rv.Endpoints[i])
			}
			rv.Total += l.total
			if rv.Passing > 0 {
				rv.Passing, rv.Draining = rv.Passing+l.passing, rv.Draining+l.draining
			}
		}
		v.Regions = append(v.Regions, rv)
	}
	d.v = v
	return d
}

// Losing a usable endpoint, in whatever way, never sends more to its tier, nor to its region;
// whatever load is told.
func TestLosingAnEndpointIsMonotone(t *testing.T) {
	r := seeded(t)
	ways := map[string]loss{
		"fails":      {func(e *api.Endpoint) { e.Status = crit }, 0, -1, 0},
		"is overdue": {func(e *api.Endpoint) { e.Overdue = true }, 0, 0, 0},
		"is broken":  {func(*api.Endpoint) {}, 0, 0, 0},
		"drains":     {func(e *api.Endpoint) { e.Status = drain }, 0, -1, 1},
		"goes":       {nil, -1, -1, 0},
	}
	for i := range 4_000 {
		d := draw(r).mixed(r)
		if i%2 > 0 {
			d = d.loaded(r)
		}
		before, k := d.decide(), d.classes()
		for _, tier := range before.Tiers {
			e := tier.Endpoints[0]
			if k[EndpointRef{e.Region, e.ID}] != usable {
				continue
			}
			for way, l := range ways {
				after := d.lose(e, l)
				if way == "is broken" {
					after.c.Broken = map[EndpointRef]struct{}{{e.Region, e.ID}: {}}
					for ref := range d.c.Broken {
						after.c.Broken[ref] = struct{}{}
					}
				}
				dec, ks := after.decide(), after.classes()
				got := 0.0
				for _, x := range dec.Tiers {
					if x.Kind == tier.Kind && x.Region == tier.Region && x.Zone == tier.Zone && ks[EndpointRef{x.Region, x.Endpoints[0].ID}] == usable {
						got = x.Weight
					}
				}
				if got > tier.Weight+rounding {
					t.Fatalf("%s/%s %s: tier %+v gets %v\nbefore %+v\nafter  %+v\nview %+v\npolicy %+v", e.Region, e.ID, way, tier.Tier, got, before.Wire(), dec.Wire(), d.v, d.p)
				}
			}
		}
	}
}

// A region drained p percent keeps (1-p/100) of what it would take without; the rest is with
// the others, as long as one that is not drained has usable instances.
func TestDrainsKeepTheirPart(t *testing.T) {
	r := seeded(t)
	tried := 0
	for range 12_000 {
		d := draw(r).mixed(r)
		if r.IntN(2) == 0 {
			d = d.loaded(r)
		}
		d.p.KeepWarm, d.c.Memory = 0, Memory{}
		which := -1
		for i := range d.v.Regions {
			o := &d.v.Regions[i].Origin
			o.Drained = 0
			if o.State != api.AgeExpired { // ages divide a spill by what is left of it
				o.State, o.AgeMS = api.AgeFresh, 0
			}
			if d.v.Regions[i].Origin.Region == []api.Region{"us", "eu", "ap", "sa"}[r.IntN(4)] {
				which = i
			}
		}
		if which < 0 {
			continue
		}
		before := d.decide()
		name := d.v.Regions[which].Origin.Region
		share, elsewhere := regionShare(before, name), false
		for ref, k := range d.classes() {
			elsewhere = elsewhere || k == usable && ref.Region != name
		}
		if share == 0 || !elsewhere {
			continue
		}
		tried++
		d.v.Regions = slices.Clone(d.v.Regions)
		for _, percent := range []float64{0.1, 1, 25, 50, 99, 99.9, 100} {
			d.v.Regions[which].Origin.Drained = percent
			after := d.decide()
			if got, want := regionShare(after, name), share*(1-percent/100); math.Abs(got-want) > rounding {
				t.Fatalf("%s drained %v %%: %v of %v, want %v\n%+v\n%+v", name, percent, got, share, want, after.Wire(), d.v)
			}
		}
	}
	t.Logf("%d drains", tried)
}

// P10: what is known of one region growing old moves nothing away from where the traffic
// belongs, and nothing from a region that is the only one to serve.
func TestAgeAloneMovesNothing(t *testing.T) {
	r := seeded(t)
	for range 12_000 {
		d := draw(r).mixed(r)
		d.p.KeepWarm = 0
		for i := range d.v.Regions {
			d.v.Regions[i].Origin.State, d.v.Regions[i].Origin.AgeMS = api.AgeFresh, 0
		}
		before := d.decide()
		if len(before.Tiers) == 0 {
			continue
		}
		home := regionShare(before, d.c.Region)
		first := before.Tiers[0]
		d.v.Regions = slices.Clone(d.v.Regions)
		for i := range d.v.Regions { // the control plane of everything is lost
			o := &d.v.Regions[i].Origin
			o.State, o.AgeMS = api.AgeSuspect, int64(1000*(30+r.IntN(800)))
		}
		after := d.decide()
		// In panic the older regions count for less beside home.
		if got := regionShare(after, d.c.Region); got < home-rounding || got > home+rounding && !before.Panic {
			t.Fatalf("home had %v and has %v\n%+v\n%+v", home, got, before.Wire(), after.Wire())
		}
		if base := belongs(survey(&d.v, &d.p, &d.c)); first.Weight == 1 && base != nil && base.region() == first.Region && !before.Panic && after.Tiers[0].Weight < 1 {
			t.Fatalf("%s served alone and has %v\n%+v", first.Region, after.Tiers[0].Weight, after.Wire())
		}
	}
}

// Traffic comes back no faster than the ramp allows, goes away at once, and arrives.
func TestFailbackIsRamped(t *testing.T) {
	r := seeded(t)
	held := 0
	for range 12_000 {
		d := draw(r).mixed(r)
		if len(d.c.Memory.Shares) == 0 {
			continue
		}
		for i := range d.v.Regions {
			d.v.Regions[i].Origin.Drained = 0
		}
		d.p.FailbackRamp = 30 * time.Second
		free := d
		free.c.Memory = Memory{}
		target, dec := free.decide(), d.decide()
		if regionShare(target, "us") < regionShare(dec, "us")-rounding {
			t.Fatalf("the ramp sends more home than without: %+v %+v", target.Wire(), dec.Wire())
		}
		if dec.Ramping {
			held++
		} else if math.Abs(regionShare(target, "us")-regionShare(dec, "us")) > rounding {
			t.Fatalf("not ramping, and not there: %+v %+v", target.Wire(), dec.Wire())
		}
		for n := 0; dec.Ramping; n++ {
			d.c.Memory, d.c.Elapsed = dec.Memory, time.Second
			next := d.decide()
			if more := regionShare(next, "us") - regionShare(dec, "us"); more > 1.0/30+rounding {
				t.Fatalf("%v more in a second", more)
			}
			if dec = next; n > 31 {
				t.Fatalf("still ramping after %d s: %+v, target %+v", n, dec.Wire(), target.Wire())
			}
		}
		for _, tier := range target.Tiers {
			if math.Abs(regionShare(target, tier.Region)-regionShare(dec, tier.Region)) > rounding {
				t.Fatalf("it ends at %+v, not at %+v", dec.Wire(), target.Wire())
			}
		}
	}
	t.Logf("%d held back", held)
}

// mixed returns the drawing with instances of which some tell a capacity and others do not, in
// every second case.
func (d drawing) mixed(r *rand.Rand) drawing {
	if r.IntN(2) == 0 {
		return d
	}
	d.v.Regions = slices.Clone(d.v.Regions)
	for i := range d.v.Regions {
		rv := &d.v.Regions[i]
		rv.Endpoints = slices.Clone(rv.Endpoints)
		told, unit := r.IntN(5), 1+r.IntN(1000)
		for j := range rv.Endpoints {
			rv.Endpoints[j].Capacity = 0
			if r.IntN(4) < told {
				rv.Endpoints[j].Capacity = 1 + r.IntN(unit)
			}
		}
	}
	return d
}
