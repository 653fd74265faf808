package registry

import (
	"context"
	"sync"
	"testing"

	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// BenchmarkBeat is what a beat costs a node with 1,000 watches, from the commit until the head
// shows it; and a change of an instance that every watch is told, to compare.
func BenchmarkBeat(b *testing.B) {
	m, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	r, err := New(Config{Region: "eu-west", Node: "n1", Store: m})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loops.Go(func() { _ = r.Run(ctx) })
	<-r.Loaded()
	key := api.InstanceKey{Namespace: "default", Service: "orders", ID: "a"}
	if _, _, err := r.Register(ctx, key, api.Registration{Address: "10.0.0.1", Port: 80}); err != nil {
		b.Fatal(err)
	}
	const watches = 1000
	var told sync.WaitGroup
	synced := make(chan struct{}, watches)
	for range watches {
		loops.Go(func() {
			_ = r.Watch(ctx, WatchQuery{}, func(f api.Frame) error {
				switch f.Kind {
				case api.FrameSynced:
					synced <- struct{}{}
				case api.FrameChange:
					told.Done()
				}
				return nil
			})
		})
	}
	for range watches {
		<-synced
	}
	b.Run("beat", func(b *testing.B) {
		value := owner.Beat{Term: 1}.Encode()
		for b.Loop() {
			revision, err := m.Commit(ctx, []store.Op{{Key: owner.BeatKey, Value: value}})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.waitRevision(ctx, revision); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		status := []api.Status{api.StatusPassing, api.StatusCritical}
		for i := 0; b.Loop(); i++ {
			told.Add(watches)
			if _, err := r.SetStatus(ctx, key, api.StatusChange{Status: status[(i+1)%2]}); err != nil {
				b.Fatal(err)
			}
			told.Wait()
		}
	})
}
