package peer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// heldHere is another region's rows as they are held here: none.
type heldHere struct {
	*regiontest.Source
	view replica.View
	done chan struct{}
}

func newHeldHere() *heldHere {
	src := regiontest.New("ap-south")
	r, at := replica.New("eu-west", "ap-south", time.Now()), src.Version()
	r.Connect(time.Now())
	for _, f := range []replica.Frame{
		{Kind: replica.Hello, Proto: 2, Region: "ap-south", Epoch: at.Epoch, Head: at.Revision, Complete: true},
		{Kind: replica.SnapshotBegin, Epoch: at.Epoch, To: at.Revision},
		{Kind: replica.SnapshotEnd, Epoch: at.Epoch, To: at.Revision},
	} {
		r.Step(f, time.Now())
	}
	return &heldHere{src, r.View(), make(chan struct{})}
}

func (h *heldHere) Image() peer.Image { return relay.NewPicture(h.view) }

func (*heldHere) Age(time.Time) time.Duration    { return 0 }
func (*heldHere) RTT() time.Duration             { return 0 }
func (*heldHere) Standings() []replica.Standing  { return nil }
func (*heldHere) Drained() float64               { return 0 }
func (*heldHere) Loads(time.Time) *summary.Loads { return nil }
func (h *heldHere) Done() <-chan struct{}        { return h.done }

// P8: the other nodes of a region read many peers from one of them. Their streams count by themselves:
// they take no place of a reader of another region, nor it one of theirs, and they are bounded too.
func TestSiblingsHaveAShareOfTheirOwn(t *testing.T) {
	src := regiontest.New("eu-west")
	passed := newHeldHere()
	_, base := door(t, peer.ServerConfig{
		Source: src, MaxReaders: 16, Relay: func(_, _ api.Region) (peer.Relay, error) { return passed, nil },
	})
	c := peer.NewClient(nil, nil)
	t.Cleanup(c.CloseIdle)
	open := func(q peer.Query) error {
		s, err := c.Open(t.Context(), base, q, nil)
		if err == nil {
			t.Cleanup(s.Close)
		}
		return err
	}
	sibling := func(i int) peer.Query {
		return peer.Query{Reader: "eu-west", Node: fmt.Sprintf("n%d", i), Origin: "ap-south", Peer: "eu-west"}
	}
	for i := range 32 {
		if err := open(sibling(i)); err != nil {
			t.Fatalf("stream %d of a sibling: %v", i, err)
		}
	}
	var e *api.Error
	if err := open(sibling(32)); !errors.As(err, &e) || e.Code != api.CodeTooManyRequests {
		t.Errorf("they are not bounded: %v", err)
	}
	for i := range 16 {
		if err := open(peer.Query{Reader: api.Region(fmt.Sprintf("r%d", i)), Origin: "eu-west"}); err != nil {
			t.Errorf("reader %d: %v", i, err)
		}
	}
	if err := open(peer.Query{Reader: "r16", Origin: "eu-west"}); !errors.As(err, &e) || e.Code != api.CodeTooManyRequests {
		t.Errorf("readers are not bounded: %v", err)
	}
}
