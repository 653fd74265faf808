package steering

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peers are other regions with instances of one service, "orders".
type peers struct {
	mu      sync.Mutex
	origins []api.Origin
	passing map[api.Region]int // of 10
	link    map[api.Region]string
	rows    map[api.Region]*api.Summary
	wake    chan struct{}
}

func newPeers(regions ...api.Region) *peers {
	p := &peers{passing: map[api.Region]int{}, link: map[api.Region]string{}, rows: map[api.Region]*api.Summary{}, wake: make(chan struct{})}
	for i, r := range regions {
		p.origins = append(p.origins, api.Origin{Region: r, Epoch: api.Epoch{Generation: 1, Nonce: 1}, Revision: 5, State: api.AgeFresh, Complete: true, RTTMS: int64(20 * (i + 1))})
		p.passing[r], p.link[r] = 10, "connected"
	}
	return p
}

func (p *peers) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.wake)
	p.wake = make(chan struct{})
}

func (p *peers) Origins() []api.Origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]api.Origin(nil), p.origins...)
}

func (p *peers) summary(r api.Region) *api.Summary {
	if s := p.rows[r]; s != nil && s.Passing == p.passing[r] {
		return s // the same row is the same pointer
	}
	p.rows[r] = &api.Summary{Namespace: "default", Service: "orders", Revision: 5, Total: 10, Passing: p.passing[r], Complete: true, Endpoints: []api.Endpoint{
		{ID: api.InstanceID(r + "-1"), Address: "10.0.0.1", Port: 80, Region: r, Weight: 100, Status: api.StatusPassing},
	}}
	return p.rows[r]
}

func (p *peers) Lookup(key api.ServiceKey) (out []api.Replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.origins {
		if key.Service == "orders" && key.Namespace == "default" {
			out = append(out, api.Replica{Origin: o, Summary: p.summary(o.Region)})
		}
	}
	return out
}

func (p *peers) Services(r api.Region) []*api.Summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []*api.Summary{p.summary(r)}
}

func (*peers) Serving(api.ServiceKey, api.Region) {}

func (p *peers) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wake
}

func (p *peers) Info() api.FederationInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := api.FederationInfo{}
	for _, o := range p.origins {
		info.Links = append(info.Links, api.LinkInfo{Peer: o.Region, State: p.link[o.Region], Replica: o})
	}
	return info
}

// log keeps events in memory.
type log struct {
	mu   sync.Mutex
	list []api.Event
}

func (l *log) Record(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

func (l *log) Read(context.Context, events.Query) (api.EventList, error) { return api.EventList{}, nil }

func (l *log) Follow(context.Context, events.Query, func(api.EventFrame) error) error {
	return nil
}

// of returns the details of the events of a kind, and forgets them.
func (l *log) of(kind api.EventKind) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == kind {
			out = append(out, e.Subject+" "+e.Cause.Kind+": "+e.Detail)
		}
	}
	l.list = nil
	return out
}

type bed struct {
	*Table
	t     *testing.T
	r     *registry.Registry
	peers *peers
	log   *log
	store *memstore.Store
	stop  func()
}

func newBed(t *testing.T, m *memstore.Store, p *peers, change ...func(*registry.Config)) *bed {
	t.Helper()
	b := &bed{t: t, peers: p, log: &log{}, store: m}
	var err error
	cfg := registry.Config{Region: "eu-west", Store: m, Replicas: p, Events: b.log}
	for _, f := range change {
		f(&cfg)
	}
	if b.r, err = registry.New(cfg); err != nil {
		t.Fatal(err)
	}
	if b.Table, err = New(Config{Registry: b.r}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- b.r.Run(ctx) }()
	go func() { ended <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(b.stop)
	if cfg.Copy == nil {
		<-b.r.Loaded()
	}
	return b
}

func with(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, err := memstore.New("eu-west")
		if err != nil {
			t.Fatal(err)
		}
		test(t, newBed(t, m, newPeers("us-east", "ap-south")))
	})
}

func (b *bed) put(service api.ServiceName, p api.Policy, ifRevision ...uint64) (api.PolicyWritten, error) {
	q := PolicyPut{Service: service, PolicyWrite: api.PolicyWrite{Policy: p}}
	if len(ifRevision) > 0 {
		q.If = &ifRevision[0]
	}
	w, _, err := b.PutPolicy(registry.WithActor(b.t.Context(), "client 10.0.0.9"), q)
	return w, err
}

func (b *bed) drain(region api.Region, r api.DrainRequest) api.RegionDrain {
	b.t.Helper()
	d, _, err := b.PutDrain(registry.WithActor(b.t.Context(), "client 10.0.0.9"), region, r)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *bed) get(region api.Region) api.RegionDrain {
	b.t.Helper()
	d, _, err := b.GetDrain(b.t.Context(), region, registry.ReadOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *bed) wantCode(err error, code api.Code, words ...string) {
	b.t.Helper()
	if api.CodeOf(err) != code {
		b.t.Errorf("%v, want %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			b.t.Errorf("%v does not say %q", err, w)
		}
	}
}

func yes() *bool { t := true; return &t }

func num(f float64) *float64 { return &f }

// A policy is in force for the next answer, one that was remembered too, and shows in it (P3: never
// a region that is not allowed).
func TestPolicyIsInForceAtOnce(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		serving := func() (api.Region, *api.Policy) {
			t.Helper()
			r, _, err := b.r.Resolve(t.Context(), registry.ResolveQuery{Service: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			return r.Decision.Region, r.Policy
		}
		if r, p := serving(); r != "us-east" || p != nil {
			t.Fatalf("%s %v", r, p)
		}
		if _, err := b.put("orders", api.Policy{Order: []api.Region{"ap-south"}}); err != nil {
			t.Fatal(err)
		}
		if r, p := serving(); r != "ap-south" || p == nil || len(p.Order) != 1 {
			t.Errorf("%s %+v", r, p)
		}
		if _, err := b.put("*", api.Policy{Allowed: []api.Region{"eu-west", "ap-south"}, KeepWarm: num(2)}); err != nil {
			t.Fatal(err)
		}
		if _, p := serving(); len(p.Allowed) != 2 || *p.KeepWarm != 2 || len(p.Order) != 1 {
			t.Errorf("not merged with the default: %+v", p)
		}
		if _, err := b.DeletePolicy(t.Context(), PolicyDelete{Service: "orders"}); err != nil {
			t.Fatal(err)
		}
		if r, p := serving(); r != "ap-south" || len(p.Order) != 0 || len(p.Allowed) != 2 {
			t.Errorf("%s %+v: us-east is not allowed", r, p)
		}
		if _, err := b.DeletePolicy(t.Context(), PolicyDelete{Service: "*"}); err != nil {
			t.Fatal(err)
		}
		if r, p := serving(); r != "us-east" || p != nil {
			t.Errorf("%s %+v", r, p)
		}
	})
}

// Compare-and-set, versions, actors, notes and events with what was and is.
func TestPoliciesAreVersioned(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		one, err := b.put("orders", api.Policy{LocalOnly: yes()}, 0)
		if err != nil || one.Version != 1 || one.Revision == 0 || one.Actor != "client 10.0.0.9" || one.Time.IsZero() {
			t.Fatalf("%+v %v", one, err)
		}
		_, err = b.put("orders", api.Policy{}, 0)
		b.wantCode(err, api.CodeConflict, "already")
		same, err := b.put("orders", api.Policy{LocalOnly: yes()})
		if err != nil || same.Revision != one.Revision || same.Version != 1 {
			t.Errorf("the same again: %+v %v", same, err)
		}
		two, err := b.put("orders", api.Policy{KeepWarm: num(3)}, one.Revision)
		if err != nil || two.Version != 2 {
			t.Fatalf("%+v %v", two, err)
		}
		_, err = b.put("orders", api.Policy{}, one.Revision)
		b.wantCode(err, api.CodeConflict, "not")
		_, err = b.DeletePolicy(t.Context(), PolicyDelete{Service: "orders", If: &one.Revision})
		b.wantCode(err, api.CodeConflict)
		if _, err = b.DeletePolicy(t.Context(), PolicyDelete{Service: "orders", If: &two.Revision}); err != nil {
			t.Fatal(err)
		}
		_, err = b.DeletePolicy(t.Context(), PolicyDelete{Service: "orders"})
		b.wantCode(err, api.CodePolicyNotFound)
		_, _, err = b.GetPolicy(t.Context(), PolicyQuery{Service: "orders"})
		b.wantCode(err, api.CodePolicyNotFound, "effective")
		got := strings.Join(b.log.of(api.EventPolicy), "\n")
		want := "orders request: set: local_only: - -> true\norders request: version 2: local_only: true -> -; keep_warm: - -> 3\norders request: deleted: keep_warm: 3 -> -"
		if got != want {
			t.Errorf("events\n%s\nwant\n%s", got, want)
		}
	})
}

// Wrong policies are refused with the field, the value and the remedy; what two policies together
// would be is looked at too.
func TestWrongPolicies(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		hour, second := api.Duration(2*time.Hour), api.Duration(-1)
		for field, p := range map[string]api.Policy{
			"allowed":           {Allowed: []api.Region{"eu-west", "eu-west"}},
			"order":             {Allowed: []api.Region{"eu-west"}, Order: []api.Region{"us-east"}},
			"local_only":        {Allowed: []api.Region{"us-east"}, LocalOnly: yes()},
			"order_by":          {OrderBy: "near"},
			"min_healthy":       {MinHealthy: num(101)},
			"over_provisioning": {OverProvisioning: num(0.9)},
			"spill_start":       {SpillStart: num(0)},
			"spill_stop":        {SpillStart: num(60), SpillStop: num(60)},
			"stale_limit":       {StaleLimit: 1},
			"failback_ramp":     {FailbackRamp: &hour},
			"keep_warm":         {KeepWarm: num(10.5)},
		} {
			_, err := b.put("orders", p)
			b.wantCode(err, api.CodeInvalidField, field)
			if e, ok := err.(*api.Error); ok && (e.Field != field || e.Remedy == "") {
				t.Errorf("%+v", e)
			}
		}
		for _, p := range []api.Policy{
			{Order: []api.Region{"UP"}},
			{FailbackRamp: &second},
			{OrderBy: api.OrderRTT, Order: []api.Region{"us-east"}},
			{MinHealthy: num(nan())},
			{SpillStop: num(90)}, // the start is 80 by default
			{Allowed: make([]api.Region, api.MaxPolicyRegions+1)},
		} {
			_, err := b.put("orders", p)
			b.wantCode(err, api.CodeInvalidField)
		}
		_, err := b.put("Orders", api.Policy{})
		b.wantCode(err, api.CodeInvalidField, "service")
		w, err := b.put("orders", api.Policy{Allowed: []api.Region{"eu-west", "us-eats"}})
		if err != nil || len(w.Warnings) != 1 || !strings.Contains(w.Warnings[0], "us-eats") {
			t.Errorf("%+v %v", w, err)
		}
		_, err = b.put("*", api.Policy{Order: []api.Region{"ap-south"}})
		b.wantCode(err, api.CodeInvalidField, "orders", "contradict")
		if _, err = b.put("*", api.Policy{SpillStart: num(50), SpillStop: num(40)}); err != nil {
			t.Fatal(err)
		}
		_, err = b.put("users", api.Policy{SpillStop: num(55)})
		b.wantCode(err, api.CodeInvalidField, "default policy", "50")
	})
}

func nan() float64 { z := 0.0; return z / z }

// A test of a policy tells what the answer would become, and changes nothing.
func TestPolicyTrial(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		trial := func(service api.ServiceName, p api.Policy) api.PolicyTest {
			t.Helper()
			out, _, err := b.TestPolicy(t.Context(), PolicyTrial{Service: service, PolicyWrite: api.PolicyWrite{Policy: p}})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		out := trial("orders", api.Policy{Order: []api.Region{"ap-south"}})
		if len(out.Decisions) != 1 || !out.Decisions[0].Changed || out.Decisions[0].Before.Region != "us-east" || out.Decisions[0].After.Region != "ap-south" || len(out.Changes) != 1 {
			t.Errorf("%+v", out)
		}
		if out = trial("orders", api.Policy{Order: []api.Region{"us-east"}}); out.Decisions[0].Changed {
			t.Errorf("%+v", out)
		}
		if out = trial("*", api.Policy{LocalOnly: yes()}); out.Looked != 1 || len(out.Decisions) != 1 || out.Decisions[0].After.Reason != api.ReasonNoInstances {
			t.Errorf("%+v", out)
		}
		if out = trial("nobody", api.Policy{}); out.Decisions[0].After.Reason != api.ReasonServiceNotFound {
			t.Errorf("%+v", out)
		}
		if l, _, _ := b.ListPolicies(t.Context(), PoliciesQuery{}); len(l.Policies) != 0 {
			t.Errorf("%+v were stored", l.Policies)
		}
		if got := b.log.of(api.EventPolicy); len(got) != 0 {
			t.Error(got)
		}
	})
}

// A watch with far tells policies before synced and at each change, and drains at once.
func TestWatchTellsPoliciesAndDrains(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		if _, err := b.put("orders", api.Policy{KeepWarm: num(1)}); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = b.r.Watch(ctx, registry.WatchQuery{Services: []api.ServiceName{"orders", "users"}, Far: true}, func(f api.Frame) error {
				s := string(f.Kind)
				if f.Kind == api.FramePolicy {
					s += " " + string(f.Service)
					for _, d := range api.Differences(nil, f.Policy) {
						s += " " + strings.ReplaceAll(d, ": - ->", "")
					}
				}
				for _, o := range f.Origins {
					if o.Drained > 0 {
						s += " " + string(o.Region) + "=" + percent(o.Drained)
					}
				}
				mu.Lock()
				told = append(told, s)
				mu.Unlock()
				return nil
			})
		}()
		want := func(list ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(told, "|") != strings.Join(list, "|") {
				t.Errorf("told %q, want %q", told, list)
			}
			told = nil
		}
		want("policy orders keep_warm 1", "replica", "replica", "synced")
		if _, err := b.put("*", api.Policy{MinHealthy: num(5)}); err != nil {
			t.Fatal(err)
		}
		want("policy orders min_healthy 5 keep_warm 1", "policy users min_healthy 5")
		if _, err := b.DeletePolicy(t.Context(), PolicyDelete{Service: "*"}); err != nil {
			t.Fatal(err)
		}
		want("policy orders keep_warm 1", "policy users")
		b.drain("us-east", api.DrainRequest{Percent: 40})
		want("bookmark us-east=40 %")
		b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(2 * time.Second), Steps: 2})
		want()
		pass(time.Second)
		want("bookmark eu-west=50 % us-east=40 %")
		pass(time.Second)
		want("bookmark eu-west=100 % us-east=40 %")
		b.peers.set(func() { b.peers.origins[0].Drained = 60 })
		want("bookmark eu-west=100 % us-east=60 %")
		if _, _, err := b.UndoDrain(t.Context(), "eu-west", 0); err != nil {
			t.Fatal(err)
		}
		want("bookmark us-east=60 %")
		cancel()
		<-ended
	})
}

// pass lets time pass in the bubble.
func pass(d time.Duration) { <-time.After(d) }
