package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// stub is a prober that takes a while, as a network does, and fails now and then.
type stub struct{ n atomic.Int64 }

func (*stub) Admit(string, int) error { return nil }

func (s *stub) Probe(ctx context.Context, t check.Target) check.Result {
	s.n.Add(1)
	wait := time.NewTimer(time.Duration(1+rand.IntN(20)) * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	if rand.IntN(100) == 0 {
		return check.Result{Outcome: check.Failure, Code: "503"}
	}
	return check.Result{Outcome: check.Success, Code: "200"}
}

// 20,000 checks of ten seconds on one node: how late they begin. The benchmark takes 30 s
// whatever -benchtime says.
func BenchmarkChecks20k(b *testing.B) {
	const n = 20_000
	m, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	p := &stub{}
	r, err := New(Config{Region: "eu-west", Store: m, Prober: p})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-r.Loaded()
	var clients sync.WaitGroup
	for w := range 8 {
		clients.Go(func() {
			for i := w; i < n; i += 8 {
				in := api.Registration{Address: "10.0.0.1", Port: 80, Checks: []api.Check{{Kind: api.CheckHTTP, Path: "/healthz"}}}
				if _, _, err := r.Register(ctx, ikey(fmt.Sprintf("s%d", i/10), fmt.Sprintf("i%d", i)), in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	for b.Loop() {
		before, began := p.n.Load(), time.Now()
		<-time.After(30 * time.Second)
		lag := r.checks.rounds.Lag()
		b.ReportMetric(float64(p.n.Load()-before)/time.Since(began).Seconds(), "checks/s")
		b.ReportMetric(float64(lag.P50.Microseconds())/1000, "lag-p50-ms")
		b.ReportMetric(float64(lag.P99.Microseconds())/1000, "lag-p99-ms")
		b.ReportMetric(float64(lag.Max.Microseconds())/1000, "lag-max-ms")
		b.ReportMetric(float64(r.Snapshot().Counts().ByStatus[api.StatusPassing]), "passing")
		if lag.P99 > time.Second {
			b.Errorf("falls behind: %+v", lag)
		}
	}
}
