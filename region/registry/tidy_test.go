package registry

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// The records of departures do not pile up: a restart tidies those without a service.
func TestDeparturesAreTidied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		b.register("users", "a")
		b.register("users", "b")
		for _, k := range []api.InstanceKey{ikey("orders", "a"), ikey("users", "a")} {
			if err := b.Deregister(t.Context(), k, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, was := b.Snapshot().Service(ikey("users", "").ServiceKey())
		b.stop()
		<-b.ended
		b.ended <- nil
		again := newBed(t)
		again.store.swap(b.store.Store)
		again.run()
		<-again.Loaded()
		synctest.Wait()
		img, err := again.store.Load(t.Context())
		if err != nil || len(img.Records) != 2 { // users/b, and the last departure from users
			t.Errorf("%d records, %v", len(img.Records), err)
		}
		// P4: the revision of a service does not go back with a restart.
		if _, now := again.Snapshot().Service(ikey("users", "").ServiceKey()); now != was {
			t.Errorf("the service is at %d, was at %d", now, was)
		}
	})
}

// departureRecords returns the services whose departure record is in the store.
func (b *bed) departureRecords() string {
	b.t.Helper()
	img, err := b.store.Load(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, rec := range img.Records {
		if name, ok := strings.CutPrefix(rec.Key, "services/default/"); ok {
			out = append(out, name)
		}
	}
	return strings.Join(out, " ")
}

func (b *bed) comeAndGo(service string) {
	b.t.Helper()
	b.register(service, "a")
	if err := b.Deregister(b.t.Context(), ikey(service, "a"), 0); err != nil {
		b.t.Fatal(err)
	}
}

// P8: service names that live for one job leave nothing in the store, without a restart.
// A service that is back, or that lost only some, keeps its record (P4: the service's
// revision must not go back), and no watch is told anything.
func TestDeparturesOfShortLivedServicesGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		for i := range 300 {
			b.comeAndGo(fmt.Sprintf("job-%03d", i))
		}
		b.registerMany("users", 2)
		if err := b.Deregister(t.Context(), ikey("users", "i1"), 0); err != nil {
			t.Fatal(err)
		}
		b.comeAndGo("back")
		b.register("back", "i0")
		if n := len(strings.Fields(b.departureRecords())); n != 302 {
			t.Fatalf("%d departure records, want 302", n)
		}
		keep := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				b.beat(time.Second, "users", 0, 1)
				if _, err := b.Heartbeat(t.Context(), ikey("back", "i0"), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		s := b.watch(WatchQuery{})
		s.next()
		keep(tidyAfter - 2*time.Minute)
		b.comeAndGo("job-007") // its record is a new one, with a time of its own
		keep(2*time.Minute + 2*tidyInterval)
		if got := b.departureRecords(); got != "back job-007 users" {
			t.Errorf("left: %q", got)
		}
		keep(tidyAfter)
		if got := b.departureRecords(); got != "back users" || b.departures.len() != 0 {
			t.Errorf("left: %q, %d remembered", got, b.departures.len())
		}
		if got := s.next(); got != "put:register a, delete:deregister a" {
			t.Errorf("watch told %q", got)
		}
	})
}

// P8: however many names come and go, what is remembered of them is bounded, and what the
// store holds is too while it takes deletes.
func TestDeparturesOfManyServicesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		for i := range 2 * maxDepartures {
			b.comeAndGo(fmt.Sprintf("job-%d", i))
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := b.departures.len(); n > maxDepartures {
			t.Errorf("%d are remembered, want %d at most", n, maxDepartures)
		}
		if n := len(strings.Fields(b.departureRecords())); n > maxDepartures {
			t.Errorf("%d are stored, want %d at most", n, maxDepartures)
		}
	})
	d := newDepartures()
	for i := range 5 * maxDepartures { // nobody takes any
		d.add(api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprint(i))}, departed{})
	}
	if n := d.len(); n != 2*maxDepartures {
		t.Errorf("%d are remembered while none can go", n)
	}
}
