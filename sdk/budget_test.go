package nearside

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Row 43: a part of the attempts fails, for long: repeats are a tenth of the calls, and the
// reserve once, be the calls many or few. A slight trouble has all of its failures repeated.
func TestRepeatsUnderPartialFailure(t *testing.T) {
	for _, tc := range []struct {
		rate, of, fail int // of every so many attempts so many fail
		all            bool
	}{{10, 5, 2, false}, {100, 5, 2, false}, {100, 5, 1, false}, {10, 50, 1, true}, {100, 50, 1, true}} {
		t.Run(fmt.Sprintf("%d of %d fail at %d calls a second", tc.fail, tc.of, tc.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				var tried atomic.Int64
				for _, id := range []string{"a", "b", "c", "d", "e"} {
					rnd := rand.New(rand.NewPCG(1, uint64(id[0])))
					var mu sync.Mutex
					w.run("us", "shop", id).handle = func(rw http.ResponseWriter, _ *http.Request) {
						tried.Add(1)
						mu.Lock()
						defer mu.Unlock()
						if rnd.IntN(tc.of) < tc.fail {
							rw.WriteHeader(503)
						}
					}
				}
				calls := load(t, w.web(w.client("us", nil)), "http://shop/", tc.rate, time.Duration(max(1, 30/tc.rate))*time.Minute)
				extra := int(tried.Load()) - len(calls)
				failed := 0
				for _, c := range calls {
					if c.status != 200 {
						failed++
					}
				}
				t.Logf("%d repeats of %d calls, %d failed", extra, len(calls), failed)
				// And what comes by time in the second or so until it is seen.
				if most := len(calls)/10 + budgetReserve + budgetPerSec; extra > most {
					t.Errorf("%d repeats of %d calls, at most %d wanted", extra, len(calls), most)
				}
				if tc.all && failed > 0 {
					t.Errorf("%d of %d calls failed", failed, len(calls))
				}
			})
		})
	}
}
