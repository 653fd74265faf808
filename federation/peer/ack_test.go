package peer_test

import (
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Failure 49: the origin knows what a reader holds, how old the reader takes it to be, and which
// rows it does not use; and it knows when a reader says nothing.
func TestReadersSayWhereTheyStand(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders")
	s, base := door(t, peer.ServerConfig{Source: src})
	c := peer.NewClient(nil, nil)
	defer c.CloseIdle()
	q := peer.Query{Reader: "us-east", Origin: "eu-west"}
	stream, err := c.Open(t.Context(), base, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	hello, err := stream.Next()
	if err != nil || hello.Stream == "" || hello.Proto != replica.Proto {
		t.Fatalf("%+v %v", hello, err)
	}
	if w := s.Words(); len(w) != 1 || w[0].Revision != 0 || w[0].Age <= 0 {
		t.Fatalf("%+v", w)
	}
	_, hash, _ := origin.NewBook("us-east").Row(src.Image(), regiontest.Key("orders"))
	a := replica.Ack{
		Epoch: hello.Epoch, Revision: hello.Head, AgeMS: 1234, State: api.AgeStale,
		Nacks: []replica.Nack{{Key: "default/orders", Hash: hash, Reason: "no such zone"}},
	}
	if err := c.Ack(t.Context(), base, q, hello.Stream, a); err != nil {
		t.Fatal(err)
	}
	if w := s.Words(); len(w) != 1 || w[0].Revision != hello.Head || w[0].AgeMS != 1234 || w[0].Quarantined != 1 {
		t.Fatalf("%+v", w)
	}
	if err := c.Ack(t.Context(), base, q, "another", a); api.CodeOf(err) != api.CodeNotFound {
		t.Fatal(err)
	}
}
