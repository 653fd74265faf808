package nearside

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// station is a registry for very many clients: an http.RoundTripper that answers watches and
// heartbeats without connections, and notes when they came.
type station struct {
	mu       sync.Mutex
	down     bool
	open     map[*io.PipeWriter]struct{}
	arrivals []time.Time // of watches that were answered
	tried    []time.Time // of all
	beats    int
}

func (s *station) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if req.Body != nil {
		_ = req.Body.Close()
	}
	watch := req.URL.Path == api.PathWatch
	if watch {
		s.tried = append(s.tried, now)
	}
	if s.down {
		return nil, io.ErrUnexpectedEOF
	}
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: req, ProtoMajor: 1, ProtoMinor: 1}
	resp.Header.Set(api.HeaderRegion, "us")
	v := api.Version{Region: "us", Epoch: api.Epoch{Generation: 1, Nonce: 1}, Revision: 1}
	if !watch {
		s.beats++
		resp.Body = io.NopCloser(jsonReader(api.HeartbeatAck{Epoch: v.Epoch}))
		resp.Header.Set("Content-Type", "application/json")
		return resp, nil
	}
	s.arrivals = append(s.arrivals, now)
	r, w := io.Pipe()
	s.open[w] = struct{}{}
	go func() { // what a server does: send, then a sign of life now and then, until the end
		in := &api.Instance{Namespace: "default", Service: "orders", ID: "a", Address: "h", Port: 80, Weight: 100, Status: api.StatusPassing}
		err := send(w, api.Frame{Kind: api.FrameItem, Version: v, Instance: in})
		if err == nil {
			err = send(w, api.Frame{Kind: api.FrameSynced, Version: v})
		}
		for err == nil {
			select {
			case <-time.After(api.BookmarkInterval):
				err = send(w, api.Frame{Kind: api.FrameBookmark, Version: v})
			case <-req.Context().Done():
				err = req.Context().Err()
			}
		}
		_ = w.CloseWithError(err)
		s.mu.Lock()
		delete(s.open, w)
		s.mu.Unlock()
	}()
	resp.Header.Set("Content-Type", "text/event-stream")
	resp.Body = r
	return resp, nil
}

func jsonReader(v any) io.Reader {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(json.NewEncoder(w).Encode(v)) }()
	return r
}

func send(w io.Writer, f api.Frame) error {
	b, err := json.Marshal(f)
	if err == nil {
		_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", f.Kind, b)
	}
	return err
}

// lose ends all streams in one moment.
func (s *station) lose(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.arrivals, s.tried, s.beats = down, nil, nil, 0
	for w := range s.open {
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
		delete(s.open, w)
	}
}

func (s *station) streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// peak returns the most of them within any such time.
func peak(at []time.Time, within time.Duration) int {
	at = slices.SortedFunc(slices.Values(at), time.Time.Compare)
	most, from := 0, 0
	for i := range at {
		for at[i].Sub(at[from]) >= within {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// Test 19, row 43, P8: 10,000 clients (500 with the race detector, which bears no more
// goroutines) lose their registry in one moment, for 30 s, and find it again: spread over time,
// all of them, without help; and again when it only drops their streams. Picks go on, and nothing
// is left.
func TestFleetFindsItsRegistryAgain(t *testing.T) {
	n := 10_000
	if raced {
		n = 500
	}
	base := runtime.NumGoroutine()
	synctest.Test(t, func(t *testing.T) {
		s := &station{open: map[*io.PipeWriter]struct{}{}}
		fleet := make([]*Client, n)
		for i := range fleet {
			c, err := New(Config{Addresses: []string{"http://us.registry:7400"}, Region: "us", HTTPClient: &http.Client{Transport: s}})
			if err != nil {
				t.Fatal(err)
			}
			fleet[i] = c
			if _, err := c.Pick(t.Context(), "orders"); err != nil {
				t.Fatal(err)
			}
		}
		picks := func(when string) {
			t.Helper()
			for i, c := range fleet {
				if _, err := c.Pick(t.Context(), "orders"); err != nil {
					t.Fatalf("%s: client %d: %v", when, i, err)
				}
			}
		}
		// came checks that all are back, no more than a share of them in any tenth of a second.
		came := func(what string, within time.Duration, share float64) {
			t.Helper()
			start := time.Now()
			for s.streams() < n && time.Since(start) < within {
				time.Sleep(50 * time.Millisecond)
			}
			took := time.Since(start)
			s.mu.Lock()
			defer s.mu.Unlock()
			tenth, moment := peak(s.arrivals, 100*time.Millisecond), peak(s.arrivals, time.Millisecond)
			t.Logf("%s: %d of %d back in %s; %d at most in a tenth of a second, %d in a millisecond; %d tries", what, len(s.open), n, took, tenth, moment, len(s.tried))
			if len(s.open) != n {
				t.Errorf("%s: %d of %d are back after %s", what, len(s.open), n, took)
			}
			if float64(tenth) > share*float64(n) || moment > n/50+10 {
				t.Errorf("%s: a herd: %d in a tenth of a second, %d in a millisecond", what, tenth, moment)
			}
		}
		s.lose(true)
		time.Sleep(30 * time.Second)
		picks("without a registry")
		s.mu.Lock()
		tried := len(s.tried)
		last := peak(s.tried[tried*2/3:], time.Second)
		s.down, s.tried = false, nil
		s.mu.Unlock()
		t.Logf("while it was away: %d tries per client, %d at most in a second of the last third", tried/n, last)
		// After ten looks in the first second each tries every two or three seconds.
		if tried/n > 30 || last > n {
			t.Errorf("%d tries per client in 30 s, %d in one second", tried/n, last)
		}
		came("back after 30 s", 6*time.Second, 0.10)
		time.Sleep(10 * time.Second)
		s.lose(false)
		picks("in the moment of the loss")
		came("streams dropped", 2*time.Second, 0.45)
		for _, c := range fleet {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if s.streams() != 0 {
			t.Errorf("%d streams are left", s.streams())
		}
	}) // the bubble fails when a goroutine is left
	if g := runtime.NumGoroutine(); g > base+2 {
		t.Errorf("P8: %d goroutines, %d before", g, base)
	}
}
