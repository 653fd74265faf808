package regions

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// plant is the instances of one region: listeners that accept and close. Stopping it closes
// them, as the death of their machines does.
type plant struct {
	ports []int
	stop  func()
}

func newPlant(t *testing.T, count int) *plant {
	t.Helper()
	p := &plant{}
	var listeners []net.Listener
	var ended sync.WaitGroup
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		p.ports = append(p.ports, l.Addr().(*net.TCPAddr).Port)
		ended.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		})
	}
	p.stop = sync.OnceFunc(func() {
		for _, l := range listeners {
			_ = l.Close()
		}
		ended.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// callers resolve a service in a region all the time, call what they get, and count.
type callers struct {
	stop   context.CancelFunc
	ended  sync.WaitGroup
	mu     sync.Mutex
	served map[api.Region]int
	failed []string
}

func call(h *cluster.HTTP, service string) *callers {
	ctx, stop := context.WithCancel(context.Background())
	c := &callers{stop: stop, served: map[api.Region]int{}}
	c.ended.Go(func() {
		each := time.NewTicker(50 * time.Millisecond)
		defer each.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-each.C:
			}
			r, err := h.Resolve(service)
			if err == nil && len(r.Endpoints) == 0 {
				err = errors.New("P3: an empty answer")
			}
			var from api.Region
			if err == nil {
				e := r.Endpoints[i%len(r.Endpoints)]
				from = e.Region
				var conn net.Conn
				if conn, err = net.DialTimeout("tcp", net.JoinHostPort(e.Address, strconv.Itoa(e.Port)), 5*time.Second); err == nil {
					_ = conn.Close()
				}
			}
			c.mu.Lock()
			if err != nil {
				c.failed = append(c.failed, err.Error())
			} else {
				c.served[from]++
			}
			c.mu.Unlock()
		}
	})
	return c
}

// count returns how many calls a region served so far, and what failed.
func (c *callers) count(r api.Region) (int, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served[r], c.failed
}

// region returns a region as another sees it.
func (w *world) region(viewer, r api.Region) (api.RegionInfo, error) {
	return w.clients[viewer].Region(r)
}

// P10, "unreachable is not down": the federation of eu-west is cut off from everyone, silently.
// Its instances answer, so it is unreachable and ages, but it is not down, and the traffic that it
// serves for us-east stays where it is. Then all of it is killed: now it is down, with two of
// two regions and the probes agreeing. Its return ends that.
func TestUnreachableIsNotDown(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	plants := newPlant(t, 6)
	register := func() {
		fill(t, w.clients[eu], "orders", len(plants.ports), func(i int, r *api.Registration) { r.Port = plants.ports[i] })
	}
	register()
	w.awaitAgreement("before")
	load := call(w.clients[us], "orders")
	t.Cleanup(func() { load.stop(); load.ended.Wait() })

	cut := time.Now()
	for _, other := range []api.Region{us, ap} {
		w.links.Clog(eu, other)
		w.links.Clog(other, eu)
	}
	cluster.Within(t, patience, "eu-west is unreachable", func() error {
		for _, viewer := range []api.Region{us, ap} {
			if i, err := w.region(viewer, eu); err != nil || i.Link != "unreachable" || i.Verdict == nil || i.Verdict.Probed < 4 {
				return fmt.Errorf("%s: %s, %+v, %v", viewer, i.Link, i.Verdict, err)
			}
		}
		return nil
	})
	t.Logf("unreachable and probed four times %s after the cut", time.Since(cut).Round(100*time.Millisecond))
	before, _ := load.count(eu)
	for range 100 { // 10 s and more
		pass(100 * time.Millisecond)
		for _, viewer := range []api.Region{us, ap} {
			i, err := w.region(viewer, eu)
			if err != nil {
				t.Fatal(err)
			}
			if i.Down || i.Verdict == nil || i.Verdict.Down {
				t.Fatalf("%s takes eu-west for down although its endpoints answer: %+v", viewer, i.Verdict)
			}
		}
	}
	i, err := w.region(us, eu)
	if err != nil || i.Verdict.Failed != 0 || i.State == api.AgeFresh || i.Passing != len(plants.ports) {
		t.Fatalf("%+v %+v %v", i, i.Verdict, err)
	}
	served, failed := load.count(eu)
	if len(failed) > 0 || served == before {
		t.Fatalf("P10: the loss of a federation moved traffic: %d calls served by eu-west meanwhile, failed: %v", served-before, failed)
	}
	t.Logf("%d calls served by eu-west while it was unreachable, 0 failed; %s", served-before, i.Verdict.Why)

	killed := time.Now()
	load.stop()
	load.ended.Wait()
	plants.stop()
	w.Node(eu).Kill()
	for _, viewer := range []api.Region{us, ap} {
		cluster.Within(t, patience, string(viewer)+" takes eu-west for down", func() error {
			i, err := w.region(viewer, eu)
			if err == nil && !i.Down {
				err = fmt.Errorf("%+v", i.Verdict)
			}
			return err
		})
	}
	i, err = w.region(us, eu)
	if err != nil {
		t.Fatal(err)
	}
	if v := i.Verdict; v.Agree != 2 || v.Of != 2 || v.Needed != 2 || v.Failed < 4 || len(v.Says) != 2 {
		t.Errorf("the arithmetic: %+v", v)
	}
	t.Logf("down %s after its death; %s", time.Since(killed).Round(100*time.Millisecond), i.Verdict.Why)
	if n, err := w.clients[us].Resolvable("orders"); err != nil || n == 0 {
		t.Errorf("P3: %d endpoints of orders, %v", n, err)
	}

	for _, other := range []api.Region{us, ap} {
		w.links.Unclog(eu, other)
		w.links.Unclog(other, eu)
	}
	w.Node(eu).Start()
	returned := time.Now()
	for _, viewer := range []api.Region{us, ap} {
		cluster.Within(t, patience, string(viewer)+" takes eu-west for up", func() error {
			i, err := w.region(viewer, eu)
			if err == nil && (i.Down || i.Verdict != nil) {
				err = fmt.Errorf("%s, %+v", i.Link, i.Verdict)
			}
			return err
		})
	}
	t.Logf("no longer down %s after its return", time.Since(returned).Round(100*time.Millisecond))
	events, err := w.clients[us].Events(api.EventRegionDown, api.EventRegionUp)
	if err != nil || len(events) != 2 || events[0].Kind != api.EventRegionDown || events[1].Kind != api.EventRegionUp || events[0].Subject != string(eu) {
		t.Errorf("events: %+v %v", events, err)
	}
}

// Failure 49: a one-way street. What eu-west says does not arrive in us-east, what us-east says
// arrives in eu-west. us-east takes eu-west for unreachable and, ap-south reaching it, never
// for down; eu-west does not think that all is well although it hears us-east.
func TestOneWayStreetIsComplainedOf(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	plants := newPlant(t, 3)
	fill(t, w.clients[eu], "orders", len(plants.ports), func(i int, r *api.Registration) { r.Port = plants.ports[i] })
	w.awaitAgreement("before")
	plants.stop() // probes from us-east fail too: what keeps it from being down is ap-south's word
	w.links.Clog(eu, us)
	began := time.Now()
	cluster.Within(t, patience, "eu-west says that us-east does not hear it", func() error {
		info, err := w.federation(eu)
		if err != nil {
			return err
		}
		l, err := link(info, us)
		switch {
		case err != nil:
			return err
		case l.State != "connected":
			t.Fatalf("the other direction is cut too: %+v", l)
		case l.PeerView == nil || !strings.Contains(l.PeerView.Complaint, "does not reach our federation"):
			return fmt.Errorf("%+v", l.PeerView)
		}
		t.Logf("%s after %s", l.PeerView.Complaint, time.Since(began).Round(100*time.Millisecond))
		return nil
	})
	cluster.Within(t, patience, "us-east has probed in vain", func() error {
		i, err := w.region(us, eu)
		switch {
		case err != nil:
			return err
		case i.Down:
			t.Fatalf("one word was enough: %+v", i.Verdict)
		case i.Verdict == nil || i.Verdict.Failed < 5 || i.Verdict.Of != 2:
			return fmt.Errorf("%+v", i.Verdict)
		case i.Verdict.Agree != 1 || !strings.Contains(i.Verdict.Why, "ap-south reaches it"):
			return fmt.Errorf("%+v", i.Verdict)
		}
		return nil
	})
	w.links.Unclog(eu, us)
	w.awaitAgreement("after the street was opened")
}

// run runs the program against a region's node and returns its exit code and what it wrote.
func (w *world) run(r api.Region, args ...string) (int, string) {
	w.t.Helper()
	out, err := exec.Command(cluster.Binary(w.t), append(args, "--addr", w.Node(r).URL())...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return 0, string(out)
}

// P6: an operator gets proof, by exit code: equal when still, never "differs" while rows change,
// unreachable when the region is cut off. A resync brings all rows anew and none is gone meanwhile.
func TestVerifyAndResync(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu)
	w.StartAll()
	for i := range 300 {
		fill(t, w.clients[eu], fmt.Sprintf("svc-%d", i), 3, nil)
	}
	w.awaitAgreement("before")
	if code, out := w.run(us, "federation", "verify", "eu-west"); code != 0 || !strings.Contains(out, "equal") {
		t.Fatalf("exit %d: %s", code, out)
	}

	ctx, stop := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	churn.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			fill(t, w.clients[eu], fmt.Sprintf("svc-%d", i%20), 3, func(n int, r *api.Registration) { r.Version = fmt.Sprintf("v%d", i) })
		}
	})
	codes := map[int]int{}
	for range 5 {
		code, out := w.run(us, "federation", "verify", "eu-west")
		codes[code]++
		if code != 0 && code != 8 {
			t.Errorf("exit %d while rows change: %s", code, out)
		}
	}
	stop()
	churn.Wait()
	t.Logf("exit codes while rows change: %v", codes)

	watch := w.watchOver("svc-299")
	code, out := w.run(us, "federation", "resync", "eu-west", "--wait", "60s")
	if code != 0 || !strings.Contains(out, "done, 300 rows") {
		t.Fatalf("exit %d: %s", code, out)
	}
	watch.end()
	cluster.Within(t, patience, "equal after the resync", func() error {
		if code, out := w.run(us, "federation", "verify"); code != 0 {
			return fmt.Errorf("exit %d: %s", code, out)
		}
		return nil
	})
	if events, err := w.clients[us].Events(api.EventResync); err != nil || len(events) != 1 || !strings.HasPrefix(events[0].Actor, "client ") {
		t.Errorf("events: %+v %v", events, err)
	}

	w.links.Clog(eu, us)
	w.links.Clog(us, eu)
	cluster.Within(t, patience, "eu-west cannot be asked", func() error {
		if code, out := w.run(us, "federation", "verify", "eu-west", "--timeout", "10s"); code != 5 || !strings.Contains(out, "cannot be asked") {
			return fmt.Errorf("exit %d: %s", code, out)
		}
		return nil
	})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"verify eu-wset", 3, "did you mean \"eu-west\""},
		{"verify us-east", 2, "this region itself"},
		{"resync nowhere", 3, "is not a peer"},
		{"resync", 2, "the region is missing"},
		{"lag --max-stale 1ms", 9, "--max-stale 1ms"},
	} {
		if code, out := w.run(us, append([]string{"federation"}, strings.Fields(c.args)...)...); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: exit %d, want %d: %s", c.args, code, c.code, out)
		}
	}
}
