package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// fleet keeps many instances of one service alive from outside, with batches of heartbeats
// every third of the TTL. Any part of it can be made silent.
type fleet struct {
	service api.ServiceName
	ttl     time.Duration
	h       *cluster.HTTP

	mu      sync.Mutex
	silent  map[int]bool
	count   int
	refused int // heartbeats of instances that were told they are unknown
	slowest time.Duration

	stop     context.CancelFunc
	finished sync.WaitGroup
}

func (f *fleet) id(i int) api.InstanceID { return api.InstanceID(fmt.Sprintf("i-%05d", i)) }

// newFleet registers the instances and starts their heartbeats.
func newFleet(t *testing.T, n *cluster.Node, service string, count int, ttl time.Duration) *fleet {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	f := &fleet{service: api.ServiceName(service), ttl: ttl, h: n.Client(), silent: map[int]bool{}, count: count, stop: stop}
	f.register(t, 0, count)
	f.finished.Go(func() {
		each := time.NewTicker(ttl / 3)
		defer each.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-each.C:
				f.beat()
			}
		}
	})
	t.Cleanup(f.end)
	return f
}

// register registers the instances from (included) to (not included) and fails the test
// unless all are acknowledged.
func (f *fleet) register(t *testing.T, from, to int) {
	t.Helper()
	for first := from; first < to; first += 500 {
		var b api.Batch
		for i := first; i < min(to, first+500); i++ {
			b.Instances = append(b.Instances, api.BatchRegistration{
				Service: f.service, ID: f.id(i), Registration: api.Registration{Address: "127.0.0.1", Port: 10000 + i%50000, TTL: api.Duration(f.ttl)},
			})
		}
		var out api.BatchResults
		if _, err := f.h.Do(http.MethodPost, api.PathBatchRegister, b, &out); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Results {
			if err := r.Err(); err != nil {
				t.Fatalf("registering %s/%s: %v", r.Service, r.ID, err)
			}
		}
	}
}

// beat sends one heartbeat of everyone who is not silent. What cannot be sent is what a
// client would not reach either: the next round tries again.
func (f *fleet) beat() {
	f.mu.Lock()
	var all []api.BatchHeartbeat
	for i := range f.count {
		if !f.silent[i] {
			all = append(all, api.BatchHeartbeat{Service: f.service, ID: f.id(i)})
		}
	}
	f.mu.Unlock()
	for len(all) > 0 {
		n := min(len(all), api.MaxBatchItems)
		var out api.BatchResults
		begun := time.Now()
		_, err := f.h.Do(http.MethodPost, api.PathBatchHeartbeats, api.Batch{Heartbeats: all[:n]}, &out)
		took := time.Since(begun)
		all = all[n:]
		f.mu.Lock()
		f.slowest = max(f.slowest, took)
		if err == nil {
			for _, r := range out.Results {
				if r.Status == http.StatusNotFound {
					f.refused++
				}
			}
		}
		f.mu.Unlock()
	}
}

// hush makes the instances from (included) to (not included) silent; speak ends all silence
// and sends a heartbeat at once.
func (f *fleet) hush(from, to int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := from; i < to; i++ {
		f.silent[i] = true
	}
}

func (f *fleet) speak() {
	f.mu.Lock()
	clear(f.silent)
	f.mu.Unlock()
	f.beat()
}

// unknown is how many heartbeats were told that their instance is not known.
func (f *fleet) unknown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
}

func (f *fleet) end() {
	f.stop()
	f.finished.Wait()
}

// pass lets time go by: what is waited for has no other sign.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}
