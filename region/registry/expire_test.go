package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const testTTL = 5 * time.Second

// P1: an instance that goes silent leaves after its TTL and the grace, not before, and its
// heartbeat then says that it must register again.
func TestSilenceEndsALife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 20)
		s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		s.next()
		b.beat(testTTL, "orders", 1, 20)
		if _, _, err := b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{}); err != nil {
			t.Errorf("gone before its time: %v", err)
		}
		b.beat(2*time.Second, "orders", 1, 20)
		_, _, err := b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{})
		b.wantCode(err, api.CodeInstanceNotFound)
		_, err = b.Heartbeat(t.Context(), ikey("orders", "i0"), 0)
		b.wantCode(err, api.CodeInstanceNotFound)
		if got := s.next(); got != "delete:evict i0" {
			t.Errorf("watch told %q", got)
		}
		b.register("orders", "i0")
		if got := s.next(); got != "put:register i0" {
			t.Errorf("watch told %q", got)
		}
		b.beat(time.Minute, "orders", 0, 20)
	})
}

// P2: after a pause of the process of any length nobody is lost, and whoever reads between
// waking up and the first tick sees everyone. Measured without this: one etcd lease per
// instance lost 200 of 200 after a pause of 8 s.
func TestPauseOfTheNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t)
		pause := make(chan time.Duration, 1)
		b.beforeTick = func() {
			select {
			case d := <-pause:
				<-time.After(d)
				// The process runs again; requests come before the tick.
				if _, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders"}); err != nil {
					t.Errorf("before the tick: %v", err)
				}
				if n := len(b.Snapshot().Endpoints(ikey("orders", "").ServiceKey())); n != 200 {
					t.Errorf("before the tick %d are left", n)
				}
			default:
			}
		}
		b.run()
		<-b.Loaded()
		b.registerMany("orders", 200)
		b.beat(20*time.Second, "orders", 0, 200)
		for _, d := range []time.Duration{8 * time.Second, 3 * testTTL, 26 * time.Hour} {
			pause <- d
			pass(d + time.Second)
			if p := b.brakeState(); p.Grace <= 0 || p.Active || p.Overdue != 0 || p.Why == "" {
				t.Errorf("after %s: %+v", d, p)
			}
			// Clients need a while to notice; they have a full TTL.
			pass(testTTL - time.Second)
			b.beat(15*time.Second, "orders", 0, 200)
		}
		if n := b.counts.evictions.Load(); n != 0 {
			t.Errorf("%d evicted, want none", n)
		}
	})
}

// P2: when half of a region goes silent at once, the brake holds them all; answers still
// have them, behind the others; deregistrations are honoured; heartbeats end it.
func TestProtection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 4)
		b.registerMany("users", 16)
		say := func(orders, users int) {
			for range 70 { // longer than a window
				for i := range users {
					_, _ = b.Heartbeat(t.Context(), ikey("users", fmt.Sprintf("i%d", i)), 0)
				}
				b.beat(time.Second, "orders", 0, orders)
			}
		}
		say(4, 16)
		say(2, 8) // users i8 to i15 and orders i2, i3: silence
		p := b.brakeState()
		if !p.Active || p.Since == nil || p.Overdue != 10 || p.Registered != 20 || p.Allowed != 3 || p.Share != 0.15 || p.Evicted != 0 {
			t.Fatalf("%+v", p)
		}
		if got := b.listed("orders"); got != "i0 i1 i2! i3!" {
			t.Errorf("listed %q", got)
		}
		res, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders"})
		if err != nil || len(res.Endpoints) < 2 || res.Endpoints[0].Overdue || res.Endpoints[1].Overdue || res.Decision.Panic {
			t.Errorf("%+v %v", res, err)
		}
		// P8: who is overdue is counted as that, and not among those that pass.
		services, _, err := b.ListServices(t.Context(), ServicesQuery{})
		if c := services.Services[0]; err != nil || c.Service != "orders" || c.Instances != 4 || c.Statuses[api.StatusPassing] != 4 || c.Passing != 2 || c.Overdue != 2 {
			t.Errorf("%+v %v", c, err)
		}
		info, _, err := b.RegionInfo(t.Context(), "eu-west")
		if err != nil || info.Instances != 20 || info.Passing != 10 || info.Overdue != 10 {
			t.Errorf("%+v %v", info, err)
		}
		if err := b.Deregister(t.Context(), ikey("orders", "i3"), 0); err != nil {
			t.Error(err)
		}
		err = b.Deregister(t.Context(), ikey("orders", "i3"), 0)
		b.wantCode(err, api.CodeInstanceNotFound)
		if !strings.Contains(err.Error(), "nothing is left to do") {
			t.Errorf("who leaves twice is told: %v", err)
		}
		if got := b.listed("orders"); got != "i0 i1 i2!" {
			t.Errorf("listed %q", got)
		}
		b.registerMany("users", 16) // they speak again
		if _, err := b.Heartbeat(t.Context(), ikey("orders", "i2"), 0); err != nil {
			t.Error(err)
		}
		pass(time.Second)
		if p := b.brakeState(); p.Active || p.Overdue != 0 || p.Since != nil {
			t.Errorf("%+v", p)
		}
		if got := b.listed("orders"); got != "i0 i1 i2" || b.counts.evictions.Load() != 0 {
			t.Errorf("listed %q, %d evicted", got, b.counts.evictions.Load())
		}
	})
}

// P7: with its whole region silent a service is never published empty by time-outs alone.
func TestNoAccidentalEmptySet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		for i := range 10 {
			b.registerMany(fmt.Sprintf("s%d", i), 3)
		}
		pass(10 * time.Minute)
		for i := range 10 {
			service := api.ServiceName(fmt.Sprintf("s%d", i))
			res, _, err := b.Resolve(t.Context(), ResolveQuery{Service: service})
			if err != nil || len(res.Endpoints) == 0 {
				t.Errorf("%s: %d endpoints, %v", service, len(res.Endpoints), err)
			}
		}
		if !b.brakeState().Active {
			t.Error("no protection")
		}
	})
}

// An eviction that the store does not take stays hidden and is repeated (P10); an instance
// that registers meanwhile wins over it (P1).
func TestEvictionWaitsForTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 20)
		b.beat(70*time.Second, "orders", 0, 20)
		b.beat(3*time.Second, "orders", 2, 20)
		b.store.SetUnavailable(true)
		b.beat(8*time.Second, "orders", 2, 20)
		hidden := "i10 i11 i12 i13 i14 i15 i16 i17 i18 i19 i2 i3 i4 i5 i6 i7 i8 i9"
		if got := b.listed("orders"); got != hidden {
			t.Fatalf("listed %q", got)
		}
		if _, instances := b.Snapshot().Len(); instances != 20 {
			t.Fatalf("%d stored, want all 20", instances)
		}
		info, _, _ := b.RegionInfo(t.Context(), "eu-west")
		if info.Instances != 18 || info.Passing != 18 {
			t.Errorf("%+v", info)
		}
		_, _, err := b.Register(t.Context(), ikey("orders", "i0"), reg())
		b.wantCode(err, api.CodeUnavailable) // refreshing is not enough: the record is doomed
		b.beat(time.Second, "orders", 2, 20)
		b.store.SetUnavailable(false)
		for tries := 0; ; tries++ {
			if _, _, err = b.Register(t.Context(), ikey("orders", "i0"), reg()); err == nil || tries == 20 {
				break
			}
			b.beat(time.Second, "orders", 2, 20)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.beat(10*time.Second, "orders", 2, 20)
		if _, err := b.Heartbeat(t.Context(), ikey("orders", "i0"), 0); err == nil {
			t.Error("i0 sent no heartbeat for 10 s and lives")
		}
		if got := b.listed("orders"); got != hidden {
			t.Errorf("listed %q", got)
		}
	})
}

// P1: an instance that registers between the verdict and the delete is not deleted.
func TestRegisteringBeatsThePendingDelete(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t)
		b.run()
		<-b.Loaded()
		b.registerMany("orders", 20)
		b.store.SetUnavailable(true)
		b.beat(8*time.Second, "orders", 1, 20)
		if hidden, _ := b.overlay.Load().Len(); hidden != 1 {
			t.Fatalf("%d hidden", hidden)
		}
		b.store.SetUnavailable(false)
		// The evictor sleeps until its next try: the registration comes first.
		in, created, err := b.Register(t.Context(), ikey("orders", "i0"), reg())
		if err != nil {
			// memory follows the store again within seconds
			pass(4 * time.Second)
			in, created, err = b.Register(t.Context(), ikey("orders", "i0"), reg())
		}
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{Strong: true})
		if err != nil || got.Revision != in.Revision {
			t.Errorf("right after: %+v %v (created %v)", got, err, created)
		}
		b.beat(20*time.Second, "orders", 0, 20)
	})
}

// P2: restarting gives everyone a full TTL, and what was stored is there (P11).
func TestRestartGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 50)
		version := b.Stamp().Version
		b.stop()
		<-b.ended
		b.ended <- nil
		pass(time.Hour)
		again := newBed(t)
		again.store.swap(b.store.Store)
		again.run()
		<-again.Loaded()
		if v := again.Stamp().Version; v != version {
			t.Errorf("version %s, was %s", v, version)
		}
		pass(testTTL)
		if got := len(again.Snapshot().Endpoints(ikey("orders", "").ServiceKey())); got != 50 || again.brakeState().Grace <= 0 {
			t.Errorf("%d left", got)
		}
		again.beat(10*time.Second, "orders", 0, 50)
	})
}
