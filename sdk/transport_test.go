package nearside

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// web returns a client that calls services over the world's network.
func (w *world) web(c *Client) *http.Client {
	return &http.Client{Transport: c.Transport(w.net.transport(w.t))}
}

// P3: the region that serves a service is killed; calls move to the third region and none
// that is safe to repeat fails.
func TestRegionKilledMovesCallsToTheThird(t *testing.T) {
	for name, fault := range map[string]func(*memNet, string){
		"refused": func(n *memNet, a string) { n.kill(a) },
		"hung":    func(n *memNet, a string) { n.hang(a, true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu", "ap")
				var dead []string
				for _, id := range []string{"p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10"} {
					w.run("eu", "payments", id)
					dead = append(dead, w.addr("eu", "payments", id))
				}
				w.run("ap", "payments", "q")
				c := w.client("us", nil)
				web := w.web(c)
				if r, _, _, err := get(t, web, "http://payments/x"); r != "eu" || err != nil {
					t.Fatal(r, err)
				}
				for _, a := range append(dead, w.regions["eu"].addr) {
					fault(w.net, a)
				}
				worst := time.Duration(0)
				for i := range 200 {
					start := time.Now()
					r, _, status, err := get(t, web, "http://payments/x")
					worst = max(worst, time.Since(start))
					if err != nil || r != "ap" || status != 200 {
						t.Fatalf("call %d: served by %q, %d, %v", i, r, status, err)
					}
					time.Sleep(25 * time.Millisecond)
				}
				if worst > 2500*time.Millisecond {
					t.Errorf("the slowest call took %s", worst)
				}
				start := time.Now()
				if _, _, _, err := get(t, web, "http://payments/x"); err != nil || time.Since(start) > 0 {
					t.Errorf("by now breakers keep calls away: %v after %s", err, time.Since(start))
				}
			})
		})
	}
}

// P3: a single stopped instance costs one attempt's time, its breaker opens after a few,
// and it gets calls again when it answers again.
func TestStoppedInstanceIsLeftAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.run("us", "orders", "a")
		w.run("us", "orders", "b")
		c := w.client("us", nil)
		web := w.web(c)
		if _, _, _, err := get(t, web, "http://orders/"); err != nil {
			t.Fatal(err)
		}
		w.net.hang(w.addr("us", "orders", "a"), true)
		slow := 0
		for range 40 {
			start := time.Now()
			if _, id, _, err := get(t, web, "http://orders/"); err != nil || id != "b" {
				t.Fatal(id, err)
			}
			if d := time.Since(start); d > 1100*time.Millisecond {
				t.Fatalf("one call took %s", d)
			} else if d > 0 {
				slow++
			}
		}
		if slow > tripConsecutive+2 {
			t.Errorf("%d calls had to wait; the breaker should have opened after %d", slow, tripConsecutive)
		}
		w.net.hang(w.addr("us", "orders", "a"), false)
		back := 0
		for range 400 {
			_, id, _, err := get(t, web, "http://orders/")
			if err != nil {
				t.Fatal(err)
			}
			if id == "a" {
				back++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if back < 50 {
			t.Errorf("a got %d of 400 calls after it came back", back)
		}
	})
}

// P3: traffic comes home within seconds of home's return, without a failed call.
func TestCallsComeHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		p := w.run("us", "orders", "near")
		w.run("eu", "orders", "far")
		c := w.client("us", nil)
		web := w.web(c)
		if r, _, _, _ := get(t, web, "http://orders/"); r != "us" {
			t.Fatal(r)
		}
		near := w.addr("us", "orders", "near")
		w.net.kill(near)
		if r, _, _, err := get(t, web, "http://orders/"); r != "eu" || err != nil {
			t.Fatal(r, err)
		}
		time.Sleep(10 * time.Second)
		w.net.serve(t, near, p)
		home := time.Now()
		for {
			r, _, _, err := get(t, web, "http://orders/")
			if err != nil {
				t.Fatal(err)
			}
			if r == "us" {
				break
			}
			if time.Since(home) > 30*time.Second {
				t.Fatal("never came home")
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("home after %s", time.Since(home))
	})
}

// Row 43: what may be repeated, by method, body and kind of failure.
func TestWhatIsRepeated(t *testing.T) {
	replay := func() io.Reader { return strings.NewReader("body") }
	once := func() io.Reader { return io.MultiReader(strings.NewReader("body")) } // no GetBody
	cases := []struct {
		name, method string
		body         func() io.Reader
		key          string
		fault        string // of the first instance
		want         bool   // served by the second
	}{
		{"GET on 503", "GET", nil, "", "503", true},
		{"GET on 502", "GET", nil, "", "502", true},
		{"GET on 500 is an answer", "GET", nil, "", "500", false},
		{"GET on a broken connection", "GET", nil, "", "reset", true},
		{"GET on a hung instance", "GET", nil, "", "hang", true},
		{"GET on a refused connection", "GET", nil, "", "refuse", true},
		{"HEAD on 503", "HEAD", nil, "", "503", true},
		{"OPTIONS on 504", "OPTIONS", nil, "", "504", true},
		{"PUT with a body to send again", "PUT", replay, "", "503", true},
		{"PUT with a body that is gone", "PUT", once, "", "503", false},
		{"DELETE on a broken connection", "DELETE", nil, "", "reset", true},
		{"POST may have been done", "POST", replay, "", "503", false},
		{"POST may have been done when the connection broke", "POST", replay, "", "reset", false},
		{"POST with a key", "POST", replay, "k-1", "503", true},
		{"POST with a key and a body that is gone", "POST", once, "k-1", "503", false},
		{"POST never sent", "POST", replay, "", "refuse", true},
		{"POST never sent, body cannot be had again but was not touched", "POST", once, "", "refuse", true},
		{"PATCH may have been done", "PATCH", replay, "", "502", false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				near, far := w.run("us", "orders", "near"), w.run("eu", "orders", "far")
				var got []byte
				far.handle = func(_ http.ResponseWriter, req *http.Request) { got, _ = io.ReadAll(req.Body) }
				addr := w.addr("us", "orders", "near")
				switch tc.fault {
				case "reset":
					near.handle = func(rw http.ResponseWriter, req *http.Request) {
						_, _ = io.ReadAll(req.Body)
						panic(http.ErrAbortHandler)
					}
				case "hang":
					w.net.hang(addr, true)
				case "refuse":
					w.net.kill(addr)
				default:
					near.status = map[string]int{"500": 500, "502": 502, "503": 503, "504": 504}[tc.fault]
				}
				c := w.client("us", nil)
				var body io.Reader
				if tc.body != nil {
					body = tc.body()
				}
				closed := false
				req, _ := http.NewRequestWithContext(t.Context(), tc.method, "http://orders/x", body)
				if req.Body != nil {
					req.Body = &closeSpy{ReadCloser: req.Body, closed: &closed}
				}
				if tc.key != "" {
					req.Header.Set(idempotencyKey, tc.key)
				}
				resp, err := w.web(c).Transport.RoundTrip(req)
				served := ""
				if err == nil {
					served = resp.Header.Get(HeaderServedRegion)
					_ = resp.Body.Close()
				}
				if (served == "eu") != tc.want {
					t.Errorf("served by %q (%v)", served, err)
				}
				if tc.want && tc.body != nil && string(got) != "body" {
					t.Errorf("the second instance got the body %q", got)
				}
				if !tc.want && tc.fault != "reset" && resp.StatusCode == 200 {
					t.Error("the first answer should have come back as it was")
				}
				time.Sleep(time.Second)
				if req.Body != nil && !closed {
					t.Error("the request's body was not closed")
				}
			})
		})
	}
}

type closeSpy struct {
	io.ReadCloser
	closed *bool
}

func (c *closeSpy) Close() error { *c.closed = true; return c.ReadCloser.Close() }

// P3: when every instance answers 503, the last answer comes back as it is, with the
// number of attempts.
func TestLastGatewayErrorIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for _, r := range []api.Region{"us", "eu"} {
			w.run(r, "orders", "x"+string(r)).handle = func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(503)
				_, _ = io.WriteString(rw, "overloaded")
			}
		}
		resp, err := w.web(w.client("us", nil)).Get("http://orders/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 503 || string(b) != "overloaded" || resp.Header.Get(HeaderAttempts) != "2" {
			t.Errorf("%d %q after %s attempts", resp.StatusCode, b, resp.Header.Get(HeaderAttempts))
		}
	})
}

// Never after an answer has begun: a body that breaks is the caller's error.
func TestNoRepeatAfterTheAnswerBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "orders", "near").handle = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = rw.Write([]byte("half"))
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
		far := w.run("eu", "orders", "far")
		resp, err := w.web(w.client("us", nil)).Get("http://orders/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err == nil || string(b) != "half" || far.count() != 0 {
			t.Errorf("%q %v, far called %d times", b, err, far.count())
		}
	})
}

// Row 44: cancelled calls, 4xx and 500 never open a breaker.
func TestWhatNeverTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		near := w.run("us", "orders", "near")
		w.run("eu", "orders", "far")
		c := w.client("us", nil)
		web := w.web(c)
		for _, status := range []int{400, 404, 429, 500} {
			near.set(func(p *program) { p.status = status })
			for range 20 {
				if r, _, got, err := get(t, web, "http://orders/"); r != "us" || got != status || err != nil {
					t.Fatal(status, r, got, err)
				}
			}
		}
		near.set(func(p *program) { p.status, p.delay = 0, time.Hour })
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://orders/", nil)
			if _, err := web.Do(req); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		near.set(func(p *program) { p.delay = 0 })
		if r, _, _, err := get(t, web, "http://orders/"); r != "us" || err != nil {
			t.Error(r, err)
		}
	})
}

// Row 43: repeats are bounded by the budget when everything fails, and calls go on.
func TestRetryBudgetBoundsRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		var all []*program
		for _, id := range []string{"a", "b", "c"} {
			p := w.run("us", "orders", id)
			p.status = 503
			all = append(all, p)
		}
		web := w.web(w.client("us", nil))
		const calls = 2000
		for range calls {
			if _, _, status, err := get(t, web, "http://orders/"); err != nil || status != 503 {
				t.Fatal(status, err)
			}
		}
		sum := 0
		for _, p := range all {
			sum += p.count()
		}
		// A tenth of the calls, and the reserve.
		if most := calls + calls/10 + budgetReserve + 1; sum > most {
			t.Errorf("%d attempts for %d calls, at most %d wanted", sum, calls, most)
		}
	})
}

// A call may have another time per attempt; great bodies have none.
func TestAttemptTimeoutOfOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for _, id := range []string{"a", "b"} {
			w.run("us", "reports", id).delay = 5 * time.Second
		}
		web := w.web(w.client("us", nil))
		req, _ := http.NewRequestWithContext(WithAttemptTimeout(t.Context(), 0), http.MethodGet, "http://reports/", nil)
		for range 5 {
			resp, err := web.Do(req)
			if err != nil || resp.Header.Get(HeaderAttempts) != "1" {
				t.Fatal(resp, err)
			}
			_ = resp.Body.Close()
		}
		put, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://reports/", bytes.NewReader(make([]byte, maxQuickBody+1)))
		resp, err := web.Do(put)
		if err != nil || resp.Header.Get(HeaderAttempts) != "1" {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	})
}

// The instance sees the service's name as Host, and the path untouched.
func TestRequestIsRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		p := w.run("us", "orders", "a")
		web := w.web(w.client("us", nil))
		for _, url := range []string{"http://orders/a%2Fb?x=1", "http://orders.nearside.internal/a%2Fb?x=1", "http://orders.svc.nearside.internal/a%2Fb?x=1"} {
			if _, id, _, err := get(t, web, url); id != "a" || err != nil {
				t.Fatal(url, id, err)
			}
			if p.last.Host != "orders" && !strings.HasPrefix(p.last.Host, "orders.") || p.last.RequestURI != "/a%2Fb?x=1" {
				t.Errorf("%s: Host %q, URI %q", url, p.last.Host, p.last.RequestURI)
			}
		}
	})
}

// Hosts that are no service names go to the base transport.
func TestHostsThatAreNoServices(t *testing.T) {
	for host, want := range map[string]string{
		"orders": "orders", "ORDERS": "orders", "orders.nearside.internal": "orders", "orders.svc.nearside.internal": "orders",
		"orders.shop.svc.nearside.internal": "orders.shop", "orders.shop.nearside.internal": "",
		"orders:8080": "", "localhost": "", "127.0.0.1": "", "example.com": "", "[::1]": "", "": "", ".nearside.internal": "",
	} {
		got, ok := serviceOf(host)
		if ok != (want != "") || (ok && got != want) {
			t.Errorf("%q: %q %v, want %q", host, got, ok, want)
		}
	}
}

// Bodies are read by one attempt at a time and closed once nobody needs them.
func TestBodyOfSeveralAttempts(t *testing.T) {
	req, _ := http.NewRequest(http.MethodPost, "http://orders/", bytes.NewReader([]byte("abc")))
	b := newBody(req)
	first := b.reader()
	_ = first.Close() // refused: untouched
	if !b.again() {
		t.Fatal("an untouched body can be used again")
	}
	second := b.reader()
	if got, _ := io.ReadAll(second); string(got) != "abc" {
		t.Fatalf("%q", got)
	}
	if n, err := first.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the first attempt must not read any more")
	}
	if !b.again() {
		t.Fatal("GetBody gives it again")
	}
	if got, _ := io.ReadAll(b.reader()); string(got) != "abc" {
		t.Fatalf("%q", got)
	}
}
