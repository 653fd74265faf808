package catalog_test

import (
	"strings"
	"testing"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// P8: history is bounded by bytes too: changes of the largest instances push older
// revisions out, whole, before their number would.
func TestHistoryIsBoundedByBytes(t *testing.T) {
	const size = 16 << 10
	h := catalog.NewHistory(16_384, 10)
	big := func(revision uint64, n int) []catalog.Change {
		var changes []catalog.Change
		for range n {
			in := instance("orders", "a")
			in.Metadata = map[string]string{"k": strings.Repeat("x", size)}
			changes = append(changes, catalog.Change{Revision: revision, Op: api.OpPut, Instance: &in})
		}
		return changes
	}
	held := func() (n int) {
		for at := h.Floor(); at < h.Last(); {
			changes, upTo, ok := h.Since(at, nil)
			if !ok || upTo <= at {
				t.Fatalf("since %d: up to %d, %v", at, upTo, ok)
			}
			for _, c := range changes {
				if c.Revision == h.Floor() {
					t.Fatalf("half of revision %d is left", c.Revision)
				}
			}
			n, at = n+len(changes), upTo
		}
		return n
	}
	revision := uint64(10)
	for range 2000 {
		revision++
		h.Append(revision, big(revision, 2))
	}
	most := catalog.MaxHistoryBytes / size
	if n := held(); n > most || n < most*9/10 || n%2 != 0 {
		t.Errorf("%d changes of 16 KB are held, want at most %d and little less", n, most)
	}
	// What is forgotten makes room again, and one revision beyond the bound is not kept.
	for range 5000 {
		revision++
		in := instance("orders", "b")
		h.Append(revision, []catalog.Change{{Revision: revision, Op: api.OpPut, Instance: &in}})
	}
	if n := held(); n < 5000 {
		t.Errorf("%d small changes are held", n)
	}
	revision++
	h.Append(revision, big(revision, most+1))
	if n := held(); n != 0 || h.Floor() != revision || h.Last() != revision {
		t.Errorf("%d changes from %d to %d after one that is too big", n, h.Floor(), h.Last())
	}
}
