package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// The record of a decision says who left and why, by what it went, and what would change it.
func TestTraceTellsDrainsAndPolicies(t *testing.T) {
	aged := of("ap", 40, 10, 10)
	aged.Origin.AgeMS, aged.Origin.State = (40 * time.Second).Milliseconds(), api.AgeSuspect
	cases := []struct {
		name   string
		view   []RegionView
		policy Policy
		caller Caller
		detail string
		steps  []string
		change []string
	}{
		{
			"a drain in part",
			[]RegionView{drainedTo(of("us", 0, 10, 10), 30), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us"},
			"us is drained 30 %: it keeps 70 %, 30 % to eu",
			[]string{"drain 20->20 us 30 %", "shares 20->20 70 % to 10 elsewhere in us, 30 % to 10 in region eu"},
			[]string{"ending the drain of us (30 %) gives it its whole part"},
		},
		{
			"a whole drain",
			[]RegionView{drainedTo(of("us", 0, 10, 10), 100), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us"},
			"us is drained, with 10 usable; served from eu, where 10 are usable",
			[]string{"drain 20->10 us 100 % its region is drained", "nearest tier 10->10 "},
			[]string{"losing the nearest 10 moves traffic to a last resort: 10 in us, which is drained", "ending the drain of us (100 %)"},
		},
		{
			"a policy",
			[]RegionView{of("us", 0, 10, 10), of("eu", 20, 10, 10)},
			Policy{Allowed: []api.Region{"us", "ap"}, Order: []api.Region{"ap"}, OverProvisioning: 2, MinHealthy: 25},
			Caller{Region: "us"},
			"10 usable in the caller's region us",
			[]string{"policy 20->10 allowed: us, ap, order: ap, over-provisioning 2 its region is not allowed", "min healthy 10->10 at least 25 %"},
			[]string{"allowing eu in the policy adds 10 usable"},
		},
		{
			"a spill, and one more that would be",
			[]RegionView{of("us", 0, 5, 10), aged},
			Policy{},
			Caller{Region: "us"},
			"5 of 10 in us are usable and carry 70 %; 30 % to ap",
			[]string{"age 15->15 ap counts for 30 % of a spill"},
			nil,
		},
		{
			"what it would take to spill",
			[]RegionView{of("us", 0, 10, 10), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us"},
			"10 usable in the caller's region us", nil,
			[]string{"losing 3 more in us spills a part of the traffic"},
		},
		{
			"a region that is down",
			[]RegionView{of("us", 0, 5, 10), fallen(of("eu", 20, 10, 10)), of("ap", 40, 10, 10)},
			Policy{},
			Caller{Region: "us"},
			"30 % to ap",
			[]string{"down 30->20  its region is down"},
			[]string{"eu being up again adds 10 usable"},
		},
		{
			"too few",
			[]RegionView{of("us", 0, 5, 10), of("eu", 20, 10, 10)},
			Policy{MinHealthy: 60},
			Caller{Region: "us"},
			"only 5 of 10 in us are usable, fewer than the policy's 60 %; served from eu",
			[]string{"min healthy 15->10 at least 60 % too few in its region are usable"},
			[]string{"more than 60 % usable in us lets it take its part"},
		},
		{
			"coming back",
			[]RegionView{of("us", 0, 10, 10), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us", Memory: Memory{Shares: []RegionShare{{"eu", 1}}}, Elapsed: 6 * time.Second},
			"10 of 10 in us are usable and get 20 %; 80 % to eu; more comes back step by step", nil, nil,
		},
		{
			"about to come back",
			[]RegionView{of("us", 0, 10, 10), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us", Memory: Memory{Shares: []RegionShare{{"eu", 1}}}},
			"10 usable again in us; served from eu, where 10 are usable; more comes back step by step", nil, nil,
		},
		{
			"a load that may rise",
			[]RegionView{busyAt(of("us", 0, 10, 10), 60), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us"},
			"10 usable in the caller's region us",
			[]string{"load 20->20 us is used to 60 %, above 80 % a region spills, down to 75 %; below 65 % it comes back", "nearest tier 20->10 "},
			[]string{"losing 3 more in us spills a part of the traffic", "a load of us above 80 % spills a part of the traffic; it is 60 %"},
		},
		{
			"a load that spills, with too little room",
			[]RegionView{busyAt(of("us", 0, 10, 10), 150), busyAt(of("eu", 20, 10, 10), 60), busyAt(of("ap", 40, 10, 10), 85)},
			Policy{SpillStart: 90, SpillStop: 60},
			Caller{Region: "us"},
			"us keeps 75 % by its load; 25 % to eu; us is used to 150 %, and spills above 90 %; the others have not enough to spare",
			[]string{
				"load 30->30 us is used to 150 %, eu is used to 60 %, ap is used to 85 %, above 90 % a region spills, down to 80 %; below 60 % it comes back",
				"shares 30->20 75 % to 10 elsewhere in us, 25 % to 10 in region eu",
			},
			[]string{"a load of us below 60 % brings some of it back; it is 150 %", "a load of ap below 80 % lets it take some; it is 85 %"},
		},
		{
			"a spill that holds",
			[]RegionView{busyAt(of("us", 0, 10, 10), 75), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us", Memory: spilt(0.6)},
			"us keeps 60 % by its load; 40 % to eu; with that us is used to 75 %, and takes more back below 65 %", nil, nil,
		},
		{
			"a spill that comes back",
			[]RegionView{busyAt(of("us", 0, 10, 10), 30), of("eu", 20, 10, 10)},
			Policy{},
			Caller{Region: "us", Memory: spilt(0.6), Elapsed: 3 * time.Second},
			"us keeps 70 % by its load; 30 % to eu; us is used to 30 %, and takes back what it spilled step by step", nil, nil,
		},
		{
			"all drained",
			[]RegionView{drainedTo(of("us", 0, 10, 10), 100)},
			Policy{},
			Caller{Region: "us"},
			"every region that may serve and has usable instances of orders is drained; all the same served from us, where 10 are usable",
			[]string{"drain 10->10 us 100 %"},
			nil,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var tr api.Trace
			d := Decide(View{Key: api.ServiceKey{Service: "orders"}, Regions: c.view}, c.policy, c.caller, &tr)
			if !strings.Contains(d.Detail, c.detail) {
				t.Errorf("detail %q, want %q", d.Detail, c.detail)
			}
			var steps []string
			for _, s := range tr.Steps {
				line := fmt.Sprintf("%s %d->%d %s", s.Step, s.In, s.Out, s.Note)
				if len(s.Dropped) > 0 {
					line += " " + s.Dropped[0].Why
				}
				steps = append(steps, line)
			}
			for _, want := range c.steps {
				if !strings.Contains("\n"+strings.Join(steps, "\n")+"\n", "\n"+want+"\n") {
					t.Errorf("no step %q in\n%s", want, strings.Join(steps, "\n"))
				}
			}
			for _, want := range c.change {
				if !strings.Contains("\n"+strings.Join(tr.WouldChange, "\n"), "\n"+want) {
					t.Errorf("no %q in\n%s", want, strings.Join(tr.WouldChange, "\n"))
				}
			}
		})
	}
}

// spilt is the memory of one who keeps so much in us by its load.
func spilt(kept float64) Memory {
	v := View{Regions: []RegionView{busyAt(of("us", 0, 10, 10), 75/kept), of("eu", 20, 10, 10)}}
	return Decide(v, Policy{}, Caller{Region: "us"}, nil).Memory
}
