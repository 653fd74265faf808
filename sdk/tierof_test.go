package nearside

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// tierOf returns candidates of so many instances with these weights, named i0, i1 and so on.
func tierOf(weights ...int) Candidates {
	c := Candidates{Region: "us", Kind: api.TierRegion}
	for i, w := range weights {
		c.List = append(c.List, candidateOf(i, w))
	}
	return c
}

func candidateOf(i, weight int) Candidate {
	e := &api.Endpoint{ID: api.InstanceID(fmt.Sprint("i", i)), Region: "us", Weight: weight, Status: api.StatusPassing}
	return Candidate{Endpoint: e, Weight: float64(max(weight, 1)), in: &instance{
		ref: route.EndpointRef{Region: "us", ID: e.ID}, clock: func() time.Duration { return time.Second },
	}}
}

// alike returns n equal weights.
func alike(n int) []int {
	w := make([]int, n)
	for i := range w {
		w[i] = api.DefaultWeight
	}
	return w
}

// someWeights returns weights of some instances, of a few shapes.
func someWeights(r *rand.Rand) []int {
	w := make([]int, 1+r.IntN(30))
	shape := r.IntN(4)
	for i := range w {
		switch shape {
		case 0:
			w[i] = api.DefaultWeight
		case 1:
			w[i] = 1 + r.IntN(10)
		case 2:
			w[i] = 1 + r.IntN(1000)
		default:
			w[i] = []int{10, 100}[r.IntN(2)]
		}
	}
	return w
}

// seeds runs f with so many seeds; a failure prints its own, and -run takes it.
func seeds(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	for seed := range uint64(n) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { f(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}
