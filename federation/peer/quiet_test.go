package peer_test

import (
	"context"
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// quiet is a source whose Wait sleeps through revisions that change nothing, as a registry's does.
type quiet struct{ *regiontest.Source }

func (q quiet) Wait(ctx context.Context, after api.Version) error {
	for at := after; ; at = q.Version() {
		if keys, ok := q.ChangedSince(after); !ok || len(keys) > 0 {
			return nil
		}
		if err := q.Source.Wait(ctx, at); err != nil {
			return err
		}
	}
}

// P4, P6: what a reader holds may be a revision that changed nothing, of a node that is a moment
// ahead; that is no lost history. Readers of both versions of the protocol are told of such
// revisions by their next sign of life.
func TestQuietRevisions(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders")
	waiting := waited{quiet{src}, make(chan struct{}, 1)}
	_, base := door(t, peer.ServerConfig{Source: waiting})
	ahead := src.Version()
	ahead.Revision++
	c := peer.NewClient(nil, nil)
	defer c.CloseIdle()
	done := make(chan error, 1)
	go func() {
		s, err := c.Open(t.Context(), base, peer.Query{Reader: "us-east", Have: ahead}, nil)
		if err == nil {
			s.Close()
		}
		done <- err
	}()
	<-waiting.begun
	src.Beat()
	if err := <-done; err != nil || src.Raised() != 0 {
		t.Fatalf("%v, raised %d times", err, src.Raised())
	}
	for proto := replica.MinProto; proto <= replica.Proto; proto++ {
		s, err := c.Open(t.Context(), base, peer.Query{Reader: "us-east", MinProto: proto, MaxProto: proto}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for snapshot, confirmed, beaten := false, false, false; ; {
			f, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			snapshot = snapshot || f.Kind == replica.SnapshotEnd
			confirmed = confirmed || snapshot && f.Kind == replica.Heartbeat
			if confirmed && !beaten {
				src.Beat()
				beaten = true
			}
			if told := f.Kind == replica.Heartbeat || f.Kind == replica.Delta; beaten && told && max(f.Head, f.To) == src.Version().Revision {
				t.Logf("version %d is told by a %s", proto, f.Kind)
				break
			}
		}
		s.Close()
	}
}
