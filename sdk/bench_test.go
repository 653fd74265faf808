package nearside

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func benchClient(b *testing.B, balancer Balancer) *Client {
	b.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderRegion, "us")
		w.Header().Set("Content-Type", "text/event-stream")
		v := `"version":{"region":"us","epoch":"1-0000000000000001","revision":7}`
		for i := range 100 {
			fmt.Fprintf(w, "event: item\ndata: {%s,\"service\":\"orders\",\"instance\":{\"id\":\"o%d\",\"address\":\"h\",\"port\":1,\"weight\":100,\"status\":\"passing\"}}\n\n", v, i)
		}
		for _, far := range []string{"eu", "ap"} {
			fmt.Fprintf(w, "event: replica\ndata: {%s,\"service\":\"orders\",\"origin\":{\"region\":%q,\"epoch\":\"1-0000000000000001\",\"revision\":1},\"summary\":{\"ns\":\"default\",\"service\":\"orders\",\"endpoints\":[{\"id\":\"f\",\"address\":\"h\",\"port\":1,\"weight\":100,\"status\":\"passing\"}]}}\n\n", v, far)
		}
		fmt.Fprintf(w, "event: synced\ndata: {%s}\n\n", v)
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

// BenchmarkPick: Pick on a warm client, 100 instances, 3 regions; the goal is 100 ns
// without and 400 ns with the breaker's report, and no allocation.
func BenchmarkPick(b *testing.B) {
	for name, balancer := range map[string]Balancer{"round robin": RoundRobin, "least request": LeastRequest} {
		c := benchClient(b, balancer)
		ctx := context.Background()
		if _, err := c.Pick(ctx, "orders"); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Pick(ctx, "orders"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" and done", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, _ := c.Pick(ctx, "orders")
				p.Done(nil)
			}
		})
		b.Run(name+" and done, parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p, _ := c.Pick(ctx, "orders")
					p.Done(nil)
				}
			})
		})
	}
}
