package summary_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// A class is a multiple of five at or above the value; a value that only trembles about a border
// stays where it was, one that is clearly elsewhere moves at once.
func TestLoadClass(t *testing.T) {
	for _, c := range []struct {
		old     int
		percent float64
		wants   int
	}{
		{0, 0, 5},
		{0, 5, 5},
		{0, 5.1, 10},
		{0, 73, 75},
		{0, 1000, 200},
		{0, -3, 5},
		{0, math.NaN(), 5},
		{0, math.Inf(1), 200},
		{75, 70, 75},
		{75, 68.5, 75},
		{75, 68, 70},
		{75, 76.9, 75},
		{75, 77.1, 80},
		{75, 20, 20},
		{5, 6.9, 5},
		{5, 7.1, 10},
	} {
		if got := summary.LoadClass(c.old, c.percent); got != c.wants {
			t.Errorf("%v %% after %d is class %d, want %d", c.percent, c.old, got, c.wants)
		}
	}
	moves, class := 0, 75
	for range 1000 {
		if next := summary.LoadClass(class, 74+2*rand.Float64()); next != class {
			moves, class = moves+1, next
		}
	}
	if moves > 0 {
		t.Errorf("a trembling value moves its class %d times", moves)
	}
}

// Whatever loads a reader was told last, the difference leads it to the newest, and equal loads
// have equal digests.
func TestLoadsSince(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	told := map[api.ServiceKey]int{}
	var at, now *summary.Loads
	for step := range 200 {
		percent := map[api.ServiceKey]float64{}
		for i := range 20 {
			if rng.IntN(5) > 0 {
				percent[service(i)] = rng.Float64() * 100
			}
		}
		if now = now.Next(percent); step%3 > 0 {
			continue // this one the reader is not told
		}
		for _, l := range now.Since(at) {
			if told[l.Key] = l.Percent; l.Percent == 0 {
				delete(told, l.Key)
			}
		}
		at = now
		var digest summary.Digest
		for k, p := range told {
			digest = digest.Add(summary.Load{Key: k, Percent: p}.Hash())
		}
		if len(told) != now.Len() || digest != now.Digest() {
			t.Fatalf("step %d: %d of %d, digest %s of %s", step, len(told), now.Len(), digest, now.Digest())
		}
	}
	if again := now.Next(nil); again.Len() != 0 || again.Digest() != 0 {
		t.Fatal(again.Len())
	}
}
