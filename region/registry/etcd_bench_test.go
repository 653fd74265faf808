package registry_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

const benchClients = 64

// BenchmarkRegister64Etcd registers new instances from 64 clients on a real etcd, against
// 64 clients that Put the same bytes with a lease to the same etcd: what a registry on plain
// etcd does. The two take turns, so that both see the same machine. The goal is a ratio of 2.
func BenchmarkRegister64Etcd(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	node, err := etcdnode.Start(ctx, etcdnode.Config{DataDir: b.TempDir(), Region: "eu-west", Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = node.Close() }()
	st, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{node.Endpoint()}, Region: "eu-west"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	r, err := registry.New(registry.Config{Region: "eu-west", Store: st})
	if err != nil {
		b.Fatal(err)
	}
	rctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- r.Run(rctx) }()
	defer func() { stop(); <-ran }()
	<-r.Loaded()
	plain, err := clientv3.New(clientv3.Config{Endpoints: []string{node.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	lease, err := plain.Grant(ctx, 3600)
	if err != nil {
		b.Fatal(err)
	}

	value := make([]byte, 330) // the size of the record below
	var n atomic.Int64
	register := func() error {
		i := n.Add(1)
		// 10 instances per service.
		_, _, err := r.Register(ctx, api.InstanceKey{Service: api.ServiceName(fmt.Sprintf("s%d", i/10)), ID: api.InstanceID(fmt.Sprintf("i%d", i))},
			api.Registration{Address: "10.0.0.9", Port: 8080, Zone: "a", TTL: api.Duration(time.Hour), Tags: []string{"v1"}})
		return err
	}
	putPlain := func() error {
		_, err := plain.Put(ctx, fmt.Sprintf("/plain/s%d/i%d", n.Load()/10, n.Add(1)), string(value), clientv3.WithLease(lease.ID))
		return err
	}
	const turn = 500 * time.Millisecond
	var ours, theirs, ratios []float64
	for b.Loop() {
		for range 5 {
			c, d := storm(b, turn, register)
			e, f := storm(b, turn, putPlain)
			ours, theirs = append(ours, c/d.Seconds()), append(theirs, e/f.Seconds())
			ratios = append(ratios, c/d.Seconds()/(e/f.Seconds()))
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	slices.Sort(ratios)
	perSecond, plainPerSecond, ratio := ours[len(ours)/2], theirs[len(theirs)/2], ratios[len(ratios)/2]
	b.ReportMetric(perSecond, "registrations/s")
	b.ReportMetric(plainPerSecond, "puts/s")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(0, "ns/op")
	b.Logf("64 clients, medians of %d turns: %.0f registrations/s, %.0f plain etcd Puts with lease/s, ratio %.2f (%.2f to %.2f)",
		len(ratios), perSecond, plainPerSecond, ratio, ratios[0], ratios[len(ratios)-1])
}

// storm calls f from all clients for about d; it returns how many calls were made in what time.
func storm(b *testing.B, d time.Duration, f func() error) (calls float64, took time.Duration) {
	b.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range benchClients {
		wg.Go(func() {
			for time.Since(began) < d {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()), time.Since(began)
}
