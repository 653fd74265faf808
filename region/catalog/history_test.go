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

// P8: rules of checks, their results and notes count too: an instance of many checks is no small one.
func TestChecksCountInTheHistory(t *testing.T) {
	h := catalog.NewHistory(1<<20, 0)
	in := instance("orders", "a")
	for i := range api.MaxChecks {
		name := strings.Repeat("c", i+1)
		in.Checks = append(in.Checks, api.Check{Name: name, Path: "/" + strings.Repeat("p", 1000)})
		in.CheckResults = append(in.CheckResults, api.CheckResult{Name: name, Note: strings.Repeat("n", 200)})
	}
	in.Set = &api.SetStatus{Status: api.StatusDraining, Note: strings.Repeat("n", api.MaxNoteLength)}
	least := api.MaxChecks*1200 + api.MaxNoteLength
	n := 2 * catalog.MaxHistoryBytes / least
	for i := range n {
		h.Append(uint64(i+1), []catalog.Change{{Revision: uint64(i + 1), Op: api.OpPut, Instance: &in}})
	}
	if held := n - int(h.Floor()); held*least > catalog.MaxHistoryBytes {
		t.Errorf("%d changes of more than %d bytes are held, in %d", held, least, catalog.MaxHistoryBytes)
	}
}
