package registry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// quickReplicas is a federation whose answers cost next to nothing: what is measured is the registry.
type quickReplicas struct {
	Replicas
	origins []api.Origin
	state   atomic.Pointer[quickState]
}

type quickState struct {
	rows    map[api.ServiceKey]*api.Summary // of one region
	changed chan struct{}
}

func newQuickReplicas(services int) *quickReplicas {
	q := &quickReplicas{}
	for i := range 5 {
		q.origins = append(q.origins, api.Origin{Region: api.Region(fmt.Sprintf("far-%d", i)), Epoch: api.Epoch{Generation: 1, Nonce: 1}, State: api.AgeFresh, Complete: true})
	}
	rows := map[api.ServiceKey]*api.Summary{}
	for i := range services {
		key := api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("s%d", i))}
		rows[key] = &api.Summary{Namespace: key.Namespace, Service: key.Service, Total: 1, Passing: 1, Revision: 1}
	}
	q.state.Store(&quickState{rows, make(chan struct{})})
	return q
}

// set changes the row of a service.
func (q *quickReplicas) set(key api.ServiceKey, revision uint64) {
	old := q.state.Load()
	rows := make(map[api.ServiceKey]*api.Summary, len(old.rows))
	for k, s := range old.rows {
		rows[k] = s
	}
	rows[key] = &api.Summary{Namespace: key.Namespace, Service: key.Service, Total: 1, Passing: 1, Revision: revision}
	q.state.Store(&quickState{rows, make(chan struct{})})
	close(old.changed)
}

func (q *quickReplicas) Origins() []api.Origin              { return append([]api.Origin(nil), q.origins...) }
func (q *quickReplicas) Serving(api.ServiceKey, api.Region) {}
func (q *quickReplicas) Changed() <-chan struct{}           { return q.state.Load().changed }

func (q *quickReplicas) Lookup(key api.ServiceKey) []api.Replica {
	s := q.state.Load().rows[key]
	if s == nil {
		return nil
	}
	return []api.Replica{{Origin: q.origins[0], Summary: s}}
}

// BenchmarkFarChange is what a change of one service in another region costs a node with 5,000 watches
// of other services, in processor time, and how long it takes to the one watch of that service.
func BenchmarkFarChange(b *testing.B) {
	for _, services := range []int{50, 5000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			const watches = 5000
			q := newQuickReplicas(services)
			r, err := New(Config{Region: "eu-west", Node: "n1", Store: benchStore(b), Replicas: q})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			var loops sync.WaitGroup
			defer loops.Wait()
			defer stop()
			loops.Go(func() { _ = r.Run(ctx) })
			<-r.Loaded()
			synced, told := make(chan struct{}, watches+1), make(chan uint64, 16)
			watch := func(service api.ServiceName, tell func(api.Frame)) {
				loops.Go(func() {
					_ = r.Watch(ctx, WatchQuery{Services: []api.ServiceName{service}, Far: true}, func(f api.Frame) error {
						if f.Kind == api.FrameSynced {
							synced <- struct{}{}
						}
						if tell != nil {
							tell(f)
						}
						return nil
					})
				})
			}
			for i := range watches {
				watch(api.ServiceName(fmt.Sprintf("s%d", i%services)), nil)
			}
			watch("hot", func(f api.Frame) {
				if f.Kind == api.FrameReplica {
					told <- f.Summary.Revision
				}
			})
			for range watches + 1 {
				<-synced
			}
			key := api.ServiceKey{Namespace: "default", Service: "hot"}
			revision, late := uint64(1), time.Duration(0)
			spent := processorTime()
			for b.Loop() {
				revision++
				began := time.Now()
				q.set(key, revision)
				for <-told != revision {
				}
				late += time.Since(began)
				// The others' share of it counts, and is not what is waited for.
				<-time.After(20 * time.Millisecond)
			}
			b.ReportMetric(float64((processorTime()-spent).Microseconds())/float64(b.N), "cpu-µs/change")
			b.ReportMetric(float64(late.Microseconds())/float64(b.N), "late-µs/change")
		})
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchStore(b *testing.B) *memstore.Store {
	m, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	return m
}
