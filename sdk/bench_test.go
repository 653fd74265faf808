package nearside

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func benchClient(b *testing.B, balancer Balancer, instances, regions int, drained float64) *Client {
	b.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderRegion, "us")
		w.Header().Set("Content-Type", "text/event-stream")
		v := `"version":{"region":"us","epoch":"1-0000000000000001","revision":7}`
		for i := range instances {
			fmt.Fprintf(w, "event: item\ndata: {%s,\"service\":\"orders\",\"instance\":{\"id\":\"o%d\",\"address\":\"h\",\"port\":1,\"weight\":100,\"status\":\"passing\"}}\n\n", v, i)
		}
		for i := range regions - 1 {
			far := fmt.Sprintf("far%d", i)
			fmt.Fprintf(w, "event: replica\ndata: {%s,\"service\":\"orders\",\"origin\":{\"region\":%q,\"epoch\":\"1-0000000000000001\",\"revision\":1},\"summary\":{\"ns\":\"default\",\"service\":\"orders\",\"endpoints\":[{\"id\":\"f\",\"address\":\"h\",\"port\":1,\"weight\":100,\"status\":\"passing\"}]}}\n\n", v, far)
		}
		fmt.Fprintf(w, "event: synced\ndata: {%s,\"origins\":[{\"region\":\"us\",\"drained\":%v}]}\n\n", v, drained)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	b.Cleanup(srv.Close)
	c, err := New(Config{Addresses: []string{srv.URL}, Balancer: balancer})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// BenchmarkPick: Pick on a warm client, 3 regions, 10 to 1,000 instances at home, every balancer
// that is built in, and a program's own that takes the first; the goal is 100 ns for the round
// robin without and 400 ns with the breaker's report, and no allocation. Beside them
// what a user would write by hand: round robin over a slice under a mutex, without breakers,
// tiers, or anybody who tells how calls went.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("by hand/%d", n), func(b *testing.B) {
			list := make([]api.Endpoint, n)
			var mu sync.Mutex
			var next int
			b.ReportAllocs()
			for b.Loop() {
				mu.Lock()
				next = (next + 1) % len(list)
				e := list[next]
				mu.Unlock()
				_ = e
			}
		})
	}
	keyed := WithKey(context.Background(), "user-4711")
	for _, bc := range []struct {
		name     string
		balancer Balancer
		ctx      context.Context
		drained  float64 // of home, in percent: several regions take turns
		alone    bool    // also without Done: where that is not what the balancer goes by
	}{
		{"round robin", RoundRobin, context.Background(), 0, true},
		{"round robin, three regions", RoundRobin, context.Background(), 50, true},
		{"least request", LeastRequest, context.Background(), 0, true},
		{"peak ewma", PeakEWMA{}, context.Background(), 0, false},
		{"consistent hash", ConsistentHash{}, keyed, 0, false},
		{"consistent hash, owner busy", ConsistentHash{}, keyed, 0, false}, // a sum over the tier
		{"own", &ownBalancer{pick: func(PickInfo) int { return 0 }}, context.Background(), 0, true},
	} {
		for _, n := range []int{10, 100, 1000} {
			benchPick(b, fmt.Sprintf("%s/%d", bc.name, n), benchClient(b, bc.balancer, n, 3, bc.drained), bc.ctx, bc.alone)
		}
	}
	// How many regions are known matters to the decision, not to a pick; only those that share
	// the traffic do.
	benchPick(b, "round robin, twenty regions known/100", benchClient(b, RoundRobin, 100, 20, 0), context.Background(), true)
}

func benchPick(b *testing.B, name string, c *Client, ctx context.Context, alone bool) {
	if first, err := c.Pick(ctx, "orders"); err != nil {
		b.Fatal(err)
	} else if !strings.Contains(name, "busy") {
		first.Done(nil)
	}
	if alone {
		b.Run(name+"/pick", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Pick(ctx, "orders"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run(name+"/pick and done", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, _ := c.Pick(ctx, "orders")
			p.Done(nil)
		}
	})
	b.Run(name+"/pick and done, parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p, _ := c.Pick(ctx, "orders")
				p.Done(nil)
			}
		})
	})
}
