package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// doubtful returns a region of so many instances of each kind, by what is wrong with them.
func doubtful(name string, rtt int64, kinds ...any) RegionView {
	rv := region(name, "fresh", rtt)
	for i := 0; i < len(kinds); i += 2 {
		for range kinds[i+1].(int) {
			e := ep(fmt.Sprintf("%03d", len(rv.Endpoints)), name, "x", pass)
			switch kind := kinds[i].(type) {
			case api.Status:
				e.Status = kind
			case class:
				switch kind {
				case overdue:
					e.Overdue = true
				case unshared:
					e.Weight = 0
				case broken:
					e.ID = "broken-" + e.ID
				}
			}
			rv.Endpoints = append(rv.Endpoints, e)
		}
	}
	rv.Total = len(rv.Endpoints)
	return rv
}

// breakersOf returns those that the caller's breakers keep it from.
func breakersOf(v []RegionView) map[EndpointRef]struct{} {
	out := map[EndpointRef]struct{}{}
	for _, rv := range v {
		for _, e := range rv.Endpoints {
			if strings.HasPrefix(string(e.ID), "broken-") {
				out[EndpointRef{e.Region, e.ID}] = struct{}{}
			}
		}
	}
	return out
}

// P7, row 46: when nothing is usable all share the traffic, within a region and among regions, by what
// they could do and the age of what is known; and never across a residency rule.
func TestPanicSharesOverAll(t *testing.T) {
	zones := doubtful("us", 0, crit, 9, drain, 1)
	for i := range zones.Endpoints {
		zones.Endpoints[i].Zone = []api.Zone{"a", "b"}[min(i, 1)]
	}
	heavy := doubtful("us", 0, crit, 2)
	heavy.Endpoints[1].Weight = 300
	for _, c := range []struct {
		name   string
		view   []RegionView
		policy Policy
		want   string // the tiers that take traffic
	}{
		{"one drains beside nine critical", []RegionView{doubtful("us", 0, crit, 9, drain, 1)}, Policy{}, "us 1 draining 10%, us 9 critical 90%"},
		{"one is overdue", []RegionView{doubtful("us", 0, crit, 9, overdue, 1)}, Policy{}, "us 1 overdue 10%, us 9 critical 90%"},
		{"one is broken", []RegionView{doubtful("us", 0, crit, 9, broken, 1)}, Policy{}, "us 1 broken 10%, us 9 critical 90%"},
		{"one has weight 0: need overrules the wish", []RegionView{doubtful("us", 0, crit, 9, unshared, 1)}, Policy{}, "us 1 weight 0 10%, us 9 critical 90%"},
		{"all kinds at once, but for what has not started", []RegionView{doubtful("us", 0, overdue, 1, broken, 1, unshared, 1, drain, 1, start, 5, crit, 1)}, Policy{}, "us 1 overdue 20%, us 1 broken 20%, us 1 weight 0 20%, us 1 draining 20%, us 1 critical 20%"},
		{"old ones drain while new ones start", []RegionView{doubtful("us", 0, drain, 3, start, 3)}, Policy{}, "us 3 draining 100%"},
		{"critical comes before what has not started", []RegionView{doubtful("us", 0, start, 3, crit, 1)}, Policy{}, "us 1 critical 100%"},
		{"nothing has started", []RegionView{doubtful("us", 0, start, 3), doubtful("eu", 9, start, 1)}, Policy{}, "us 3 starting 75%, eu 1 starting 25%"},
		{"the caller's zone is no island", []RegionView{zones}, Policy{}, "us 1 draining 10%, us 1 critical 10%, us 8 critical 80%"},
		{"by weight", []RegionView{heavy, doubtful("eu", 9, crit, 4)}, Policy{}, "us 2 critical 50%, eu 4 critical 50%"},
		{"two regions, wholly critical", []RegionView{doubtful("us", 0, crit, 10), doubtful("eu", 9, crit, 10)}, Policy{}, "us 10 critical 50%, eu 10 critical 50%"},
		{"by capacity, where it is told", []RegionView{able(doubtful("us", 0, crit, 10), 100), able(doubtful("eu", 9, crit, 1), 1000)}, Policy{}, "us 10 critical 50%, eu 1 critical 50%"},
		{"by age", []RegionView{doubtful("us", 0, crit, 10), aged(doubtful("eu", 9, crit, 10), 30*time.Second), aged(doubtful("ap", 99, crit, 10), time.Minute)}, Policy{}, "us 10 critical 62.5%, eu 10 critical 31.25%, ap 10 critical 6.25%"},
		{"mixed over regions", []RegionView{doubtful("us", 0, crit, 3, drain, 1), doubtful("eu", 9, overdue, 4, crit, 2)}, Policy{}, "eu 4 overdue 40%, us 1 draining 10%, us 3 critical 30%, eu 2 critical 20%"},
		{"residency", []RegionView{doubtful("us", 0, crit, 1), doubtful("eu", 9, crit, 9), doubtful("ap", 99, pass, 9)}, Policy{Allowed: []api.Region{"us", "eu"}}, "us 1 critical 10%, eu 9 critical 90%"},
		{"local only", []RegionView{doubtful("us", 0, crit, 1), doubtful("eu", 9, pass, 9)}, Policy{LocalOnly: true}, "us 1 critical 100%"},
		{"a region that is down has nothing while another is not", []RegionView{doubtful("us", 0, crit, 1), fallen(doubtful("eu", 9, pass, 9))}, Policy{}, "us 1 critical 100%"},
		{"… and when all are down, what was usable there", []RegionView{fallen(doubtful("eu", 9, pass, 3, crit, 9)), fallen(doubtful("ap", 99, pass, 1))}, Policy{}, "eu 3 passing 75%, ap 1 passing 25%"},
		{"a drain keeps its part", []RegionView{doubtful("us", 0, crit, 5), drainedTo(doubtful("eu", 9, crit, 5), 50)}, Policy{}, "us 5 critical 75%, eu 5 critical 25%"},
		{"… all of it", []RegionView{drainedTo(doubtful("us", 0, crit, 5), 100), doubtful("eu", 9, crit, 5)}, Policy{}, "eu 5 critical 100%"},
		{"… unless all are drained", []RegionView{drainedTo(doubtful("us", 0, crit, 5), 100), drainedTo(doubtful("eu", 9, crit, 5), 100)}, Policy{}, "us 5 critical 50%, eu 5 critical 50%"},
		{"what was heard of too long ago comes after what was not", []RegionView{doubtful("us", 0, overdue, 1, crit, 1), aged(doubtful("eu", 9, pass, 9), time.Hour)}, Policy{}, "us 1 overdue 50%, us 1 critical 50%"},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := Caller{Region: "us", Zone: "a", Broken: breakersOf(c.view)}
			d := Decide(View{Key: api.ServiceKey{Service: "s"}, Regions: c.view}, c.policy, caller, &api.Trace{})
			var got []string
			for _, tier := range d.Tiers {
				if tier.Weight > 0 {
					got = append(got, fmt.Sprintf("%s %d %s %g%%", tier.Region, len(tier.Endpoints), kindOf(tier.Endpoints[0], caller), tier.Weight*100))
				}
			}
			if s := strings.Join(got, ", "); s != c.want || !d.Panic || d.Reason != api.ReasonPanic || d.Short {
				t.Errorf("%s\nwant %s\npanic %v, short %v, %s: %s", s, c.want, d.Panic, d.Short, d.Reason, d.Detail)
			}
			t.Log(d.Detail)
		})
	}
}

func kindOf(e *api.Endpoint, c Caller) string {
	switch classify(e, &c) {
	case overdue:
		return "overdue"
	case broken:
		return "broken"
	case unshared:
		return "weight 0"
	}
	return string(e.Status)
}

// In panic, too, an endpoint that is lost sends no more to its region; and nobody is left out that
// has weight and is in a region that is not down, but for those that have not started.
func TestPanicIsMonotone(t *testing.T) {
	r, tried := seeded(t), 0
	for tried < 2_000 {
		d := draw(r).mixed(r)
		for i := range d.v.Regions {
			d.v.Regions[i].Origin.Drained = 0 // a drain moves its part to those that have none
			for j := range d.v.Regions[i].Endpoints {
				if e := &d.v.Regions[i].Endpoints[j]; e.Status.Usable() && !e.Overdue {
					e.Status = []api.Status{crit, drain, start}[r.IntN(3)]
				}
			}
		}
		before, classes := d.decide(), d.classes()
		if !before.Panic || classes[refOf(before.Tiers[0].Endpoints[0])] >= down {
			continue
		}
		tried++
		rank, offered := classes[refOf(before.Tiers[0].Endpoints[0])].rank(), before.Offered()
		for _, rv := range d.v.Regions {
			for i := range rv.Endpoints {
				e := &rv.Endpoints[i]
				k := classes[refOf(e)]
				if k != refused && e.Weight > 0 && k.rank() == rank && !slices.Contains(offered, e) {
					t.Fatalf("%s/%s is left out: %+v\n%+v", e.Region, e.ID, before.Wire(), d.v)
				}
				if k == refused || k.rank() != rank {
					continue
				}
				after := d.lose(e, loss{nil, -1, -1, 0})
				was, is := regionShare(before, e.Region), regionShare(after.decide(), e.Region)
				others := slices.ContainsFunc(offered, func(o *api.Endpoint) bool { return o.Region == e.Region && o.ID != e.ID && o.Weight > 0 })
				if is > was+rounding && others && k != unshared {
					t.Fatalf("%s/%s goes: %s has %v, had %v\n%+v\n%+v", e.Region, e.ID, e.Region, is, was, before.Wire(), d.v)
				}
			}
		}
	}
}

func refOf(e *api.Endpoint) EndpointRef { return EndpointRef{e.Region, e.ID} }
