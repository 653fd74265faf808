package rounds

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs r until the test ends.
func run(t *testing.T, r *Rounds[int], visit func(context.Context, int)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx, visit) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestEveryoneHasATurnInItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[int](8)
		var mu sync.Mutex
		at := map[int][]time.Time{}
		run(t, r, func(_ context.Context, k int) {
			mu.Lock()
			defer mu.Unlock()
			at[k] = append(at[k], time.Now())
		})
		began := time.Now()
		for k := range 100 {
			r.Set(k, 10*time.Second, time.Duration(k)*100*time.Millisecond)
		}
		r.Set(1000, time.Second, 0)
		time.Sleep(95 * time.Second)
		synctest.Wait()
		for k := range 100 {
			if n := len(at[k]); n < 8 || n > 10 {
				t.Fatalf("%d was visited %d times in 95 s", k, n)
			}
			if first := at[k][0].Sub(began); first != time.Duration(k)*100*time.Millisecond {
				t.Errorf("%d was first visited after %s", k, first)
			}
			for i := 1; i < len(at[k]); i++ {
				if gap := at[k][i].Sub(at[k][i-1]); gap < 9500*time.Millisecond || gap > 10500*time.Millisecond {
					t.Errorf("%d was visited again after %s", k, gap)
				}
			}
		}
		if n := len(at[1000]); n < 90 || n > 100 {
			t.Errorf("the quick one was visited %d times", n)
		}
		if l := r.Lag(); l.Max != 0 || l.Visits == 0 {
			t.Errorf("%+v", l)
		}
	})
}

// P8: never more than the limit at once. When there is too much to do everyone waits
// alike, and what was missed is not made up for.
func TestTooMuchToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[int](10)
		var under, most atomic.Int64
		visits := make([]atomic.Int64, 100)
		run(t, r, func(ctx context.Context, k int) {
			n := under.Add(1)
			defer under.Add(-1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			visits[k].Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		})
		for k := range 100 {
			r.Set(k, time.Second, 0) // ten times what can be done
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if most.Load() != 10 {
			t.Errorf("%d at once", most.Load())
		}
		for k := range visits {
			if n := visits[k].Load(); n < 8 || n > 11 {
				t.Errorf("%d was visited %d times, want about 10", k, n)
			}
		}
		if l := r.Lag(); l.P99 < 5*time.Second {
			t.Errorf("the lag does not show it: %+v", l)
		}
	})
}

func TestDropAndSetAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[int](4)
		var n [3]atomic.Int64
		block := make(chan struct{})
		run(t, r, func(_ context.Context, k int) {
			n[k].Add(1)
			if k == 2 {
				<-block
			}
		})
		r.Set(0, time.Second, 0)
		r.Set(1, time.Hour, time.Minute)
		r.Set(2, time.Second, 0)
		time.Sleep(3500 * time.Millisecond)
		r.Drop(0)
		r.Drop(2) // under way
		close(block)
		r.Set(1, time.Hour, time.Second) // sooner than before
		had := n[0].Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n[0].Load() != had || n[1].Load() != 1 || n[2].Load() != 1 || r.Len() != 1 {
			t.Errorf("visits %d (had %d), %d, %d; %d left", n[0].Load(), had, n[1].Load(), n[2].Load(), r.Len())
		}
		r.Drop(1)
		r.Drop(1)
		if r.Len() != 0 {
			t.Errorf("%d left", r.Len())
		}
	})
}
