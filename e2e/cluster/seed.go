package cluster

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Seed returns the seed of a test that does things at random, and prints it: the number in
// NEARSIDE_SEED, which replays the test's own choices (not the timing of the processes), or
// else a new one.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("NEARSIDE_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("NEARSIDE_SEED=%q is no number", v)
		}
		seed = n
	}
	t.Logf("seed %d (NEARSIDE_SEED=%d replays it)", seed, seed)
	return seed
}

// Seedless says, where a seed would be printed, that a test does nothing at random.
func Seedless(t testing.TB) {
	t.Helper()
	t.Log("no seed: this test chooses nothing at random")
}
