package peer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// behind is a node whose picture lags behind its store.
type behind struct {
	*regiontest.Source
	store   atomic.Uint64 // the revision there; 0 = it does not answer
	asked   atomic.Int64
	catches atomic.Bool // the node catches up while it is waited for
}

func (b *behind) Barrier(context.Context) (uint64, error) {
	b.asked.Add(1)
	if b.catches.Load() {
		for range 3 {
			b.Beat()
		}
	}
	if r := b.store.Load(); r > 0 {
		return r, nil
	}
	return 0, errors.New("no quorum")
}

// P4: a node that lags behind its store, or cannot ask it, makes its region begin no new epoch for what a reader
// holds; only a store that is behind itself has lost something.
func TestLaggingNodeRaisesNoEpoch(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders")
	b := &behind{Source: src}
	_, base := door(t, peer.ServerConfig{Source: b})
	c := peer.NewClient(nil, nil)
	t.Cleanup(c.CloseIdle)
	held := src.Version()
	held.Revision += 3
	open := func() error {
		s, err := c.Open(t.Context(), base, peer.Query{Reader: "us-east", Origin: "eu-west", Have: held}, nil)
		if err == nil {
			s.Close()
		}
		return err
	}
	var e *api.Error
	if err := open(); !errors.As(err, &e) || e.Code != api.CodeUnavailable || src.Raised() != 0 || b.asked.Load() != 1 {
		t.Fatalf("a store that does not answer: %v, %d epochs", err, src.Raised())
	}
	b.store.Store(held.Revision)
	b.catches.Store(true)
	if err := open(); err != nil || src.Raised() != 0 {
		t.Errorf("a node that catches up: %v, %d epochs", err, src.Raised())
	}
	b.catches.Store(false)
	held.Revision += 3
	if err := open(); err != nil || src.Raised() != 1 {
		t.Errorf("a store that is behind: %v, %d epochs", err, src.Raised())
	}
}
