package relay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// The choice of the reading node is the same for every order of the nodes, spreads the peers over them,
// and moves only the peers of a node that goes.
func TestReader(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	nodes := []string{"us-east-1", "us-east-2", "us-east-3", "us-east-4", "us-east-5"}
	count := map[string]int{}
	const peers = 1000
	for i := range peers {
		peer := api.Region(fmt.Sprintf("region-%d", i))
		was := Reader(nodes, peer)
		count[was]++
		mixed := slices.Clone(nodes)
		rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if got := Reader(mixed, peer); got != was {
			t.Fatalf("seed %d: %s in one order, %s in another", seed, was, got)
		}
		for _, gone := range nodes {
			rest := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == gone })
			if got := Reader(rest, peer); gone != was && got != was {
				t.Fatalf("%s went, and %s moved from %s to %s", gone, peer, was, got)
			}
		}
	}
	for _, n := range nodes {
		if c := count[n]; c < peers/len(nodes)*7/10 || c > peers/len(nodes)*13/10 {
			t.Errorf("%s reads %d of %d", n, c, peers)
		}
	}
	if Reader(nil, "eu-west") != "" || Reader([]string{"a"}, "eu-west") != "a" {
		t.Error("none, and one")
	}
}
