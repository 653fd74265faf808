package nearside

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// copies hands out copies of a body and knows how many of them are open still. Transports close
// them from goroutines of their own.
type copies struct{ made, open atomic.Int32 }

type oneCopy struct {
	io.Reader
	once sync.Once
	of   *copies
}

func (c *copies) next() (io.ReadCloser, error) {
	c.made.Add(1)
	c.open.Add(1)
	return &oneCopy{Reader: strings.NewReader("body"), of: c}, nil
}

func (o *oneCopy) Close() error {
	o.once.Do(func() { o.of.open.Add(-1) })
	return nil
}

// A RoundTripper always closes the body of a request. Also when its repeat was made ready and then
// not made: because no instance is left, or the budget has nothing. A program that writes into a
// pipe waits for that.
func TestBodyIsClosedWhenNoRepeatIsMade(t *testing.T) {
	for _, tc := range []struct {
		name   string
		handle http.HandlerFunc // nil = it refuses
		poor   bool
		made   int32
	}{
		{"all refuse", nil, false, 1},
		{"all ask for a pause", busy("5"), false, 3},
		{"nothing left of the budget", busy(""), true, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				for _, id := range []string{"a", "b"} {
					p := w.run("us", "shop", id)
					if tc.handle == nil {
						w.net.kill(w.addr("us", "shop", id))
					} else {
						p.set(func(p *program) { p.handle = tc.handle })
					}
				}
				c := w.client("us", nil)
				for tc.poor && c.budget.spend(time.Now()) {
				}
				all := &copies{}
				req := shop(t.Context(), http.MethodPut, "body")
				req.Body, _ = all.next()
				req.GetBody = all.next
				resp, err := c.Transport(w.net.transport(t)).RoundTrip(req)
				if (err == nil) != (tc.handle != nil) {
					t.Error(err)
				}
				if err == nil {
					_ = resp.Body.Close()
				}
				synctest.Wait()
				if open, made := all.open.Load(), all.made.Load(); open != 0 || made != tc.made {
					t.Errorf("%d of %d bodies are open, want %d made", open, made, tc.made)
				}
				idle(t, c, "shop")
			})
		})
	}
}

// What http.Client puts up with in a base transport, its answers without headers or a body, is put up
// with here; what it refuses is an error. Nothing panics, and nothing of the call is left.
func TestAnswersThatLackParts(t *testing.T) {
	for _, tc := range []struct {
		name string
		resp func() *http.Response
		want string // of the error; "" = an answer
	}{
		{"no headers", func() *http.Response {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(""))}
		}, ""},
		{"no body", func() *http.Response { return &http.Response{StatusCode: 200, Header: http.Header{}} }, ""},
		{"no body, repeated", func() *http.Response { return &http.Response{StatusCode: 503} }, ""},
		{"a length and no body", func() *http.Response { return &http.Response{StatusCode: 200, ContentLength: 4} }, "without a body"},
		{"nothing", func() *http.Response { return nil }, "neither"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				w.run("us", "shop", "a")
				w.run("us", "shop", "b")
				c := w.client("us", nil)
				base := tripper(func(*http.Request) (*http.Response, error) { return tc.resp(), nil })
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					resp, err := c.Transport(base).RoundTrip(shop(t.Context(), method, ""))
					if tc.want == "" {
						if err != nil {
							t.Fatal(err)
						}
						if b, err := io.ReadAll(resp.Body); len(b) != 0 || err != nil || resp.Header.Get(HeaderServedRegion) != "us" {
							t.Errorf("%q, %v, %v", b, err, resp.Header)
						}
						_ = resp.Body.Close()
					} else if err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("%v", err)
					}
				}
				synctest.Wait()
				idle(t, c, "shop")
			})
		})
	}
}

// Instances that answer 503, announce a body and stall hold up neither the repeat elsewhere nor a
// call that asked two of them.
func TestStalledFailureHoldsNobodyUp(t *testing.T) {
	for name, change := range map[string]func(*Config){"repeated": nil, "hedged": hedging} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				for _, id := range []string{"a", "b"} {
					w.run("us", "shop", id).handle = func(rw http.ResponseWriter, req *http.Request) {
						time.Sleep(60 * ms) // so that a rival is under way
						rw.Header().Set("Content-Length", "100")
						rw.WriteHeader(http.StatusServiceUnavailable)
						_ = http.NewResponseController(rw).Flush()
						select {
						case <-req.Context().Done():
						case <-time.After(20 * time.Second):
						}
					}
				}
				w.lazy("eu", "far", 0)
				c := w.client("us", change)
				id, attempts, took := answered(t, w.web(c), shop(t.Context(), "GET", ""))
				if id != "far" || attempts != "3" || took > 300*ms {
					t.Errorf("served by %s after %s attempts and %s", id, attempts, took)
				}
				time.Sleep(time.Minute) // the handlers end
				idle(t, c, "shop")
			})
		})
	}
}

// A failure whose body is short leaves its connection to the calls that follow.
func TestFailureLeavesItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "shop", "a").handle = func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusServiceUnavailable)
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(5 * ms)
			_, _ = io.WriteString(rw, "busy")
		}
		w.lazy("eu", "far", 0)
		c := w.client("us", nil)
		web := w.web(c)
		for range 3 {
			if id, _, _ := answered(t, web, shop(t.Context(), "GET", "")); id != "far" {
				t.Errorf("served by %s", id)
			}
		}
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		if n := len(w.net.conns[w.addr("us", "shop", "a")]); n != 2 {
			t.Errorf("%d ends of connections, want the two of one", n)
		}
	})
}
