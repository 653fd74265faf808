package scenarios

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// callers are programs of one region that call one service through the SDK all the time.
type callers struct {
	t    *testing.T
	stop func()

	mu     sync.Mutex
	calls  int
	recent []api.Region // of the last lookback calls, oldest first
	errs   []error
}

// lookback calls make a share: of so many, one that is asked for is met within 8 points but once in
// some thousand times.
const lookback = 400

// tolerance of a share of traffic, in points of a percent.
const tolerance = 10

// callFrom starts programs in a node's region.
func callFrom(t *testing.T, n *cluster.Node, programs int, service string) *callers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &callers{t: t}
	var wg sync.WaitGroup
	c.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(c.stop)
	for range programs {
		client, err := nearside.New(nearside.Config{Addresses: []string{n.URL()}, Region: n.Region})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer client.Close()
			base := &http.Transport{MaxIdleConnsPerHost: 2}
			defer base.CloseIdleConnections()
			h := &http.Client{Transport: client.Transport(base)}
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				c.call(ctx, h, "http://"+service+"/")
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return c
}

func (c *callers) call(ctx context.Context, h *http.Client, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	var from api.Region
	resp, err := h.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		from = api.Region(resp.Header.Get(nearside.HeaderServedRegion))
	}
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	if c.recent = append(c.recent, from); len(c.recent) > lookback {
		c.recent = c.recent[1:]
	}
}

// share returns what part of the last calls a region served, in percent.
func (c *callers) share(r api.Region) (percent float64, enough bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, from := range c.recent {
		if from == r {
			n++
		}
	}
	return 100 * float64(n) / float64(max(len(c.recent), 1)), len(c.recent) == lookback
}

// settles waits until a region serves a share of the calls, and returns how long that took.
func (c *callers) settles(what string, r api.Region, percent float64) time.Duration {
	c.t.Helper()
	began := time.Now()
	cluster.Within(c.t, time.Minute, what, func() error {
		got, enough := c.share(r)
		if !enough || math.Abs(got-percent) > tolerance {
			return fmt.Errorf("%s serves %.0f %% of the last calls, not %.0f", r, got, percent)
		}
		return nil
	})
	return time.Since(began)
}

// end stops the programs; no call of theirs may have failed.
func (c *callers) end(name string) {
	c.t.Helper()
	c.stop()
	c.t.Logf("%s: %d calls, %d failed", name, c.calls, len(c.errs))
	if c.calls == 0 || len(c.errs) > 0 {
		c.t.Errorf("P3: %s: %d of %d calls failed: %v", name, len(c.errs), c.calls, c.errs[:min(len(c.errs), 5)])
	}
}

// serve registers instances of a service in a region; they answer all calls.
func serve(t *testing.T, n *cluster.Node, service string, count int) {
	t.Helper()
	for i := range count {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
		t.Cleanup(srv.Close)
		host, port, err := net.SplitHostPort(srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		p, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		n.Client().Register(service, fmt.Sprintf("%s-%d", n.Region, i), api.Registration{Address: host, Port: p, TTL: api.Duration(api.MaxTTL)})
	}
}

// drainOf drains a region as a node sees it, and returns what that says.
func drainOf(t *testing.T, n *cluster.Node, r api.Region, req api.DrainRequest) (d api.RegionDrain) {
	t.Helper()
	if _, err := n.Client().Do(http.MethodPut, api.PathRegionDrain(r), req, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func undrain(t *testing.T, n *cluster.Node, r api.Region) {
	t.Helper()
	if _, err := n.Client().Do(http.MethodDelete, api.PathRegionDrain(r), nil, nil); err != nil {
		t.Fatal(err)
	}
}

// P3, P10: eu-west evacuates itself in steps under load; its own callers and those of
// another region follow the percentage; an undo brings them back. Then eu-west's registry is dead,
// and us-east alone decides to send nothing there. No call fails.
func TestDrainRegionInStepsAndWhenItsRegistryIsDead(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us, eu, ap)
	c.StartAll()
	// orders run in eu-west and us-east; cards in eu-west and ap-south, and us-east's callers prefer eu-west.
	serve(t, c.Node(eu), "orders", 3)
	serve(t, c.Node(us), "orders", 3)
	serve(t, c.Node(eu), "cards", 3)
	serve(t, c.Node(ap), "cards", 3)
	at := api.Duration(0)
	for _, n := range []*cluster.Node{c.Node(eu), c.Node(us)} {
		for service, p := range map[api.ServiceName]api.Policy{
			"*": {FailbackRamp: &at}, "cards": {Order: []api.Region{eu, ap}}, "orders": {Allowed: []api.Region{eu, us}},
		} {
			if status, err := n.Client().Do(http.MethodPut, api.PathPolicy(service), api.PolicyWrite{Policy: p}, nil); err != nil || status != http.StatusCreated {
				t.Fatal(status, err)
			}
		}
	}
	for _, known := range []struct {
		at, of api.Region
		what   string
	}{{eu, us, "orders"}, {us, eu, "cards"}, {us, ap, "cards"}} {
		cluster.Within(t, time.Minute, fmt.Sprintf("%s knows %s's %s", known.at, known.of, known.what), func() error {
			var l api.InstanceList
			_, err := c.Node(known.at).Client().Do(http.MethodGet, api.PathInstances(api.ServiceName(known.what))+"?region="+string(known.of), nil, &l)
			if err == nil && len(l.Instances) == 0 {
				err = fmt.Errorf("none")
			}
			return err
		})
	}
	home, abroad := callFrom(t, c.Node(eu), 4, "orders"), callFrom(t, c.Node(us), 4, "cards")
	home.settles("eu-west's callers are served at home", eu, 100)
	abroad.settles("us-east's callers are served by eu-west", eu, 100)

	for _, percent := range []float64{25, 50, 75, 100} {
		if d := drainOf(t, c.Node(eu), eu, api.DrainRequest{Percent: percent, Note: "rehearsal"}); d.By != eu || d.Now != percent || d.Warning != "" {
			t.Errorf("%+v", d)
		}
		what := fmt.Sprintf("at %.0f %% drained ", percent)
		near, far := home.settles(what+"at home", eu, 100-percent), abroad.settles(what+"from abroad", eu, 100-percent)
		t.Logf("%s: eu-west's callers follow in %s, us-east's in %s (with %d calls to look back at)", what, near.Round(time.Millisecond), far.Round(time.Millisecond), lookback)
	}
	for _, r := range []api.Region{us, ap, eu} {
		cluster.Within(t, time.Minute, string(r)+" shows the drain", func() error {
			if info, err := c.Node(r).Client().Region(eu); err != nil || info.Drained != 100 {
				return fmt.Errorf("%g %w", info.Drained, err)
			}
			return nil
		})
	}
	undrain(t, c.Node(eu), eu)
	home.settles("after the undo, at home", eu, 100)
	abroad.settles("after the undo, abroad", eu, 100)

	// In steps over a time, by itself.
	drainOf(t, c.Node(eu), eu, api.DrainRequest{Percent: 100, Over: api.Duration(2 * time.Second), Steps: 4})
	home.settles("a ramp by itself", eu, 0)
	undrain(t, c.Node(eu), eu)
	home.settles("after its undo, at home", eu, 100)
	abroad.settles("after its undo, abroad", eu, 100)
	events, err := c.Node(eu).Client().Events(api.EventRegionDrain)
	if err != nil || len(events) < 4+1+1+4+1 {
		t.Errorf("%d events of the drain, %v: %+v", len(events), err, events)
	}
	home.end("eu-west's callers")

	// The registry of eu-west is dead; its instances are not.
	c.Node(eu).Kill()
	if d := drainOf(t, c.Node(us), eu, api.DrainRequest{Percent: 100}); d.By != us || d.Effective != 100 {
		t.Errorf("%+v", d)
	}
	abroad.settles("drained by us-east, with eu-west's registry dead", ap, 100)
	if info, err := c.Node(ap).Client().Region(eu); err != nil || info.Drained != 0 {
		t.Errorf("what us-east decides is for its own callers: ap-south shows %g, %v", info.Drained, err)
	}
	undrain(t, c.Node(us), eu)
	cluster.Within(t, time.Minute, "after the undo eu-west's instances are called again", func() error {
		if got, _ := abroad.share(eu); got < tolerance {
			return fmt.Errorf("%.0f %% of the last calls", got)
		}
		return nil
	})
	abroad.end("us-east's callers")
}
