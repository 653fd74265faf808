package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func loseRegion(r api.Region) Mask           { return Mask{[]api.Loss{{Region: r}}} }
func loseZone(r api.Region, z api.Zone) Mask { return Mask{[]api.Loss{{Region: r, Zone: z}}} }
func loseLink(a, b api.Region) Mask          { return Mask{[]api.Loss{{Link: []api.Region{a, b}}}} }

// inZones returns a region with so many usable instances in each of its zones a, b, c…
func inZones(name string, rtt int64, each ...int) RegionView {
	r := region(name, "fresh", rtt)
	for z, n := range each {
		for i := range n {
			zone := string(rune('a' + z))
			r.Endpoints = append(r.Endpoints, ep(fmt.Sprintf("%s%02d", zone, i), name, zone, pass))
		}
	}
	r.Total, r.Passing = len(r.Endpoints), len(r.Endpoints)
	return r
}

func told(r RegionView, capacity int) RegionView {
	for i := range r.Endpoints {
		r.Endpoints[i].Capacity = capacity
	}
	return r
}

// Worked cases: what an operator asks before switching something off, and the numbers of the answer.
func TestWhatIfWorkedCases(t *testing.T) {
	rtt := map[api.Region]int64{"eu": 80, "ap": 200}
	for _, tc := range []struct {
		name    string
		regions []RegionView
		policy  Policy
		mask    Mask
		loads   []float64
		effect  api.Effect
		rows    string // region before>after [gets/carries] [load>load] !over
		added   string
		detail  string
	}{
		{
			"losing a region that gets nothing of it",
			[]RegionView{of("us", 0, 4, 4), of("eu", 80, 4, 4)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectNone, "us 1>1 4/4", "0", "every call goes where it goes today",
		},
		{
			"losing the only one that has it",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectDown, "eu 1>0 0/0", "-", "no instance of it would be left",
		},
		{
			"two left for the work of ten",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 10, 10), of("ap", 200, 2, 2)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectOver, "eu 1>0 0/0, ap 0>1 10/2 !", "120", "ap would get 100 % of the calls: the work of 10 instances, and can carry that of 2",
		},
		{
			"capacities are told: twenty small ones for ten large",
			[]RegionView{of("us", 0, 0, 0), told(of("eu", 80, 10, 10), 100), told(of("ap", 200, 20, 20), 10)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectOver, "eu 1>0 0/0, ap 0>1 1000/200 !", "120", "ap would get 100 % of the calls: the work of 1000 units of capacity, and can carry that of 200",
		},
		{
			"the spill goes on to the next",
			[]RegionView{of("us", 0, 5, 10), of("eu", 80, 10, 10), of("ap", 200, 10, 10)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectMoved, "us 0.7>0.7 7/7, eu 0.3>0 0/0, ap 0>0.3 3/10", "36", "30 % of the calls move; 5 of 10 in us are usable and carry 70 %; 30 % to ap",
		},
		{
			"nowhere to spill to",
			[]RegionView{of("us", 0, 5, 10), of("eu", 80, 10, 10)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectOver, "us 0.7>1 10/7 !, eu 0.3>0 0/0", "-24", "us would get 100 % of the calls: the work of 10 instances, and can carry that of 7",
		},
		{
			"one zone of three, with another region",
			[]RegionView{inZones("us", 0, 4, 4, 4), of("eu", 80, 12, 12)},
			Policy{},
			loseZone("us", "b"), nil,
			api.EffectMoved, "us 1>0.933333 11.2/11.2, eu 0>0.066667 0.8/12", "5.33", "6.7 % of the calls move; 8 of 12 in us are usable and carry 93.3 %; 6.7 % to eu",
		},
		{
			"one zone of three, alone",
			[]RegionView{inZones("us", 0, 4, 4, 4)},
			Policy{},
			loseZone("us", "b"), nil,
			api.EffectOver, "us 1>1 12/11.2 !", "0", "",
		},
		{
			"residency: what is left may not serve",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4), of("ap", 200, 4, 4)},
			Policy{Allowed: []api.Region{"us", "eu"}},
			loseRegion("eu"), nil,
			api.EffectDown, "eu 1>0 0/0", "-", "",
		},
		{
			"a link of the callers",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4), of("ap", 200, 4, 4)},
			Policy{},
			loseLink("eu", "us"), nil,
			api.EffectMoved, "eu 1>0 0/0, ap 0>1 4/4", "120", "",
		},
		{
			"a link of others",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4), of("ap", 200, 4, 4)},
			Policy{},
			loseLink("eu", "ap"), nil,
			api.EffectNone, "eu 1>1 4/4", "0", "",
		},
		{
			"loads are known: both half used",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 10, 10), of("ap", 200, 10, 10)},
			Policy{},
			loseRegion("eu"),
			[]float64{0, 50, 40},
			api.EffectMoved, "eu 1>0 0/0, ap 0>1 10/10 40>90", "120", "",
		},
		{
			"loads are known: there is no room",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 10, 10), of("ap", 200, 10, 10)},
			Policy{},
			loseRegion("eu"),
			[]float64{0, 70, 40},
			api.EffectOver, "eu 1>0 0/0, ap 0>1 10/10 40>110 !", "120", "ap would be used at 110 %, after 40 %",
		},
		{
			"down before",
			[]RegionView{of("us", 0, 0, 3), of("eu", 80, 0, 2)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectWasDown, "us 0.6>1 3/0, eu 0.4>0 0/0", "-32", "it is down as it is: no usable instance of s is known anywhere; offering the 3 that are critical in us (60 %), the 2 that are critical in eu (40 %)",
		},
		{
			"only a drained region is left, and serves",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4), drainedTo(of("ap", 200, 4, 4), 100)},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectMoved, "eu 1>0 0/0, ap 0>1 4/4", "120", "",
		},
		{
			"only what was known of a region long ago is left",
			[]RegionView{of("us", 0, 0, 0), of("eu", 80, 4, 4), {Origin: api.Origin{Region: "ap", State: api.AgeExpired}, Endpoints: of("ap", 200, 4, 4).Endpoints, Total: 4}},
			Policy{},
			loseRegion("eu"), nil,
			api.EffectDown, "eu 1>0 0/0, ap 0>1 4/4", "120", "nothing that is known to be usable is left: us has no instance of it; served from ap, where 4 are usable as far as was known when it was last heard of",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := Question{View: View{Key: api.ServiceKey{Service: "s"}, Regions: tc.regions}, Policy: tc.policy, Caller: Caller{Region: "us"}, Mask: tc.mask, RTT: rtt}
			for _, l := range tc.loads {
				q.Facts = append(q.Facts, Facts{Load: l})
			}
			row := WhatIf(q).Row
			if got := rowText(row); row.Effect != tc.effect || got != tc.rows {
				t.Errorf("%s: %s\nwant %s: %s", row.Effect, got, tc.effect, tc.rows)
			}
			if tc.detail != "" && row.Detail != tc.detail {
				t.Errorf("detail %q\nwant   %q", row.Detail, tc.detail)
			}
			added := "-"
			if row.AddedRTTMS != nil {
				added = fmt.Sprint(*row.AddedRTTMS)
			}
			if added != tc.added {
				t.Errorf("%s ms more, want %s", added, tc.added)
			}
		})
	}
}

func rowText(row api.WhatIfService) string {
	var parts []string
	for _, s := range row.Regions {
		text := fmt.Sprintf("%s %v>%v %v/%v", s.Region, s.Before, s.After, s.Gets, s.Carries)
		if s.LoadAfter > 0 {
			text += fmt.Sprintf(" %v>%v", s.LoadBefore, s.LoadAfter)
		}
		if s.Over {
			text += " !"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// Of a region of which only a fail-over set is known, a lost zone takes what its counts say, and not
// only the endpoints that are known by name.
func TestWhatIfZoneOfARegionKnownInPart(t *testing.T) {
	eu := inZones("eu", 80, 2, 2)
	eu.Total, eu.Passing = 100, 100
	v := View{Key: api.ServiceKey{Service: "s"}, Regions: []RegionView{of("us", 0, 0, 0), eu}}
	facts := []Facts{{}, {Zones: map[api.Zone]api.ZoneCount{"a": {Total: 70, Passing: 70}, "b": {Total: 30, Passing: 30}}}}
	left, touched := loseZone("eu", "a").Apply(v, "us", facts)
	if r := left.Regions[1]; !touched || r.Passing != 30 || r.Total != 100 || len(r.Endpoints) != 4 {
		t.Errorf("%v, %d of %d, %d endpoints", touched, r.Passing, r.Total, len(r.Endpoints))
	}
	pl := survey(&left, &Policy{}, &Caller{Region: "us"})
	i := slices.IndexFunc(pl, func(p place) bool { return p.region() == "eu" })
	if h := pl[i].health(); h != 0.3 {
		t.Errorf("30 of 100 are left: health %v", h)
	}
	if _, touched := loseZone("eu", "c").Apply(v, "us", facts); touched {
		t.Error("a zone without instances was lost")
	}
}

// What a lost zone has that is starting or draining is no capacity lost: it was none.
func TestWhatIfZoneOfStartingAndDraining(t *testing.T) {
	home := inZones("us", 0, 4)
	for i := range 4 {
		home.Endpoints = append(home.Endpoints, ep(fmt.Sprintf("s%d", i), "us", "b", start), ep(fmt.Sprintf("d%d", i), "us", "b", drain))
	}
	home.Total = len(home.Endpoints)
	q := Question{View: View{Key: api.ServiceKey{Service: "s"}, Regions: []RegionView{home, of("eu", 80, 4, 4)}}, Caller: Caller{Region: "us"}, Mask: loseZone("us", "b")}
	if im := WhatIf(q); !im.Touched || im.Row.Effect != api.EffectNone || rowText(im.Row) != "us 1>1 4/4" {
		t.Errorf("%+v", im)
	}
}

// What a caller remembers of a way back home is no effect of the loss: it is asked where it ends.
func TestWhatIfLeavesMemoryAside(t *testing.T) {
	q := Question{
		View:   View{Key: api.ServiceKey{Service: "s"}, Regions: []RegionView{of("us", 0, 4, 4), of("eu", 80, 4, 4)}},
		Caller: Caller{Region: "us", Memory: Memory{Shares: []RegionShare{{"eu", 1}}}}, Mask: loseRegion("ap"),
	}
	if im := WhatIf(q); rowText(im.Row) != "us 1>1 4/4" {
		t.Errorf("%+v", im.Row)
	}
}
