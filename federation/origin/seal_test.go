package origin_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/summary"
)

// I1, P12: what an origin signs of its rows after changes, new epochs, lost histories and restarts is what it would sign had
// it just begun, and what its reader makes of the rows that it was told.
func TestSealOfABook(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := newWire(t, 60)
	w.book.KeepSeal()
	seen := map[summary.Sum]summary.Digest{}
	for step := range 150 {
		for range rnd.IntN(6) {
			w.src.Set(rnd.IntN(4), fmt.Sprintf("s%05d", rnd.IntN(90)))
		}
		switch rnd.IntN(12) {
		case 0:
			_ = w.src.RaiseEpoch(t.Context(), w.src.Version().Epoch.Generation+1)
		case 1:
			w.src.Compact()
		case 2:
			w.book = origin.NewBook("us-east").KeepSeal()
		case 3:
			w.book.Page(w.src) // the reader learns of several changes at once
			continue
		}
		w.heal()
		p, scratch := w.book.Page(w.src), origin.NewBook("us-east").KeepSeal().Page(w.src)
		if p.Seal != scratch.Seal || p.Digest != scratch.Digest {
			t.Fatalf("step %d: not what it would be from scratch", step)
		}
		if v := w.replica.View(); v.Truth.Seal() != p.Seal {
			t.Fatalf("step %d: not that of the reader's rows", step)
		}
		if d, ok := seen[p.Seal]; ok && d != p.Digest {
			t.Fatalf("step %d: two sets of rows have one seal", step)
		}
		seen[p.Seal] = p.Digest
	}
	if len(seen) < 30 {
		t.Fatalf("only %d sets of rows were seen", len(seen))
	}
}
