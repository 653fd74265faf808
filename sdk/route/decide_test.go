package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func ep(id, region, zone string, s api.Status) api.Endpoint {
	return api.Endpoint{ID: api.InstanceID(id), Region: api.Region(region), Zone: api.Zone(zone), Status: s, Weight: 100, Address: "10.0.0.1", Port: 80}
}

func region(name string, state api.AgeState, rtt int64, eps ...api.Endpoint) RegionView {
	return RegionView{Origin: api.Origin{Region: api.Region(name), State: state, RTTMS: rtt}, Endpoints: eps, Total: len(eps)}
}

func ids(eps []*api.Endpoint) string {
	s := ""
	for _, e := range eps {
		s += string(e.ID) + " "
	}
	return s
}

const (
	pass  = api.StatusPassing
	crit  = api.StatusCritical
	drain = api.StatusDraining
	warn  = api.StatusWarning
	start = api.StatusStarting
)

var us = Caller{Region: "us", Zone: "a"}

func TestDecideGoesNearFirst(t *testing.T) {
	over := ep("o1", "us", "a", pass)
	over.Overdue = true
	zero := ep("z1", "us", "a", pass)
	zero.Weight = 0
	cases := []struct {
		name   string
		view   []RegionView
		policy Policy
		caller Caller
		reason api.Reason
		offer  string
		panics bool
	}{
		{"same zone wins", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "b", pass)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSameZone, "1 ", false},
		{"rest of the region next", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit), ep("2", "us", "b", pass)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSameRegion, "2 ", false},
		{"passing is listed before warning", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", warn), ep("2", "us", "a", pass))}, Policy{}, us, api.ReasonSameZone, "2 1 ", false},
		{"absent here", []RegionView{region("us", "fresh", 0), region("eu", "fresh", 90, ep("3", "eu", "x", pass)), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{}, us, api.ReasonLocalAbsent, "3 ", false},
		{"unhealthy here", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), region("eu", "fresh", 90, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonLocalUnhealthy, "3 ", false},
		{"draining here", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", drain)), region("eu", "fresh", 90, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonLocalDraining, "3 ", false},
		{"policy order beats distance", []RegionView{region("us", "fresh", 0), region("eu", "fresh", 90, ep("3", "eu", "x", pass)), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{Order: []api.Region{"ap"}}, us, api.ReasonLocalAbsent, "4 ", false},
		{"stale knowledge moves nothing", []RegionView{region("us", "fresh", 0), region("eu", "suspect", 90, ep("3", "eu", "x", pass)), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{}, us, api.ReasonLocalAbsent, "3 ", false},
		{"expired knowledge comes last", []RegionView{region("us", "fresh", 0), region("eu", "expired", 90, ep("3", "eu", "x", pass)), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{}, us, api.ReasonLocalAbsent, "4 ", false},
		{"expired knowledge is still used", []RegionView{region("us", "fresh", 0), region("eu", "expired", 90, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonLocalAbsent, "3 ", false},
		{"an overdue instance comes after another region", []RegionView{region("us", "fresh", 0, over), region("eu", "fresh", 90, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonLocalUnhealthy, "3 ", false},
		{"expired knowledge comes after an overdue instance", []RegionView{region("us", "fresh", 0, over), region("eu", "expired", 90, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonPanic, "o1 ", true},
		{"overdue beats nothing", []RegionView{region("us", "fresh", 0, over, ep("1", "us", "a", crit))}, Policy{}, us, api.ReasonPanic, "o1 ", true},
		{"weight 0 is not offered", []RegionView{region("us", "fresh", 0, zero, ep("1", "us", "b", pass))}, Policy{}, us, api.ReasonSameRegion, "1 ", false},
		{"draining before critical in panic", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit), ep("2", "us", "b", drain))}, Policy{}, us, api.ReasonPanic, "2 ", true},
		{"all critical: panic, near first", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", crit))}, Policy{}, us, api.ReasonPanic, "1 ", true},
		{"residency holds in panic", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{Allowed: []api.Region{"us"}}, us, api.ReasonPanic, "1 ", true},
		{"local only", []RegionView{region("us", "fresh", 0), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{LocalOnly: true}, us, api.ReasonNoInstances, "", false},
		{"breaker open here", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, Caller{Region: "us", Zone: "a", Broken: map[EndpointRef]struct{}{{"us", "1"}: {}}}, api.ReasonLocalBroken, "3 ", false},
		{"breaker open everywhere", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass))}, Policy{}, Caller{Region: "us", Broken: map[EndpointRef]struct{}{{"us", "1"}: {}}}, api.ReasonPanic, "1 ", true},
		{"nobody has it", nil, Policy{}, us, api.ReasonServiceNotFound, "", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var tr api.Trace
			d := Decide(View{Key: api.ServiceKey{Service: "orders"}, Regions: c.view}, c.policy, c.caller, &tr)
			if d.Reason != c.reason || ids(d.Offered()) != c.offer || d.Panic != c.panics {
				t.Fatalf("reason %s, offered %q, panic %v (%s); want %s, %q, %v", d.Reason, ids(d.Offered()), d.Panic, d.Detail, c.reason, c.offer, c.panics)
			}
			if last := tr.Steps[len(tr.Steps)-1]; !d.Panic && last.Out != len(d.Offered()) {
				t.Errorf("the funnel ends at %d, %d are offered", last.Out, len(d.Offered()))
			}
		})
	}
}

// randomView draws a view with every kind of endpoint in up to four regions.
func randomView(r *rand.Rand) (View, Policy, Caller) {
	names := []api.Region{"us", "eu", "ap", "sa"}
	states := []api.AgeState{api.AgeFresh, api.AgeStale, api.AgeSuspect, api.AgeExpired}
	v := View{Key: api.ServiceKey{Service: "s"}}
	c := Caller{Region: "us", Zone: api.Zone([]string{"", "a", "b"}[r.IntN(3)]), Broken: map[EndpointRef]struct{}{}}
	p := Policy{LocalOnly: r.IntN(8) == 0}
	for _, n := range names {
		if r.IntN(3) == 0 {
			p.Allowed = append(p.Allowed, n)
		}
		if r.IntN(4) == 0 {
			continue
		}
		rv := RegionView{Origin: api.Origin{Region: n, State: states[r.IntN(4)], RTTMS: int64(r.IntN(200))}}
		for i := range r.IntN(5) {
			e := ep(fmt.Sprint(i), string(n), []string{"a", "b"}[r.IntN(2)], api.Statuses[r.IntN(5)])
			e.Overdue = r.IntN(6) == 0
			if r.IntN(8) == 0 {
				e.Weight = 0
			}
			if r.IntN(6) == 0 {
				c.Broken[EndpointRef{n, e.ID}] = struct{}{}
			}
			rv.Endpoints = append(rv.Endpoints, e)
		}
		rv.Total = len(rv.Endpoints)
		v.Regions = append(v.Regions, rv)
	}
	return v, p, c
}

func checkLaws(t *testing.T, v View, p Policy, c Caller) {
	t.Helper()
	d := Decide(v, p, c, nil)
	known, anyUsable, anyOverdue, anyForgotten := 0, false, false, false
	for _, r := range v.Regions {
		if !p.allows(r.Origin.Region, c.Region) {
			continue
		}
		known += len(r.Endpoints)
		for i := range r.Endpoints {
			switch classify(&r, &r.Endpoints[i], c) {
			case usable:
				anyUsable = true
			case overdue:
				anyOverdue = true
			case forgotten:
				anyForgotten = true
			}
		}
	}
	sum := 0.0
	offeredTo := 0
	for i, tier := range d.Tiers {
		sum += tier.Weight
		if tier.Tier.Tier != i {
			t.Fatalf("tier %d is numbered %d", i, tier.Tier.Tier)
		}
		offeredTo += len(tier.Endpoints)
		for _, e := range tier.Endpoints {
			if !p.allows(e.Region, c.Region) {
				t.Fatalf("%s/%s is offered although the policy forbids its region", e.Region, e.ID)
			}
		}
	}
	if known > 0 && sum != 1 {
		t.Fatalf("weights sum to %v", sum)
	}
	if offeredTo != known {
		t.Fatalf("%d of %d known and allowed endpoints are in the tiers", offeredTo, known)
	}
	if known > 0 && len(d.Offered()) == 0 {
		t.Fatal("P3: nothing is offered although something is known")
	}
	if anyUsable {
		for _, e := range d.Offered() {
			if k := classOf(v, e, c); k != usable {
				t.Fatalf("%s/%s of class %d is offered while a usable one is allowed", e.Region, e.ID, k)
			}
		}
	}
	calm := anyUsable || anyForgotten && !anyOverdue
	if d.Panic != (known > 0 && !calm) {
		t.Fatalf("panic is %v with %d known, usable %v", d.Panic, known, anyUsable)
	}
}

// classOf finds the region that knows e.
func classOf(v View, e *api.Endpoint, c Caller) class {
	for i := range v.Regions {
		if v.Regions[i].Origin.Region == e.Region {
			return classify(&v.Regions[i], e, c)
		}
	}
	return refused
}

// The laws of the package comment, over random views.
func TestLaws(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		v, p, c := randomView(r)
		checkLaws(t, v, p, c)
	}
}

// Losing an endpoint never sends more to its tier.
func TestLosingAnEndpointIsMonotone(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type place struct {
		kind   api.TierKind
		region api.Region
		zone   api.Zone
	}
	for range 5_000 {
		v, p, c := randomView(r)
		share := func(v View, of place, k class) float64 {
			for _, tier := range Decide(v, p, c, nil).Tiers {
				if (place{tier.Kind, tier.Region, tier.Zone}) == of && classOf(v, tier.Endpoints[0], c) == k {
					return tier.Weight
				}
			}
			return 0
		}
		for _, tier := range Decide(v, p, c, nil).Tiers {
			of := place{tier.Kind, tier.Region, tier.Zone}
			k := classOf(v, tier.Endpoints[0], c)
			lost := *tier.Endpoints[0]
			w := View{Key: v.Key}
			for _, rv := range v.Regions {
				rv.Endpoints = slices.DeleteFunc(slices.Clone(rv.Endpoints), func(e api.Endpoint) bool { return e.Region == lost.Region && e.ID == lost.ID })
				w.Regions = append(w.Regions, rv)
			}
			if after := share(w, of, k); after > tier.Weight {
				t.Fatalf("tier %v had %v and gets %v after losing %s", of, tier.Weight, after, lost.ID)
			}
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		v, p, c := randomView(rand.New(rand.NewPCG(a, b)))
		var tr api.Trace
		Decide(v, p, c, &tr)
		checkLaws(t, v, p, c)
	})
}

func TestEndpointsLeaveLastResortsOutWhileSomethingIsUsable(t *testing.T) {
	v := View{Regions: []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}}
	d := Decide(v, Policy{}, us, nil)
	got := d.Endpoints(0)
	if len(got) != 2 || got[0].ID != "1" || got[1].ID != "3" || got[1].Tier != 1 {
		t.Fatalf("endpoints %+v", got)
	}
	if got := d.Endpoints(1); len(got) != 1 {
		t.Fatalf("limit 1 gives %d", len(got))
	}
	if w := d.Wire(); w.Region != "us" || len(w.Tiers) != 3 {
		t.Fatalf("wire %+v", w)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			v := View{}
			for _, r := range []string{"us", "eu", "ap"} {
				rv := region(r, "fresh", 10)
				for i := range n {
					rv.Endpoints = append(rv.Endpoints, ep(fmt.Sprint(i), r, "a", pass))
				}
				v.Regions = append(v.Regions, rv)
			}
			b.ReportAllocs()
			for b.Loop() {
				Decide(v, Policy{}, us, nil)
			}
		})
	}
}
