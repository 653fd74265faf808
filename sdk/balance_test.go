package nearside

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/sdk/api"
)

func withWeight(n int) func(*api.Instance) { return func(i *api.Instance) { i.Weight = n } }

// Weights share the calls of a tier; weight 0 gets none unless nothing else is there.
func TestWeightsAreRespected(t *testing.T) {
	cases := []struct {
		weights []int
		want    []float64
	}{
		{[]int{100, 100}, []float64{.5, .5}},
		{[]int{100, 300}, []float64{.25, .75}},
		{[]int{1, 10_000}, []float64{.0001, .9999}},
		{[]int{100, 0}, []float64{1, 0}},
		{[]int{0, 0}, []float64{.5, .5}},
		{[]int{100, 150, 250}, []float64{.2, .3, .5}},
	}
	for _, b := range []Balancer{RoundRobin, LeastRequest} {
		for _, tc := range cases {
			t.Run(fmt.Sprint(b, tc.weights), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, "us")
					for i, weight := range tc.weights {
						w.regions["us"].put("orders", fmt.Sprint(i), "h:80", withWeight(weight))
					}
					c := w.client("us", func(cfg *Config) { cfg.Balancer = b })
					got := make([]int, len(tc.weights))
					const n = 20_000
					for range n {
						p, err := c.Pick(t.Context(), "orders")
						if err != nil {
							t.Fatal(err)
						}
						p.Done(nil)
						got[p.Endpoint.ID[0]-'0']++
					}
					for i, want := range tc.want {
						if share := float64(got[i]) / n; math.Abs(share-want) > 0.02 || (want == 0 && got[i] > 0) {
							t.Errorf("instance %d got %.3f of the calls, want %.3f", i, share, want)
						}
					}
				})
			})
		}
	}
}

// Least request prefers the instance with fewer calls running.
func TestLeastRequestAvoidsBusyInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for _, id := range []string{"a", "b"} {
			w.regions["us"].put("orders", id, "h:80", nil)
		}
		c := w.client("us", func(cfg *Config) { cfg.Balancer = LeastRequest })
		busy := 0
		for range 1000 { // calls to a never end
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			if p.Endpoint.ID == "a" {
				busy++
			} else {
				p.Done(nil)
			}
		}
		if busy > 400 {
			t.Errorf("the busy instance got %d of 1000 calls", busy)
		}
	})
}

// Round robin visits every instance of the tier once in a round.
func TestRoundRobinVisitsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for i := range 7 {
			w.regions["us"].put("orders", fmt.Sprint("i", i), "h:80", nil)
		}
		w.regions["eu"].put("orders", "far", "h:80", nil)
		c := w.client("us", nil)
		seen := map[api.InstanceID]bool{}
		for range 7 {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			seen[p.Endpoint.ID] = true
		}
		if len(seen) != 7 || seen["far"] {
			t.Errorf("%v", seen)
		}
	})
}
