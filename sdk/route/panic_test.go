package route_test

import (
	"fmt"
	"testing"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// P3, P7, test 21: whatever part of a service's instances fails its checks, the answer is never
// empty, and says when it is a last resort. While one is usable the others are left out: a
// critical instance is never offered beside one that passes. (Envoy's threshold of one half
// would offer them; ours is the law of this package, and the reserve behind the near ones is
// other regions.) When all fail, all are offered, flagged as panic.
func TestPanicRouting(t *testing.T) {
	t.Log("no seed: every share is tried, nothing is chosen at random")
	const total = 100
	empty, answers := 0, 0
	for failing := 51; failing <= total; failing++ {
		for _, far := range []bool{false, true} {
			home := route.RegionView{Origin: api.Origin{Region: "eu-west", State: api.AgeFresh}, Total: total, Passing: total - failing}
			for i := range total {
				e := api.Endpoint{
					ID: api.InstanceID(fmt.Sprintf("i-%03d", i)), Address: "10.0.0.1", Port: 80, Region: "eu-west", Weight: 100, Status: api.StatusPassing,
				}
				if i < failing {
					e.Status = api.StatusCritical
				}
				home.Endpoints = append(home.Endpoints, e)
			}
			v := route.View{Key: api.ServiceKey{Namespace: "default", Service: "orders"}, Regions: []route.RegionView{home}}
			if far { // another region, as unwell as this one
				other := home
				other.Origin.Region = "us-east"
				other.Endpoints = append([]api.Endpoint(nil), home.Endpoints...)
				for i := range other.Endpoints {
					other.Endpoints[i].Region = "us-east"
				}
				v.Regions = append(v.Regions, other)
			}
			d := route.Decide(v, route.Policy{}, route.Caller{Region: "eu-west"}, nil)
			answers++
			offered := d.Endpoints(0)
			if len(offered) == 0 {
				empty++
			}
			want, regions := total-failing, 1
			if failing == total {
				want = total
			}
			if far {
				regions = 2
			}
			if len(offered) != want*regions {
				t.Errorf("%d of %d fail, another region %v: %d offered, want %d", failing, total, far, len(offered), want*regions)
			}
			if d.Panic != (failing == total) || d.Panic != (d.Reason == api.ReasonPanic) {
				t.Errorf("%d of %d fail: panic %v, reason %s", failing, total, d.Panic, d.Reason)
			}
			for _, e := range offered {
				if !d.Panic && e.Status == api.StatusCritical {
					t.Errorf("%d of %d fail: a critical one is offered beside those that pass", failing, total)
				}
			}
			if first := d.Offered(); len(first) == 0 || first[0].Region != "eu-west" {
				t.Errorf("%d of %d fail: the traffic does not go near first", failing, total)
			}
		}
	}
	t.Logf("%d answers, %d empty", answers, empty)
}
