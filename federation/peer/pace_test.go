package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// The first change goes at once; under churn the distance grows to MaxCoalesce and no
// further; after a quiet moment the next goes at once again.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		wait := func() time.Duration {
			began := time.Now()
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.sent()
			return time.Since(began)
		}
		if d := wait(); d != 0 {
			t.Fatalf("the first waits %s", d)
		}
		var waits []time.Duration
		for range 10 {
			waits = append(waits, wait())
		}
		if waits[0] != minCoalesce || waits[9] != MaxCoalesce || !slices.IsSorted(waits) {
			t.Fatalf("%v", waits)
		}
		<-time.After(time.Second)
		if d := wait(); d != 0 {
			t.Fatalf("after a quiet moment it waits %s", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// A region that is away is tried every 1.5 s at least, however long it is away; one that
// answers wrongly ever more rarely; waits differ between nodes.
func TestBackoff(t *testing.T) {
	var away, offended, other Backoff
	longest, same := time.Duration(0), 0
	for range 1000 {
		d := away.Next(ErrSilent)
		if d < backoffBase || d > backoffAway {
			t.Fatalf("away: %s", d)
		}
		o := offended.Next(&api.Error{Code: api.CodeConflict})
		if o < backoffBase || o > backoffOffended {
			t.Fatalf("offended: %s", o)
		}
		longest = max(longest, o)
		if other.Next(ErrSilent) == d {
			same++
		}
	}
	if longest < backoffOffended/2 || same > 10 {
		t.Fatalf("longest %s, %d equal waits", longest, same)
	}
	away.Reset()
	if d := away.Next(ErrEnded); d > 2*backoffBase {
		t.Fatalf("after a success: %s", d)
	}
	if Offended(ErrEnded) || !Offended(replica.ErrMalformed) || Offended(&api.Error{Code: api.CodeUnavailable}) {
		t.Fatal("Offended")
	}
}

// A dead address costs nothing while another works; when all are dead they are tried in
// turn all the same; one that returns is used at once.
func TestRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := map[string]bool{"a": true}
		var tried []string
		try := func(_ context.Context, address string) error {
			tried = append(tried, address)
			if dead[address] {
				return errors.New("refused")
			}
			return nil
		}
		r := NewRing([]string{"a", "b"})
		for range 5 {
			tried = nil
			if got, err := r.Try(t.Context(), try); err != nil || got != "b" {
				t.Fatal(got, err)
			}
			r.next = 0 // as if a were first again
		}
		if len(tried) != 1 {
			t.Fatalf("a dead address is tried: %v", tried)
		}
		dead["b"] = true
		for range 10 {
			tried = nil
			if _, err := r.Try(t.Context(), try); err == nil || len(tried) == 0 {
				t.Fatalf("%v %v", tried, err)
			}
		}
		dead["a"] = false
		for range 2 {
			if got, err := r.Try(t.Context(), try); err == nil && got == "a" {
				return
			}
		}
		t.Fatal("the address that returned is not used")
	})
}

// A cancelled attempt is no failure of the address.
func TestRingIgnoresCancel(t *testing.T) {
	r := NewRing([]string{"a", "b"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		n := 0
		_, err := r.Try(ctx, func(ctx context.Context, _ string) error { n++; return ctx.Err() })
		if !errors.Is(err, context.Canceled) || n != 1 {
			t.Fatal(n, err)
		}
	}
	if r.entries[0].breaker.State().String() != "closed" {
		t.Fatal("the breaker opened")
	}
}

// P8: reader regions that are gone are forgotten, those with a stream are not.
func TestShelfIsBounded(t *testing.T) {
	s := shelf{places: 1, books: map[bookKey]*book{}, passed: map[api.Region]uint64{}}
	now := time.Now()
	open := s.open("kept", nil, now)
	for i := range 1000 {
		b := s.open(api.Region(rune('a'+i%26))+api.Region(rune('a'+i/26)), nil, now.Add(time.Duration(i)))
		s.close(b, now.Add(time.Duration(i)))
	}
	if len(s.books) > maxBooks || s.books[bookKey{reader: "kept"}] != open {
		t.Fatalf("%d books", len(s.books))
	}
	// With more streams than that at once there are more books, and afterwards no more.
	var storm []*book
	for i := range 2 * maxBooks {
		storm = append(storm, s.open(api.Region(fmt.Sprintf("r%d", i)), nil, now))
	}
	for _, b := range storm {
		s.close(b, now)
	}
	if len(s.books) > maxBooks || s.books[bookKey{reader: "kept"}] != open {
		t.Fatalf("%d books after a storm", len(s.books))
	}
}
