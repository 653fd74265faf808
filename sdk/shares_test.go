package nearside

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// shares picks n times, each call ending at once, and returns what each candidate got.
func shares(p Picker, of, n int, key func(i int) string) []float64 {
	got := make([]float64, of)
	ctx := context.Background()
	for i := range n {
		if key != nil {
			ctx = WithKey(context.Background(), key(i))
		}
		got[p.Pick(PickInfo{Context: ctx})] += 1 / float64(n)
	}
	return got
}

// Calls are shared by weight, whichever balancer that is built in, as long as no instance is
// busier or slower than another; and none starves.
func TestSharesFollowWeights(t *testing.T) {
	const n = 60_000
	for _, b := range []Balancer{RoundRobin, LeastRequest, PeakEWMA{}} {
		t.Run(fmt.Sprintf("%T %v", b, b), func(t *testing.T) {
			seeds(t, 8, func(t *testing.T, r *rand.Rand) {
				tier := tierOf(someWeights(r)...)
				sum := 0.0
				for _, c := range tier.List {
					sum += c.Weight
				}
				for i, got := range shares(b.Prepare(tier), len(tier.List), n, nil) {
					want := tier.List[i].Weight / sum
					// Six sigma of the draw and a few calls, since small numbers have long tails; and an
					// eighth for the rounding of turns.
					if math.Abs(got-want) > 6*math.Sqrt(want/n)+5.0/n+want/8 {
						t.Errorf("candidate %d of weight %v got %.4f, want %.4f", i, tier.List[i].Weight, got, want)
					}
					if got == 0 && want*n > 30 {
						t.Errorf("candidate %d of weight %v starves", i, tier.List[i].Weight)
					}
				}
			})
		})
	}
}

// smoothWeighted is nginx's smooth weighted round robin, to compare with: each gains its
// weight at each turn, the greatest is taken and loses the sum.
func smoothWeighted(weights []int, n int) []int {
	current, sum := make([]int, len(weights)), 0
	for _, w := range weights {
		sum += w
	}
	out := make([]int, n)
	for k := range out {
		best := 0
		for i, w := range weights {
			current[i] += w
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= sum
		out[k] = best
	}
	return out
}

// uneven is how many calls an instance is ahead of or behind its share at most, at any time
// of the sequence.
func uneven(turns []int, weights []int) (most float64) {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	got := make([]int, len(weights))
	for k, at := range turns {
		got[at]++
		for i, w := range weights {
			most = max(most, math.Abs(float64(got[i])-float64((k+1)*w)/float64(sum)))
		}
	}
	return most
}

// The round robin is as smooth as nginx's: nobody is ever ahead of its share or behind it by
// more than two calls, whichever weights there are, and a heavy instance never gets its turns
// in a row.
func TestRoundRobinIsSmooth(t *testing.T) {
	worst, nginx := 0.0, 0.0
	check := func(t *testing.T, weights []int) {
		var round []int
		for _, place := range schedule(tierOf(weights...).List) {
			round = append(round, int(place))
		}
		counts := make([]int, len(weights)) // what the round comes to: weights are rounded in it
		for _, place := range round {
			counts[place]++
		}
		mine, theirs := uneven(round, counts), uneven(smoothWeighted(counts, len(round)), counts)
		worst, nginx = max(worst, mine), max(nginx, theirs)
		if mine > 2 {
			t.Errorf("%v: %.2f calls uneven, nginx's %.2f", weights, mine, theirs)
		}
	}
	check(t, []int{5, 1, 1}) // the example of nginx's change log: a a b a c a a
	check(t, []int{1, 10_000})
	seeds(t, 200, func(t *testing.T, r *rand.Rand) { check(t, someWeights(r)) })
	t.Logf("at most %.2f calls uneven, nginx's %.2f", worst, nginx)
}

// Where calls last, least request keeps as many running at each as its weight says: an
// instance of three times the weight is as busy as another with three times the calls.
func TestLeastRequestIsBusyByWeight(t *testing.T) {
	tier := tierOf(100, 100, 300)
	p := LeastRequest.Prepare(tier)
	for range 500 {
		tier.List[p.Pick(PickInfo{})].in.inflight.Add(1)
	}
	for i, want := range []int{100, 100, 300} {
		if got := tier.List[i].Running(); got < want*9/10 || got > want*11/10 {
			t.Errorf("candidate %d runs %d calls, want %d", i, got, want)
		}
	}
}
