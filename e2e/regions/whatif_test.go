package regions

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// Design, section 1, "what happens if I evacuate": an operator in us-east asks what losing ap-south would do, and then
// ap-south dies, nodes and instances. When the others agree that it is down, every service is served from
// where it was foretold, in the shares that were foretold, and those are down that were to be.
func TestWhatIfForetellsTheDeathOfARegion(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	// Which of the others is the nearer is no matter of what a busy machine measures.
	eventually(t, "ap-south is preferred", func() error {
		_, err := w.clients[us].Do(http.MethodPut, api.PathPolicy(api.PolicyDefault), api.PolicyWrite{Policy: api.Policy{Order: []api.Region{ap, eu}}}, nil)
		return err
	})
	for service, has := range map[string]map[api.Region]int{
		"orders":   {us: 10, ap: 10, eu: 10}, // half of us-east will be critical: 30 % go on to ap-south
		"users":    {us: 3, ap: 3},
		"search":   {ap: 6, eu: 6},
		"mail":     {ap: 10, eu: 2},
		"payments": {ap: 4},
	} {
		for region, n := range has {
			fill(t, w.clients[region], service, n, nil)
		}
	}
	for i := range 5 {
		path := api.PathInstance("orders", api.InstanceID(fmt.Sprintf("orders-%d", i))) + "/status"
		eventually(t, "an instance is critical", func() error {
			_, err := w.clients[us].Do(http.MethodPut, path, api.StatusChange{Status: api.StatusCritical}, nil)
			return err
		})
	}
	w.awaitAgreement("before")

	var foretold api.WhatIf
	ask := func(region api.Region) (answer api.WhatIf) {
		t.Helper()
		q := api.PathWhatIf + "?lose=ap-south"
		for _, s := range []string{"orders", "users", "search", "mail", "payments"} {
			q += "&service=" + s
		}
		if _, err := w.clients[region].Do(http.MethodGet, q, nil, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	foretold = ask(us)
	want := map[api.ServiceName]api.Effect{"orders": api.EffectMoved, "users": api.EffectNone, "search": api.EffectMoved, "mail": api.EffectOver, "payments": api.EffectDown}
	for _, row := range foretold.Services {
		if row.Effect != want[row.Service] {
			t.Errorf("%s: %s, want %s: %+v", row.Service, row.Effect, want[row.Service], row)
		}
	}
	if len(foretold.Services) != len(want) || foretold.Effect != api.EffectDown {
		t.Fatalf("%+v", foretold)
	}
	// The one who is to die can be asked too: what it says is of the callers of the others.
	if own := ask(ap); len(own.Callers) != 2 || own.Counts.Down != 1 || len(own.Services) != 2*len(want) {
		t.Errorf("ap-south of its own death: %+v", own)
	}
	for failOn, code := range map[string]int{"down": 4, "over": 4, "moved": 4, "": 0} {
		if got, out := w.run(us, "whatif", "--lose", string(ap), "--fail-on="+failOn); got != code {
			t.Errorf("nearside whatif --fail-on=%s: exit code %d, want %d: %s", failOn, got, code, out)
		}
	}

	killed := time.Now()
	w.Node(ap).Kill() // nothing listens at its instances' ports
	cluster.Within(t, patience, "us-east takes ap-south for down", func() error {
		i, err := w.region(us, ap)
		if err == nil && !i.Down {
			err = fmt.Errorf("%+v", i.Verdict)
		}
		return err
	})
	t.Logf("ap-south is down %s after its death", time.Since(killed).Round(100*time.Millisecond))
	for _, row := range foretold.Services {
		res, err := w.clients[us].Resolve(string(row.Service))
		if err != nil {
			t.Fatal(err)
		}
		if down := row.Effect == api.EffectDown; down != res.Decision.Panic {
			t.Errorf("%s was to be %s: %+v", row.Service, row.Effect, res.Decision)
		}
		if res.Decision.Panic {
			continue
		}
		got := map[api.Region]float64{}
		for _, tier := range res.Decision.Tiers {
			got[tier.Region] += tier.Weight
		}
		for _, s := range row.Regions {
			if math.Abs(got[s.Region]-s.After) > 0.001 {
				t.Errorf("%s: %s was to get %v and gets %v: %s", row.Service, s.Region, s.After, got[s.Region], res.Decision.Detail)
			}
			delete(got, s.Region)
		}
		for region, share := range got {
			if share > 0 {
				t.Errorf("%s: %s gets %v, which was not foretold", row.Service, region, share)
			}
		}
	}
}
