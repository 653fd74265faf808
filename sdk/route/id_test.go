package route

import (
	"slices"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// An id is the same for the same, and another one for whatever a decision may see differently; the order in
// which regions are told, and ages within one grade, are no difference.
func TestDecisionID(t *testing.T) {
	base := func() (View, Policy, Caller) {
		v := View{Key: api.ServiceKey{Namespace: "default", Service: "orders"}, Regions: []RegionView{of("us", 0, 4, 4), of("eu", 80, 4, 4)}}
		v.Regions[0].Origin.Revision = 7
		return v, Policy{Allowed: []api.Region{"us", "eu"}}, Caller{Region: "us", Zone: "a", Broken: map[EndpointRef]struct{}{{"us", "000"}: {}, {"eu", "001"}: {}}}
	}
	v, p, c := base()
	want := DecisionID(v, p, c)
	for range 50 {
		v, p, c := base()
		slices.Reverse(v.Regions)
		v.Regions[0].Origin.AgeMS, c.Memory = 3_000, Memory{Shares: []RegionShare{{"eu", 1}}}
		if got := DecisionID(v, p, c); got != want || len(got) != 16 {
			t.Fatalf("%s, then %s", want, got)
		}
	}
	seen := map[string]string{want: "nothing"}
	for name, change := range map[string]func(*View, *Policy, *Caller){
		"the service":        func(v *View, _ *Policy, _ *Caller) { v.Key.Service = "users" },
		"the namespace":      func(v *View, _ *Policy, _ *Caller) { v.Key.Namespace = "shop" },
		"a revision":         func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Origin.Revision++ },
		"an epoch":           func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Origin.Epoch.Nonce++ },
		"an age's grade":     func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Origin.AgeMS = 60_000 },
		"a drain":            func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Origin.Drained = 0.1 },
		"a load":             func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Load = 40 },
		"a death":            func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Origin.Down = true },
		"a region":           func(v *View, _ *Policy, _ *Caller) { v.Regions = v.Regions[:1] },
		"a detail":           func(v *View, _ *Policy, _ *Caller) { v.Regions[1].Endpoints = v.Regions[1].Endpoints[:3] },
		"residency":          func(_ *View, p *Policy, _ *Caller) { p.Allowed = p.Allowed[:1] },
		"a policy's number":  func(_ *View, p *Policy, _ *Caller) { p.MinHealthy = 0.5 },
		"the caller's zone":  func(_ *View, _ *Policy, c *Caller) { c.Zone = "b" },
		"the caller's place": func(_ *View, _ *Policy, c *Caller) { c.Region = "eu" },
		"a breaker":          func(_ *View, _ *Policy, c *Caller) { delete(c.Broken, EndpointRef{"us", "000"}) },
	} {
		v, p, c := base()
		change(&v, &p, &c)
		id := DecisionID(v, p, c)
		if other := seen[id]; other != "" {
			t.Errorf("%s makes the same id as %s", name, other)
		}
		seen[id] = name
	}
}
