package peer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// P8, P12: what a reader says in its acks is bounded, shown only when it can be true, and does
// not keep out what it says rightly.
func TestAcksOfALiar(t *testing.T) {
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
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 1100; n += replica.MaxNacks {
		a := replica.Ack{
			Epoch: hello.Epoch, Revision: 1 << 60, AgeMS: -5, State: api.AgeState("\x1b[31mfresh"), Quarantined: -3,
			DueMS: 1 << 62, HeldMS: 1 << 62,
		}
		for i := range replica.MaxNacks {
			a.Nacks = append(a.Nacks, replica.Nack{Key: fmt.Sprintf("default/made-up-%d", n+i), Reason: strings.Repeat("x", 3000)})
		}
		if err := c.Ack(t.Context(), base, q, hello.Stream, a); err != nil {
			t.Fatal(err)
		}
	}
	w := s.Words()
	if len(w) != 1 || w[0].AgeMS < 0 || w[0].State != "" || w[0].Canary != 0 {
		t.Errorf("%+v", w)
	}
	said := 0
	for _, r := range s.Readers()[0].QuarantinedRows {
		said += len(r.Reason)
	}
	if n := s.Readers()[0].Quarantined; n != 0 || said != 0 {
		t.Errorf("%d rows that do not exist are not used, %d bytes of reasons", n, said)
	}
	_, hash, _ := origin.NewBook("us-east").Row(src.Image(), regiontest.Key("orders"))
	honest := replica.Ack{Nacks: []replica.Nack{{Key: "default/orders", Hash: hash, Reason: strings.Repeat("y", 3000)}}}
	if err := c.Ack(t.Context(), base, q, hello.Stream, honest); err != nil {
		t.Fatal(err)
	}
	rows := s.Readers()[0].QuarantinedRows
	if len(rows) != 1 || rows[0].Row != "default/orders" || len(rows[0].Reason) > 300 {
		t.Errorf("%d rows: %.400v", len(rows), rows)
	}
}

// hoarder is a reader that takes the beginning of an answer and then no more.
type hoarder struct {
	header http.Header
	left   int
	gone   chan struct{}
}

func (h *hoarder) Header() http.Header { return h.header }
func (h *hoarder) WriteHeader(int)     {}
func (h *hoarder) Flush()              {}

func (h *hoarder) Write(b []byte) (int, error) {
	if h.left -= len(b); h.left > 0 {
		return len(b), nil
	}
	<-h.gone
	return 0, io.ErrClosedPipe
}

// hoard opens n streams of a region that take some bytes each and then nothing. It returns how
// many were refused or sent away by the time that the others stood.
func hoard(t *testing.T, s *peer.Server, region string, n, bytes int) (refused int) {
	t.Helper()
	gone, ended := make(chan struct{}), make(chan struct{}, n)
	ctx, cancel := context.WithCancel(t.Context())
	target := peer.PathStream + "?proto=1&max_proto=2&full=true&reader=" + region
	for range n {
		go func() {
			rec := &hoarder{header: http.Header{}, left: bytes, gone: gone}
			s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil))
			ended <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		close(gone)
		for range n - refused {
			<-ended
		}
	})
	open := func() (n int) {
		for _, r := range s.Readers() {
			if string(r.Region) == region && r.BytesOut > 0 {
				n++
			}
		}
		return n
	}
	for deadline := time.After(10 * time.Second); open()+refused < n; {
		select {
		case <-ended:
			refused++
		case <-time.After(10 * time.Millisecond): // a look, no bound
		case <-deadline:
			t.Fatalf("%d of %d are open", open(), n)
		}
	}
	return refused
}

// P8, P12: one region with many streams does not keep the others out.
func TestOneRegionCannotTakeAllStreams(t *testing.T) {
	src := regiontest.New("eu-west")
	s, base := door(t, peer.ServerConfig{Source: src, MaxReaders: 32})
	if n := hoard(t, s, "mallory", 32, 1<<20); n == 0 {
		t.Error("mallory has all streams")
	}
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
}

// P8, failure 58: readers of one region that take a snapshot and do not read it leave places to
// others.
func TestOneRegionCannotTakeAllPlaces(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(3, names(2000)...)
	s, base := door(t, peer.ServerConfig{Source: src, MaxSnapshots: 4})
	hoard(t, s, "mallory", 20, 2000)
	r := newReader(t, base)
	r.open()
	for range 5 {
		if f, err := r.stream.Next(); err != nil || f.Kind == replica.Goodbye {
			t.Fatalf("%+v %v", f, err)
		} else if f.Kind == replica.SnapshotBegin {
			return
		}
	}
	t.Fatal("no place for others")
}
