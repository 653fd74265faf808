package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// says is an origin that sends what frames returns for each second that a stream lives.
func says(frames func(second int) []any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != peer.PathStream {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", peer.StreamType)
		for second := 0; ; second++ {
			for _, f := range frames(second) {
				line := []byte(fmt.Sprint(f))
				if frame, ok := f.(replica.Frame); ok {
					line, _ = json.Marshal(frame)
				}
				if _, err := w.Write(append(line, '\n')); err != nil {
					return
				}
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

var lies = api.Epoch{Generation: 7, Nonce: 7}

func greets(head uint64) replica.Frame {
	return replica.Frame{Kind: replica.Hello, Proto: 2, Region: "eu-west", Node: "n9", Epoch: lies, Head: head, Complete: true}
}

// P6: a node that answers and says nothing of use does not keep a region from being read where
// another node of it is well.
func TestHungNodeIsLeft(t *testing.T) {
	for name, frames := range map[string]func(int) []any{
		"it never greets": func(int) []any { return []any{""} },
		"it greets only":  func(s int) []any { return append([]any{""}, []any{greets(5)}[min(s, 1):]...) },
		"it greets for ever": func(int) []any {
			return []any{greets(5)}
		},
		"its snapshot never ends": func(s int) []any {
			if s == 0 {
				return []any{greets(5), replica.Frame{Kind: replica.SnapshotBegin, Epoch: lies, To: 5}}
			}
			return []any{replica.Frame{Kind: replica.SnapshotChunk, Epoch: lies}}
		},
		"garbage": func(int) []any { return []any{"{"} },
		"its rows never add up": func(s int) []any {
			if s > 0 {
				return nil
			}
			return []any{
				greets(5),
				replica.Frame{Kind: replica.SnapshotBegin, Epoch: lies, To: 5},
				replica.Frame{Kind: replica.SnapshotEnd, Epoch: lies, To: 5, Count: 0, Digest: 1},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *network) {
				us, eu := newRegion(t, n, "us-east"), newRegion(t, n, "eu-west")
				us.peers["eu-west"] = []string{"http://eu-hung:7402", "http://eu-west:7402"}
				eu.source.Set(2, "orders")
				var streams atomic.Int64
				hung := says(frames)
				_, stop := n.serve("eu-hung", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == peer.PathStream {
						streams.Add(1)
					}
					hung(w, r)
				}))
				defer stop()
				eu.start()
				defer eu.stop()
				us.start()
				defer us.stop()
				began := time.Now()
				for us.passing("eu-west", "orders") != 2 {
					if time.Since(began) > 5*time.Minute {
						t.Fatalf("not read after %s, %d streams: %+v", time.Since(began), streams.Load(), us.link("eu-west"))
					}
					after(time.Second)
				}
				t.Logf("read by the other node after %s, %d streams of the hung one", time.Since(began), streams.Load())
			})
		})
	}
}

// P8: an origin whose rows never add up is asked for them less and less often.
func TestRowsThatNeverAddUpAreNotPulledWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		var streams atomic.Int64
		liar := says(func(s int) []any {
			if s > 0 {
				return nil
			}
			streams.Add(1)
			return []any{
				greets(5),
				replica.Frame{Kind: replica.SnapshotBegin, Epoch: lies, To: 5},
				replica.Frame{Kind: replica.SnapshotEnd, Epoch: lies, To: 5, Count: 0, Digest: 1},
			}
		})
		_, stop := n.serve("eu-west", liar)
		defer stop()
		us.start()
		defer us.stop()
		after(10 * time.Minute)
		if s := streams.Load(); s > 300 {
			t.Fatalf("%d snapshots in 10 minutes", s)
		}
	})
}

// P5, P12: a reader that claims versions which we never had makes us begin a few new epochs,
// not one a second: each costs every watcher of the region a reset. Who tells the truth is
// heard meanwhile.
func TestLiarDoesNotRaiseTheEpochWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		ctx, cancel := context.WithCancel(t.Context())
		hc := n.client()
		c := peer.NewClient(hc, nil)
		var wg sync.WaitGroup
		defer func() {
			cancel()
			wg.Wait()
			hc.CloseIdleConnections()
		}()
		for range 20 {
			wg.Go(func() {
				for ctx.Err() == nil {
					have := eu.source.Version()
					have.Revision += 1_000_000
					if s, err := c.Open(ctx, "http://eu-west:7402", peer.Query{Reader: "mallory", Origin: "eu-west", Have: have}, nil); err == nil {
						s.Close()
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			})
		}
		after(10 * time.Minute)
		if n := eu.source.Raised(); n > 30 {
			t.Errorf("the epoch was raised %d times in 10 minutes", n)
		}
		us.converged(eu)
		eu.host.kill()
		eu.source.Wipe()
		eu.source.Set(3, "orders")
		before := eu.source.Raised()
		began := time.Now()
		eu.host.restore()
		us.until("the truth is heard", func() bool {
			return eu.source.Raised() > before && us.origin("eu-west").Epoch == eu.source.Version().Epoch
		})
		t.Logf("raised %d times; after a loss heard in %s", before, time.Since(began))
		us.has("eu-west", "orders", 3)
	})
}
