package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a registry at work on a store in memory.
type bed struct {
	*Registry
	t     *testing.T
	store *trickStore
	stop  context.CancelFunc
	ended chan error
}

// trickStore is a memstore whose watch can be broken, and whose content can be swapped.
type trickStore struct {
	mu sync.Mutex
	*memstore.Store
	breakWatch chan error
}

func (s *trickStore) inner() *memstore.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store
}

func (s *trickStore) swap(m *memstore.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = m
}

func (s *trickStore) Load(ctx context.Context) (store.Image, error) { return s.inner().Load(ctx) }
func (s *trickStore) Epoch(ctx context.Context) (api.Epoch, error)  { return s.inner().Epoch(ctx) }
func (s *trickStore) Barrier(ctx context.Context) (uint64, error)   { return s.inner().Barrier(ctx) }

func (s *trickStore) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	return s.inner().Commit(ctx, ops)
}

func (s *trickStore) RaiseEpoch(ctx context.Context, above uint64) (api.Epoch, error) {
	return s.inner().RaiseEpoch(ctx, above)
}

func (s *trickStore) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(uint64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		select {
		case err := <-s.breakWatch:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	err := s.inner().Watch(ctx, from, apply, progress)
	if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	return err
}

func newMemstore(t *testing.T) *memstore.Store {
	t.Helper()
	m, err := memstore.New("eu-west")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newBed returns a registry that does not run yet.
func newBed(t *testing.T, change ...func(*Config)) *bed {
	t.Helper()
	b := &bed{t: t, store: &trickStore{Store: newMemstore(t), breakWatch: make(chan error)}, ended: make(chan error, 1)}
	cfg := Config{Region: "eu-west", Zone: "a", Node: "n1", Store: b.store, Addresses: []string{"http://10.0.0.1:7400"}}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if b.Registry, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

// run starts the loops; they end with the test.
func (b *bed) run() *bed {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() { b.ended <- b.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-b.ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		b.ended <- nil
	})
	return b
}

// start returns a registry that is loaded.
func start(t *testing.T, change ...func(*Config)) *bed {
	t.Helper()
	b := newBed(t, change...).run()
	<-b.Loaded()
	return b
}

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// pass lets d go by and waits for what that sets off.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func ikey(service, id string) api.InstanceKey {
	return api.InstanceKey{Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id)}
}

func reg() api.Registration {
	return api.Registration{Address: "10.0.0.9", Port: 8080, Zone: "a", TTL: api.Duration(5 * time.Second)}
}

func (b *bed) register(service, id string) api.Instance {
	b.t.Helper()
	in, _, err := b.Register(b.t.Context(), ikey(service, id), reg())
	if err != nil {
		b.t.Fatalf("register %s/%s: %v", service, id, err)
	}
	return in
}

// registerMany registers id i0 to i(n-1).
func (b *bed) registerMany(service string, n int) {
	b.t.Helper()
	for i := range n {
		b.register(service, fmt.Sprintf("i%d", i))
	}
}

// beat sends a heartbeat for i[from] to i[to-1] every second for d.
func (b *bed) beat(d time.Duration, service string, from, to int) {
	b.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := from; i < to; i++ {
			if _, err := b.Heartbeat(b.t.Context(), ikey(service, fmt.Sprintf("i%d", i)), 0); err != nil {
				b.t.Fatalf("heartbeat of i%d: %v", i, err)
			}
		}
		pass(time.Second)
	}
}

func (b *bed) wantCode(err error, code api.Code) {
	b.t.Helper()
	if got := api.CodeOf(err); got != code {
		b.t.Errorf("error %v, want code %q", err, code)
	}
}

// listed returns the ids of a service's instances, those overdue with a "!".
func (b *bed) listed(service string) string {
	b.t.Helper()
	list, _, err := b.ListInstances(b.t.Context(), InstancesQuery{Service: api.ServiceName(service)})
	if api.CodeOf(err) == api.CodeServiceNotFound {
		return "unknown"
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var ids []string
	for _, in := range list.Instances {
		id := string(in.ID)
		if in.Overdue {
			id += "!"
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

func (b *bed) brakeState() api.Protection {
	b.t.Helper()
	info, _, err := b.RegionInfo(b.t.Context(), b.cfg.Region)
	if err != nil {
		b.t.Fatal(err)
	}
	return *info.Protection
}

// stream is a watch whose frames are kept.
type stream struct {
	t      *testing.T
	cancel context.CancelFunc
	end    chan error

	mu     sync.Mutex
	frames []api.Frame
	gate   chan struct{} // when not nil, send waits for it
}

// watch opens a stream that ends with the test.
func (b *bed) watch(q WatchQuery) *stream {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{t: b.t, cancel: cancel, end: make(chan error, 1)}
	go func() { s.end <- b.Watch(ctx, q, s.take) }()
	b.t.Cleanup(func() {
		cancel()
		<-s.end
		s.end <- nil
	})
	synctest.Wait()
	return s
}

func (s *stream) take(f api.Frame) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, f)
	return nil
}

// next returns the frames since the last call in short form, bookmarks left out.
func (s *stream) next() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, f := range s.frames {
		switch f.Kind {
		case api.FrameBookmark:
		case api.FrameItem:
			out = append(out, "item "+string(f.Instance.ID))
		case api.FrameChange:
			more := ""
			if f.More {
				more = "+"
			}
			out = append(out, fmt.Sprintf("%s:%s %s%s", f.Op, f.Cause, f.Instance.ID, more))
		case api.FrameReplica:
			what := "gone"
			if f.Summary != nil {
				what = fmt.Sprint(f.Summary.Revision)
			}
			out = append(out, fmt.Sprintf("replica %s/%s %s", f.Origin.Region, f.Service, what))
		default:
			out = append(out, string(f.Kind))
		}
	}
	s.frames = nil
	return strings.Join(out, ", ")
}

func (s *stream) last() api.Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		s.t.Fatal("no frame")
	}
	return s.frames[len(s.frames)-1]
}
