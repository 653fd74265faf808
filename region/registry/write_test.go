package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// P1: an acknowledged registration shows at once, in memory and in a strong read; the same
// again is a heartbeat and no write.
func TestRegisterAndRefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		in, created, err := b.Register(t.Context(), ikey("orders", "a"), reg())
		if err != nil || !created || in.Status != api.StatusPassing || in.Incarnation != 1 || in.Weight != 100 || in.Region != "eu-west" {
			t.Fatalf("%+v %v %v", in, created, err)
		}
		for _, o := range []ReadOptions{{}, {Strong: true}, {MinRevision: in.Revision}} {
			got, st, err := b.Get(t.Context(), ikey("orders", "a"), o)
			if err != nil || got.Revision != in.Revision {
				t.Errorf("get %+v: %+v %v", o, got, err)
			}
			source := map[bool]string{false: api.SourceMemory, true: api.SourceStore}[o.Strong]
			if st.Version != b.Stamp().Version || st.Source != source || st.Region != "eu-west" {
				t.Errorf("get %+v: stamp %+v", o, st)
			}
		}
		before := b.Stamp().Version
		for range 8 { // 16 s of refreshing keep a TTL of 5 s alive
			pass(2 * time.Second)
			again, created, err := b.Register(t.Context(), ikey("orders", "a"), reg())
			if err != nil || created || again.Revision != in.Revision {
				t.Fatalf("refresh: %+v %v %v", again, created, err)
			}
		}
		if b.Stamp().Version != before {
			t.Error("refreshing wrote to the store")
		}
		changed := reg()
		changed.Port = 9090
		moved, created, err := b.Register(t.Context(), ikey("orders", "a"), changed)
		if err != nil || created || moved.Revision <= in.Revision || !moved.RegisteredAt.Equal(in.RegisteredAt) {
			t.Errorf("changed: %+v %v %v", moved, created, err)
		}
		bad := reg()
		bad.Port = 0
		_, _, err = b.Register(t.Context(), ikey("orders", "a"), bad)
		b.wantCode(err, api.CodeInvalidField)
		_, _, err = b.Register(t.Context(), ikey("Orders!", "a"), reg())
		b.wantCode(err, api.CodeInvalidField)
		_, _, err = b.Register(t.Context(), ikey("orders", "a/b"), reg())
		b.wantCode(err, api.CodeInvalidField)
	})
}

// P9: the highest incarnation wins; what an older one says is refused.
func TestFencing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		k := ikey("orders", "a")
		with := func(n uint64) api.Registration { r := reg(); r.Incarnation = n; return r }
		must := func(in api.Instance, _ bool, err error) api.Instance {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		must(b.Register(t.Context(), k, with(7)))
		_, _, err := b.Register(t.Context(), k, with(6))
		b.wantCode(err, api.CodeStaleIncarnation)
		if e, ok := err.(*api.Error); !ok || e.Incarnation != 7 {
			t.Errorf("%v does not carry the stored incarnation", err)
		}
		_, err = b.Heartbeat(t.Context(), k, 6)
		b.wantCode(err, api.CodeStaleIncarnation)
		b.wantCode(b.Deregister(t.Context(), k, 6), api.CodeStaleIncarnation)
		_, err = b.SetStatus(t.Context(), k, api.StatusChange{Status: api.StatusCritical, Incarnation: 6})
		b.wantCode(err, api.CodeStaleIncarnation)
		_, err = b.Heartbeat(t.Context(), k, 8)
		b.wantCode(err, api.CodeInstanceNotFound)
		if in := must(b.Register(t.Context(), k, with(0))); in.Incarnation != 7 {
			t.Errorf("incarnation %d, want the stored 7", in.Incarnation)
		}
		if ack, err := b.Heartbeat(t.Context(), k, 7); err != nil || ack.Incarnation != 7 || ack.TTL.D() != 5*time.Second || ack.Epoch.IsZero() {
			t.Errorf("%+v %v", ack, err)
		}
		if err := b.Deregister(t.Context(), k, 7); err != nil {
			t.Error(err)
		}
		b.wantCode(b.Deregister(t.Context(), k, 0), api.CodeInstanceNotFound)
		_, err = b.Heartbeat(t.Context(), k, 0)
		b.wantCode(err, api.CodeInstanceNotFound)
	})
}

func TestStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		k := ikey("orders", "a")
		starting := reg()
		starting.Status = api.StatusStarting
		if in, _, err := b.Register(t.Context(), k, starting); err != nil || in.Status != api.StatusStarting {
			t.Fatal(in.Status, err)
		}
		set := func(s api.Status, note string) api.Instance {
			t.Helper()
			in, err := b.SetStatus(t.Context(), k, api.StatusChange{Status: s, Note: note})
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		refresh := func(r api.Registration) api.Status {
			t.Helper()
			in, _, err := b.Register(t.Context(), k, r)
			if err != nil {
				t.Fatal(err)
			}
			return in.Status
		}
		pass(time.Second)
		up := set(api.StatusPassing, "")
		if again := set(api.StatusPassing, ""); again.Revision != up.Revision {
			t.Error("the same status again wrote to the store")
		}
		if got := refresh(starting); got != api.StatusPassing {
			t.Errorf("refreshing sent it back to %s", got)
		}
		set(api.StatusCritical, "disk")
		if got := refresh(reg()); got != api.StatusPassing {
			t.Errorf("registering anew as passing left it %s", got)
		}
		set(api.StatusDraining, "deploy")
		if got := refresh(reg()); got != api.StatusDraining {
			t.Errorf("registering ended the draining: %s", got)
		}
		next := reg()
		next.Incarnation = 2
		if got := refresh(next); got != api.StatusPassing {
			t.Errorf("a new incarnation is %s", got)
		}
		_, err := b.SetStatus(t.Context(), k, api.StatusChange{Status: "sleepy"})
		b.wantCode(err, api.CodeInvalidField)
		_, err = b.SetStatus(t.Context(), ikey("orders", "zz"), api.StatusChange{Status: api.StatusPassing})
		b.wantCode(err, api.CodeInstanceNotFound)
		// P1: a status change is no sign of life.
		for range 2 {
			pass(2 * time.Second)
			set(api.StatusWarning, time.Now().String())
		}
		pass(3 * time.Second)
		_, _, err = b.Get(t.Context(), k, ReadOptions{})
		b.wantCode(err, api.CodeInstanceNotFound)
	})
}

// P10: without the store, reads and heartbeats go on, writes say so in time, and
// everything comes back by itself.
func TestStoreAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 3)
		b.store.SetUnavailable(true)
		b.beat(20*time.Second, "orders", 0, 3)
		if got := b.listed("orders"); got != "i0 i1 i2" {
			t.Errorf("listed %q", got)
		}
		if _, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders"}); err != nil {
			t.Error(err)
		}
		if in, _, err := b.Register(t.Context(), ikey("orders", "i1"), reg()); err != nil {
			t.Errorf("refreshing needs no store: %+v %v", in, err)
		}
		began := time.Now()
		_, _, err := b.Register(t.Context(), ikey("orders", "new"), reg())
		b.wantCode(err, api.CodeUnavailable)
		_, _, err = b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{Strong: true})
		b.wantCode(err, api.CodeUnavailable)
		_, _, err = b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{MinRevision: 9999})
		b.wantCode(err, api.CodeRevisionNotReached)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("refusing took %s", took)
		}
		ready := b.Readiness()
		if ready.Ready || ready.Checks[1].OK || ready.Checks[1].Cause == "" || !ready.Checks[0].OK || b.Stamp().Age < 10*time.Second {
			t.Errorf("readiness %+v, age %s", ready, b.Stamp().Age)
		}
		b.beat(2*time.Second, "orders", 0, 3)
		b.store.SetUnavailable(false)
		b.beat(5*time.Second, "orders", 0, 3)
		b.register("orders", "new")
		if ready := b.Readiness(); !ready.Ready || b.Stamp().Age != 0 {
			t.Errorf("readiness %+v", ready)
		}
		if got := b.listed("orders"); got != "i0 i1 i2 new" {
			t.Errorf("listed %q", got)
		}
	})
}

// P11: a store that is away at the start is waited for, and the node says why it is not
// ready; nothing is answered from an empty memory (P7).
func TestStartsWithoutStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t)
		b.store.SetUnavailable(true)
		b.run()
		pass(10 * time.Second)
		if ready := b.Readiness(); ready.Ready || ready.Checks[0].OK || ready.Checks[0].Cause == "" {
			t.Errorf("%+v", ready)
		}
		_, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders"})
		b.wantCode(err, api.CodeUnavailable)
		_, _, err = b.Register(t.Context(), ikey("orders", "a"), reg())
		b.wantCode(err, api.CodeUnavailable)
		b.wantCode(b.Watch(t.Context(), WatchQuery{}, nil), api.CodeUnavailable)
		if !b.Snapshot().Version().Epoch.IsZero() {
			t.Error("an unloaded snapshot has an epoch")
		}
		b.store.SetUnavailable(false)
		pass(5 * time.Second)
		b.register("orders", "a")
		b.SetDraining()
		if b.Readiness().Ready {
			t.Error("ready while draining")
		}
	})
}

// A commit whose answer is lost may have happened: the client's repeat finds it (row 2 of
// the failure catalogue).
func TestLostAnswerIsSafeToRepeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.store.LoseAnswers(1)
		_, _, err := b.Register(t.Context(), ikey("orders", "a"), reg())
		b.wantCode(err, api.CodeUnavailable)
		synctest.Wait()
		in, created, err := b.Register(t.Context(), ikey("orders", "a"), reg())
		if err != nil || created || in.Incarnation != 1 {
			t.Errorf("%+v %v %v", in, created, err)
		}
	})
}

// P9: concurrent writers of one id end with one winner that everybody sees.
func TestConcurrentWritersOfOneInstance(t *testing.T) {
	b := start(t)
	var wg sync.WaitGroup
	for n := range uint64(24) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := reg()
			r.Incarnation = n + 1
			r.Port = int(8000 + n)
			if _, _, err := b.Register(context.Background(), ikey("orders", "a"), r); err != nil && api.CodeOf(err) != api.CodeStaleIncarnation {
				t.Errorf("incarnation %d: %v", n+1, err)
			}
		}()
	}
	wg.Wait()
	in, _, err := b.Get(t.Context(), ikey("orders", "a"), ReadOptions{Strong: true})
	if err != nil || in.Incarnation != 24 || in.Port != 8023 {
		t.Errorf("%+v %v", in, err)
	}
}

// The whole at once, for the race detector: what a watcher was told equals what is there.
func TestStorm(t *testing.T) {
	b := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	seen := map[api.InstanceID]uint64{}
	synced := make(chan struct{}, 1)
	watched := make(chan error, 1)
	target := make(chan uint64, 1)
	go func() {
		goal := ^uint64(0)
		watched <- b.Watch(ctx, WatchQuery{Services: []api.ServiceName{"orders"}}, func(f api.Frame) error {
			switch f.Kind {
			case api.FrameSynced:
				synced <- struct{}{}
			case api.FrameItem:
				seen[f.Instance.ID] = f.Instance.Revision
			case api.FrameChange:
				if f.Op == api.OpDelete {
					delete(seen, f.Instance.ID)
				} else {
					seen[f.Instance.ID] = f.Instance.Revision
				}
			}
			select {
			case goal = <-target:
			default:
			}
			if f.Version.Revision >= goal {
				cancel()
			}
			return nil
		})
	}()
	<-synced
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 150 {
				k := ikey("orders", fmt.Sprintf("i%d", (i*7+n*3)%40))
				r := reg()
				r.Port = 1000 + i
				switch i % 5 {
				case 0:
					_, _, _ = b.Register(ctx, k, r)
				case 1:
					_ = b.Deregister(ctx, k, 0)
				case 2:
					_, _ = b.Heartbeat(ctx, k, 0)
				case 3:
					_, _ = b.SetStatus(ctx, k, api.StatusChange{Status: api.StatusWarning})
				default:
					_, _, _ = b.Resolve(ctx, ResolveQuery{Service: "orders", Zone: "a"})
					_, _, _ = b.Register(ctx, k, r)
				}
			}
		}()
	}
	wg.Wait()
	last := reg()
	last.Port = 4
	end, _, err := b.Register(ctx, ikey("orders", "end-1"), last)
	if err != nil {
		t.Fatal(err)
	}
	target <- end.Revision
	end, _, err = b.Register(t.Context(), ikey("orders", "end-2"), last)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-watched; err == nil {
		t.Error("the watch ended without a reason")
	}
	list, _ := b.Snapshot().Service(api.ServiceKey{Namespace: "default", Service: "orders"})
	there := map[api.InstanceID]uint64{}
	for _, in := range list {
		there[in.ID] = in.Revision
	}
	delete(seen, end.ID)
	delete(there, end.ID)
	if fmt.Sprint(seen) != fmt.Sprint(there) {
		t.Errorf("the watcher has\n%v, the catalogue\n%v", seen, there)
	}
}

// P12: every use case asks first.
func TestEveryUseCaseAuthorizes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config) { c.Authorizer = TokenAccess(sha256.Sum256([]byte("s3cret"))) })
		for _, token := range []string{"", "wrong", "s3cret"} {
			ctx := WithToken(t.Context(), token)
			want := api.CodeUnauthorized
			if token == "s3cret" {
				want = ""
			}
			k := ikey("orders", "a")
			check := func(name string, err error) {
				t.Helper()
				if got := api.CodeOf(err); got != want {
					t.Errorf("token %q: %s: %v, want %q", token, name, err, want)
				}
			}
			_, _, err := b.Register(ctx, k, reg())
			check("Register", err)
			_, _, err = b.Get(ctx, k, ReadOptions{})
			check("Get", err)
			_, err = b.Heartbeat(ctx, k, 0)
			check("Heartbeat", err)
			_, err = b.SetStatus(ctx, k, api.StatusChange{Status: api.StatusWarning})
			check("SetStatus", err)
			_, _, err = b.ListServices(ctx, ServicesQuery{})
			check("ListServices", err)
			_, _, err = b.ListInstances(ctx, InstancesQuery{Service: "orders"})
			check("ListInstances", err)
			_, _, err = b.Resolve(ctx, ResolveQuery{Service: "orders"})
			check("Resolve", err)
			_, _, err = b.Explain(ctx, ResolveQuery{Service: "orders"})
			check("Explain", err)
			_, _, err = b.WhatIf(ctx, WhatIfQuery{Losses: []api.Loss{{Region: "eu-west", Zone: "a"}}})
			check("WhatIf", err)
			_, _, err = b.Regions(ctx)
			check("Regions", err)
			_, _, err = b.RegionInfo(ctx, "eu-west")
			check("RegionInfo", err)
			_, _, err = b.Federation(ctx)
			check("Federation", err)
			wctx, cancel := context.WithCancel(ctx)
			err = b.Watch(wctx, WatchQuery{}, func(api.Frame) error { cancel(); return nil })
			cancel()
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			check("Watch", err)
			check("Deregister", b.Deregister(ctx, k, 0))
		}
	})
}

// A record that cannot be read is healed by registering the instance again.
func TestBrokenRecordIsHealed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		k := ikey("orders", "a")
		if _, err := b.store.Commit(t.Context(), []store.Op{{Key: catalog.InstanceRecordKey(k), Value: []byte("{")}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, _, err := b.Get(t.Context(), k, ReadOptions{})
		b.wantCode(err, api.CodeInstanceNotFound)
		b.register("orders", "a")
	})
}

// P1: an instance that speaks only by registering, and says nothing but another status, is
// alive; also when the status it had was an operator's.
func TestARegistrationThatChangesOnlyTheStatusIsASignOfLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("users", 10)
		b.register("orders", "a")
		for i := range 20 {
			b.beat(4*time.Second, "users", 0, 10)
			if _, err := b.SetStatus(t.Context(), ikey("orders", "a"), api.StatusChange{Status: api.StatusCritical, Note: "by hand"}); err != nil {
				t.Fatal(err)
			}
			if in := b.register("orders", "a"); in.Status != api.StatusPassing {
				t.Fatalf("%+v", in)
			}
			if got := b.listed("orders"); got != "a" {
				t.Fatalf("after %d registrations: listed %q", i+1, got)
			}
		}
		b.beat(testTTL+2*time.Second, "users", 0, 10)
		if got := b.listed("orders"); got != "unknown" {
			t.Errorf("silent for longer than its ttl: listed %q", got)
		}
	})
}
