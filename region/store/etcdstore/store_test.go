package etcdstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/region/store/storetest"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a real member that a test may stop and start again.
type node struct {
	*etcdnode.Node
	cfg etcdnode.Config
}

func startNode(t *testing.T, cfg etcdnode.Config) *node {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	cfg.Region, cfg.Node = storetest.Region, "n1"
	cfg.UpkeepInterval = -1 // the tests of a full store want it to stay full
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := etcdnode.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close node: %v", err)
		}
	})
	return &node{Node: n, cfg: cfg}
}

func (n *node) open(t *testing.T) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: n.cfg.Region})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// client is a plain etcd client, for what the store does not offer.
func (n *node) client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{n.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestStore(t *testing.T) {
	var mu sync.Mutex
	nodes := make(map[store.Store]*node)
	at := func(s store.Store) *node {
		mu.Lock()
		defer mu.Unlock()
		return nodes[s]
	}
	open := func(t *testing.T, cfg etcdnode.Config) store.Store {
		n := startNode(t, cfg)
		s := n.open(t)
		mu.Lock()
		defer mu.Unlock()
		nodes[s] = n
		return s
	}
	storetest.Run(t, storetest.Kit{
		Open: func(t *testing.T) store.Store { return open(t, etcdnode.Config{}) },
		Reopen: func(t *testing.T, s store.Store) store.Store {
			n := at(s)
			if err := errors.Join(s.Close(), n.Close()); err != nil {
				t.Fatal(err)
			}
			return open(t, n.cfg)
		},
		Compact: func(t *testing.T, s store.Store, rev uint64) {
			if _, err := at(s).client(t).Compact(t.Context(), int64(rev)); err != nil {
				t.Fatal(err)
			}
		},
		// The alarm alone: what it takes to get there is TestFullStore's.
		Fill: func(t *testing.T, s store.Store) {
			c := at(s).client(t)
			members, err := c.MemberList(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = etcdserverpb.NewMaintenanceClient(c.ActiveConnection()).Alarm(t.Context(), &etcdserverpb.AlarmRequest{
				Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: members.Members[0].ID, Alarm: etcdserverpb.AlarmType_NOSPACE,
			})
			if err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestAnotherRegionIsRefused(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	n.open(t)
	_, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: "us-east"})
	if !errors.Is(err, store.ErrWrongRegion) || !strings.Contains(err.Error(), `"eu-west"`) || !strings.Contains(err.Error(), `"us-east"`) {
		t.Errorf("opened as another region: %v", err)
	}
}

func TestNodesOfANewRegionAgreeOnOneEpoch(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	epochs := make(chan api.Epoch, 4)
	for range 4 {
		go func() {
			s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: storetest.Region})
			if err != nil {
				t.Errorf("open: %v", err)
				epochs <- api.Epoch{}
				return
			}
			defer s.Close()
			e, err := s.Epoch(t.Context())
			if err != nil {
				t.Errorf("epoch: %v", err)
			}
			epochs <- e
		}()
	}
	first := <-epochs
	for range 3 {
		if e := <-epochs; e != first || e.IsZero() {
			t.Errorf("epochs %q and %q", first, e)
		}
	}
}

func TestHalfAStampIsRefused(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	_ = n.open(t).Close()
	if _, err := n.client(t).Delete(t.Context(), "/nearside/v1/meta/epoch"); err != nil {
		t.Fatal(err)
	}
	_, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: storetest.Region})
	if err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("opened without an epoch: %v", err)
	}
}

// Others may use the same etcd: what they write is not ours to see, though it takes
// revisions, which a barrier tells of and progress must reach.
func TestForeignWritesTakeRevisionsOnly(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	s, c := n.open(t), n.client(t)
	start, err := s.Barrier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var want uint64
	progress := make(chan uint64, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, start, func(b store.Batch) error {
			t.Errorf("told of a foreign write: %+v", b)
			return nil
		}, func(rev uint64) { progress <- rev })
	}()
	for range 10 {
		for _, key := range []string{"/nearside/v1/data", "/nearside/v1/data0", "/other"} {
			if _, err := c.Put(ctx, key, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if want, err = s.Barrier(ctx); err != nil {
			t.Fatal(err)
		}
		for rev := range progress {
			if rev >= want {
				break
			}
		}
	}
	if want != start+30 {
		t.Errorf("barrier %d, want %d", want, start+30)
	}
	if img, err := s.Load(ctx); err != nil || len(img.Records) != 0 {
		t.Errorf("loaded %d foreign records, %v", len(img.Records), err)
	}
	cancel()
	<-ended
}

func TestUnreachable(t *testing.T) {
	begun := time.Now()
	_, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Endpoints: []string{"unix://" + t.TempDir() + "/none.sock"}, Region: storetest.Region, RequestTimeout: 300 * time.Millisecond,
	})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("open without etcd: %v", err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

// P10, P11: while etcd is away calls fail in time, and the same Store works again when it
// is back, with nothing lost and the watch resumed from what it saw.
func TestEtcdGoesAndComesBack(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: storetest.Region, RequestTimeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	first, err := s.Commit(ctx, []store.Op{{Key: "a", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	told := make(chan uint64, 10)
	resumed := make(chan error, 1)
	go func() {
		from := first - 1
		for {
			err := s.Watch(ctx, from, func(b store.Batch) error {
				from = b.Revision
				seen = append(seen, b.Revision)
				told <- b.Revision
				return nil
			}, nil)
			if !errors.Is(err, store.ErrUnavailable) {
				resumed <- err
				return
			}
		}
	}()
	<-told
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := s.Commit(ctx, []store.Op{{Key: "a", Value: []byte("2")}}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("commit without etcd: %v", err)
	}
	if _, err := s.Barrier(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("barrier without etcd: %v", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("two calls with a time-out of 0.5 s each took %s", took)
	}
	startNode(t, n.cfg)
	begun = time.Now()
	var second uint64
	for {
		if second, err = s.Commit(ctx, []store.Op{{Key: "a", Value: []byte("3")}}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("never came back: %v", err)
		}
	}
	t.Logf("writes went again %s after etcd was back", time.Since(begun).Round(time.Millisecond))
	select {
	case rev := <-told:
		if rev != second {
			t.Errorf("the watch told of %d, want %d", rev, second)
		}
	case <-ctx.Done():
		t.Fatal("the watch did not resume")
	}
	cancel()
	if err := <-resumed; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	if len(seen) != 2 {
		t.Errorf("the watch told %v", seen)
	}
}

// P10, P11: a full store says so, in a word of its own (NOSPACE decays silently otherwise),
// takes deletes, and opens again with all it has; compacted and defragmented it takes puts.
func TestFullStore(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 16 MiB")
	}
	n := startNode(t, etcdnode.Config{QuotaBytes: 16 << 20})
	s := n.open(t)
	value := make([]byte, 900<<10)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Commit(t.Context(), []store.Op{{Key: "big", Value: value}})
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("past the quota: %v, want full", err)
	}
	if _, err := s.Load(t.Context()); err != nil {
		t.Errorf("reading a full store: %v", err)
	}
	if _, err := s.Barrier(t.Context()); err != nil {
		t.Errorf("barrier of a full store: %v", err)
	}

	if err := errors.Join(s.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	n = startNode(t, n.cfg)
	s = n.open(t)
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 {
		t.Errorf("opened again: %d records, %v", len(img.Records), err)
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "small"}}); !errors.Is(err, store.ErrFull) {
		t.Errorf("a put after opening again: %v, want full still", err)
	}
	rev, err := s.Commit(t.Context(), []store.Op{{Delete: true, Key: "big"}})
	if err != nil {
		t.Fatalf("a delete on a full store: %v", err)
	}

	c := n.client(t)
	if _, err := c.Compact(t.Context(), int64(rev), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Defragment(t.Context(), n.Endpoint()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "small"}}); err != nil {
		t.Errorf("a put with space again: %v", err)
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, cfg := range map[string]etcdstore.Config{
		"no endpoint":      {Region: "eu-west"},
		"an empty one":     {Region: "eu-west", Endpoints: []string{""}},
		"no region":        {Endpoints: []string{"unix:///x"}},
		"negative timeout": {Region: "eu-west", Endpoints: []string{"unix:///x"}, RequestTimeout: -1},
	} {
		if s, err := etcdstore.Open(t.Context(), cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

// P10: a store that is opened lazily is there before etcd is; its calls say so, and work as soon
// as etcd does. The stamp is looked at then.
func TestLazyStoreWaitsForEtcd(t *testing.T) {
	cfg := etcdnode.Config{Region: storetest.Region, Node: "n1", DataDir: t.TempDir()}
	place, err := etcdnode.Reserve(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	open := func(region api.Region) *etcdstore.Store {
		s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{place.Endpoint()}, Region: region, Lazy: true, RequestTimeout: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open(storetest.Region)
	write := func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}})
		return err
	}
	none := func() error { return s.Watch(t.Context(), 0, func(store.Batch) error { return nil }, nil) }
	for what, err := range map[string]error{"commit": write(), "watch": none()} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s without etcd: %v", what, err)
		}
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("load without etcd: %v", err)
	}
	n := startNode(t, cfg)
	s.Hurry()
	for limit := time.Now().Add(20 * time.Second); ; {
		if err = write(); err == nil || time.Now().After(limit) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 || img.Epoch.IsZero() {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := open("mars").Load(t.Context()); !errors.Is(err, store.ErrWrongRegion) {
		t.Errorf("as another region: %v", err)
	}
	if n.Endpoint() != place.Endpoint() {
		t.Errorf("at %s, not %s", n.Endpoint(), place.Endpoint())
	}
}

// P1, P10: a store that somebody empties while it is in use takes nothing more under its old name, says
// so, and tells nobody that its records were deleted one by one. Commits went into it and were
// acknowledged, and no read ever showed them.
func TestEmptiedStoreTakesNothing(t *testing.T) {
	n := startNode(t, etcdnode.Config{})
	s, c := n.open(t), n.client(t)
	ctx := t.Context()
	rev, err := s.Commit(ctx, []store.Op{{Key: "a", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, rev, func(b store.Batch) error {
			t.Errorf("told of what nobody deregistered: %+v", b)
			return nil
		}, func(uint64) {})
	}()
	if _, err := c.Delete(ctx, "/nearside/v1/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrEpochRaised) {
		t.Errorf("the watch ended with %v", err)
	}
	_, epoch := s.Epoch(ctx)
	_, load := s.Load(ctx)
	_, barrier := s.Barrier(ctx)
	_, commit := s.Commit(ctx, []store.Op{{Key: "b", Value: []byte("1")}})
	_, guarded := s.Commit(ctx, []store.Op{{Key: "b", Value: []byte("1"), Guarded: true}})
	for what, err := range map[string]error{"Epoch": epoch, "Load": load, "Barrier": barrier, "Commit": commit, "a guarded Commit": guarded} {
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "was emptied while in use") {
			t.Errorf("%s on an emptied store: %v", what, err)
		}
	}
	got, err := c.Get(ctx, "/nearside/v1/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 0 {
		t.Errorf("%d records were written to an emptied store, %v", len(got.Kvs), err)
	}
}
