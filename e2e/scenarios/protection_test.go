package scenarios

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P2, P7, test 13 of the failure analysis: 16 %, 50 % and 100 % of a region's heartbeats
// vanish at once. The brake is on, nobody is evicted beyond the share, everybody stays in
// answers, deregistrations are honoured, and it is off again when the heartbeats are back.
// The pure part, with every share and days of silence, is liveness.TestBrake.
func TestSelfPreservation(t *testing.T) {
	t.Parallel() // it waits more than it works
	const ttl = 2 * time.Second
	const size = 100
	cluster.Seedless(t)
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	f := newFleet(t, n, "fleet", size, ttl)
	hold := cluster.SoakFor(t, 2*time.Second) / 3
	deregistered := 0
	for _, share := range []float64{0.16, 0.50, 1} {
		vanish := int(math.Ceil(share * float64(size-deregistered)))
		before := evictions(t, n) // the first of a round may go before there are too many
		f.hush(deregistered, deregistered+vanish)
		silenced := time.Now()
		cluster.Within(t, 20*time.Second, "the brake is on", func() error {
			info, err := h.Region(us)
			if err == nil && !info.Protection.Active {
				err = fmt.Errorf("%s", info.Protection.Why)
			}
			return err
		})
		on := time.Since(silenced)
		cluster.Within(t, 5*time.Second, "all who are silent are counted", func() error {
			info, err := h.Region(us)
			if err != nil {
				return err
			}
			if evicted := evictions(t, n) - before; info.Protection.Overdue+evicted != vanish {
				return fmt.Errorf("%d overdue, %d evicted, %d are silent", info.Protection.Overdue, evicted, vanish)
			}
			return nil
		})
		for end := time.Now().Add(hold); time.Now().Before(end); pass(100 * time.Millisecond) {
			info, err := h.Region(us)
			if err != nil {
				t.Fatal(err)
			}
			p := info.Protection
			if want := int(0.15*float64(p.Registered) + 1e-9); p.Allowed != want || p.Why == "" || p.Since == nil {
				t.Fatalf("the arithmetic does not add up: %+v", p)
			}
			if p.Evicted > p.Allowed || info.Instances < size-deregistered-p.Allowed {
				t.Fatalf("P2: evicted %d of %d, allowed are %d, %d are left", p.Evicted, p.Registered, p.Allowed, info.Instances)
			}
			if _, err := h.Resolvable("fleet"); err != nil {
				t.Fatal(err)
			}
		}
		// Who leaves by its own will leaves at once, also while the brake is on.
		gone := f.id(deregistered)
		if _, err := h.Do(http.MethodDelete, api.PathInstance(f.service, gone), nil, nil); err != nil && api.CodeOf(err) != api.CodeInstanceNotFound {
			t.Fatalf("deregistering while the brake is on: %v", err)
		}
		if _, err := h.Do(http.MethodGet, api.PathInstance(f.service, gone), nil, nil); api.CodeOf(err) != api.CodeInstanceNotFound {
			t.Errorf("a deregistered instance is still there: %v", err)
		}
		f.hush(deregistered, deregistered+1)
		deregistered++

		back := time.Now()
		f.register(t, deregistered, size) // instances that were told 404 register again, as the SDK does
		f.speak()
		f.hush(0, deregistered)
		cluster.Within(t, 10*time.Second, "the brake is off", func() error {
			info, err := h.Region(us)
			if err == nil && (info.Protection.Active || info.Protection.Overdue > 0) {
				err = fmt.Errorf("%s", info.Protection.Why)
			}
			return err
		})
		t.Logf("%3.0f %% silent (%d): brake on %s after the last heartbeat, held %s, off %s after the heartbeats returned",
			100*share, vanish, on.Round(time.Millisecond), hold, time.Since(back).Round(time.Millisecond))
	}
	events, err := h.Events(api.EventProtectionOn, api.EventProtectionOff)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []api.EventKind
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	if len(kinds) != 6 {
		t.Errorf("the event log tells %v, want on and off three times", kinds)
	}
	for i, k := range kinds {
		if want := []api.EventKind{api.EventProtectionOn, api.EventProtectionOff}[i%2]; k != want {
			t.Errorf("event %d is %s, want %s", i, k, want)
		}
	}
	evicted := evictions(t, n)
	t.Logf("evicted %d of %d in all, 15 allowed", evicted, size)
	if evicted > 15 {
		t.Errorf("P2: %d of %d were evicted", evicted, size)
	}
	info, err := h.Region(us)
	if err != nil || info.Instances != size-deregistered {
		t.Errorf("%d instances are left, want %d: %v", info.Instances, size-deregistered, err)
	}
}

// evictions is how many the node has evicted so far.
func evictions(t *testing.T, n *cluster.Node) int {
	t.Helper()
	v, err := n.Metric("nearside_registry_evictions_total")
	if err != nil {
		t.Fatal(err)
	}
	return int(v)
}
