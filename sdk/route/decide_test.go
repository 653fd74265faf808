package route

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func ep(id, region, zone string, s api.Status) api.Endpoint {
	return api.Endpoint{ID: api.InstanceID(id), Region: api.Region(region), Zone: api.Zone(zone), Status: s, Weight: 100, Address: "10.0.0.1", Port: 80}
}

func region(name string, state api.AgeState, rtt int64, eps ...api.Endpoint) RegionView {
	return RegionView{Origin: api.Origin{Region: api.Region(name), State: state, RTTMS: rtt}, Endpoints: eps, Total: len(eps)}
}

func drainedTo(r RegionView, percent float64) RegionView { r.Origin.Drained = percent; return r }
func fallen(r RegionView) RegionView                     { r.Origin.Down = true; return r }

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
		{"rest of the region next", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit), ep("2", "us", "b", pass), ep("5", "us", "b", pass), ep("6", "us", "b", pass)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSameRegion, "2 5 6 ", false},
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
		{"overdue beats nothing", []RegionView{region("us", "fresh", 0, over)}, Policy{}, us, api.ReasonPanic, "o1 ", true},
		{"overdue does not carry what critical ones did", []RegionView{region("us", "fresh", 0, over, ep("1", "us", "a", crit))}, Policy{}, us, api.ReasonPanic, "o1 1 ", true},
		{"weight 0 is not offered", []RegionView{region("us", "fresh", 0, zero, ep("1", "us", "b", pass))}, Policy{}, us, api.ReasonSameRegion, "1 ", false},
		{"draining is listed before critical in panic", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit), ep("2", "us", "b", drain))}, Policy{}, us, api.ReasonPanic, "2 1 ", true},
		{"all critical: panic, all of them, near first", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", crit))}, Policy{}, us, api.ReasonPanic, "1 3 ", true},
		{"residency holds in panic", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{Allowed: []api.Region{"us"}}, us, api.ReasonPanic, "1 ", true},
		{"local only", []RegionView{region("us", "fresh", 0), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{LocalOnly: true}, us, api.ReasonNoInstances, "", false},
		{"breaker open here", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, Caller{Region: "us", Zone: "a", Broken: map[EndpointRef]struct{}{{"us", "1"}: {}}}, api.ReasonLocalBroken, "3 ", false},
		{"breaker open everywhere", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass))}, Policy{}, Caller{Region: "us", Broken: map[EndpointRef]struct{}{{"us", "1"}: {}}}, api.ReasonPanic, "1 ", true},
		{"a drained home sends all of it on", []RegionView{drainedTo(region("us", "fresh", 0, ep("1", "us", "a", pass)), 100), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonRegionDrained, "3 ", false},
		{"a drained home beats nothing", []RegionView{drainedTo(region("us", "fresh", 0, ep("1", "us", "a", pass)), 100), region("eu", "fresh", 9, ep("3", "eu", "x", crit))}, Policy{}, us, api.ReasonRegionDrained, "1 ", false},
		{"a drain yields to residency", []RegionView{drainedTo(region("us", "fresh", 0, ep("1", "us", "a", pass)), 100), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{LocalOnly: true}, us, api.ReasonRegionDrained, "1 ", false},
		{"a drained region is passed over", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), drainedTo(region("eu", "fresh", 9, ep("3", "eu", "x", pass)), 100), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{}, us, api.ReasonLocalUnhealthy, "4 ", false},
		{"drained comes before expired", []RegionView{drainedTo(region("us", "fresh", 0, ep("1", "us", "a", pass)), 100), region("eu", "expired", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonRegionDrained, "1 ", false},
		{"half a drain halves", []RegionView{drainedTo(region("us", "fresh", 0, ep("1", "us", "a", pass)), 50), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonRegionDrained, "1 3 ", false},
		{"a region that is down comes after critical ones", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", crit)), fallen(region("eu", "fresh", 9, ep("3", "eu", "x", pass)))}, Policy{}, us, api.ReasonPanic, "1 ", true},
		{"a region that is down beats nothing", []RegionView{fallen(region("eu", "fresh", 9, ep("3", "eu", "x", pass), ep("4", "eu", "x", crit)))}, Policy{}, us, api.ReasonPanic, "3 ", true},
		{"what others say of home moves nothing", []RegionView{fallen(region("us", "fresh", 0, ep("1", "us", "a", pass))), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSameZone, "1 ", false},
		{"below the minimum while another is not", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{MinHealthy: 60}, us, api.ReasonLocalUnhealthy, "3 ", false},
		{"below the minimum everywhere", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", crit))}, Policy{MinHealthy: 60}, us, api.ReasonSameZone, "1 ", false},
		{"half of it lost spills", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSpill, "1 3 ", false},
		{"more over-provisioning does not", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", crit)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{OverProvisioning: 2}, us, api.ReasonSameZone, "1 ", false},
		{"what is drained by hand is not lost", []RegionView{region("us", "fresh", 0, ep("1", "us", "a", pass), ep("2", "us", "a", drain), ep("5", "us", "a", start)), region("eu", "fresh", 9, ep("3", "eu", "x", pass))}, Policy{}, us, api.ReasonSameZone, "1 ", false},
		{"distance alone", []RegionView{region("us", "fresh", 0), region("eu", "fresh", 90, ep("3", "eu", "x", pass)), region("ap", "fresh", 190, ep("4", "ap", "x", pass))}, Policy{Order: []api.Region{"ap"}, OrderBy: api.OrderRTT}, us, api.ReasonLocalAbsent, "3 ", false},
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

// BenchmarkDecide decides over so many instances in each of so many regions, in the order in
// which views have them. With loads, home spills by its own, and what it spilled is remembered.
func BenchmarkDecide(b *testing.B) {
	view := func(regions, n int) (v View) {
		for r := range regions {
			name := fmt.Sprintf("r%d", r)
			rv := region(name, "fresh", int64(10*r))
			for i := range n {
				rv.Endpoints = append(rv.Endpoints, ep(fmt.Sprintf("%04d", i), name, "a", pass))
			}
			rv.Total = n
			v.Regions = append(v.Regions, rv)
		}
		return v
	}
	caller := Caller{Region: "r0", Zone: "a"}
	for _, regions := range []int{3, 20} {
		for _, n := range []int{10, 100, 1000} {
			name := fmt.Sprintf("instances=%d", n)
			if regions != 3 {
				name += fmt.Sprintf(",regions=%d", regions)
			}
			v := view(regions, n)
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					Decide(v, Policy{}, caller, nil)
				}
			})
		}
	}
	b.Run("loads,regions=20", func(b *testing.B) {
		v := view(20, 100)
		for i := range v.Regions {
			v.Regions[i].Load = float64(30 + i)
		}
		v.Regions[0].Load = 120
		c := caller
		b.ReportAllocs()
		for b.Loop() {
			c.Memory, c.Elapsed = Decide(v, Policy{}, c, nil).Memory, time.Second
		}
	})
}
