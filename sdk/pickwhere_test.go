package nearside

import (
	"errors"
	"math"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Who may use a part of the instances only gets those, evenly, and the tiers' shares stay.
func TestPickWhereKeepsToWhatItIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for i := range 20 {
			w.regions["us"].put("orders", "us"+strconv.Itoa(i), "h:80", nil)
			w.regions["eu"].put("orders", "eu"+strconv.Itoa(i), "h:80", nil)
		}
		w.regions["us"].drain("us", 25)
		c := w.client("us", nil)
		if _, err := c.Resolve(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		mine := map[api.InstanceID]bool{"us0": true, "us1": true, "us7": true, "us19": true, "eu3": true}
		only := Where{OK: func(e *api.Endpoint) bool { return mine[e.ID] }}
		n, got := 8000, map[api.InstanceID]int{}
		for range n {
			p, err := c.PickWhere(t.Context(), "orders", only)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			got[p.Endpoint.ID]++
		}
		for id := range got {
			if !mine[id] {
				t.Errorf("%s was chosen, and is not allowed", id)
			}
			share, want := float64(got[id])/float64(n), 0.75/4
			if id == "eu3" {
				want = 0.25
			}
			if math.Abs(share-want) > 0.04 {
				t.Errorf("%s got %.3f of the picks, want about %.3f", id, share, want)
			}
		}
		if len(got) != len(mine) {
			t.Errorf("chosen: %v", got)
		}
		if _, err := c.PickWhere(t.Context(), "orders", Where{OK: func(*api.Endpoint) bool { return false }, LastResort: true}); !errors.Is(err, ErrNoneFits) {
			t.Errorf("nothing is allowed: %v", err)
		}
	})
}

// P3's other side: a picker must not block. Before the first answer it is told so at once, and
// afterwards whatever is known is good enough, a snapshot too.
func TestPickWhereNeverWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.regions["us"].put("orders", "a", "h:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.PickWhere(t.Context(), "orders", Where{}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("before the first answer: %v", err)
		}
		synctest.Wait()
		if _, err := c.PickWhere(t.Context(), "orders", Where{}); err != nil {
			t.Errorf("after it: %v", err)
		}
		if _, err := c.PickWhere(t.Context(), "Not A Name", Where{}); err == nil {
			t.Error("a bad name is taken")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PickWhere(t.Context(), "orders", Where{}); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		w.killRegistries()
		c = w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		began := time.Now()
		if _, err := c.PickWhere(t.Context(), "orders", Where{}); err != nil || time.Since(began) > 0 {
			t.Errorf("from the snapshot: %v after %s", err, time.Since(began))
		}
	})
}

// An instance that failed gets no call while something better is on its way: only as a last
// resort, or as a trial, for which a call that may be repeated is taken first.
func TestPickWhereAndBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["us"].put("orders", "near", "h:80", nil)
		w.regions["eu"].put("orders", "far", "h:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		near := Where{OK: func(e *api.Endpoint) bool { return e.ID == "near" }}
		if _, err := c.Resolve(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p, err := c.PickWhere(t.Context(), "orders", near)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(errors.New("broken"))
		}
		synctest.Wait()
		if p, err := c.PickWhere(t.Context(), "orders", near); !errors.Is(err, ErrNoneFits) {
			t.Errorf("the breaker is open, and %s was chosen: %v", p.Endpoint.ID, err)
		}
		last := near
		last.LastResort = true
		if p, err := c.PickWhere(t.Context(), "orders", last); err != nil {
			t.Errorf("as a last resort: %v", err)
		} else {
			p.Done(errors.New("broken"))
		}
		time.Sleep(breakerMin + breakerSpread) // half-open by now
		if _, err := c.PickWhere(t.Context(), "orders", near); !errors.Is(err, ErrNoneFits) {
			t.Errorf("a call that must not be repeated is the first trial: %v", err)
		}
		safe := near
		safe.Safe = true
		p, err := c.PickWhere(t.Context(), "orders", safe)
		if err != nil {
			t.Fatalf("no trial: %v", err)
		}
		if _, err := c.PickWhere(t.Context(), "orders", safe); !errors.Is(err, ErrNoneFits) {
			t.Errorf("two trials at once: %v", err)
		}
		p.Done(nil)
		if _, err := c.PickWhere(t.Context(), "orders", near); err != nil {
			t.Errorf("after a good trial: %v", err)
		}
	})
}

// Who dials on his own tells of it: the breaker opens at once, calls go to the next region,
// and come back once the address that he dials listens, not the main one.
func TestDialFailedMovesCallsUntilItListens(t *testing.T) {
	w := newWorld(t, "us", "eu")
	listen := func(address string) (net.Listener, *atomic.Int32) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		var dials atomic.Int32
		var ended sync.WaitGroup
		ended.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				dials.Add(1)
				_ = conn.Close()
			}
		})
		t.Cleanup(func() { _ = l.Close(); ended.Wait() })
		return l, &dials
	}
	main, dialedMain := listen("127.0.0.1:0") // listens all the time
	dead, _ := listen("127.0.0.1:0")
	address := dead.Addr().String()
	_ = dead.Close()
	w.regions["us"].put("orders", "near", main.Addr().String(), nil)
	w.regions["eu"].put("orders", "far", "h:80", nil)
	c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
	pick := func() api.Endpoint {
		p, err := c.Pick(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		p.Done(nil)
		return p.Endpoint
	}
	near := pick()
	c.DialFailed("payments", near, address) // never asked for
	c.DialFailed("orders", api.Endpoint{Region: "us", ID: "gone"}, address)
	if e := pick(); e.ID != "near" {
		t.Fatalf("%s serves though nothing of near failed", e.ID)
	}
	c.DialFailed("orders", near, address)
	if e := pick(); e.ID != "far" {
		t.Errorf("%s serves after a failed dial", e.ID)
	}
	_, dialed := listen(address)
	for deadline := time.Now().Add(30 * time.Second); pick().ID != "near"; {
		if time.Now().After(deadline) {
			t.Fatal("near listens again and is not called")
		}
	}
	if dialed.Load() == 0 || dialedMain.Load() != 0 {
		t.Errorf("%d dials of the caller's address, %d of the main one", dialed.Load(), dialedMain.Load())
	}
}

// A client that calls a subset, and somebody who keeps connections of his own to another part: his picks
// find all of them. They would wait for ever for the few that both have, or for none.
func TestPickWhereIsNotBoundToTheSubset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for i := range 40 {
			w.regions["us"].put("orders", "us"+strconv.Itoa(i), "h:80", nil)
		}
		c := w.client("us", func(cfg *Config) { cfg.Subset = 8 })
		called := map[api.InstanceID]bool{}
		for range 200 {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			called[p.Endpoint.ID] = true
		}
		if len(called) != 8 {
			t.Fatalf("the subset: %v", called)
		}
		others := Where{OK: func(e *api.Endpoint) bool { return !called[e.ID] }}
		_, _ = c.PickWhere(t.Context(), "orders", others) // from now on all are kept
		synctest.Wait()
		got := map[api.InstanceID]int{}
		for range 3200 {
			p, err := c.PickWhere(t.Context(), "orders", others)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			got[p.Endpoint.ID]++
		}
		if len(got) != 32 {
			t.Errorf("%d of 32 were chosen", len(got))
		}
		for id, n := range got {
			if called[id] || n < 40 || n > 200 {
				t.Errorf("%s was chosen %d times of 3,200", id, n)
			}
		}
	})
}

// P3: a program that is back under its old id and main port, and listens for gRPC at another one, is called
// at once: what failed at the old port says nothing about the new one, where nobody would dial.
func TestAnotherNamedPortIsAnotherPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		at := func(port int) func(*api.Instance) {
			return func(i *api.Instance) { i.Ports = map[string]int{"grpc": port} }
		}
		w.regions["us"].put("orders", "near", "h:1", at(1000))
		w.regions["eu"].put("orders", "far", "h:1", at(1000))
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		pick := func() api.Endpoint {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			return p.Endpoint
		}
		c.DialFailed("orders", pick(), "h:1000")
		if e := pick(); e.ID != "far" {
			t.Fatalf("%s serves after a failed dial", e.ID)
		}
		w.regions["us"].put("orders", "near", "h:1", at(1001))
		synctest.Wait()
		if e := pick(); e.ID != "near" || e.Ports["grpc"] != 1001 {
			t.Errorf("%s serves at %v", e.ID, e.Ports)
		}
	})
}
