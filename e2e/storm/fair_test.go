package storm

import (
	"slices"
	"testing"
	"time"
)

// The storm asks for what can be had: whatever the seed, it leaves every service an instance that its
// callers may call and can reach. And it asks for something: a minute of it has faults of all kinds but
// rarely one, a region that dies among them, and several at any time.
func TestPlansAreFairAndFull(t *testing.T) {
	counts := map[kind]int{}
	const seeds = 30
	for seed := range uint64(seeds) {
		p := makePlan(seed, time.Minute)
		if err := p.fair(0); err != nil {
			t.Fatalf("seed %d: %v%s", seed, err, p)
		}
		if !slices.Equal(p, makePlan(seed, time.Minute)) {
			t.Fatalf("seed %d makes two storms", seed)
		}
		lost, busy := 0, time.Duration(0)
		for _, f := range p {
			counts[f.kind]++
			busy += f.until - f.at
			if f.lost() {
				lost++
			}
		}
		if lost != 1 || len(p) < 20 || busy < 90*time.Second {
			t.Errorf("seed %d: %d regions lost, %d faults, %s of them:%s", seed, lost, len(p), busy, p)
		}
	}
	t.Log(counts)
	for _, k := range []kind{killInstance, stopInstance, killRegistry, stopRegistry, cutOneWay, cutBothWays, badLink, resetLink, drainRegion, loseRegion, darkRegion} {
		if counts[k] < seeds/4 {
			t.Errorf("%d of %s in %d storms", counts[k], k, seeds)
		}
	}
}
