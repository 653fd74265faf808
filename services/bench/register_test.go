package bench

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// BenchmarkRegister registers new instances from 64 clients through HTTP, against 64 clients that
// Put as many bytes with a lease to an etcd of the same kind on the same disk: what a
// registry on plain etcd does.
func BenchmarkRegister(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	s := startServer(b, b.TempDir())
	var n atomic.Int64
	ours := newLoad(b, s.Node, clients, func(int, int) []byte {
		i := n.Add(1)
		return request("PUT", fmt.Sprintf("/v1/services/r%d/instances/i%d", i/10, i), []byte(`{"address":"10.0.0.9","port":8080,"zone":"a","ttl":"1h","tags":["v1"]}`))
	})
	plain, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Etcd}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = plain.Close() })
	lease, err := plain.Grant(b.Context(), 3600)
	if err != nil {
		b.Fatal(err)
	}
	value := string(make([]byte, 330)) // the size of our record
	puts := func(d time.Duration) float64 {
		var calls atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range clients {
			wg.Go(func() {
				for time.Since(began) < d {
					i := n.Add(1)
					if _, err := plain.Put(b.Context(), fmt.Sprintf("/plain/r%d/i%d", i/10, i), value, clientv3.WithLease(lease.ID)); err != nil {
						b.Error(err)
						return
					}
					calls.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(calls.Load()) / time.Since(began).Seconds()
	}
	if p := os.Getenv("NEARSIDE_BENCH_PROFILE"); p != "" {
		s.tell("profile " + p + "-register.prof")
		ours.run(b, 4*time.Second)
		s.tell("profile")
	}
	var used, usedByPuts []float64
	our, their, ratio := duel(b, turns, turn, measured(b, s, ours.run, &used), measured(b, s, func(_ *testing.B, d time.Duration) float64 { return puts(d) }, &usedByPuts))
	report(b, figure{
		what: "register through HTTP, 64 clients, fsynced", got: fmt.Sprintf("%.0f/s, server %.0f µs each", our, median(used)),
		yardstick: fmt.Sprintf("64 plain etcd Puts %.0f/s, %.0f µs: × %.2f", their, median(usedByPuts), ratio), goal: "≥ 2 × the Puts", reached: ratio >= 2,
	})
}
