package registry_test

import (
	"context"
	"fmt"
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
	var ours, theirs float64
	var oursTime, theirsTime time.Duration
	for b.Loop() {
		c, d := storm(b, turn, register)
		ours, oursTime = ours+c, oursTime+d
		c, d = storm(b, turn, putPlain)
		theirs, theirsTime = theirs+c, theirsTime+d
	}
	perSecond, plainPerSecond := ours/oursTime.Seconds(), theirs/theirsTime.Seconds()
	b.ReportMetric(perSecond, "registrations/s")
	b.ReportMetric(plainPerSecond, "puts/s")
	b.ReportMetric(perSecond/plainPerSecond, "ratio")
	b.ReportMetric(0, "ns/op")
	b.Logf("64 clients: %.0f registrations/s, %.0f plain etcd Puts with lease/s, ratio %.2f", perSecond, plainPerSecond, perSecond/plainPerSecond)
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
