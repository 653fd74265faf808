package nearside

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
)

// idle fails when something of a call is left: calls counted as running, attempts that wait,
// trials that are not over.
func idle(t *testing.T, c *Client, service string) {
	t.Helper()
	for id, in := range instances(t, c, service) {
		in.region.mu.Lock()
		waiting := len(in.region.waiting)
		in.region.mu.Unlock()
		if in.inflight.Load() != 0 || waiting != 0 || in.trial.Load() != 0 {
			t.Errorf("%s: %d calls running, %d waiting in its region, trial until %d", id, in.inflight.Load(), waiting, in.trial.Load())
		}
	}
}

// What an answer asks for by Retry-After, in both forms, bounded.
func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tc := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"7", "", 7 * time.Second},
		{" 7 ", "", 7 * time.Second},
		{"86400", "", maxAsked},
		{"18446744073709551615", "", maxAsked},
		{"99999999999999999999999", "", 0},
		{"-5", "", 0},
		{"1.5", "", 0},
		{"soon", "", 0},
		{at(9 * time.Second), "", 9 * time.Second},
		{at(-9 * time.Second), "", 0},
		{at(time.Hour), "", maxAsked},
		// Its clock is an hour ahead: what counts is how long it means.
		{at(time.Hour + 9*time.Second), at(time.Hour), 9 * time.Second},
		{at(9 * time.Second), "yesterday", 9 * time.Second},
	} {
		h := http.Header{"Retry-After": {tc.value}}
		if tc.date != "" {
			h.Set("Date", tc.date)
		}
		if got := retryAfter(h, now); got != tc.want {
			t.Errorf("%q (sent %q): %s, want %s", tc.value, tc.date, got, tc.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7", "")
	f.Add("Sun, 22 Nov 2026 10:00:09 GMT", "Sun, 22 Nov 2026 10:00:00 GMT")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		if d := retryAfter(h, time.Now()); d < 0 || d > maxAsked {
			t.Errorf("%q, %q: %s", value, date, d)
		}
	})
}

func busy(after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// Row 43: an instance that asks for a pause has it, from first attempts and repeats, of every
// call; no longer than half a minute, whatever it asks for.
func TestInstanceThatAsksForAPauseHasIt(t *testing.T) {
	for asks, want := range map[string]time.Duration{"5": 5 * time.Second, "86400": maxAsked} {
		t.Run(asks, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				a := w.run("us", "shop", "a")
				w.run("us", "shop", "b")
				w.run("us", "shop", "c")
				c := w.client("us", nil)
				web := w.web(c)
				check(t, load(t, web, "http://shop/", 40, time.Second))
				a.handle = busy(asks)
				asked := a.count()
				check(t, load(t, web, "http://shop/", 40, 500*time.Millisecond))
				before := a.count()
				if before != asked+1 || opened(t, c, "shop") != 0 {
					t.Errorf("%d attempts to learn that it wants a pause, %d breakers open", before-asked, opened(t, c, "shop"))
				}
				check(t, load(t, web, "http://shop/", 40, want-time.Second))
				if n := a.count() - before; n != 0 {
					t.Errorf("%d attempts although it asked for a pause", n)
				}
				a.set(func(p *program) { p.handle = nil })
				check(t, load(t, web, "http://shop/", 40, 3*time.Second))
				if a.count() == before {
					t.Error("it is not called any more")
				}
				if n := opened(t, c, "shop"); n != 0 {
					t.Errorf("%d breakers opened", n)
				}
			})
		})
	}
}

// Row 43: where every instance asks for a pause there is one attempt per call and no more: the
// answer is the caller's, as it is, at once. First attempts are made all the same, so that it is
// seen when they are over.
func TestAllAskForAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		all := []*program{w.run("us", "shop", "a"), w.run("us", "shop", "b"), w.run("eu", "shop", "c")}
		count := func() (n int) {
			for _, p := range all {
				n += p.count()
			}
			return n
		}
		web := w.web(w.client("us", nil))
		for _, p := range all {
			p.handle = busy("20")
		}
		load(t, web, "http://shop/", 40, time.Second)
		before, calls := count(), 200
		for range calls {
			began := time.Now()
			resp, err := web.Get("http://shop/")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "20" {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			if d := time.Since(began); d > 50*time.Millisecond {
				t.Fatalf("it took %s", d)
			}
		}
		if n := count() - before; n != calls {
			t.Errorf("%d attempts of %d calls", n, calls)
		}
	})
}

// A path that is refused everywhere takes no other calls away from home, and no more than half
// of its instances.
func TestPauseOfOnePathMovesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		var home []*program
		for _, id := range []string{"a", "b", "c", "d"} {
			p := w.run("us", "shop", id)
			p.handle = func(rw http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/report" {
					busy("30")(rw, req)
				}
			}
			home = append(home, p)
		}
		far := w.run("eu", "shop", "far")
		web := w.web(w.client("us", nil))
		for range 40 {
			if _, _, _, err := get(t, web, "http://shop/report"); err != nil {
				t.Fatal(err)
			}
			check(t, load(t, web, "http://shop/", 40, 200*time.Millisecond))
		}
		if n := far.count(); n > 40 { // of the report only: its repeats
			t.Errorf("%d calls went far", n)
		}
		used := 0
		for _, p := range home {
			if p.count() > 60 {
				used++
			}
		}
		if used < 2 {
			t.Errorf("only %d of 4 instances are in use", used)
		}
	})
}

// 429 is the caller's: it is not repeated, and moves nobody's calls.
func TestTooManyRequestsIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		a, b := w.run("us", "shop", "a"), w.run("us", "shop", "b")
		for _, p := range []*program{a, b} {
			p.handle = func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Retry-After", "20")
				rw.WriteHeader(http.StatusTooManyRequests)
			}
		}
		web := w.web(w.client("us", nil))
		for range 100 {
			if _, _, status, err := get(t, web, "http://shop/"); status != 429 || err != nil {
				t.Fatal(status, err)
			}
		}
		if a.count() != 50 || b.count() != 50 {
			t.Errorf("%d and %d attempts of 100 calls", a.count(), b.count())
		}
	})
}

// A breaker that opens for an instance that asked for a pause tries it after the pause.
func TestTrialWaitsForThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		a := w.run("us", "shop", "a")
		w.run("eu", "shop", "far")
		c := w.client("us", nil)
		web := w.web(c)
		a.handle = busy("20")
		check(t, load(t, web, "http://shop/", 40, time.Second)) // alone, and so it goes on being asked
		if opened(t, c, "shop") != 1 {
			t.Fatal("its breaker should be open")
		}
		before := a.count()
		check(t, load(t, web, "http://shop/", 40, 18*time.Second))
		if n := a.count() - before; n != 0 {
			t.Errorf("%d attempts although it asked for a pause", n)
		}
		a.set(func(p *program) { p.handle = nil })
		check(t, load(t, web, "http://shop/", 40, 5*time.Second))
		if a.count() == before {
			t.Error("it is not tried")
		}
	})
}

// Calls that are declared safe to repeat, in the ways there are.
func TestDeclaredSafe(t *testing.T) {
	for _, tc := range []struct {
		name string
		ctx  bool
		keys []string // nil = no header
		want bool
	}{
		{"not at all", false, nil, false},
		{"by the context", true, nil, true},
		{"by a key", false, []string{"k"}, true},
		{"by net/http's empty list", false, []string{}, true},
		{"by an empty key: not", false, []string{""}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				for _, id := range []string{"a", "b"} {
					n := 0
					w.run("us", "shop", id).handle = func(rw http.ResponseWriter, _ *http.Request) {
						if n++; n == 1 && rw.Header() != nil {
							rw.WriteHeader(503)
						}
					}
				}
				ctx := t.Context()
				if tc.ctx {
					ctx = WithIdempotent(ctx)
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://shop/", strings.NewReader("x"))
				if tc.keys != nil {
					req.Header[idempotencyKey] = tc.keys
				}
				resp, err := w.web(w.client("us", nil)).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := resp.Header.Get(HeaderAttempts) == "2"; got != tc.want {
					t.Errorf("repeated: %v (%d)", got, resp.StatusCode)
				}
			})
		})
	}
}

// Row 43: while everything fails, repeats are a tenth of the calls and the reserve, be the calls
// many or few, and however long it lasts. Afterwards the reserve is there again.
func TestRepeatsUnderTotalFailure(t *testing.T) {
	for _, rate := range []int{5, 100} {
		t.Run(fmt.Sprintf("%d calls a second", rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				all := []*program{w.run("us", "shop", "a"), w.run("us", "shop", "b"), w.run("eu", "shop", "c")}
				for _, p := range all {
					p.status = 503
				}
				c := w.client("us", nil)
				web := w.web(c)
				calls := load(t, web, "http://shop/", rate, time.Minute)
				n := 0
				for _, p := range all {
					n += p.count()
				}
				extra := n - len(calls)
				t.Logf("%d repeats of %d calls", extra, len(calls))
				// The reserve, and what came by time until it was seen that all fails.
				if most := len(calls)/10 + budgetReserve + budgetPerSec*goodOver/(2*rate) + 1; extra > most {
					t.Errorf("%d repeats of %d calls, at most %d wanted", extra, len(calls), most)
				}
				for _, p := range all {
					p.set(func(p *program) { p.status = 0 })
				}
				load(t, web, "http://shop/", 10, 30*time.Second)
				c.budget.mu.Lock()
				defer c.budget.mu.Unlock()
				if c.budget.tokens < budgetReserve {
					t.Errorf("%v are in the budget after half a good minute", c.budget.tokens)
				}
			})
		})
	}
}

// Row 44: calls that are given up at any moment leave nothing behind, and open no breaker.
func TestCallsGivenUpLeaveNothing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		method string
		handle http.HandlerFunc
		body   func() io.Reader
	}{
		{"while it waits", "GET", func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }, nil},
		{"while the answer comes", "GET", func(rw http.ResponseWriter, req *http.Request) {
			_, _ = io.WriteString(rw, "begin")
			_ = http.NewResponseController(rw).Flush()
			<-req.Context().Done()
		}, nil},
		{
			"while the body is sent", "PUT", func(_ http.ResponseWriter, req *http.Request) { _, _ = io.Copy(io.Discard, req.Body) },
			func() io.Reader { return endless{} },
		},
		{"between two attempts", "GET", func(rw http.ResponseWriter, req *http.Request) {
			busy("")(rw, req)
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				near, far := w.run("us", "shop", "near"), w.run("eu", "shop", "far")
				near.handle, far.handle = tc.handle, tc.handle
				c := w.client("us", nil)
				web := w.web(c)
				if _, err := c.Resolve(t.Context(), "shop"); err != nil {
					t.Fatal(err)
				}
				for i := range 40 {
					ctx, cancel := context.WithCancel(t.Context())
					var body io.Reader
					if tc.body != nil {
						body = tc.body()
					}
					req, _ := http.NewRequestWithContext(ctx, tc.method, "http://shop/", body)
					time.AfterFunc(time.Duration(i)*time.Millisecond/4, cancel)
					resp, err := web.Do(req)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						_ = resp.Body.Close()
					}
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
					cancel()
				}
				synctest.Wait()
				idle(t, c, "shop")
				for id, in := range instances(t, c, "shop") {
					if tc.name != "between two attempts" && !in.is(gobreaker.StateClosed) {
						t.Errorf("the breaker of %s is not closed", id)
					}
				}
			})
		})
	}
}

// endless is a slow body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return copy(p, "and so on"), nil
}

// Deadlines are kept: whatever fails, and however often it is repeated, the caller has its
// answer or its error in time.
func TestDeadlinesAreKept(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"hung": func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
		"busy": busy("3"),
		"slow": func(_ http.ResponseWriter, req *http.Request) {
			select {
			case <-time.After(900 * time.Millisecond):
			case <-req.Context().Done():
			}
		},
		"trickle": func(rw http.ResponseWriter, req *http.Request) {
			for req.Context().Err() == nil {
				_, _ = io.WriteString(rw, "x")
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-time.After(100 * time.Millisecond):
				case <-req.Context().Done():
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				for _, id := range []string{"a", "b"} {
					w.run("us", "shop", id).handle = handle
					w.run("eu", "shop", "far"+id).handle = handle
				}
				c := w.client("us", nil)
				web := w.web(c)
				for i := range 30 {
					limit := time.Duration(1+i) * 137 * time.Millisecond
					began := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop/", nil)
					resp, err := web.Do(req)
					if err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
					if d := time.Since(began); d > limit {
						t.Errorf("a call with %s took %s", limit, d)
					}
					cancel()
				}
				synctest.Wait()
				idle(t, c, "shop")
			})
		})
	}
}

// Callers whose own deadline is shorter than an attempt's limit find out about a hung instance
// too, after two calls that it costs; and an instance that merely never answered in
// so short a time is not condemned for it.
func TestShortDeadlines(t *testing.T) {
	call := func(t *testing.T, web *http.Client, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop/", nil)
		resp, err := web.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	for _, limit := range []time.Duration{400 * time.Millisecond, 800 * time.Millisecond} {
		t.Run(fmt.Sprint("hung, ", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				a := w.run("us", "shop", "a")
				w.run("us", "shop", "b")
				web := w.web(w.client("us", nil))
				check(t, load(t, web, "http://shop/", 40, time.Second))
				hold(a)
				failed := 0
				for range 300 {
					if call(t, web, limit) != nil {
						failed++
					}
					time.Sleep(100 * time.Millisecond)
				}
				// Two, and some of the trials in half a minute.
				if failed > 8 {
					t.Errorf("%d of 300 calls failed", failed)
				}
			})
		})
	}
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			w.run("us", "shop", "a").delay = 700 * time.Millisecond
			w.run("eu", "shop", "far")
			c := w.client("us", nil)
			web := w.web(c)
			for range 50 {
				if err := call(t, web, 600*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			}
			if n := opened(t, c, "shop"); n != 0 {
				t.Errorf("%d breakers opened", n)
			}
		})
	})
}

// Bodies come a second and a third time byte for byte, of known length and unknown, however
// much of them was read before.
func TestBodiesAreRepeatedByteForByte(t *testing.T) {
	want := make([]byte, 200<<10)
	_, _ = rand.Read(want)
	for _, known := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us")
			var mu sync.Mutex
			n := 0
			var got []byte
			var length int64
			for _, id := range []string{"a", "b", "c"} {
				w.run("us", "shop", id).handle = func(rw http.ResponseWriter, req *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					switch n++; n {
					case 1:
						_, _ = io.CopyN(io.Discard, req.Body, 70_000)
						panic(http.ErrAbortHandler)
					case 2:
						_, _ = io.Copy(io.Discard, req.Body)
						rw.WriteHeader(503)
					default:
						got, _ = io.ReadAll(req.Body)
						length = req.ContentLength
					}
				}
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://shop/", bytes.NewReader(want))
			wantLength := req.ContentLength
			if !known {
				req.ContentLength, wantLength = -1, -1
			}
			c := w.client("us", nil)
			resp, err := w.web(c).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if n != 3 || !bytes.Equal(got, want) || length != wantLength {
				t.Errorf("%d attempts, %d bytes, length %d", n, len(got), length)
			}
			idle(t, c, "shop")
		})
	}
}

// A body that waits for "100 Continue" is not sent to an instance that refuses it, and is there
// for the next one.
func TestExpectContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "shop", "near").handle = busy("")
		var got []byte
		w.run("eu", "shop", "far").handle = func(_ http.ResponseWriter, req *http.Request) { got, _ = io.ReadAll(req.Body) }
		base := w.net.transport(t)
		base.ExpectContinueTimeout = 10 * time.Second
		c := w.client("us", nil)
		reads := 0
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://shop/", strings.NewReader("body"))
		req.Body = &countReads{ReadCloser: req.Body, n: &reads}
		req.Header.Set("Expect", "100-continue")
		resp, err := c.Transport(base).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || string(got) != "body" || reads == 0 {
			t.Errorf("%d %q, %d reads", resp.StatusCode, got, reads)
		}
	})
}

type countReads struct {
	io.ReadCloser
	n *int
}

func (c *countReads) Read(p []byte) (int, error) { *c.n++; return c.ReadCloser.Read(p) }

// HTTP/2 below: repeats, trailers of both sides, and a killed connection.
func TestOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		near, far := w.run("us", "shop", "near"), w.run("eu", "shop", "far")
		echo := func(rw http.ResponseWriter, req *http.Request) {
			if req.ProtoMajor != 2 {
				t.Errorf("HTTP/%d", req.ProtoMajor)
			}
			rw.Header().Set("Trailer", "Sum")
			b, _ := io.ReadAll(req.Body)
			_, _ = rw.Write(b)
			rw.Header().Set("Sum", req.Trailer.Get("Sum"))
		}
		near.handle, far.handle = echo, echo
		base := w.net.transport(t)
		base.Protocols = new(http.Protocols)
		base.Protocols.SetUnencryptedHTTP2(true)
		c := w.client("us", nil)
		web := &http.Client{Transport: c.Transport(base)}
		call := func() (string, string) {
			t.Helper()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://shop/", strings.NewReader("body"))
			req.ContentLength = -1
			req.Trailer = http.Header{"Sum": nil}
			// The sum is known when the body was read.
			req.GetBody = func() (io.ReadCloser, error) {
				b := io.NopCloser(strings.NewReader("body"))
				return &atEnd{ReadCloser: b, then: func() { req.Trailer.Set("Sum", "4") }}, nil
			}
			req.Body, _ = req.GetBody()
			resp, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || string(b) != "body" {
				t.Fatal(string(b), err)
			}
			return resp.Header.Get(HeaderServedRegion), resp.Trailer.Get("Sum")
		}
		if r, sum := call(); r != "us" || sum != "4" {
			t.Errorf("%s, sum %q", r, sum)
		}
		near.set(func(p *program) { p.handle = busy("") })
		if r, sum := call(); r != "eu" || sum != "4" {
			t.Errorf("busy: %s, sum %q", r, sum)
		}
		near.set(func(p *program) { p.handle = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } })
		if r, _ := call(); r != "eu" {
			t.Errorf("reset: %s", r)
		}
		w.net.kill(w.addr("us", "shop", "near"))
		if r, _ := call(); r != "eu" {
			t.Errorf("killed: %s", r)
		}
		synctest.Wait()
		idle(t, c, "shop")
	})
}

// atEnd tells when a body was read.
type atEnd struct {
	io.ReadCloser
	then func()
}

func (b *atEnd) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.then()
	}
	return n, err
}

// Trailers of both sides over HTTP/1.1, where the caller fills its own while the body is read.
func TestTrailers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.run("us", "shop", "a").handle = func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Trailer", "Sum")
			_, _ = io.Copy(rw, req.Body)
			rw.Header().Set("Sum", "got "+req.Trailer.Get("Sum"))
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop/", nil)
		req.Trailer = http.Header{"Sum": nil}
		req.Body = &atEnd{ReadCloser: io.NopCloser(strings.NewReader("body")), then: func() { req.Trailer.Set("Sum", "4") }}
		resp, err := w.web(w.client("us", nil)).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(b) != "body" || resp.Trailer.Get("Sum") != "got 4" {
			t.Errorf("%q %v", b, resp.Trailer)
		}
	})
}

// A connection that switched protocols belongs to the caller, in both directions, and counts as
// running until it is closed.
func TestUpgradedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "shop", "near")
		w.net.kill(w.addr("us", "shop", "near")) // refused: the next one is asked
		w.run("eu", "shop", "far").handle = func(rw http.ResponseWriter, _ *http.Request) {
			conn, rd, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			line, _ := rd.ReadString('\n')
			_, _ = io.WriteString(conn, "you said "+line)
		}
		c := w.client("us", nil)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop/", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := c.Transport(w.net.transport(t)).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		conn, ok := resp.Body.(io.ReadWriteCloser)
		if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%d %T", resp.StatusCode, resp.Body)
		}
		time.Sleep(10 * time.Second) // no attempt's time ends it
		_, _ = io.WriteString(conn, "hello\n")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "you said hello\n" || err != nil {
			t.Errorf("%q %v", line, err)
		}
		far := instances(t, c, "shop")["far"]
		if n := far.inflight.Load(); n != 1 {
			t.Errorf("%d calls are running while it is open", n)
		}
		_ = conn.Close()
		idle(t, c, "shop")
	})
}

// An answer without a body is over with its headers, whether the caller closes it or not.
func TestAnswersWithoutABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.run("us", "shop", "a").handle = func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Content-Length", "4")
			if req.Method != http.MethodHead {
				rw.Header().Del("Content-Length")
				rw.WriteHeader(http.StatusNoContent)
			}
		}
		c := w.client("us", nil)
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			req, _ := http.NewRequestWithContext(t.Context(), method, "http://shop/", nil)
			resp, err := c.Transport(w.net.transport(t)).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if method == http.MethodHead && resp.ContentLength != 4 {
				t.Errorf("length %d", resp.ContentLength)
			}
			idle(t, c, "shop")
		}
	})
}

// A base transport that panics, as one in between may, leaves nothing behind.
func TestPanickingBaseLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "shop", "a")
		c := w.client("us", nil)
		base := tripper(func(*http.Request) (*http.Response, error) { panic("broken") })
		for range 20 {
			func() {
				defer func() {
					if p := recover(); p != "broken" {
						t.Errorf("%v", p)
					}
				}()
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop/", nil)
				_, _ = c.Transport(base).RoundTrip(req)
			}()
		}
		idle(t, c, "shop")
		time.Sleep(10 * time.Second)
		if n := opened(t, c, "shop"); n != 0 {
			t.Errorf("%d breakers opened", n)
		}
	})
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
