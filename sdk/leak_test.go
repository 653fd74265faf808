package nearside

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/sdk/api"
)

// doors serves a region on a real socket and counts the connections.
type doors struct {
	*httptest.Server
	mu   sync.Mutex
	open map[net.Conn]bool
	seen int
}

func (r *fakeRegion) doors(t *testing.T) *doors {
	d := &doors{open: map[net.Conn]bool{}}
	d.Server = httptest.NewUnstartedServer(r)
	d.Config.ConnState = func(c net.Conn, s http.ConnState) {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch s {
		case http.StateNew:
			d.open[c] = true
			d.seen++
		case http.StateClosed, http.StateHijacked:
			delete(d.open, c)
		}
	}
	d.Start()
	t.Cleanup(d.Close)
	return d
}

func (d *doors) count() (open, seen int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open), d.seen
}

// within waits for a condition.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); !ok(); <-tick.C {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("in vain for 10 s: %s", what)
		}
	}
}

// P8: when Close returns, no goroutine of the client runs, and none of its connections is open,
// in whichever state it was; on real sockets, with the client's own transports.
func TestCloseLeavesNothing(t *testing.T) {
	ctx := context.Background()
	for name, tc := range map[string]struct {
		change func(us, eu *fakeRegion)
		use    func(*testing.T, *Client)
	}{
		"unused": {nil, func(*testing.T, *Client) {}},
		"watching": {nil, func(t *testing.T, c *Client) {
			if _, err := c.Pick(ctx, "orders"); err != nil {
				t.Error(err)
			}
		}},
		"watching several namespaces": {nil, func(t *testing.T, c *Client) {
			for _, s := range []string{"orders", "orders.a", "orders.b"} {
				if _, err := c.Pick(ctx, s); err != nil && api.CodeOf(err) != api.CodeServiceNotFound {
					t.Error(err)
				}
			}
		}},
		"polling": {func(us, _ *fakeRegion) { us.noWatch = 429 }, func(t *testing.T, c *Client) {
			if _, err := c.Pick(ctx, "orders"); err != nil {
				t.Error(err)
			}
		}},
		"a stream opens, and nothing comes": {func(us, _ *fakeRegion) { us.mute = true }, func(_ *testing.T, c *Client) {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, _ = c.Pick(ctx, "orders")
		}},
		"the first use is waited for": {func(us, _ *fakeRegion) { us.mute = true }, func(t *testing.T, c *Client) {
			var started, group sync.WaitGroup
			started.Add(10)
			for range 10 {
				group.Go(func() {
					started.Done()
					_, _ = c.Pick(ctx, "orders")
				})
			}
			started.Wait()
			t.Cleanup(group.Wait)
		}},
		"registered and not closed": {nil, func(t *testing.T, c *Client) {
			reg := order("a")
			reg.DrainDelay = -1
			if _, err := c.Register(ctx, reg); err != nil {
				t.Error(err)
			}
		}},
		"calling": {nil, func(t *testing.T, c *Client) {
			resp, err := (&http.Client{Transport: c.Transport(nil)}).Get("http://orders/")
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "us", "eu")
			us, eu := w.regions["us"], w.regions["eu"]
			if tc.change != nil {
				tc.change(us, eu)
			}
			front := us.doors(t)
			program := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			t.Cleanup(program.Close)
			us.put("orders", "a", program.Listener.Addr().String(), nil)
			before := goleak.IgnoreCurrent()
			c, err := New(Config{Addresses: []string{front.URL}, Region: "us", SnapshotDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			tc.use(t, c)
			if name != "unused" {
				within(t, "a connection is made", func() bool { _, seen := front.count(); return seen > 0 })
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			// The server hears of a closed connection a moment later.
			within(t, "all connections are closed", func() bool { open, _ := front.count(); return open == 0 })
			front.Close()
			program.Close()
			if err := goleak.Find(before); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same while nobody answers the dial: the transport's goroutines end with the client, not
// with their own time-outs.
func TestCloseEndsDials(t *testing.T) {
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	// Connections that nobody accepts fill the queue of the listener; then dials hang.
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	hangs := false
	for range 6000 {
		c, err := net.DialTimeout("tcp", full.Addr().String(), 50*time.Millisecond)
		if err != nil {
			hangs = true
			break
		}
		held = append(held, c)
	}
	if !hangs {
		t.Skip("the queue of a listener is too long here to be filled")
	}
	before := goleak.IgnoreCurrent()
	c, err := New(Config{Addresses: []string{"http://" + full.Addr().String()}, Region: "us"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _ = c.Pick(ctx, "orders")
	start := time.Now()
	_ = c.Close()
	if err := goleak.Find(before); err != nil || time.Since(start) > 700*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}
