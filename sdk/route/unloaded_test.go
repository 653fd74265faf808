package route

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// unloaded is what all decisions of TestWithoutLoadsNothingChanges added up to before load
// had a part in any, but for those in panic, which once put all on the nearest.
const unloaded = "7e9b7d4ebc675411"

// Where no load is known decisions are, to the last digit and letter, what they were before load
// was an input: a registry or an instance that tells none changes nothing for anybody (P10).
func TestWithoutLoadsNothingChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 400))
	h := fnv.New64a()
	for range 5_000 {
		d := draw(r)
		var tr api.Trace
		dec := Decide(d.v, d.p, d.c, &tr)
		if dec.Panic {
			continue
		}
		w := dec.Wire()
		w.Short, w.Degraded = false, false // were not told
		for _, x := range []any{w, dec.Endpoints(0), tr, dec.Memory, dec.Ramping} {
			b, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(b)
		}
	}
	if got := fmt.Sprintf("%016x", h.Sum64()); got != unloaded {
		t.Errorf("%s, and before loads it was %s", got, unloaded)
	}
}
