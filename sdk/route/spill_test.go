package route

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// of returns a region with so many usable instances of so many.
func of(name string, rtt int64, well, all int) RegionView {
	r := region(name, "fresh", rtt)
	for i := range all {
		s := pass
		if i >= well {
			s = crit
		}
		r.Endpoints = append(r.Endpoints, ep(fmt.Sprintf("%03d", i), name, "x", s))
	}
	r.Total, r.Passing = all, well
	return r
}

func shares(d Decision, regions ...api.Region) []float64 {
	out := make([]float64, len(regions))
	for i, r := range regions {
		out[i] = math.Round(regionShare(d, r)*1000) / 10
	}
	return out
}

// aged returns the region as it was heard of so long ago.
func aged(r RegionView, age time.Duration) RegionView {
	r.Origin.AgeMS = age.Milliseconds()
	r.Origin.State = api.AgeFresh
	switch {
	case age >= 15*time.Minute:
		r.Origin.State = api.AgeExpired
	case age >= 30*time.Second:
		r.Origin.State = api.AgeSuspect
	case age >= 5*time.Second:
		r.Origin.State = api.AgeStale
	}
	return r
}

// partly returns the region with a capacity of each of its instances but the last.
func partly(r RegionView, each int) RegionView {
	r = able(r, each)
	r.Endpoints[len(r.Endpoints)-1].Capacity = 0
	return r
}

// able returns the region with a capacity of each of its instances.
func able(r RegionView, each int) RegionView {
	for i := range r.Endpoints {
		r.Endpoints[i].Capacity = each
	}
	return r
}

// Design section 7: spill is proportional. The cases are those of replication.md, "Envoy's
// arithmetic", with what Envoy makes of them; where ours differ, for capacity's sake, why.
func TestSpillBesideEnvoy(t *testing.T) {
	type pair struct{ well, all int }
	cases := []struct {
		regions []pair
		opf     float64
		envoy   []float64
		ours    []float64
		why     string
	}{
		{[]pair{{10, 10}, {10, 10}, {10, 10}}, 1.4, []float64{100, 0, 0}, []float64{100, 0, 0}, ""},
		{[]pair{{7, 10}, {10, 10}, {10, 10}}, 1.4, []float64{98, 2, 0}, []float64{98, 2, 0}, ""},
		{[]pair{{5, 10}, {10, 10}, {10, 10}}, 1.4, []float64{70, 30, 0}, []float64{70, 30, 0}, ""},
		{[]pair{{2, 10}, {3, 10}, {10, 10}}, 1.4, []float64{28, 42, 30}, []float64{28, 30, 42}, "3 instances take 3 tenths of what 10 do, not 4.2"},
		{[]pair{{0, 10}, {2, 4}, {10, 10}}, 1.4, []float64{0, 70, 30}, []float64{0, 20, 80}, "2 instances take 2 tenths of what 10 do, not 7"},
		{[]pair{{1, 10}, {1, 10}, {1, 10}}, 1.4, []float64{34, 33, 33}, []float64{36, 32, 32}, "1 instance takes 1 tenth of a spill, not 1.4; what nobody can take goes to all alike"},
		{[]pair{{5, 10}, {10, 10}}, 2, []float64{100, 0}, []float64{100, 0}, ""},
		{[]pair{{4, 10}, {10, 10}}, 2, []float64{80, 20}, []float64{80, 20}, ""},
		{[]pair{{5, 10}, {10, 10}}, 1, []float64{50, 50}, []float64{50, 50}, ""},
		{[]pair{{1, 10}, {10, 10}}, 100, []float64{100, 0}, []float64{100, 0}, ""},
		{[]pair{{0, 10}, {10, 10}}, 100, []float64{0, 100}, []float64{0, 100}, ""},
		{[]pair{{50, 100}, {2, 2}}, 1.4, []float64{70, 30}, []float64{96.9, 3.1}, "2 instances take 2 %; the rest is spread over 50 and 2"},
		{[]pair{{50, 100}, {2, 2}, {100, 100}}, 1.4, []float64{70, 30, 0}, []float64{70, 2, 28}, "2 instances take 2 %; the next region the rest"},
	}
	names := []api.Region{"a", "b", "c"}
	for _, c := range cases {
		v := View{}
		title := ""
		for i, r := range c.regions {
			v.Regions = append(v.Regions, of(string(names[i]), int64(20*i), r.well, r.all))
			title += fmt.Sprintf("%d of %d, ", r.well, r.all)
		}
		d := Decide(v, Policy{OverProvisioning: c.opf}, Caller{Region: "a"}, nil)
		got := shares(d, names[:len(c.regions)]...)
		t.Logf("%sover-provisioning %v: Envoy %v, here %v %s", title, c.opf, c.envoy, got, c.why)
		for i := range got {
			if math.Abs(got[i]-c.ours[i]) > 0.051 {
				t.Errorf("%s: %v, want %v", title, got, c.ours)
			}
			if c.why == "" && got[i] != c.envoy[i] {
				t.Errorf("%s: %v, Envoy %v, and no reason is given", title, got, c.envoy)
			}
		}
	}
}

func TestShares(t *testing.T) {
	cases := []struct {
		name   string
		view   []RegionView
		policy Policy
		want   []float64 // of a, b, c
		reason api.Reason
	}{
		{"a drained home keeps its part", []RegionView{drainedTo(of("a", 0, 10, 10), 30), of("b", 20, 10, 10)}, Policy{}, []float64{70, 30, 0}, api.ReasonRegionDrained},
		{"an evacuation goes by capacity", []RegionView{drainedTo(of("a", 0, 10, 10), 100), of("b", 20, 4, 4), of("c", 40, 10, 10)}, Policy{}, []float64{0, 40, 60}, api.ReasonRegionDrained},
		{"… and yields to nothing but residency", []RegionView{drainedTo(of("a", 0, 10, 10), 100), of("b", 20, 4, 4), of("c", 40, 10, 10)}, Policy{Allowed: []api.Region{"a"}}, []float64{100, 0, 0}, api.ReasonRegionDrained},
		{"one per cent is one per cent, also where it is scarce", []RegionView{drainedTo(of("a", 0, 50, 100), 1), of("b", 20, 2, 2)}, Policy{}, []float64{96, 4, 0}, api.ReasonSpill},
		{"two drained: each keeps its part of what comes by", []RegionView{drainedTo(of("a", 0, 10, 10), 90), drainedTo(of("b", 20, 10, 10), 50), of("c", 40, 10, 10)}, Policy{}, []float64{10, 45, 45}, api.ReasonRegionDrained},
		{"all drained", []RegionView{drainedTo(of("a", 0, 10, 10), 100), drainedTo(of("b", 20, 10, 10), 100)}, Policy{}, []float64{100, 0, 0}, api.ReasonRegionDrained},
		{"all half drained: nothing is lost", []RegionView{drainedTo(of("a", 0, 10, 10), 50), drainedTo(of("b", 20, 10, 10), 50)}, Policy{}, []float64{62.5, 37.5, 0}, api.ReasonRegionDrained},
		{"the older region takes less of a spill", []RegionView{of("a", 0, 5, 10), aged(of("b", 20, 10, 10), 50*time.Second), of("c", 40, 10, 10)}, Policy{}, []float64{70, 10, 20}, api.ReasonSpill},
		{"… half of it at 30 s", []RegionView{of("a", 0, 0, 10), aged(of("b", 20, 10, 10), 30*time.Second), of("c", 40, 10, 10)}, Policy{}, []float64{0, 50, 50}, api.ReasonLocalUnhealthy},
		{"… but all of it when it is alone", []RegionView{of("a", 0, 5, 10), aged(of("b", 20, 10, 10), 50*time.Second)}, Policy{}, []float64{70, 30, 0}, api.ReasonSpill},
		{"… and what belongs there stays", []RegionView{aged(of("b", 20, 10, 10), 10*time.Minute), of("c", 40, 10, 10)}, Policy{}, []float64{0, 100, 0}, api.ReasonLocalAbsent},
		{"a shorter stale limit", []RegionView{aged(of("b", 20, 10, 10), time.Minute), of("c", 40, 10, 10)}, Policy{StaleLimit: 30 * time.Second}, []float64{0, 0, 100}, api.ReasonLocalAbsent},
		{"a longer stale limit", []RegionView{aged(of("b", 20, 10, 10), time.Hour), of("c", 40, 10, 10)}, Policy{StaleLimit: 24 * time.Hour}, []float64{0, 100, 0}, api.ReasonLocalAbsent},
		{"declared capacity counts where all tell it", []RegionView{able(of("a", 0, 5, 10), 100), able(of("b", 20, 2, 2), 1000)}, Policy{}, []float64{70, 30, 0}, api.ReasonSpill},
		{"some in b do not tell: they count by number", []RegionView{able(of("a", 0, 5, 10), 100), partly(of("b", 20, 2, 2), 1000)}, Policy{}, []float64{70, 30, 0}, api.ReasonSpill},
		{"… none of them", []RegionView{able(of("a", 0, 5, 10), 100), of("b", 20, 2, 2)}, Policy{}, []float64{77.1, 22.9, 0}, api.ReasonSpill},
		{"… and c, which tells, is not asked to do without", []RegionView{able(of("a", 0, 5, 10), 100), of("b", 20, 1, 1), able(of("c", 40, 2, 2), 1000)}, Policy{}, []float64{70, 10, 20}, api.ReasonSpill},
		{"a tells of a part: a capacity makes nobody more than he is", []RegionView{partly(of("a", 0, 5, 10), 100), able(of("b", 20, 2, 2), 1000)}, Policy{}, []float64{77.4, 22.6, 0}, api.ReasonSpill},
		{"… and may make him less", []RegionView{partly(of("a", 0, 5, 10), 100), able(of("b", 20, 2, 2), 10), able(of("c", 40, 10, 10), 100)}, Policy{}, []float64{70, 2.2, 27.8}, api.ReasonSpill},
		{"keep warm", []RegionView{of("a", 0, 10, 10), of("b", 20, 10, 10)}, Policy{KeepWarm: 2}, []float64{98, 2, 0}, api.ReasonSameRegion},
		{"keep warm, but not beyond what it can take", []RegionView{of("a", 0, 100, 100), of("b", 20, 1, 1)}, Policy{KeepWarm: 2}, []float64{99, 1, 0}, api.ReasonSameRegion},
		{"keep warm, but not a drained region", []RegionView{of("a", 0, 10, 10), drainedTo(of("b", 20, 10, 10), 100), of("c", 40, 10, 10)}, Policy{KeepWarm: 2}, []float64{98, 0, 2}, api.ReasonSameRegion},
		{"a minimum of healthy ones", []RegionView{of("a", 0, 4, 10), of("b", 20, 10, 10)}, Policy{MinHealthy: 50}, []float64{0, 100, 0}, api.ReasonLocalUnhealthy},
		{"… that nobody reaches", []RegionView{of("a", 0, 4, 10), of("b", 20, 4, 10)}, Policy{MinHealthy: 50}, []float64{58, 42, 0}, api.ReasonSpill},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(View{Regions: c.view}, c.policy, Caller{Region: "a"}, nil)
			got := shares(d, "a", "b", "c")
			for i := range got {
				if math.Abs(got[i]-c.want[i]) > 0.06 {
					t.Fatalf("%v, want %v (%s: %s)", got, c.want, d.Reason, d.Detail)
				}
			}
			if d.Reason != c.reason {
				t.Errorf("reason %s, want %s (%s)", d.Reason, c.reason, d.Detail)
			}
			t.Log(d.Detail)
		})
	}
}

// busyAt returns the region with a load, in percent.
func busyAt(r RegionView, load float64) RegionView { r.Load = load; return r }

// Replication.md, "The spill formula", case by case, as one who remembers nothing answers: what
// the region may keep by its load, and what others have to spare.
func TestSpillByLoad(t *testing.T) {
	cases := []struct {
		name   string
		view   []RegionView
		policy Policy
		want   []float64 // of a, b, c
		reason api.Reason
		detail string
	}{
		{"all is kept at the aim", []RegionView{busyAt(of("a", 0, 10, 10), 75), of("b", 20, 10, 10)}, Policy{}, []float64{100, 0, 0}, api.ReasonSameRegion, "10 usable in the caller's region a"},
		{"… and up to where it starts", []RegionView{busyAt(of("a", 0, 10, 10), 80), of("b", 20, 10, 10)}, Policy{}, []float64{100, 0, 0}, api.ReasonSameRegion, ""},
		{"above, so much is kept that it is at the aim", []RegionView{busyAt(of("a", 0, 10, 10), 100), of("b", 20, 10, 10)}, Policy{}, []float64{75, 25, 0}, api.ReasonSpill, "a keeps 75 % by its load; 25 % to b; a is used to 100 %, and spills above 80 %"},
		{"a load that is known counts, not how many are left", []RegionView{busyAt(of("a", 0, 5, 10), 60), of("b", 20, 10, 10)}, Policy{}, []float64{100, 0, 0}, api.ReasonSameRegion, ""},
		{"50 of 100 left, and 2 of 2: 30 % or what 2 are, by count", []RegionView{of("a", 0, 50, 100), of("b", 20, 2, 2)}, Policy{}, []float64{96.9, 3.1, 0}, api.ReasonSpill, "too little of it everywhere"},
		{"50 of 100 left, and 2 of 2: 30 % or what 2 have to spare, by load", []RegionView{busyAt(of("a", 0, 50, 100), 107), busyAt(of("b", 20, 2, 2), 35)}, Policy{}, []float64{98.9, 1.1, 0}, api.ReasonSpill, "the others have not enough to spare"},
		{"50 of 100 left, 2 of 2, and 100 more: nobody takes more than it has to spare", []RegionView{busyAt(of("a", 0, 50, 100), 107), busyAt(of("b", 20, 2, 2), 35), busyAt(of("c", 40, 100, 100), 20)}, Policy{}, []float64{70.1, 1.1, 28.8}, api.ReasonSpill, ""},
		{"another takes what it has to spare", []RegionView{busyAt(of("a", 0, 10, 10), 150), busyAt(of("b", 20, 10, 10), 60)}, Policy{}, []float64{80, 20, 0}, api.ReasonSpill, "the others have not enough to spare"},
		{"… and the next one the rest", []RegionView{busyAt(of("a", 0, 10, 10), 100), busyAt(of("b", 20, 10, 10), 60), busyAt(of("c", 40, 10, 10), 5)}, Policy{}, []float64{75, 20, 5}, api.ReasonSpill, ""},
		{"one that has nothing to spare takes nothing", []RegionView{busyAt(of("a", 0, 10, 10), 150), busyAt(of("b", 20, 10, 10), 85)}, Policy{}, []float64{100, 0, 0}, api.ReasonSameRegion, "a is used to 150 %, and spills above 80 %; the others have not enough to spare"},
		{"no one is made busier than home", []RegionView{busyAt(of("a", 0, 10, 10), 90), busyAt(of("b", 20, 10, 10), 70), busyAt(of("c", 40, 10, 10), 70)}, Policy{}, []float64{86.7, 6.7, 6.7}, api.ReasonSpill, ""},
		{"… also where it is smaller", []RegionView{busyAt(of("a", 0, 10, 10), 200), busyAt(of("b", 20, 1, 1), 5)}, Policy{}, []float64{91.1, 8.9, 0}, api.ReasonSpill, ""},
		{"what is lost goes, loaded or not", []RegionView{of("a", 0, 0, 10), busyAt(of("b", 20, 10, 10), 70)}, Policy{}, []float64{0, 100, 0}, api.ReasonLocalUnhealthy, ""},
		{"… to where there is room first", []RegionView{of("a", 0, 0, 10), busyAt(of("b", 20, 10, 10), 45), busyAt(of("c", 40, 10, 10), 5)}, Policy{}, []float64{0, 40, 60}, api.ReasonLocalUnhealthy, ""},
		{"the nearest that has it spills too", []RegionView{busyAt(of("b", 20, 10, 10), 100), of("c", 40, 10, 10)}, Policy{}, []float64{0, 75, 25}, api.ReasonLocalAbsent, "served from b (75 %), c (25 %); b is used to 100 %"},
		{"residency", []RegionView{busyAt(of("a", 0, 10, 10), 200), of("b", 20, 10, 10)}, Policy{Allowed: []api.Region{"a"}}, []float64{100, 0, 0}, api.ReasonSameRegion, "a is used to 200 %, and spills above 80 %; there is nowhere else to go"},
		{"local only", []RegionView{busyAt(of("a", 0, 10, 10), 200), of("b", 20, 10, 10)}, Policy{LocalOnly: true}, []float64{100, 0, 0}, api.ReasonSameRegion, ""},
		{"a drain halves what the load leaves", []RegionView{drainedTo(busyAt(of("a", 0, 10, 10), 100), 50), of("b", 20, 10, 10)}, Policy{}, []float64{37.5, 62.5, 0}, api.ReasonRegionDrained, "a is drained 50 %"},
		{"a higher start", []RegionView{busyAt(of("a", 0, 10, 10), 95), of("b", 20, 10, 10)}, Policy{SpillStart: 95}, []float64{100, 0, 0}, api.ReasonSameRegion, ""},
		{"a lower band", []RegionView{busyAt(of("a", 0, 10, 10), 100), of("b", 20, 10, 10)}, Policy{SpillStart: 60, SpillStop: 30}, []float64{50, 50, 0}, api.ReasonSpill, "spills above 60 %"},
		{"a way is kept warm also to a busier region", []RegionView{busyAt(of("a", 0, 10, 10), 20), busyAt(of("b", 20, 10, 10), 70)}, Policy{KeepWarm: 2}, []float64{98, 2, 0}, api.ReasonSameRegion, "2 % keeps the way to b warm"},
		{"… but not to one that spills itself", []RegionView{busyAt(of("a", 0, 10, 10), 20), busyAt(of("b", 20, 10, 10), 90)}, Policy{KeepWarm: 2}, []float64{100, 0, 0}, api.ReasonSameRegion, ""},
		{"an old load is none", []RegionView{busyAt(of("a", 0, 10, 10), 100), older(busyAt(of("b", 20, 10, 10), 85))}, Policy{}, []float64{75, 25, 0}, api.ReasonSpill, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(View{Regions: c.view}, c.policy, Caller{Region: "a"}, nil)
			got := shares(d, "a", "b", "c")
			for i := range got {
				if math.Abs(got[i]-c.want[i]) > 0.06 {
					t.Fatalf("%v, want %v (%s: %s)", got, c.want, d.Reason, d.Detail)
				}
			}
			if d.Reason != c.reason || !strings.Contains(d.Detail, c.detail) {
				t.Errorf("reason %s, want %s; %q, want %q", d.Reason, c.reason, d.Detail, c.detail)
			}
			t.Log(d.Detail)
		})
	}
}

func older(r RegionView) RegionView {
	r.Origin.AgeMS, r.Origin.State = 20_000, api.AgeStale
	return r
}

// The thresholds of the wire form reach the decision, and two that were not set together still
// leave room between them.
func TestSpillThresholds(t *testing.T) {
	num := func(x float64) *float64 { return &x }
	for _, c := range []struct {
		p                 api.Policy
		start, aim, lower float64
	}{
		{api.Policy{}, 80, 75, 65},
		{api.Policy{SpillStart: num(90), SpillStop: num(60)}, 90, 80, 60},
		{api.Policy{SpillStart: num(90), SpillStop: num(0)}, 90, 60, 0},
		{api.Policy{SpillStart: num(40)}, 40, 37.5, 32.5},
		{api.Policy{SpillStop: num(95)}, 80, 75, 65},
	} {
		p := PolicyOf(&c.p)
		if start, aim, lower := p.band(); math.Abs(start-c.start)+math.Abs(aim-c.aim)+math.Abs(lower-c.lower) > 1e-9 {
			t.Errorf("%+v: %v, %v, %v", c, start, aim, lower)
		}
	}
	if n := (Policy{SpillStart: 70}).Narrow(Policy{SpillStart: 60, SpillStop: 20}); n.SpillStart != 60 || n.SpillStop != 20 {
		t.Errorf("%+v", n)
	}
}

// The caller's zone carries what it can, the rest of the region the rest.
func TestZonesShareByHealth(t *testing.T) {
	zones := func(aWell, aAll, bWell, bAll int) RegionView {
		a, b := of("us", 0, aWell, aAll), of("us", 0, bWell, bAll)
		for i := range a.Endpoints {
			a.Endpoints[i].ID, a.Endpoints[i].Zone = "a"+a.Endpoints[i].ID, "a"
		}
		a.Endpoints = append(a.Endpoints, b.Endpoints...)
		a.Total = len(a.Endpoints)
		return a
	}
	for _, c := range []struct {
		view RegionView
		zone float64
	}{
		{zones(4, 4, 8, 8), 1},
		{zones(3, 4, 8, 8), 1},
		{zones(2, 4, 8, 8), 0.7},
		{zones(0, 4, 8, 8), 0},
		{zones(5, 10, 1, 1), 5.0 / 6},
		{zones(2, 4, 0, 0), 1},
	} {
		d := Decide(View{Regions: []RegionView{c.view}}, Policy{}, us, nil)
		got := 0.0
		for _, tier := range d.Tiers {
			if tier.Kind == api.TierZone {
				got += tier.Weight
			}
		}
		if math.Abs(got-c.zone) > 1e-6 || math.Abs(regionShare(d, "us")-1) > 1e-9 {
			t.Errorf("the zone takes %v, want %v: %s", got, c.zone, d.Detail)
		}
	}
}

// A decision sees ages in a few steps only, so that answers can be given again.
func TestAlike(t *testing.T) {
	at := func(d time.Duration) api.Origin {
		o := of("b", 20, 1, 1).Origin
		o.AgeMS = d.Milliseconds()
		return o
	}
	steps, last := 0, at(0)
	for age := time.Duration(0); age < 20*time.Minute; age += 100 * time.Millisecond {
		if o := at(age); !(Policy{}).Alike(o, last) {
			steps, last = steps+1, o
		}
	}
	if steps != 10 { // nine of a tenth, and expired
		t.Errorf("%d steps", steps)
	}
	if (Policy{StaleLimit: time.Minute}).Alike(at(59*time.Second), at(61*time.Second)) {
		t.Error("the policy's limit is a step too")
	}
	drained, fell := at(0), at(0)
	drained.Drained, fell.Down = 1, true
	for _, o := range []api.Origin{drained, fell} {
		if (Policy{}).Alike(at(0), o) {
			t.Errorf("%+v is not alike", o)
		}
	}
}

// Residency only narrows; wishes of the caller take the place of the region's.
func TestNarrow(t *testing.T) {
	yes, ten := true, 10.0
	wire := &api.Policy{Allowed: []api.Region{"us", "eu"}, KeepWarm: &ten, StaleLimit: api.Duration(time.Minute), Order: []api.Region{"eu"}}
	p := PolicyOf(wire)
	if n := p.Narrow(Policy{}); fmt.Sprint(n) != fmt.Sprint(p) {
		t.Errorf("nothing asked, %+v became %+v", p, n)
	}
	n := p.Narrow(Policy{Allowed: []api.Region{"eu", "ap"}, StaleLimit: time.Hour, KeepWarm: 1, OrderBy: api.OrderRTT, MinHealthy: 5})
	if fmt.Sprint(n.Allowed) != "[eu]" || n.StaleLimit != time.Minute || n.KeepWarm != 1 || len(n.Order) != 0 || n.OrderBy != api.OrderRTT || n.MinHealthy != 5 {
		t.Errorf("%+v", n)
	}
	none := p.Narrow(Policy{Allowed: []api.Region{"ap"}})
	for _, r := range []api.Region{"us", "eu", "ap"} {
		if none.allows(r, "us") || none.Narrow(Policy{}).allows(r, "us") || (Policy{}).Narrow(none).allows(r, "us") {
			t.Errorf("%s is allowed by one side only", r)
		}
	}
	if local := (Policy{}).Narrow(PolicyOf(&api.Policy{LocalOnly: &yes})); local.allows("eu", "us") || !local.allows("us", "us") {
		t.Error("local only")
	}
	if PolicyOf(nil).allows("eu", "us") != true {
		t.Error("no policy allows all")
	}
}

// Doors that give a list let the tiers take turns by their shares.
func TestEndpointsAt(t *testing.T) {
	d := Decide(View{Regions: []RegionView{drainedTo(of("a", 0, 4, 4), 75), of("b", 20, 4, 4)}}, Policy{}, Caller{Region: "a"}, nil)
	first := map[api.Region]int{}
	for i := range 1000 {
		list := d.EndpointsAt((float64(i)+0.5)/1000, 3)
		if len(list) != 3 {
			t.Fatal(list)
		}
		first[list[0].Region]++
	}
	if first["a"] != 250 || first["b"] != 750 {
		t.Errorf("%v", first)
	}
	if all := d.EndpointsAt(0.9, 0); len(all) != 8 || all[0].Tier != 1 || all[7].Tier != 0 {
		t.Errorf("%+v", all)
	}
	if (Decision{}).At(0.5) != -1 || len((Decision{}).EndpointsAt(0.5, 1)) != 0 {
		t.Error("nothing has no turn")
	}
}
