package peer

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// busyRegion has one service, which changes whenever it is told to.
type busyRegion struct {
	mu       sync.Mutex
	revision uint64
	percent  float64
	wake     chan struct{}
}

var busyKey = api.ServiceKey{Namespace: "default", Service: "orders"}

type busyImage uint64

func (i busyImage) Version() api.Version {
	return api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 1, Nonce: 1}, Revision: uint64(i)}
}

func (i busyImage) Services() []api.ServiceKey { return []api.ServiceKey{busyKey} }

func (i busyImage) Service(api.ServiceKey) ([]*api.Instance, uint64) {
	return []*api.Instance{{
		Namespace: "default", Service: "orders", ID: "a", Region: "eu-west", Address: "10.0.0.1", Port: 80,
		Weight: 100 + int(i), Status: api.StatusPassing,
	}}, uint64(i)
}

func (b *busyRegion) Image() Image {
	b.mu.Lock()
	defer b.mu.Unlock()
	return busyImage(b.revision)
}

func (b *busyRegion) ChangedSince(api.Version) ([]api.ServiceKey, bool) {
	return []api.ServiceKey{busyKey}, true
}

func (b *busyRegion) Wait(ctx context.Context, after api.Version) error {
	for {
		b.mu.Lock()
		at, wake := b.revision, b.wake
		b.mu.Unlock()
		if at != after.Revision {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *busyRegion) RaiseEpoch(context.Context, uint64) error { return nil }

func (b *busyRegion) Loads() map[api.ServiceKey]float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return map[api.ServiceKey]float64{busyKey: b.percent}
}

func (b *busyRegion) change() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revision++
	close(b.wake)
	b.wake = make(chan struct{})
}

// use moves the load by more than a class each time.
func (b *busyRegion) use() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.percent = float64((int(b.percent) + 13) % 90)
}

// slowReader takes each frame after a time, and notes what it was and when.
type slowReader struct {
	http.ResponseWriter
	mu    sync.Mutex
	delay time.Duration
	kinds []replica.Kind
}

func (s *slowReader) count(k replica.Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.kinds {
		if x == k {
			n++
		}
	}
	return n
}

// hurry makes it take frames at once.
func (s *slowReader) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = 0
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	<-time.After(delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	var f replica.Frame
	if json.Unmarshal(p, &f) == nil && f.Kind != "" {
		s.kinds = append(s.kinds, f.Kind)
	}
	return len(p), nil
}

func (s *slowReader) Flush() {}

func (s *slowReader) SetWriteDeadline(time.Time) error { return nil }

func (s *slowReader) SetReadDeadline(time.Time) error { return nil }

// P8: a reader that is behind gets rows and heartbeats, and no loads; once it takes frames again
// it is told the newest. Nobody is told more often than each five seconds.
func TestLoadsAreDroppedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &busyRegion{revision: 1, wake: make(chan struct{})}
		s := NewServer(ServerConfig{Region: "eu-west", Source: src})
		out := &slowReader{ResponseWriter: httptest.NewRecorder(), delay: 2 * slowWrite}
		st := newStream(s, out, Query{Reader: "us-east", Origin: "eu-west", Can: replica.Able}, replica.Proto)
		if err := s.enter(st); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- st.run(ctx) }()
		count := func(k replica.Kind) (n int) {
			synctest.Wait()
			return out.count(k)
		}
		for range 20 {
			<-time.After(time.Second)
			src.change()
			src.use()
		}
		if count(replica.LoadKind) != 0 || count(replica.Delta) < 10 || count(replica.Heartbeat) < 10 {
			t.Fatalf("a slow reader got %d loads, %d deltas, %d heartbeats", count(replica.LoadKind), count(replica.Delta), count(replica.Heartbeat))
		}
		out.hurry()
		<-time.After(2 * LoadInterval)
		first := count(replica.LoadKind)
		for range 40 {
			<-time.After(time.Second)
			src.use()
		}
		if n := count(replica.LoadKind) - first; first == 0 || n < 6 || n > 9 {
			t.Fatalf("%d frames of loads, and %d in 40 s", first, n)
		}
		cancel()
		<-ended
		s.leave(st)
	})
}
