package scenarios

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P8, P10, P11: the store reaches its quota with records that are all in use. Registrations are refused by
// name, the event log and /readyz say why and what helps, reads and deregistrations go on; and once instances are
// deregistered registrations are taken again, without a human step.
func TestFullStoreTakesRegistrationsAgain(t *testing.T) {
	c := cluster.New(t, us)
	n := c.Node(us)
	n.Extra = []string{"--store-quota", "32MiB"}
	n.Start()
	h := n.Client()
	cluster.Within(t, 20*time.Second, "the store has the quota", func() error {
		quota, err := n.Metric("nearside_store_quota_bytes")
		if err == nil && quota != 32<<20 {
			err = fmt.Errorf("it is %.0f", quota)
		}
		return err
	})
	register := func(id api.InstanceID, kib int) error {
		_, err := h.Do(http.MethodPut, api.PathInstance("orders", id), api.Registration{
			Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"k": strings.Repeat("x", kib<<10)},
		}, nil)
		return err
	}
	// at once does something with a range of instances, a few at a time, and returns the first error.
	atOnce := func(from, to int, do func(i int) error) error {
		var wg sync.WaitGroup
		errs := make([]error, to-from)
		next := make(chan int)
		for range 16 {
			wg.Go(func() {
				for i := range next {
					errs[i-from] = do(i)
				}
			})
		}
		for i := from; i < to; i++ {
			next <- i
		}
		close(next)
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	name := func(i int) api.InstanceID { return api.InstanceID(fmt.Sprintf("o-%05d", i)) }
	const round, most = 200, 4000 // 15 KiB each: 32 MiB hold some 2,100
	count := 0
	var refusal error
	for refusal == nil {
		if count >= most {
			t.Fatalf("%d registrations of 15 KiB fit in 32 MiB", count)
		}
		refusal = atOnce(count, count+round, func(i int) error { return register(name(i), 15) })
		count += round
	}
	if api.CodeOf(refusal) != api.CodeStorageFull {
		t.Fatalf("refused with %v", refusal)
	}
	cluster.Within(t, 20*time.Second, "the event log and /readyz say why, and what helps", func() error {
		var list api.EventList
		if _, err := h.Do(http.MethodGet, api.PathEvents+"?kind="+string(api.EventStoreFull), nil, &list); err != nil {
			return err
		}
		if len(list.Events) == 0 || !strings.Contains(list.Events[0].Detail, "--store-quota") {
			return fmt.Errorf("events %+v", list.Events)
		}
		status, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil)
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("/readyz: %d, %v", status, err)
		}
		return nil
	})
	if _, err := h.Do(http.MethodGet, api.PathResolve("orders"), nil, nil); err != nil {
		t.Errorf("P10: resolve on a full store: %v", err)
	}
	begun := time.Now()
	if err := atOnce(0, count, func(i int) error {
		_, err := h.Do(http.MethodDelete, api.PathInstance("orders", name(i)), nil, nil)
		if api.CodeOf(err) == api.CodeInstanceNotFound {
			err = nil // it was refused
		}
		return err
	}); err != nil {
		t.Fatalf("deregister on a full store: %v", err)
	}
	gone := time.Now()
	cluster.Within(t, time.Minute, "registrations are taken again", func() error { return register("after", 1) })
	again := time.Since(gone)
	cluster.Within(t, time.Minute, "/readyz is well again", func() error {
		status, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil)
		if err == nil && status != http.StatusOK {
			err = errors.New(http.StatusText(status))
		}
		return err
	})
	t.Logf("%d registrations of 15 KiB tried on 32 MiB; deregistered in %s, taken again %s later", count, gone.Sub(begun).Round(time.Millisecond), again.Round(time.Millisecond))
}
