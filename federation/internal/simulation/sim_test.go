package simulation

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/rules"
)

const steps = 300

var defaultSeeds = 2000

// seeds returns the first seed and how many: SEED replays one, SEEDS asks for another number.
func seeds(t *testing.T, n int) (uint64, int) {
	number := func(name string, fallback uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return fallback
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%s is not a number", name, s)
		}
		return v
	}
	if os.Getenv("SEED") != "" {
		return number("SEED", 0), 1
	}
	return rand.Uint64() >> 1, int(number("SEEDS", uint64(n)))
}

// P4, P6, P7 and the invariants of the protocol: whatever the network, the disks and the
// publishers of five regions do, no reader goes back in time, a mass removal is held, a
// replaced publisher is not believed, what is held is what its origin once had, only its word and
// the end of a hold change it, and after quiet all pairs agree.
func TestSimFederation(t *testing.T) {
	first, n := seeds(t, defaultSeeds)
	began := time.Now()
	var all stats
	for i := range n {
		seed := first + uint64(i)
		w := newWorld(seed, rules.Off{})
		if err := w.run(steps); err != nil {
			t.Fatalf("SEED=%d: %v", seed, err)
		}
		s := &w.stats
		all.steps, all.frames, all.refused = all.steps+s.steps, all.frames+s.frames, all.refused+s.refused
		all.wipes, all.zombies, all.snapshots = all.wipes+s.wipes, all.zombies+s.zombies, all.snapshots+s.snapshots
		all.patches, all.meant, all.relays = all.patches+s.patches, all.meant+s.meant, all.relays+s.relays
		all.held, all.simulated = all.held+s.held, all.simulated+s.simulated
	}
	t.Logf("seeds %d to %d: %d steps, %.0f simulated hours, %d frames, %d refused, %d disks lost or old, %d publishers replaced, %d snapshots (%d row by row), %d streams through relays, %d services held back, %d planned removals; 0 violations; %v",
		first, first+uint64(n)-1, all.steps, all.simulated.Hours(), all.frames, all.refused, all.wipes, all.zombies, all.snapshots, all.patches, all.relays, all.held, all.meant, time.Since(began).Round(time.Millisecond))
}

// The simulation notices when a rule of the protocol is missing.
func TestSimNoticesMissingRules(t *testing.T) {
	for name, off := range map[string]rules.Off{
		"a stale epoch is accepted":        {StaleEpoch: true},
		"the refutation is dropped":        {Refutation: true},
		"the mass-delete guard is dropped": {Guard: true},
		"the term fence is dropped":        {Term: true},
		"a disconnect deletes the rows":    {Disconnect: true},
		"nothing is held to join on":       {Join: true},
	} {
		t.Run(name, func(t *testing.T) {
			const tries = 300
			first, _ := seeds(t, tries)
			for i := range uint64(tries) {
				if err := newWorld(first+i, off).run(steps); err != nil {
					t.Logf("caught after %d seeds: %v", i+1, err)
					return
				}
			}
			t.Fatalf("SEED=%d and %d more: not caught", first, tries-1)
		})
	}
}
