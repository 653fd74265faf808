package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P1, P4, P11: kill -9 while keys are written; after the restart every key is at the revision
// that was acknowledged last, or a later one that was under way, and in the same epoch.
func TestKill9LosesNoAcknowledgedKey(t *testing.T) {
	r := rand.New(rand.NewPCG(cluster.Seed(t), 7))
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	const writers, rounds = 8, 3
	acked := make([]api.KVWritten, writers)
	counts := make([]int, writers) // acknowledged value of each writer's key
	for range rounds {
		ctx, stop := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				path := api.PathKVKey(fmt.Sprintf("ledger/%d", w))
				for next := counts[w] + 1; ctx.Err() == nil; next++ {
					var out api.KVWritten
					if _, err := h.Do(http.MethodPut, path, next, &out); err != nil {
						continue
					}
					if out.Revision <= acked[w].Revision {
						t.Errorf("P4: %s went from revision %d to %d", path, acked[w].Revision, out.Revision)
					}
					acked[w], counts[w] = out, next
				}
			})
		}
		timer := time.NewTimer(time.Duration(200+r.IntN(500)) * time.Millisecond)
		<-timer.C
		n.Kill()
		stop()
		all.Wait()
		n.Start()
		var l api.KVList
		if _, err := h.Do(http.MethodGet, api.PathKV+"?prefix=ledger/&consistency=strong", nil, &l); err != nil {
			t.Fatal(err)
		}
		have := map[string]api.KVEntry{}
		for _, e := range l.Entries {
			have[e.Key] = e
		}
		for w, a := range acked {
			if a.Revision == 0 {
				continue
			}
			var value int
			e := have[a.Key]
			if _, err := fmt.Sscan(string(e.Value), &value); err != nil || e.Revision < a.Revision || value < counts[w] || e.Created != a.Created {
				t.Errorf("P1: %s was acknowledged at revision %d with %d and is %s at %d", a.Key, a.Revision, counts[w], e.Value, e.Revision)
			}
			counts[w] = max(counts[w], value)
			acked[w].Revision = max(a.Revision, e.Revision)
		}
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	t.Logf("%d kills, %d writes of %d keys, lost 0 unless said above", rounds, total, writers)
}
