package memstore_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/region/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *memstore.Store {
	t.Helper()
	s, err := memstore.New(storetest.Region)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Kit{
		Open:    func(t *testing.T) store.Store { return open(t) },
		Compact: func(_ *testing.T, s store.Store, rev uint64) { s.(*memstore.Store).Compact(rev) },
		Fill:    func(_ *testing.T, s store.Store) { s.(*memstore.Store).SetFull(true) },
	})
}

func TestBadRegionIsRefused(t *testing.T) {
	if _, err := memstore.New("EU West"); err == nil {
		t.Error("a bad region name was taken")
	}
}

// P10: an outage loses nothing, and a watch resumes from what it saw.
func TestOutage(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	rev, err := s.Commit(ctx, []store.Op{{Key: "a", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	seen := make(chan struct{}, 1)
	go func() {
		ended <- s.Watch(ctx, rev-1, func(store.Batch) error { seen <- struct{}{}; return nil }, nil)
	}()
	<-seen
	s.SetUnavailable(true)
	if err := <-ended; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := s.Load(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Commit(ctx, []store.Op{{Key: "a"}}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("commit: %v", err)
	}
	s.SetUnavailable(false)
	img, err := s.Load(ctx)
	if err != nil || img.Revision != rev || len(img.Records) != 1 {
		t.Errorf("after the outage: %+v, %v", img, err)
	}
}

func TestLostAnswerIsAWriteAllTheSame(t *testing.T) {
	s := open(t)
	s.LoseAnswers(1)
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "a"}}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("commit: %v", err)
	}
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "b"}}); err != nil {
		t.Errorf("the next commit: %v", err)
	}
}

// The write that meets the quota may happen all the same, as in etcd.
func TestTheWriteThatFillsTheStoreMayHappen(t *testing.T) {
	s := open(t)
	s.SetFull(true)
	s.LoseAnswers(1)
	for _, key := range []string{"a", "b"} {
		if _, err := s.Commit(t.Context(), []store.Op{{Key: key}}); !errors.Is(err, store.ErrFull) {
			t.Errorf("commit: %v", err)
		}
	}
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 || img.Records[0].Key != "a" {
		t.Errorf("%+v, %v", img, err)
	}
	s.SetFull(false)
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "b"}}); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// P8: history is bounded.
func TestHistoryIsBounded(t *testing.T) {
	s := open(t)
	for range 2 * memstore.MaxHistory {
		if _, err := s.Commit(t.Context(), []store.Op{{Key: "a"}}); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Watch(t.Context(), 1, func(store.Batch) error { return errors.New("told") }, nil)
	if !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from the start: %v", err)
	}
}
