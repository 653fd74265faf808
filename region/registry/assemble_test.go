package registry

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Callers whose way back takes nearly as long as a commit go together: none of them takes turns
// with the others in halves. Who does not come back holds nobody up for longer than a commit, and
// who is alone is not held up at all.
func TestCallersOfOneCommitGoTogetherAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow, way, callers, rounds = 4 * time.Millisecond, 3 * time.Millisecond, 8, 20
		revision, sizes := uint64(0), []int{}
		c := newCommitter(func(_ context.Context, ops []store.Op) (uint64, error) {
			<-time.After(slow)
			revision++
			sizes = append(sizes, len(ops))
			return revision, nil
		}, func() api.Version { return api.Version{} }, func(context.Context, uint64) {})
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { defer close(ran); c.run(ctx) }()
		propose := func(i, n int) time.Duration {
			began := time.Now()
			if _, err := c.propose(ctx, []store.Op{{Key: fmt.Sprintf("k%d-%d", i, n)}}); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}

		for n := range 3 {
			if took := propose(-1, n); took != slow {
				t.Errorf("a caller that is alone waited %s for a commit of %s", took, slow)
			}
		}
		sizes = nil
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				<-time.After(time.Duration(i) * time.Millisecond / 2) // not in step
				for n := range rounds {
					propose(i, n)
					<-time.After(way)
				}
			})
		}
		wg.Wait()
		full := 0
		for _, n := range sizes {
			if n == callers {
				full++
			}
		}
		t.Logf("bundles of %d callers, %d writes each: %v", callers, rounds, sizes)
		if full < rounds/2 {
			t.Errorf("%d commits of %d had all callers", full, len(sizes))
		}

		var two sync.WaitGroup // they do not come back
		for i := range 2 {
			two.Go(func() { propose(100+i, 0) })
		}
		two.Wait()
		if took := propose(200, 0); took > 3*slow {
			t.Errorf("the next one waited %s, with commits of %s", took, slow)
		}
		stop()
		<-ran
	})
}
